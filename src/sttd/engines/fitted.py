"""Whisper with an encoder window that fits the audio. Import this module only where faster_whisper is installed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_whisper import WhisperModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_S = 30.0
"""The length of the window that Whisper was trained with."""

FRAMES_A_SECOND = 100


class FittedWhisper(WhisperModel):  # type: ignore[misc]  # the library has no types
    """Encodes only the audio and `margin_s` seconds of the library's padding, but at least `min_s` seconds.

    For an utterance of a few seconds nearly all of the encoder's work is padding. CTranslate2 accepts fewer frames than
    Whisper's 3000; with too few of them the decoder repeats itself (`bench/whisper_context.py`).
    """

    margin_s = 0.0
    min_s = WHOLE_S

    def fitted(self, margin_s: float, min_s: float) -> FittedWhisper:
        """Return the same model, which shares its memory, with another window."""
        other = copy.copy(self)
        other.margin_s = margin_s
        other.min_s = min_s
        return other

    def window(self, seconds: float) -> float:
        """Return how many seconds are encoded for a recording of `seconds`."""
        return min(WHOLE_S, max(seconds + self.margin_s, self.min_s))

    def shortens(self, seconds: float) -> bool:
        """Return whether less than the whole window is encoded for a recording of `seconds`."""
        return self.window(seconds) < WHOLE_S

    @staticmethod
    def is_one_window(seconds: float) -> bool:
        """Return whether a recording of `seconds` is decoded in one piece."""
        return seconds <= WHOLE_S

    def encode(self, features: NDArray[np.float32]) -> Any:
        """See WhisperModel. `features` has the shape bands x frames, padded with zeros to 30 s."""
        filled = np.flatnonzero(features.any(axis=0))
        seconds = (filled[-1] + 1) / FRAMES_A_SECOND if len(filled) else 0.0
        frames = int(self.window(seconds) * FRAMES_A_SECOND) // 2 * 2  # the encoder's second layer halves them
        return super().encode(np.ascontiguousarray(features[:, :frames]))
