"""Endpointing: from one decision a frame to where utterances begin and end. A pure state machine; times in samples."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sttd.audio.format import FRAME, samples

if TYPE_CHECKING:
    from sttd.config.config import EndpointConfig

CUT_WINDOW = samples(2000)
"""How far before its greatest length an utterance may be cut: two seconds of speech are hardly without a gap."""

FAINT_ONSET = samples(500)
"""How far before the gate was sure an utterance may begin, if what lay there might have been speech."""

LEFT_OUT = samples(400)
"""So little audio is not left out before an utterance: a recording that was cut tightly is decoded as a whole."""

DOUBT = 3
"""How many times as long a silence must be in which there may be speech, as far as the gate can tell."""

ONSET_GAP = samples(100)
"""Silence within an onset that does not make it a false one: stops and sibilants are quiet."""


MID_SPEECH = samples(100)
"""Silence after which somebody may have stopped speaking."""


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
    """The open utterance ends before sample `at`; `settled` if nothing was heard since its last Pause."""

    at: int
    settled: bool = False


Mark = Begin | Pause | End


class Endpointer:
    """Feeds on the gate's decisions, one a frame, counted from sample `at` of the stream.

    `sure` is the sample up to which audio belongs to the open utterance whatever comes next: silence past the hangover
    belongs to it only if speech goes on, and near the greatest length nothing does past the quietest frame so far,
    where the utterance will be cut.
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
        """Where the last utterance ended, or the stream was flushed or began."""
        return self._last_end

    @property
    def mid_speech(self) -> bool:
        """Whether somebody speaks, or may have begun to, and has not been silent for a tenth of a second."""
        return self._silence < MID_SPEECH if self._open else self._voiced > 0

    @property
    def sure(self) -> int:
        """See the class; without an open utterance, where the last one ended."""
        if not self._open:
            return self._last_end
        return self._heard() if self._cut_at is None else min(self._heard(), self._cut_at)

    def _heard(self) -> int:
        """The end of the speech so far, with its hangover."""
        return self._now - max(0, self._silence - self._hangover)

    @staticmethod
    def reach(config: EndpointConfig) -> int:
        """How many samples before now a mark or `sure` can lie."""
        onset = 2 * samples(config.onset_ms + max(config.onset_ms, config.min_speech_ms)) + ONSET_GAP + FAINT_ONSET
        onset += samples(config.pre_roll_ms) + LEFT_OUT
        return max(onset, DOUBT * samples(config.min_silence_ms), CUT_WINDOW) + 3 * FRAME

    def step(self, voiced: bool, power: float, *, perhaps: bool = False) -> list[Mark]:
        """Judge the next frame: `voiced` or not, `perhaps` speech if not, and of which mean square."""
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
        self._least = float("inf")
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
        """Note the middle of the quietest three frames: a single one may be the closure of a stop."""
        if self._cut_at is None:
            self._cut_at = self._now - FRAME
        self._powers.append(power)
        if sum(self._powers) <= self._least and len(self._powers) == self._powers.maxlen:
            self._least = sum(self._powers)
            self._cut_at = self._now - FRAME - FRAME // 2

    def _cut(self) -> list[Mark]:
        """End the utterance at the gap; what came after it begins the next one, which may be silent by now."""
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
        """End the open utterance here, `rest` samples (less than a frame) after the last frame; forget an onset."""
        self._now += rest
        self._silence += rest if self._silence else 0
        marks: list[Mark] = [self._end(self._heard(), settled=self._paused)] if self._open else []
        self._forget_onset()
        self._last_end = self._now
        return marks
