"""Wyoming over a byte stream: events in, events out, and an utterance of a connection as a Channel.

An event (OHF-Voice/wyoming, README.md) is a line of JSON, `{"type": ..., "data": {...}, "data_length": n,
"payload_length": m}`, then n bytes of JSON that are merged over `data`, then m bytes of payload. All but `type` may be
missing.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from sttd.metrics import LIMITS_HIT
from sttd.wires.base import Disconnected, Outcome, Received, StoppableChannel
from sttd.wires.tcp import linger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sttd.config.config import LimitsConfig
    from sttd.events import Ending

LINE_BYTES = DATA_BYTES = 65536
PAYLOAD_BYTES = 1 << 20
"""More than ten seconds of the widest format that sttd takes; clients send 32 to 128 ms at a time."""
VERSION = "1.9.0"
"""Of the event format that is written."""


class Malformed(Exception):
    """The peer sent what is no event. What follows cannot be understood either."""


@dataclass(frozen=True, slots=True)
class WyomingEvent:
    """An event."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


class EventReader:
    """Splits a stream of bytes into events, without I/O.

    `feed` adds bytes, and `next_event` removes the first whole event and returns it. The buffer holds at most one event
    of the allowed size and what was fed with its end. Both cost O(bytes), since a line is searched once.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._head: dict[str, Any] | None = None  # of the event whose rest has not come yet
        self._data_bytes = self._payload_bytes = 0

    @property
    def mid_event(self) -> bool:
        """Whether the bytes so far end inside an event."""
        return bool(self._buffer) or self._head is not None

    def feed(self, data: bytes | bytearray) -> None:
        """Add bytes."""
        self._buffer += data

    def next_event(self) -> WyomingEvent | None:
        """Return the next event; None if more bytes are needed. Raises Malformed, also if a length is too long."""
        if self._head is None:
            end = self._buffer.find(b"\n", self._searched, LINE_BYTES)
            if end < 0:
                self._searched = len(self._buffer)
                if self._searched >= LINE_BYTES:
                    raise Malformed(f"a line has more than {LINE_BYTES} bytes")
                return None
            self._head = _json_object(self._take(end + 1))
            self._searched = 0
            self._data_bytes = _length(self._head, "data_length", DATA_BYTES)
            self._payload_bytes = _length(self._head, "payload_length", PAYLOAD_BYTES)
        if len(self._buffer) < self._data_bytes + self._payload_bytes:
            return None
        head, self._head = self._head, None
        name, data = head.get("type"), head.get("data")
        if not isinstance(name, str):
            raise Malformed('an event has no "type"')
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise Malformed('the "data" of an event is not a JSON object')
        if self._data_bytes:
            data |= _json_object(self._take(self._data_bytes))
        return WyomingEvent(name, data, self._take(self._payload_bytes))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Malformed("what should be a JSON object is none")
    return found


def _length(head: Mapping[str, Any], key: str, most: int) -> int:
    length = head.get(key)
    if length is None:
        return 0
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= most:
        raise Malformed(f"{key} is not a whole number from 0 to {most}")
    return length


def encode_event(name: str, data: Mapping[str, Any]) -> bytes:
    """Return the bytes of an event without payload."""
    encoded = json.dumps(data, ensure_ascii=False).encode(errors="replace")  # half a surrogate pair of the peer's
    head = {"type": name, "version": VERSION, "data_length": len(encoded)}
    return json.dumps(head, ensure_ascii=False).encode() + b"\n" + encoded


class WyomingConnection:
    """The server's side of a connection."""

    def __init__(self, stream: trio.SocketStream, peer: str, limits: LimitsConfig) -> None:
        self.peer = peer
        self._stream = stream
        self._limits = limits
        self._reader = EventReader()
        self._sending = trio.Lock()

    @property
    def mid_event(self) -> bool:
        """Whether part of an event has come, and the rest has not."""
        return self._reader.mid_event

    async def receive(self) -> WyomingEvent | None:
        """Wait for the next event; None if the peer has closed. No byte is lost if this is cancelled.

        Raises Malformed, and trio.BrokenResourceError if the peer has vanished.
        """
        await trio.lowlevel.checkpoint()
        while (event := self._reader.next_event()) is None:
            data = await self._stream.receive_some()
            if not data:
                return None
            self._reader.feed(data)
        return event

    async def send(self, name: str, data: Mapping[str, Any]) -> None:
        """Send an event. Raises trio.BrokenResourceError if the peer is gone, or does not take it in time."""
        async with self._sending:
            with trio.move_on_after(self._limits.send_s) as scope:
                await self._stream.send_all(encode_event(name, data))
        if scope.cancelled_caught:
            LIMITS_HIT.labels("send_s").inc()
            raise trio.BrokenResourceError("the peer does not read")

    async def end(self) -> None:
        """End the connection, so that the peer can read the last event."""
        await linger(self._stream)


class WyomingChannel(StoppableChannel):
    """The audio of one utterance, up to its `audio-stop`, and the events that answer it.

    A message is a text that is the JSON of an event without payload, or the audio of an `audio-chunk`. An `audio-chunk`
    in another format than the audio before it is preceded by an `audio-start` with that format.
    """

    def __init__(
        self,
        connection: WyomingConnection,
        first: WyomingEvent,
        other: Callable[[WyomingEvent], Awaitable[None]],
    ) -> None:
        """`first` is the event that begins the utterance; `other` is called with events that do not belong to it."""
        super().__init__()
        self.peer = connection.peer
        self.stopped_by_client = False
        """Whether the `audio-stop` has come."""
        self.malformed: Malformed | None = None
        """What has come instead of an event."""
        self.gone = False
        """Whether the connection has ended."""
        self._connection = connection
        self._other = other
        self._format = audio_format(first)
        self._ready: deque[str | bytes] = deque([first.payload] if first.payload else [])
        self._outcome = Outcome("disconnected")

    @property
    def receiving_message(self) -> bool:
        """See Channel."""
        return self._connection.mid_event

    async def receive(self) -> Received | None:
        """See Channel. The end is `audio-stop`."""
        while not self._stopped.is_set():
            if self._ready:
                await trio.lowlevel.checkpoint()
                return Received(self._ready.popleft())
            event = None
            with trio.CancelScope() as self._receiving:
                try:
                    event = await self._connection.receive()
                except trio.BrokenResourceError:
                    raise self._disconnected() from None
                except Malformed as error:
                    self.malformed = error
            if self.malformed is not None:
                return None
            if self._receiving.cancelled_caught:
                return None
            if event is None:
                raise self._disconnected()
            if event.type == "audio-stop":
                self.stopped_by_client = True
                return None
            if event.type in ("audio-start", "audio-chunk"):
                self._take_audio(event)
            else:
                await self._other(event)
        return None

    def _disconnected(self) -> Disconnected:
        self.gone = True
        return Disconnected()

    def _take_audio(self, event: WyomingEvent) -> None:
        found = audio_format(event)
        if found != self._format:
            self._format = found
            self._ready.append(json.dumps({"type": "audio-start", "data": found}))
        if event.payload:
            self._ready.append(event.payload)

    async def send(self, message: str | bytes) -> None:
        """See Channel."""
        event = json.loads(message)
        try:
            await self._connection.send(event["type"], event["data"])
        except trio.BrokenResourceError:
            raise self._disconnected() from None
        if event["type"] == "transcript":  # the answer; with `wyoming.early` the client may still be sending
            self.stop()

    async def close(self, ending: Ending, reason: str) -> None:
        """See Channel. The connection stays open for the next utterance."""
        await trio.lowlevel.checkpoint()
        self._outcome = Outcome(ending, reason)

    @property
    def outcome(self) -> Outcome:
        """See Channel."""
        return self._outcome


def audio_format(event: WyomingEvent) -> dict[str, Any]:
    """Return the format of an event's audio: rate, width (bytes) and channels, as far as they are given."""
    return {key: event.data[key] for key in ("rate", "width", "channels") if key in event.data}
