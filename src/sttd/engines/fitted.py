"""Whisper with an encoder window that fits the audio. Imports faster_whisper, so it is imported when that is needed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_whisper import WhisperModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_S = 30.0
"""The window that Whisper was trained with."""

FRAMES_A_SECOND = 100


class FittedWhisper(WhisperModel):  # type: ignore[misc]  # the library has no types
    """Encodes the audio, `margin_s` of the zeros that the library pads it with, and `least_s` seconds in all at least.

    For an utterance of a few seconds nearly all of the encoder's work is padding. CTranslate2 takes fewer frames than
    Whisper's 3000; with too few of them the decoder repeats itself (`bench/whisper_context.py`).
    """

    margin_s = 0.0
    least_s = WHOLE_S

    def fitted(self, margin_s: float, least_s: float) -> FittedWhisper:
        """The same model in memory with another window."""
        other = copy.copy(self)
        other.margin_s = margin_s
        other.least_s = least_s
        return other

    def window(self, seconds: float) -> float:
        """How many seconds are encoded of a recording that has so many."""
        return min(WHOLE_S, max(seconds + self.margin_s, self.least_s))

    def shortens(self, seconds: float) -> bool:
        """Whether fewer than 30 s are encoded of such a recording."""
        return self.window(seconds) < WHOLE_S

    @staticmethod
    def is_one_window(seconds: float) -> bool:
        """Whether the recording is decoded in one piece."""
        return seconds <= WHOLE_S

    def encode(self, features: NDArray[np.float32]) -> Any:
        """See WhisperModel; `features` are bands x frames, padded with zeros to 30 s."""
        filled = np.flatnonzero(features.any(axis=0))
        seconds = (filled[-1] + 1) / FRAMES_A_SECOND if len(filled) else 0.0
        frames = int(self.window(seconds) * FRAMES_A_SECOND) // 2 * 2  # the encoder's second layer halves them
        return super().encode(np.ascontiguousarray(features[:, :frames]))
