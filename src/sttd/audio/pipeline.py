"""One stream's audio path: convert, gate, endpoint. Bytes in, segments of utterances out, in order."""

from __future__ import annotations

import contextlib
import importlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sttd._pcm import RingBuffer
from sttd._vad import VoiceGate
from sttd.audio.doctor import SignalDoctor
from sttd.audio.endpointer import Begin, Endpointer, Mark, Pause
from sttd.audio.format import FRAME, RATE, SAMPLE_BYTES, bytes_per_second, converter, filter_bank, samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sttd.config import SessionOptions


PIECE = samples(100)
SLICES = 4
"""Parts of a second in which audio goes through the ring buffer."""

PERHAPS = 0.03
"""Probability of speech from which audio before an onset belongs to it, and a silence is doubtful: words begin and end
softly."""

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
class SpeechPause:
    """All audio so far has been passed on and may be the whole utterance: a recognizer may want to start on it."""


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """The open utterance is complete; `settled` if all that was heard in it came before the last SpeechPause."""

    settled: bool = False


Segment = UtteranceStart | Speech | SpeechPause | UtteranceEnd


class Pipeline:
    """The audio path of a session.

    With the gate off everything is one utterance until `flush`; `bounded` ends it at the greatest length all the
    same, for recognizers that find no endpoints themselves.
    """

    def __init__(self, options: SessionOptions, *, bounded: bool = True, at: int = 0) -> None:
        self._options = options
        self._bounded = bounded
        self._converter = converter(options.sample_rate, options.encoding, options.channels, options.channel)
        self.doctor = SignalDoctor(options, self._converter)
        self._began = at
        self.samples = at  # since the stream began: judged, or with the gate off passed on
        self._open_samples = 0
        if options.gate:
            self._gate = VoiceGate(options.threshold)
            self._endpointer = Endpointer(options, at)
            self._sent = at

    @cached_property
    def _ring(self) -> RingBuffer:
        """Made with the first audio: there may be many sessions that send none."""
        return RingBuffer(Endpointer.reach(self._options) + PIECE + RATE // SLICES + FRAME)

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
        if not self._options.gate:
            return list(self._ungated(self._converter.feed(data)))
        segments: list[Segment] = []
        size = self.bytes_per_second // SLICES
        view = memoryview(data)
        for start in range(0, len(view), size):
            self._converter.feed_into(view[start : start + size], self._ring)
            segments += self._judge()
        return segments

    def flush(self) -> list[Segment]:
        """Take the resampler's tail and end the open utterance; the stream may go on."""
        tail = self._converter.flush()
        if not self._options.gate:
            segments = list(self._ungated(tail))
            if self._open_samples:
                segments.append(UtteranceEnd())
            self._open_samples = 0
            return segments
        self._ring.append(tail)
        segments = list(self._judge())
        rest = self._ring.end + self._began - self.samples
        self.samples += rest
        return [*segments, *self._act(self._endpointer.flush(rest))]

    def _judge(self) -> Iterator[Segment]:
        """Every whole frame in the ring buffer that has not been judged."""
        while (at := self.samples - self._began) + FRAME <= self._ring.end:
            voiced = self._gate.is_speech(self._ring.view(at, at + FRAME))
            self.samples += FRAME
            perhaps = self._gate.probability > PERHAPS
            yield from self._act(self._endpointer.step(voiced, self._gate.power, perhaps=perhaps))
            ready = self._endpointer.sure - self._sent
            if ready >= PIECE and self._endpointer.speaking:
                yield from self._speech(self._sent + ready // PIECE * PIECE)

    def _act(self, marks: Sequence[Mark]) -> Iterator[Segment]:
        for mark in marks:
            match mark:
                case Begin(at):
                    self._sent = at
                    yield UtteranceStart(at)
                case Pause():
                    yield from self._speech(self._endpointer.sure)
                    yield SpeechPause()
                case _:
                    yield from self._speech(mark.at)
                    yield UtteranceEnd(mark.settled)

    def _speech(self, upto: int) -> Iterator[Speech]:
        """The open utterance's audio up to a sample, in pieces that do not depend on how the client cut its stream:
        what a streaming recognizer finds depends a little on the pieces that it is given."""
        while self._sent < upto:
            end = min(upto, self._sent + PIECE)
            yield Speech(self._ring.read(self._sent - self._began, end - self._began))
            self._sent = end

    def _ungated(self, pcm: bytes) -> Iterator[Segment]:
        limit = samples(self._options.max_utterance_ms)
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


def prepare(options: SessionOptions) -> None:
    """Do beforehand what would hold up a stream when first needed: design filters, import NumPy."""
    filter_bank(options.sample_rate)
    if options.encoding == "pcm_s16le":
        with contextlib.suppress(ImportError):
            importlib.import_module("sttd.audio.misread")


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
