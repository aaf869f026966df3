"""How a client's audio arrives, as recordings or as a live stream, and how long a gap in arrival ends an utterance.

Operations: `came` for each whole message, then `patience` for how long to wait for the next one. A message of 1.5 s or
more is a recording, which is complete, unless messages of one length come at the pace of speech: each about as long
after the one before as its audio lasts. The first message of a session has no predecessor, so it counts from the
session's start; a client that connects, records and sends does the same, so a first message is live only if it ends in
mid-speech.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.config.config import SessionOptions

RECORDING_S = 1.5
"""A live client rarely gathers audio for so long before it sends it."""

PACE = (0.7, 1.3)
"""Gap between two messages of a live stream, and the duration of the earlier one, as multiples of the later one's
duration."""

STALLED = 2.5
"""How many times as long a gap must be where a live client was speaking up to its last sample: a network that stalls
stops anywhere, a speaker hardly ever in mid-word. What is sent faster than it was spoken was recorded, and may be cut
tightly."""

AS_SPOKEN = 0.5
"""Least share of the audio's own duration that messages take to come if they are sent while it is spoken."""

FORGOTTEN_S = 3.0
"""Gap after which the pace before it says nothing."""


class Arrivals:
    """One session's."""

    def __init__(self, now: float) -> None:
        """`now`: when the client could begin to send."""
        self._last = now
        self._first = True
        self._live = False
        self._duration = 0.0
        self._began, self._since = now, 0.0  # when the first message came without a long gap since; audio after it

    def came(self, duration: float, at: float) -> None:
        """Note a whole message with `duration` seconds of audio that arrived at the time `at`."""
        slow, fast = (share * duration for share in PACE)
        self._first = self._duration == 0.0
        if self._first or at - self._last > FORGOTTEN_S:
            self._began, self._since = at, 0.0
        else:
            self._since += duration
        self._live = slow <= at - self._last <= fast and (self._first or slow <= self._duration <= fast)
        self._duration = duration
        self._last = at

    def recording(self, *, speaking: bool = False) -> bool:
        """Whether the last message is a recording. `speaking`: the client speaks up to its last sample."""
        return self._duration >= RECORDING_S and not (self._live and (speaking or not self._first))

    @property
    def _as_spoken(self) -> bool:
        """Whether several messages came, and not faster than they were spoken."""
        return 0.0 < AS_SPOKEN * self._since <= self._last - self._began

    def patience(self, options: SessionOptions, *, speaking: bool = False) -> float:
        """Seconds without audio after which an utterance is over, counted from the last message."""
        if not options.arrival_pause_ms:
            return math.inf
        pause = options.arrival_pause_ms / 1000
        if self.recording(speaking=speaking):
            return pause / 2
        usual = (2.0 if self._live else 1.3) * min(self._duration, RECORDING_S) + PACE[1] * max(
            0.0, self._duration - RECORDING_S
        )
        return max(pause * (STALLED if speaking and self._as_spoken else 1), usual)
