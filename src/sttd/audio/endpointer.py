"""Endpointing: from one decision a frame to the beginnings and ends of utterances. A pure state machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from sttd.audio.vad import frames

if TYPE_CHECKING:
    from sttd.config import EndpointConfig


class Step(Enum):
    """What to do with the frame that was just judged."""

    WAIT = auto()
    """Outside an utterance: keep it for a pre-roll, drop it when it gets old."""
    OPEN = auto()
    """An utterance begins: it takes the pre-roll, the onset and this frame."""
    PASS = auto()
    """Part of the utterance, with whatever was held before it."""
    HOLD = auto()
    """Silence past the hangover: belongs to the utterance only if speech goes on."""
    CLOSE = auto()
    """The utterance is over; this frame and what was held lie outside it."""
    CUT = auto()
    """The utterance is at its greatest length: this frame is its last, and the next one opens another."""


@dataclass(slots=True)
class Endpointer:
    """Feeds on the gate's decisions, one a frame.

    The silence that ends an utterance shrinks over the last quarter of the greatest length, so that a long one ends
    at a breath, and is cut in mid-word only if there was none.
    """

    config: EndpointConfig
    speaking: bool = False
    voiced: int = 0
    silent: int = 0
    length: int = 0
    reopen: bool = False

    def step(self, voiced: bool) -> Step:
        """Judge one frame."""
        if not self.speaking:
            return self._outside(voiced)
        self.length += 1
        limit = frames(self.config.max_utterance_ms)
        if voiced:
            self.silent = 0
            if self.length >= limit:
                self.reset(reopen=True)
                return Step.CUT
            return Step.PASS
        self.silent += 1
        if self.silent >= self._needed_silence(limit):
            self.reset()
            return Step.CLOSE
        return Step.PASS if self.silent <= frames(self.config.hangover_ms) else Step.HOLD

    def _outside(self, voiced: bool) -> Step:
        self.voiced = self.voiced + 1 if voiced else 0
        if self.voiced < frames(self.config.onset_ms) and not (voiced and self.reopen):
            self.reopen = self.reopen and voiced
            return Step.WAIT
        self.speaking = True
        self.length = 0 if self.reopen else self.voiced
        self.reopen = False
        self.silent = 0
        return Step.OPEN

    def _needed_silence(self, limit: int) -> int:
        full = frames(self.config.min_silence_ms)
        last_quarter = limit // 4
        left = limit - self.length
        if left >= last_quarter:
            return full
        return max(3, full * left // max(1, last_quarter))

    def reset(self, *, reopen: bool = False) -> None:
        """As at the start of a stream; with `reopen` the next voiced frame opens an utterance at once."""
        self.speaking = False
        self.voiced = self.silent = self.length = 0
        self.reopen = reopen
