"""Measure the times of a session's utterances, for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from sttd.audio.pipeline import UtteranceEnd, UtteranceStart
from sttd.metrics import FINALIZATION, FIRST_PARTIAL, REALTIME_FACTOR

if TYPE_CHECKING:
    from sttd.audio.pipeline import Segment


class Times:
    """Follows a session's utterances from the pipeline to the recognizer's finals."""

    def __init__(self, provider: str) -> None:
        self.spent_s = 0.0
        """Seconds in the recognizer, including the wait for a worker."""
        self._finalization = FINALIZATION.labels(provider)
        self._first_partial = FIRST_PARTIAL.labels(provider)
        self._realtime_factor = REALTIME_FACTOR.labels(provider)
        # Of utterances in the queue, which are few: an empty deque takes ten times the memory of a list.
        self._ends: list[float] = []
        self._onsets: list[float] = []
        self._onset: float | None = None  # of the utterance that is being recognized, until its first partial
        self._began = self._utterance_s = self._audio_s = 0.0

    def put(self, segment: Segment) -> None:
        """Note that a segment is on its way to the recognizer."""
        if isinstance(segment, UtteranceStart):
            self._onsets.append(trio.current_time())
        elif isinstance(segment, UtteranceEnd):
            self._ends.append(trio.current_time())

    def started(self) -> None:
        """Note that the recognizer begins the next utterance."""
        self._onset = self._onsets.pop(0)

    def partial(self) -> None:
        """Note that a partial was emitted."""
        if self._onset is not None:
            self._first_partial.observe(trio.current_time() - self._onset)
            self._onset = None

    def begin(self) -> float:
        """Note the begin of a call into the recognizer. Returns the current time."""
        self._began = trio.current_time()
        return self._began

    def spent(self, audio_s: float = 0.0) -> None:
        """Note the end of a call into the recognizer, which took `audio_s` seconds of audio."""
        took = trio.current_time() - self._began
        self.spent_s += took
        self._utterance_s += took
        self._audio_s += audio_s

    def finished(self) -> None:
        """Note the end of the call that finished an utterance."""
        self.spent()
        if self._ends:
            self._finalization.observe(trio.current_time() - self._ends.pop(0))
        if self._audio_s:
            self._realtime_factor.observe(self._utterance_s / self._audio_s)
        self._utterance_s = self._audio_s = 0.0
        self._onset = None
