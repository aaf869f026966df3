"""What the daemon's own path, `Pipeline` and the Whisper engine, makes of audio in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sttd.audio.format import RATE
from sttd.audio.pipeline import Pipeline, Speech, UtteranceEnd, UtteranceStart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.corpus import Pcm
    from sttd.config.config import SessionOptions
    from sttd.engines.whisper import FasterWhisperEngine


@dataclass(frozen=True)
class Utterance:
    """A stretch of audio that reaches the recognizer: where it begins, in seconds; the gate's confidence."""

    at: float
    pcm: bytes
    confidence: float


def utterances(pcm: Pcm, options: SessionOptions) -> Iterator[Utterance]:
    """Of a stream in the options' format, in pieces of 100 ms, that ends with eof."""
    pipeline, data = Pipeline(options), pcm.tobytes()
    size = options.sample_rate // 10 * options.channels * pcm.itemsize
    at, heard = 0.0, b""
    for start in range(0, len(data) + size, size):
        for segment in pipeline.feed(data[start : start + size]) if start < len(data) else pipeline.flush():
            if isinstance(segment, UtteranceStart):
                at, heard = segment.at / RATE, b""
            elif isinstance(segment, Speech):
                heard += segment.pcm
            elif isinstance(segment, UtteranceEnd):
                yield Utterance(at, heard, segment.confidence)


def text_of(engine: FasterWhisperEngine, pcm: Pcm, options: SessionOptions) -> str:
    """All that a client would get."""
    texts = (
        engine.transcribe(utterance.pcm, options, confidence=utterance.confidence).text
        for utterance in utterances(pcm, options)
    )
    return " ".join(text for text in texts if text)
