"""What a session of a streaming engine says, and when; its decoders find words where they are told to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from sttd.config.config import Config, SessionOptions
from sttd.engines.base import Decoder, Hypothesis, StreamingEngine, Transcript
from sttd.events import Event, Final, Partial
from sttd.recognizers.streaming import StreamingRecognizer


class Spelling(StreamingEngine):
    """Its decoders end an utterance of their own at each piece that begins with a capital letter."""

    name: ClassVar[str] = "spelling"

    @property
    def workers(self) -> int:
        return 1

    def load(self) -> None:
        raise NotImplementedError

    def decoder(self, options: SessionOptions) -> Decoder:
        return Speller()


class Speller(Decoder):
    def __init__(self) -> None:
        self._heard = ""

    def accept(self, pcm: bytes, *, partial: bool) -> Hypothesis | None:
        text = pcm.decode()
        if text.istitle():
            self._heard = ""
            return Hypothesis(Transcript(text), final=True)
        self._heard += text
        return Hypothesis(Transcript(self._heard), final=False) if partial else None

    def finish(self, confidence: float = 1.0) -> Transcript:
        return Transcript(self._heard if confidence > 0.8 else "")

    def close(self) -> None:
        self._heard = ""


async def said(pieces: list[tuple[bytes, float]], at_the_end: float) -> list[str]:
    """The events of one utterance, a partial with three dots."""
    events: list[Event] = []
    recognizer = StreamingRecognizer(
        Spelling(Config(), Path()),
        SessionOptions(),
        events.append,
        trio.CapacityLimiter(1),
        trio.Semaphore(1),
        lambda: None,
    )
    await recognizer.start(0.0)
    for piece, confidence in pieces:
        await recognizer.accept([piece], confidence=confidence)
    await recognizer.finish(confidence=at_the_end)
    return [
        f"{event.text}..." if isinstance(event, Partial) else event.text
        for event in events
        if isinstance(event, (Final, Partial))
    ]


@pytest.mark.parametrize(
    ("pieces", "at_the_end", "expected"),
    [
        ([(b"Yes", 0.9), (b"no", 0.9)], 0.9, ["Yes", "no...", "no"]),
        ([(b"Yes", 0.5), (b"no", 0.9)], 0.9, ["Yes", "no...", "no"]),
        ([(b"Yes", 0.5), (b"No", 0.5)], 0.9, ["Yes", "No"]),
        ([(b"Yes", 0.5), (b"no", 0.5)], 0.5, []),
    ],
)
def test_what_was_found_before_the_gate_was_sure_is_kept_until_it_is(
    pieces: list[tuple[bytes, float]], at_the_end: float, expected: list[str]
) -> None:
    assert trio.run(partial(said, pieces, at_the_end)) == expected
