"""The decoder of a session: work through the recognizer to events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from sttd.audio.format import RATE, seconds
from sttd.audio.pipeline import Segment, Speech, SpeechPause, UtteranceEnd, UtteranceStart
from sttd.events import Event, Failed, Final, FlushDone, MessageDone, Partial, Ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from sttd.config.config import SessionOptions
    from sttd.providers.base import Provider
    from sttd.recognizers.base import Recognizer
    from sttd.session.queues import Outbox, SecondsQueue
    from sttd.session.times import Times

BATCH_S = 2.0
"""The maximum of audio in one call of the recognizer."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """The recognizer has to be made anew with these options."""

    options: SessionOptions


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows."""


Work = Segment | MessageDone | FlushDone | Reopen | End


class Decoder:
    """One session's."""

    def __init__(
        self,
        provider: Provider,
        work: SecondsQueue[Work],
        outbox: Outbox,
        times: Times,
        lag: Callable[[], float],
        failed_for_good: Callable[[Failed], None],
        *,
        live: bool = True,
    ) -> None:
        """`live`: see Protocol. `lag` tells how many seconds of audio are not decoded.

        `failed_for_good` is called after a failure that will happen again.
        """
        self.opened = trio.Event()
        """Set when the recognizer is there for the first time."""
        self.progress_at = 0.0
        """When the recognizer was given something, of Trio's clock."""
        self._provider = provider
        self._work = work
        self._outbox = outbox
        self._times = times
        self._lag = lag
        self._failed_for_good = failed_for_good
        self._live = live
        self._options: SessionOptions
        self._shown = ""  # the last partial, until a final takes its place

    async def run(self, options: SessionOptions) -> None:
        """Decode until the end of the work, beginning with these options."""
        following: SessionOptions | None = options
        while following is not None:
            self._options = following
            async with self._provider.recognizer(following, self._say, live=self._live) as recognizer:
                if not self.opened.is_set():
                    self._outbox.put(Ready(), following)
                    self.opened.set()
                following = await self._decode(recognizer)

    async def _decode(self, recognizer: Recognizer) -> SessionOptions | None:
        """Decode until the end; or until another recognizer is needed, and return the options for it."""
        while True:
            work = await self._work.peek()
            self.progress_at = self._times.begin()
            match work:
                case Speech():
                    pieces, confidence, marks = self._take_speech()
                    await recognizer.accept(pieces, confidence=confidence)
                    self._times.spent(sum(map(seconds, pieces)))
                    self._put_marks(marks)
                    continue
                case MessageDone():
                    self._take_marks()
                    continue
                case UtteranceStart(at):
                    self._times.started()
                    await recognizer.start(at / RATE)
                case SpeechPause(confidence):
                    await recognizer.pause(confidence=confidence)
                case UtteranceEnd(settled, confidence):
                    await recognizer.finish(settled=settled, confidence=confidence)
                    self._times.finished()
                    if self._shown:  # what turned out to be no speech; an empty partial takes it back
                        self._say(Partial(""))
                case FlushDone():
                    self._outbox.put(work, self._options)
                case Reopen(options):
                    self._work.take()
                    return options
                case End():
                    return None
            self._work.take()

    def _take_speech(self) -> tuple[list[bytes], float, int]:
        """Take what waits of the open utterance, up to BATCH_S.

        Returns the pieces in which it came, the gate's confidence in them, and how many messages end in it.
        """
        pieces: list[bytes] = []
        taken = confidence = 0.0
        marks = 0
        while self._work and isinstance(item := self._work.head, Speech | MessageDone) and taken < BATCH_S:
            if isinstance(item, Speech):
                pieces.append(item.pcm)
                confidence = item.confidence
                taken += seconds(item.pcm)
            else:
                marks += 1
            self._work.take()
        return pieces, confidence, marks

    def _take_marks(self) -> None:
        """Take all marks that come next, in one go: a silent stream consists of them."""
        marks = 0
        while self._work and isinstance(self._work.head, MessageDone):
            self._work.take()
            marks += 1
        self._put_marks(marks)

    def _put_marks(self, number: int) -> None:
        for _ in range(number):
            self._outbox.put(MessageDone(), self._options)

    def _say(self, event: Event) -> None:
        if isinstance(event, Partial):
            self._times.partial()
            self._shown = event.text
        elif isinstance(event, Final):
            self._shown = ""
            event = replace(event, lag=round(self._lag(), 2))
        self._outbox.put(event, self._options)
        if isinstance(event, Failed) and event.lasting:
            self._failed_for_good(event)
