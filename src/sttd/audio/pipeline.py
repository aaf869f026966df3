"""One stream's audio path: convert, gate, endpoint. Takes bytes and returns segments of utterances, in order."""

from __future__ import annotations

import contextlib
import importlib
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

    from sttd.config.config import SessionOptions


PIECE = samples(100)
"""Samples in one Speech segment, at most."""

SLICES = 4
"""Audio goes through the ring buffer in slices of a second divided by this."""

PERHAPS = 0.15
"""Minimum probability of speech in a frame that is perhaps speech (see Endpointer)."""

PROBABLE = 0.5
"""Minimum confidence of the gate at which speech that began no utterance is reported."""

DOUBTFUL = 0.1
"""Minimum confidence of the gate at which a stretch without an utterance is decoded when it is flushed: the recognizer
decides whether there is a word in it."""

BEFORE_DOUBT, AFTER_DOUBT = samples(1200), samples(800)
"""How much of such a stretch is decoded before and after its most probable place."""

TIGHTLY_CUT = samples(1500)
"""A stretch of up to this length is taken for a recording of one word, and gets full confidence: without a silence
around the word the gate cannot be sure."""

DOUBT_LASTS = samples(10000)
"""A doubtful place that is older than this is not decoded."""


@dataclass(frozen=True, slots=True)
class UtteranceStart:
    """An utterance begins at sample `at` (16 kHz) of the stream."""

    at: int


@dataclass(frozen=True, slots=True)
class Speech:
    """Audio of the open utterance: s16 little-endian, 16 kHz, mono."""

    pcm: bytes
    confidence: float = 1.0
    """The gate's maximum confidence in the utterance so far (see VoiceGate); 1 if the gate is off."""


@dataclass(frozen=True, slots=True)
class SpeechPause:
    """The audio so far may be the whole utterance, and has been passed on: a recognizer may start to decode it."""

    confidence: float = 1.0
    """See Speech."""


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """The open utterance is complete. `settled`: all its speech came before the last SpeechPause."""

    settled: bool = False
    confidence: float = 1.0
    """See Speech."""


Segment = UtteranceStart | Speech | SpeechPause | UtteranceEnd


@dataclass(slots=True)
class Doubt:
    """The most probable speech since the last utterance or flush."""

    confidence: float = 0.0
    at: int = 0
    """The end of the frame with that confidence."""
    begins: int = 0
    pcm: bytes = b""
    """The audio around that frame, from sample `begins` on; empty until all of it has arrived."""


class Pipeline:
    """The audio path of a session. `at` is the sample of the stream at which it begins.

    With the gate off, all audio until `flush` is one utterance. `bounded` ends that at the maximum length, for
    recognizers that do not find endpoints themselves.
    """

    def __init__(self, options: SessionOptions, *, bounded: bool = True, at: int = 0) -> None:
        self._options = options
        self._bounded = bounded
        self._converter = converter(options.sample_rate, options.encoding, options.channels, options.channel)
        self.doctor = SignalDoctor(options, self._converter)
        self._began = self._stretch_began = at
        self.samples = at  # of the stream that are judged, or with the gate off passed on
        self._open_samples = 0
        if options.gate:
            self._gate = VoiceGate(options.threshold)
            self._endpointer = Endpointer(options, at)
            self._sent = at
            self._doubt = Doubt()
            self._missed = ""

    @cached_property
    def _ring(self) -> RingBuffer:
        """The latest audio. Allocated with the first audio, since many sessions may send none."""
        return RingBuffer(Endpointer.reach(self._options) + PIECE + RATE // SLICES + FRAME)

    @property
    def speaking(self) -> bool:
        """Whether an utterance is open."""
        return self._endpointer.speaking if self._options.gate else self._open_samples > 0

    @property
    def mid_speech(self) -> bool:
        """Whether the client was speaking up to the last sample."""
        return self._options.gate and self._endpointer.mid_speech

    @property
    def undecided(self) -> bool:
        """Whether a flush may give text: an utterance is open, or the last audio may be one."""
        doubtful = self._options.gate and self._doubt.confidence >= DOUBTFUL
        return self.speaking or self.mid_speech or doubtful

    @property
    def unsettled(self) -> bool:
        """Whether a flush would change anything."""
        return self.undecided or self._converter.pending > 0

    def take_missed(self) -> str:
        """Return a message about probable speech that began no utterance, else "". Each place is reported once."""
        missed = self._missed if self._options.gate else ""
        if missed:
            self._missed = ""
        return missed

    @property
    def bytes_per_second(self) -> int:
        """Data rate of the client's audio."""
        return bytes_per_second(self._options.sample_rate, self._options.encoding, self._options.channels)

    def feed(self, data: bytes | memoryview) -> list[Segment]:
        """Take the client's next bytes, which may be cut anywhere; return the segments that they complete."""
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
        """End the open utterance, with the resampler's tail; return the last segments. The stream may go on."""
        tail = self._converter.flush()
        self.doctor.flushed()
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
        enough = self._doubt.confidence >= DOUBTFUL
        if self.samples - self._stretch_began <= TIGHTLY_CUT:
            self._doubt.confidence = 1.0
        if enough and not self._endpointer.speaking:
            segments += self._doubtful()
        segments += self._act(self._endpointer.flush(rest))
        self._doubt = Doubt()
        self._stretch_began = self.samples
        return segments

    def _judge(self) -> Iterator[Segment]:
        """Judge every whole frame in the ring buffer that has not been judged."""
        gate, endpointer = self._gate, self._endpointer
        while (at := self.samples - self._began) + FRAME <= self._ring.end:
            voiced = gate.is_speech(self._ring.view(at, at + FRAME))
            self.samples += FRAME
            perhaps = gate.instant > PERHAPS
            if perhaps and gate.confidence > self._doubt.confidence:
                self._doubt = Doubt(gate.confidence, self.samples)
            yield from self._act(endpointer.step(voiced, gate.power, perhaps=perhaps))
            if endpointer.speaking:
                ready = endpointer.sure - self._sent
                if ready >= PIECE:
                    yield from self._speech(self._sent + ready // PIECE * PIECE)
            elif self._doubt.confidence:
                self._look_back()

    def _look_back(self) -> None:
        """Keep the audio around the most probable speech that began no utterance, until that is too old."""
        age = self.samples - self._doubt.at
        if age == AFTER_DOUBT // FRAME * FRAME:
            self._keep_doubt()
            if self._doubt.confidence > PROBABLE:
                self._missed = (
                    f"probable speech at {self._doubt.at / RATE:.1f} s began no utterance: the gate's confidence was "
                    f"{self._doubt.confidence:.2f} (see threshold, onset_ms and min_speech_ms)"
                )
        elif age > DOUBT_LASTS:
            self._doubt = Doubt()

    def _keep_doubt(self) -> None:
        begins = max(self._endpointer.last_end, self._doubt.at - BEFORE_DOUBT, self._ring.start + self._began)
        self._doubt.begins = begins
        self._doubt.pcm = self._ring.read(begins - self._began, self.samples - self._began)

    def _doubtful(self) -> Iterator[Segment]:
        """Yield the doubtful audio as an utterance: the recognizer decides whether there is a word in it."""
        if not self._doubt.pcm:
            self._keep_doubt()
        doubt, size = self._doubt, PIECE * SAMPLE_BYTES
        yield UtteranceStart(doubt.begins)
        for at in range(0, len(doubt.pcm), size):
            yield Speech(doubt.pcm[at : at + size], doubt.confidence)
        yield UtteranceEnd(confidence=doubt.confidence)

    def _act(self, marks: Sequence[Mark]) -> Iterator[Segment]:
        for mark in marks:
            match mark:
                case Begin(at):
                    self._sent = at
                    yield UtteranceStart(at)
                case Pause():
                    yield from self._speech(self._endpointer.sure)
                    yield SpeechPause(self._doubt.confidence)
                case _:
                    yield from self._speech(mark.at)
                    yield UtteranceEnd(mark.settled, self._doubt.confidence)
                    self._doubt = Doubt()

    def _speech(self, upto: int) -> Iterator[Speech]:
        """Yield the open utterance's audio up to a sample. The pieces do not depend on the client's messages, since a
        streaming recognizer's text depends a little on its pieces."""
        while self._sent < upto:
            end = min(upto, self._sent + PIECE)
            yield Speech(self._ring.read(self._sent - self._began, end - self._began), self._doubt.confidence)
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
    """Do the slow preparations for a stream with these options in advance: design filters, import NumPy."""
    filter_bank(options.sample_rate)
    if options.encoding == "pcm_s16le":
        with contextlib.suppress(ImportError, OSError):  # OSError: too many open files; the check is optional
            importlib.import_module("sttd.audio.misread")
