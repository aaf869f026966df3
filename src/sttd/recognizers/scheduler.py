"""Decide whose audio is decoded next: a few blocking calls run at once, and the most urgent waiting call is next."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Urgency(IntEnum):
    """What the result of a call is for, in the order of precedence."""

    FINAL = 0
    PAUSE = 1
    """The utterance may be over; if it is, the result becomes its final."""
    PARTIAL = 2
    BEHIND = 3
    """Nobody waits for this text."""


class Scheduler:
    """A priority queue for blocking calls, of which at most `places` run at once, in threads.

    Operations:
    - `turn` makes a Turn for one call, and `Turn.run` waits for a free place and makes the call.
    - `spare_turn` takes a place at once, for a partial, or returns None. It leaves a place free for a final.
    - `enter` and `leave` take and release a place; Turn uses them.

    Invariants: calls with the urgency BEHIND hold all places but one at most, or the only one. While a call waits that
    could have a place, no place is free. A free place goes to the waiting call with the highest precedence, and among
    equals to the one that has waited longest. A call keeps its place until it has ended, even if its caller
    is cancelled, so that no more than `places` threads decode.

    `leave` costs O(waiting calls), since it searches a list: a session has few calls, and `Turn.urgency` may rise while
    a call waits, which a heap would not notice. Trio's own CapacityLimiter has no precedence.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._waiting: list[Turn] = []
        self._free_behind = max(1, places - 1)

    def turn(self, urgency: Urgency) -> Turn:
        """Return a turn for one call."""
        return Turn(self, urgency)

    def spare_turn(self) -> Turn | None:
        """Return a turn that has its place already and must be run, if no call waits and a place stays free."""
        if self._free <= 1 or any(turn.urgency is not Urgency.BEHIND for turn in self._waiting):
            return None
        self._free -= 1
        return Turn(self, Urgency.PARTIAL, reserved=True)

    async def enter(self, turn: Turn) -> None:
        """Wait for a place, and take it."""
        await trio.lowlevel.checkpoint()
        if self._may_run(turn):
            self._take(turn)
            return
        self._waiting.append(turn)
        try:
            await turn.called.wait()
        except trio.Cancelled:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self.leave(turn)
            raise

    def _may_run(self, turn: Turn) -> bool:
        return self._free > 0 and (turn.urgency is not Urgency.BEHIND or self._free_behind > 0)

    def _take(self, turn: Turn) -> None:
        self._free -= 1
        self._free_behind -= turn.urgency is Urgency.BEHIND
        turn.called.set()

    def leave(self, turn: Turn) -> None:
        """Release a turn's place, to the next waiting call if there is one."""
        self._free += 1
        self._free_behind += turn.urgency is Urgency.BEHIND
        if able := [waiting for waiting in self._waiting if self._may_run(waiting)]:
            following = min(able, key=lambda waiting: waiting.urgency)
            self._waiting.remove(following)
            self._take(following)


class Turn:
    """One call's turn. Its `urgency` may be raised while it waits, but not to BEHIND or from it.

    A turn acts as the limiter of `trio.to_thread.run_sync`. So an abandoned call, which nothing can stop, keeps its
    place until it has ended.
    """

    def __init__(self, scheduler: Scheduler, urgency: Urgency, *, reserved: bool = False) -> None:
        self.urgency = urgency
        self.called = trio.Event()
        self._scheduler = scheduler
        self._reserved = reserved

    async def run(self, call: Callable[[], T]) -> T:
        """Wait for a place, and return `call()`, made in a thread."""
        limiter = cast("trio.CapacityLimiter", self)
        try:
            return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
        finally:
            if self._reserved:  # cancelled before it began
                self._scheduler.leave(self)

    async def acquire_on_behalf_of(self, _borrower: object) -> None:
        """See trio.CapacityLimiter."""
        if not self._reserved:
            await self._scheduler.enter(self)
        self._reserved = False

    def release_on_behalf_of(self, _borrower: object) -> None:
        """See trio.CapacityLimiter."""
        self._scheduler.leave(self)
