"""One stream's audio path: convert, gate, endpoint. Bytes in, segments of utterances out, in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sttd._pcm import RingBuffer
from sttd.audio.endpointer import Endpointer, Step
from sttd.audio.format import RATE, SAMPLE_BYTES, bytes_per_second, converter
from sttd.audio.vad import FRAME_BYTES, frames, voice_gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sttd.config import SessionOptions


PIECE_BYTES = 5 * FRAME_BYTES
LONGEST_LIVE_S = 1.5
"""No live client gathers audio for so long before it sends it."""


@dataclass(frozen=True, slots=True)
class UtteranceStart:
    """An utterance begins, `at` samples (16 kHz) after the stream's start."""

    at: int


@dataclass(frozen=True, slots=True)
class Speech:
    """Audio of the open utterance: s16 little-endian, 16 kHz, mono."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """The open utterance is complete."""


Segment = UtteranceStart | Speech | UtteranceEnd


class Pipeline:
    """The audio path of a session.

    With the gate off everything is one utterance until `flush`; `bounded` ends it at the greatest length all the
    same, for recognizers that find no endpoints themselves.
    """

    def __init__(self, options: SessionOptions, *, bounded: bool = True, at: int = 0) -> None:
        self._options = options
        self._bounded = bounded
        self._converter = converter(options.sample_rate, options.encoding, options.channels)
        self._gate = voice_gate(options.threshold_db)
        self._endpointer = Endpointer(options)
        self._partial_frame = b""
        self.samples = at  # since the stream began: in whole frames judged, or with the gate off passed on
        self._pending = bytearray()
        self._open_samples = 0
        self._unsent = 0  # frames since the last one that went into an utterance
        kept_ms = options.pre_roll_ms + options.onset_ms + options.min_silence_ms
        self._recent = RingBuffer((frames(kept_ms) + 2) * FRAME_BYTES // SAMPLE_BYTES)

    @property
    def speaking(self) -> bool:
        """Whether an utterance is open."""
        return self._endpointer.speaking if self._options.gate else self._open_samples > 0

    @property
    def bytes_per_second(self) -> int:
        """Data rate of what `feed` takes."""
        return bytes_per_second(self._options.sample_rate, self._options.encoding, self._options.channels)

    def feed(self, data: bytes | memoryview) -> list[Segment]:
        """Take the client's bytes, cut anywhere."""
        pcm = self._converter.feed(data)
        return self._segments(pcm) if pcm else []

    def flush(self) -> list[Segment]:
        """Take the resampler's tail and end the open utterance; the stream may go on."""
        tail = self._converter.flush()
        if self._options.gate and self._partial_frame:
            rest = len(self._partial_frame + tail) % FRAME_BYTES
            tail += bytes((FRAME_BYTES - rest) % FRAME_BYTES)
        segments = self._segments(tail) if tail else []
        if self.speaking:
            segments += [*self._rest(), UtteranceEnd()]
        self._endpointer.reset()
        self._open_samples = 0
        self._unsent = 0
        self._recent.clear()
        return segments

    def _segments(self, pcm: bytes) -> list[Segment]:
        return list(self._in_pieces(self._gated(pcm)) if self._options.gate else self._ungated(pcm))

    def _in_pieces(self, segments: Iterator[Segment]) -> Iterator[Segment]:
        """The same segments with the audio in pieces of a fixed length, counted from the utterance's start.

        What a streaming recognizer finds depends a little on the pieces that it is given; so they must not depend on
        how the client cut its stream.
        """
        for segment in segments:
            if isinstance(segment, Speech):
                self._pending += segment.pcm
                while len(self._pending) >= PIECE_BYTES:
                    yield Speech(bytes(self._pending[:PIECE_BYTES]))
                    del self._pending[:PIECE_BYTES]
            else:
                if isinstance(segment, UtteranceEnd):
                    yield from self._rest()
                yield segment

    def _rest(self) -> Iterator[Segment]:
        if self._pending:
            yield Speech(bytes(self._pending))
            self._pending.clear()

    def _ungated(self, pcm: bytes) -> Iterator[Segment]:
        limit = self._options.max_utterance_ms * RATE // 1000
        while pcm:
            piece = pcm[: (limit - self._open_samples) * SAMPLE_BYTES] if self._bounded else pcm
            pcm = pcm[len(piece) :]
            if not self._open_samples:
                yield UtteranceStart(self.samples)
            yield Speech(piece)
            self.samples += len(piece) // SAMPLE_BYTES
            self._open_samples += len(piece) // SAMPLE_BYTES
            if self._bounded and self._open_samples >= limit:
                yield UtteranceEnd()
                self._open_samples = 0

    def _gated(self, pcm: bytes) -> Iterator[Segment]:
        data = self._partial_frame + pcm
        whole = len(data) - len(data) % FRAME_BYTES
        self._partial_frame = data[whole:]
        for start in range(0, whole, FRAME_BYTES):
            frame = data[start : start + FRAME_BYTES]
            self._recent.append(frame)
            self.samples += FRAME_BYTES // SAMPLE_BYTES
            self._unsent += 1
            yield from self._act(self._endpointer.step(self._gate.is_speech(frame)))

    def _act(self, step: Step) -> Iterator[Segment]:
        if step is Step.OPEN:
            wanted = frames(self._options.pre_roll_ms) + frames(self._options.onset_ms)
            audio = self._recent.last(min(wanted, self._unsent) * FRAME_BYTES // SAMPLE_BYTES)
            yield UtteranceStart(self.samples - len(audio) // SAMPLE_BYTES)
            yield Speech(audio)
            self._unsent = 0
        elif step in (Step.PASS, Step.CUT):
            yield Speech(self._recent.last(self._unsent * FRAME_BYTES // SAMPLE_BYTES))
            self._unsent = 0
        if step in (Step.CLOSE, Step.CUT):
            yield UtteranceEnd()


def arrival_pause(config: SessionOptions, duration: float, gap: float) -> float:
    """How many seconds without audio end an utterance.

    The last message held `duration` seconds and came `gap` seconds after the one before it.

    A long message is taken for a recording, which is complete: its answer need not wait long. Shorter ones may be a
    live stream, and are one if they come as fast as they were spoken; those get more patience.
    """
    if not config.arrival_pause_ms:
        return math.inf
    pause = config.arrival_pause_ms / 1000
    if duration < LONGEST_LIVE_S:
        live = 0.7 * duration <= gap <= 1.3 * duration
        return max(pause, (2.0 if live else 1.3) * duration)
    return pause / 2
