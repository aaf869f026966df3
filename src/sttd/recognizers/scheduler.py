"""Whose audio is decoded next: a few places for blocking calls, and the most urgent that waits gets the next one."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Urgency(IntEnum):
    """What a result is for; the first comes first."""

    FINAL = 0
    PAUSE = 1
    """The utterance may be over: if so the result becomes its final."""
    PARTIAL = 2


class Scheduler:
    """Lets so many calls run in threads at once as there are `places`."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._waiting: list[Turn] = []

    def turn(self, urgency: Urgency) -> Turn:
        """A place in the queue, for one call."""
        return Turn(self, urgency)

    def spare_turn(self) -> Turn | None:
        """A turn that has come already, to be run at once, if nothing waits and a place stays free; for partials."""
        if self._waiting or self._free <= 1:
            return None
        self._free -= 1
        return Turn(self, Urgency.PARTIAL, reserved=True)

    async def enter(self, turn: Turn) -> None:
        """Wait for a place."""
        await trio.lowlevel.checkpoint()
        if self._free:
            self._free -= 1
            turn.called.set()
            return
        self._waiting.append(turn)
        try:
            await turn.called.wait()
        except trio.Cancelled:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to whom it is most urgent: finals first, and of those the one that has waited longest."""
        if self._waiting:
            turn = min(self._waiting, key=lambda turn: turn.urgency)
            self._waiting.remove(turn)
            turn.called.set()
        else:
            self._free += 1


class Turn:
    """One call's turn. `urgency` may be raised while it waits.

    Trio takes it for the limiter of `to_thread.run_sync`, so a call whose caller was cancelled, which nothing can stop,
    keeps its place until it has ended.
    """

    def __init__(self, scheduler: Scheduler, urgency: Urgency, *, reserved: bool = False) -> None:
        self.urgency = urgency
        self.called = trio.Event()
        self._scheduler = scheduler
        self._reserved = reserved

    async def run(self, call: Callable[[], T]) -> T:
        """`call()` in a thread, when its turn has come."""
        limiter = cast("trio.CapacityLimiter", self)
        try:
            return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
        finally:
            if self._reserved:  # cancelled before it began
                self._scheduler.leave()

    async def acquire_on_behalf_of(self, _borrower: object) -> None:
        """See trio.CapacityLimiter."""
        if not self._reserved:
            await self._scheduler.enter(self)
        self._reserved = False

    def release_on_behalf_of(self, _borrower: object) -> None:
        """See trio.CapacityLimiter."""
        self._scheduler.leave()
