"""The two queues of a session: audio on its way in, bounded in seconds, and events on their way out."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import trio

from sttd.events import MessageDone, Partial
from sttd.metrics import LIMITS_HIT

if TYPE_CHECKING:
    from sttd.config.config import SessionOptions
    from sttd.events import Event

T = TypeVar("T")
ROOM = 1000


class Memory:
    """Bytes that several queues may share."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether there is so much left, which is taken then."""
        enough = size <= self.left
        self.left -= size if enough else 0
        return enough

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.left += size


class _Item(NamedTuple, Generic[T]):
    item: T
    audio_s: float
    weight: float
    urgent: bool
    size: int
    borrowed: int


class SecondsQueue(Generic[T]):
    """A queue whose items weigh the seconds of their audio, or at least `least_weight`. One task puts, one takes.

    It is full from `capacity` seconds or `capacity_bytes` on, unless the item's bytes still go into `memory`; an item
    may be larger than that and goes in alone. Items that are not urgent are taken once `batch` seconds of them
    have gathered, or with the next urgent one.
    """

    def __init__(
        self,
        capacity: float,
        *,
        batch: float = 0.0,
        least_weight: float = 0.0,
        capacity_bytes: float = math.inf,
        memory: Memory | None = None,
    ) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._batch = batch
        self._least_weight = least_weight
        self._memory = memory or Memory(0)
        self._items: deque[_Item[T]] = deque()
        self._weight = 0.0
        self._bytes = 0  # of items that are not in `memory`
        self._urgent = 0
        self._blocked = False
        self._changed = trio.Event()
        self.seconds = 0.0
        """Of audio in it."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def _due(self) -> bool:
        return bool(self._items) and (self._urgent > 0 or self._blocked or self._weight >= self._batch)

    async def put(
        self, item: T, audio_s: float = 0.0, *, weight: float | None = None, urgent: bool = True, size: int = 0
    ) -> None:
        """Add an item of `size` bytes, when there is room for it. A checkpoint only where there is none.

        What has a `weight` of 0 always has room.

        (Each round of the event loop costs more than all that the session does with 20 ms of audio.)
        """
        if weight is None:
            weight = max(audio_s, self._least_weight)
        borrowed, waited = 0, False
        while weight and self._items and not self._fits(weight, size):
            if size and self._memory.take(size):
                borrowed = size
                break
            self._blocked = waited = True
            self._wake()
            await self._changed.wait()
        self._blocked = False
        if size and (borrowed or waited):
            LIMITS_HIT.labels("ahead_bytes" if waited else "buffer_s").inc()
        self._items.append(_Item(item, audio_s, weight, urgent, size - borrowed, borrowed))
        self._bytes += size - borrowed
        self._urgent += urgent
        self._weight += weight
        self.seconds += audio_s
        if self._due:
            self._wake()

    def _fits(self, weight: float, size: int) -> bool:
        return self._weight + weight <= self._capacity and self._bytes + size <= self._capacity_bytes

    @property
    def head(self) -> T:
        """The oldest item, which stays; there must be one."""
        return self._items[0].item

    async def peek(self) -> T:
        """The oldest item, which stays, when there is one that is due."""
        if self._due:
            await trio.lowlevel.checkpoint()
        while not self._due:
            await self._changed.wait()
        return self.head

    def take(self) -> T:
        """Remove the oldest item; there must be one."""
        taken = self._items.popleft()
        self._bytes -= taken.size
        self._memory.give(taken.borrowed)
        self._urgent -= taken.urgent
        self._weight = self._weight - taken.weight if self._items else 0.0
        self.seconds = max(0.0, self.seconds - taken.audio_s) if self._items else 0.0
        self._wake()
        return taken.item

    def clear(self) -> None:
        """Remove everything."""
        while self._items:
            self.take()

    def _wake(self) -> None:
        if self._changed.statistics().tasks_waiting:
            self._changed.set()
            self._changed = trio.Event()


class Outbox:
    """Events for the sender, with the options under which each was made: a client may change them at any time.

    A partial that waits gives way to a newer one; nothing else is ever dropped.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[Event, SessionOptions]] = deque()
        self._closed = False
        self._changed = trio.Event()

    def put(self, event: Event, options: SessionOptions) -> None:
        """Add an event; after `close` it is too late, and it is dropped."""
        if self._closed:
            return
        if isinstance(event, Partial):
            self._drop_older_partial()
        self._events.append((event, options))
        self._wake()

    def _drop_older_partial(self) -> None:
        for place in range(len(self._events) - 1, -1, -1):
            older = self._events[place][0]
            if isinstance(older, Partial):
                del self._events[place]
            if not isinstance(older, MessageDone):
                return

    def close(self) -> None:
        """No more events: `get` returns None when those that wait are taken."""
        self._closed = True
        self._wake()

    async def room(self) -> None:
        """Wait while the sender is far behind."""
        while len(self._events) > ROOM and not self._closed:
            await self._changed.wait()

    async def get(self) -> tuple[Event, SessionOptions] | None:
        """The next event and its options; None at the end."""
        while not self._events:
            if self._closed:
                return None
            await self._changed.wait()
        event = self._events.popleft()
        self._wake()
        return event

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
