"""Endpointing: find the beginnings and ends of utterances in the voice gate's decisions, one per frame."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sttd.audio.format import FRAME, samples

if TYPE_CHECKING:
    from sttd.config.config import EndpointConfig

CUT_WINDOW = samples(2000)
"""An utterance of maximum length is cut within this distance from its end: two seconds of speech nearly always have a
gap."""

FAINT_ONSET = samples(500)
"""How far an utterance may begin before the gate opened, if the audio there was perhaps speech."""

LEFT_OUT = samples(400)
"""Less audio than this is not left out before an utterance: a tightly cut recording is decoded as a whole."""

DOUBT = 3
"""Factor for the silence that ends an utterance, if that silence is perhaps speech."""

ONSET_GAP = samples(100)
"""Maximum silence within an onset: stops and sibilants are quiet."""

MID_SPEECH = samples(100)
"""Maximum silence in mid-speech."""


@dataclass(frozen=True, slots=True)
class Begin:
    """An utterance begins at sample `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The open utterance may be over: there was silence beyond doubt for `pause_ms`, and all that was heard is `sure`.

    Speech may still go on.
    """


@dataclass(frozen=True, slots=True)
class End:
    """The open utterance ends before sample `at`. `settled`: there was no speech after its last Pause."""

    at: int
    settled: bool = False


Mark = Begin | Pause | End


class Endpointer:
    """A state machine from frames to marks. All times are samples since the stream began; the first frame is at `at`.

    Operations, each O(1) per frame:
    - `step` takes the next frame and `flush` ends the open utterance now; both return marks in order.
    - `sure` is the sample up to which the audio belongs to the open utterance, whatever comes next. So audio can go to
      a recognizer before the end is known. Silence after the hangover is not sure, since it belongs to the utterance
      only if speech goes on. Near the maximum length nothing after the quietest frame is sure: the cut will be there.

    Invariants:
    - An utterance is a Begin, any number of Pauses and an End. Utterances do not overlap.
    - `sure` never moves back within an utterance, and never lies after its End.
    - No mark and no `sure` lies more than `reach()` samples before now, so callers keep only that much audio.

    A frame is voiced, perhaps speech, or silent. Only voiced frames begin an utterance, since noise is often perhaps
    speech. Once it has begun, frames that are perhaps speech extend it, before and after, since words begin and end
    softly. There is no clock and no I/O, so the marks do not depend on how the stream arrives.
    """

    def __init__(self, config: EndpointConfig, at: int = 0) -> None:
        self._pre_roll = samples(config.pre_roll_ms)
        self._onset = samples(config.onset_ms)
        self._min_speech = max(self._onset, samples(config.min_speech_ms))
        self._hangover = samples(config.hangover_ms)
        self._pause = samples(config.pause_ms)
        self._min_silence = samples(config.min_silence_ms)
        self._max_utterance = samples(config.max_utterance_ms)
        self._cut_from = self._max_utterance - min(CUT_WINDOW, self._max_utterance // 2)
        self._now = at
        self._last_end = at
        self._open = False
        self._forget_onset()

    def _forget_onset(self) -> None:
        self._run = self._faint = self._voiced = self._silence = 0
        self._onset_at: int | None = None

    @property
    def speaking(self) -> bool:
        """Whether an utterance is open."""
        return self._open

    @property
    def last_end(self) -> int:
        """The sample at which the last utterance ended; without one, where the stream was flushed or began."""
        return self._last_end

    @property
    def mid_speech(self) -> bool:
        """Whether somebody speaks or begins to speak, without a silence of MID_SPEECH so far."""
        return self._silence < MID_SPEECH if self._open else self._voiced > 0

    @property
    def sure(self) -> int:
        """See the class. Without an open utterance: where the last one ended."""
        if not self._open:
            return self._last_end
        return self._heard() if self._cut_at is None else min(self._heard(), self._cut_at)

    def _heard(self) -> int:
        """Return the end of the speech so far, including the hangover."""
        return self._now - max(0, self._silence - self._hangover)

    @staticmethod
    def reach(config: EndpointConfig) -> int:
        """Return how many samples before now a mark or `sure` can lie."""
        onset = 2 * samples(config.onset_ms + max(config.onset_ms, config.min_speech_ms)) + ONSET_GAP + FAINT_ONSET
        onset += samples(config.pre_roll_ms) + LEFT_OUT
        return max(onset, DOUBT * samples(config.min_silence_ms), CUT_WINDOW) + 3 * FRAME

    def step(self, voiced: bool, power: float, *, perhaps: bool = False) -> list[Mark]:
        """Take the next frame: whether it is `voiced`, its mean square, and whether it is `perhaps` speech."""
        self._now += FRAME
        if self._open:
            return self._inside(voiced, perhaps, power)
        faint = self._faint + FRAME if voiced or perhaps else 0
        marks = self._outside(voiced, faint)
        self._faint = 0 if self._open else faint
        return marks

    def _outside(self, voiced: bool, faint: int) -> list[Mark]:
        if voiced:
            self._run += FRAME
            self._voiced += FRAME
            self._silence = 0
            if self._run >= self._onset and self._onset_at is None:
                self._onset_at = self._now - self._run
        else:
            self._run = 0
            self._silence += FRAME
            if self._onset_at is None or self._silence > ONSET_GAP:
                self._forget_onset()
        if self._onset_at is None or self._voiced < self._min_speech:
            return []
        reach = 2 * (self._onset + self._min_speech) + ONSET_GAP + FAINT_ONSET + self._pre_roll + LEFT_OUT
        earliest = self._now - min(reach, self._max_utterance // 2)
        start = min(self._onset_at, self._now - min(faint, self._voiced + FAINT_ONSET)) - self._pre_roll
        if start - LEFT_OUT <= self._last_end:
            start = self._last_end
        return [self._begin(max(self._last_end, start, earliest))]

    def _begin(self, at: int) -> Begin:
        self._open = True
        self._begun = at
        self._calm = 0
        self._paused = False
        self._cut_at: int | None = None
        self._min_power = float("inf")
        self._powers: deque[float] = deque(maxlen=3)
        return Begin(at)

    def _inside(self, voiced: bool, perhaps: bool, power: float) -> list[Mark]:
        self._silence = 0 if voiced else self._silence + FRAME
        self._calm = 0 if voiced or perhaps else self._calm + FRAME
        if voiced or perhaps:
            self._paused = False
        if not voiced and (self._calm >= self._min_silence or self._silence >= DOUBT * self._min_silence):
            return [self._end(self._heard(), settled=self._paused)]
        length = self._now - self._begun
        if length >= self._cut_from:
            self._look_for_gap(power)
            if length > self._max_utterance - FRAME:
                return self._cut()
        if not self._paused and self._calm >= self._pause and self.sure == self._heard():
            self._paused = True
            return [Pause()]
        return []

    def _look_for_gap(self, power: float) -> None:
        """Note the middle of the quietest three frames. A single quiet frame may be the closure of a stop consonant."""
        if self._cut_at is None:
            self._cut_at = self._now - FRAME
        self._powers.append(power)
        if sum(self._powers) <= self._min_power and len(self._powers) == self._powers.maxlen:
            self._min_power = sum(self._powers)
            self._cut_at = self._now - FRAME - FRAME // 2

    def _cut(self) -> list[Mark]:
        """End the utterance at the gap. Speech after the gap begins the next utterance."""
        silence = self._silence
        at = self._now if self._cut_at is None else self._cut_at
        marks: list[Mark] = [self._end(at, settled=False)]
        if self._now - silence - at >= FRAME:
            marks.append(self._begin(at))
            self._silence = silence
        return marks

    def _end(self, at: int, *, settled: bool) -> End:
        self._open = False
        self._last_end = at
        self._forget_onset()
        return End(at, settled)

    def flush(self, rest: int = 0) -> list[Mark]:
        """End the open utterance, or forget an onset, `rest` samples (less than a frame) after the last frame."""
        self._now += rest
        self._silence += rest if self._silence else 0
        marks: list[Mark] = [self._end(self._heard(), settled=self._paused)] if self._open else []
        self._forget_onset()
        self._last_end = self._now
        return marks
