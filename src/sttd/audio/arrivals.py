"""Tell recordings from live streams by the arrival of messages, and how long a gap in arrival ends an utterance.

Call `came` for each whole message, then `patience` for the time to wait for the next message. Both are O(1).

A message of 1.5 s or more is a recording, which is complete. The exception is a live stream of long messages: they have
equal lengths, and each arrives about as long after its predecessor as its audio lasts. The first message of a session
is compared with the session's start instead. A client that connects, records and then sends looks the same, so a first
message counts as live only if it ends in mid-speech.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sttd.config.config import SessionOptions

RECORDING_S = 1.5
"""A live client rarely gathers more audio than this before it sends it."""

PACE = (0.7, 1.3)
"""Range of a live stream, in multiples of a message's duration: the gap before the message, and the duration of its
predecessor."""

STALLED = 2.5
"""Factor for the patience with a live client that spoke up to its last sample: a network may stall anywhere, but a
speaker hardly ever stops in mid-word. Audio that comes faster than it was spoken is a recording, whose end may be
cut in mid-word, so the factor does not apply to it."""

AS_SPOKEN = 0.5
"""Minimum arrival time of messages that are sent while they are spoken, as a share of their audio's duration."""

FORGOTTEN_S = 3.0
"""A gap of this length resets the measured pace."""


class Arrivals:
    """The arrival of one session's audio. Times are in seconds of any monotonic clock."""

    def __init__(self, now: float) -> None:
        """`now`: the time from which the client could send."""
        self._last = now
        self._first = True
        self._live = False
        self._duration = 0.0
        self._began, self._since = now, 0.0  # first message since the last long gap; seconds of audio after it

    def came(self, duration: float, at: float) -> None:
        """Note a whole message with `duration` seconds of audio, which arrived at the time `at`."""
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
        """Whether the last message is a recording. `speaking`: there is speech up to its last sample."""
        return self._duration >= RECORDING_S and not (self._live and (speaking or not self._first))

    @property
    def _as_spoken(self) -> bool:
        """Whether there were several messages, which came no faster than they were spoken."""
        return 0.0 < AS_SPOKEN * self._since <= self._last - self._began

    def patience(self, options: SessionOptions, *, speaking: bool = False) -> float:
        """Return after how many seconds without a message an utterance is over; infinite if it never is."""
        if not options.arrival_pause_ms:
            return math.inf
        pause = options.arrival_pause_ms / 1000
        if self.recording(speaking=speaking):
            return pause / 2
        usual = (2.0 if self._live else 1.3) * min(self._duration, RECORDING_S) + PACE[1] * max(
            0.0, self._duration - RECORDING_S
        )
        return max(pause * (STALLED if speaking and self._as_spoken else 1), usual)
