"""The queues of a session: audio on its way in, bounded in seconds and bytes, and events on their way out."""

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
MAX_EVENTS = 1000
"""Number of waiting events above which a session makes no more of them."""


class SharedBudget:
    """A number of bytes that several queues share."""

    def __init__(self, size: int) -> None:
        self.left = size

    def reserve(self, size: int) -> bool:
        """Reserve `size` bytes if they are free. Returns whether they were."""
        enough = size <= self.left
        self.left -= size if enough else 0
        return enough

    def release(self, size: int) -> None:
        """Give back `size` reserved bytes."""
        self.left += size


class _Item(NamedTuple, Generic[T]):
    item: T
    audio_s: float
    weight: float
    urgent: bool
    size: int  # bytes that count towards `capacity_bytes`
    reserved: int  # bytes that count towards the shared budget


class SecondsQueue(Generic[T]):
    """A first-in, first-out queue that is bounded in seconds of audio and in bytes. One task puts, one task takes.

    Operations, all O(1) except `clear`:
    - `put` adds an item. It waits while the queue is full: that is the backpressure on the client.
    - `peek` waits until the oldest item is due and returns it without removing it; `take` removes it. A caller that
      takes an item only after handling it keeps it counted until then.
    - `lift` ends the bounds.
    - `head`, `len()` and `seconds` look at the queue without waiting.

    Rules:
    - An item weighs the seconds of its audio, but at least `min_weight`, so that items without audio are bounded too.
    - The queue is full when an item would exceed `capacity` seconds or `capacity_bytes`. Then the item's bytes are
      reserved in the `shared` budget instead, if they fit, until the item is taken.
    - An item that is larger than the capacity is accepted when the queue is empty. An item with a `weight` of 0 is
      always accepted.
    - Items are due when their weights sum up to `batch` seconds, when one of them is urgent, or when `put` waits. So
      small pieces of audio gather for one call of the recognizer, but nothing urgent waits for them.

    A round of the event loop costs more than all of a session's work for 20 ms of audio. So `put` is a checkpoint only
    if it must wait, and tasks are woken only if one waits.
    """

    def __init__(
        self,
        capacity: float,
        *,
        batch: float = 0.0,
        min_weight: float = 0.0,
        capacity_bytes: float = math.inf,
        shared: SharedBudget | None = None,
    ) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._batch = batch
        self._min_weight = min_weight
        self._shared = shared or SharedBudget(0)
        self._items: deque[_Item[T]] = deque()
        self._weight = 0.0
        self._bytes = 0
        self._urgent = 0
        self._blocked = False
        self._changed = trio.lowlevel.ParkingLot()
        self.seconds = 0.0
        """Seconds of audio in the queue."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def _due(self) -> bool:
        return bool(self._items) and (self._urgent > 0 or self._blocked or self._weight >= self._batch)

    async def put(
        self, item: T, audio_s: float = 0.0, *, weight: float | None = None, urgent: bool = True, size: int = 0
    ) -> None:
        """Add an item with `audio_s` seconds of audio and `size` bytes, once there is room for it.

        `weight` replaces the weight in seconds. A checkpoint only if there is no room.
        """
        if weight is None:
            weight = max(audio_s, self._min_weight)
        reserved, waited = 0, False
        while weight and self._items and not self._fits(weight, size):
            if size and self._shared.reserve(size):
                reserved = size
                break
            self._blocked = waited = True
            self._wake()
            await self._changed.park()
        self._blocked = False
        if size and (reserved or waited):
            LIMITS_HIT.labels("ahead_bytes" if waited else "buffer_s").inc()
        self._items.append(_Item(item, audio_s, weight, urgent, size - reserved, reserved))
        self._bytes += size - reserved
        self._urgent += urgent
        self._weight += weight
        self.seconds += audio_s
        if self._due:
            self._wake()

    def _fits(self, weight: float, size: int) -> bool:
        return self._weight + weight <= self._capacity and self._bytes + size <= self._capacity_bytes

    @property
    def head(self) -> T:
        """The oldest item, which stays in the queue. The queue must not be empty."""
        return self._items[0].item

    async def peek(self) -> T:
        """Wait until the oldest item is due, and return it. The item stays in the queue."""
        if self._due:
            await trio.lowlevel.checkpoint()
        while not self._due:
            await self._changed.park()
        return self.head

    def take(self) -> T:
        """Remove and return the oldest item. The queue must not be empty."""
        taken = self._items.popleft()
        self._bytes -= taken.size
        self._shared.release(taken.reserved)
        self._urgent -= taken.urgent
        self._weight = self._weight - taken.weight if self._items else 0.0
        self.seconds = max(0.0, self.seconds - taken.audio_s) if self._items else 0.0
        self._wake()
        return taken.item

    def lift(self) -> None:
        """Accept everything from now on, also what waits for room: soon nothing more will come."""
        self._capacity = self._capacity_bytes = math.inf
        self._wake()

    def clear(self) -> None:
        """Remove all items."""
        while self._items:
            self.take()

    def _wake(self) -> None:
        if self._changed:
            self._changed.unpark_all()


class Outbox:
    """Events for the sender. Each has the options under which it was made, since a client may change them at any time.

    A newer partial replaces a waiting one, so that a slow client gets only the latest. No other event is dropped.
    """

    def __init__(self) -> None:
        # Few at most times: an empty deque takes ten times the memory of a list, in every idle session.
        self._events: list[tuple[Event, SessionOptions]] = []
        self._closed = False
        self._changed = trio.lowlevel.ParkingLot()

    def put(self, event: Event, options: SessionOptions) -> None:
        """Add an event. After `close` events are dropped."""
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
        """Accept no more events. `get` returns the waiting events, and then None."""
        self._closed = True
        self._wake()

    async def room(self) -> None:
        """Wait while there are more than MAX_EVENTS events: backpressure from a client that does not read."""
        while len(self._events) > MAX_EVENTS and not self._closed:
            await self._changed.park()

    async def get(self) -> tuple[Event, SessionOptions] | None:
        """Wait for the next event, and return it with its options; None after the last event."""
        while not self._events:
            if self._closed:
                return None
            await self._changed.park()
        event = self._events.pop(0)
        self._wake()
        return event

    def _wake(self) -> None:
        if self._changed:
            self._changed.unpark_all()
