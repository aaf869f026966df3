"""WebSocket connections: trio-websocket over streams that give it only what it can take.

trio-websocket answers a peer's Close frame at once and refuses to send from then on. HeldStream keeps that frame
back until the session has sent its last text. It also keeps the peer's bytes back until the handshake is answered
(trio-websocket would lose frames that come earlier), passes long messages on in parts, and cuts off floods.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from sttd.events import Ending
from sttd.metrics import LIMITS_HIT
from sttd.wires.base import Channel, Disconnected, Outcome, Received
from sttd.wires.frames import Flood, FrameFilter
from sttd.wires.tcp import is_gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_websocket import WebSocketConnection

    from sttd.config.config import LimitsConfig

logger = logging.getLogger(__name__)
TOO_BIG, ABNORMAL = 1009, 1006
CLOSE_CODES = {
    Ending.DONE: 1000,
    Ending.GOING_AWAY: 1001,
    Ending.POLICY: 1008,
    Ending.MODEL_MISSING: 1013,
    Ending.MODEL_FAILED: 1011,
    Ending.RECOGNIZER_FAILED: 1011,
    Ending.STALLED: 1011,
    Ending.IDLE: 4408,
    Ending.QUOTA: 4429,
}
"""RFC 6455, 7.4.1; those from 4000 on are sttd's own (docs/protocols.md)."""
_KNOWN_CODES = {*range(1000, 1016), *CLOSE_CODES.values()}
PART_BYTES = 256_000
"""A longer audio message is received in parts: whole seconds of the documented format."""


class WrappedStream(trio.abc.Stream):
    """A stream that passes everything on."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self._stream.aclose()


class ReplayStream(WrappedStream):
    """A stream whose first bytes were read already."""

    def __init__(self, first: bytes, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self._first = first

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """The first bytes, then the stream's."""
        if not self._first:
            return await self._stream.receive_some(max_bytes)
        size = len(self._first) if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        chunk, self._first = self._first[:size], self._first[size:]
        return chunk

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        self._first = b""
        await super().aclose()


class HeldStream(WrappedStream):
    """Holds back everything until `open`, and a Close frame with all that follows it until `release`."""

    def __init__(self, stream: trio.abc.Stream, message_bytes: int) -> None:
        super().__init__(stream)
        self.peer_closing = False
        self.half_sent = False
        """Whether a send was given up in the middle: nothing can follow it."""
        self.when_peer_closes: Callable[[], None] = lambda: None
        self.frames = FrameFilter(min(PART_BYTES, message_bytes), message_bytes)
        self._opened = trio.Event()
        self._released = trio.Event()

    def open(self) -> None:
        """The handshake is answered: frames may pass."""
        self._opened.set()

    def release(self) -> None:
        """Close frames may pass."""
        self._released.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        await self._opened.wait()
        while self.frames.held is None:
            data = await self._receive(max_bytes)
            if not data:
                return data
            if passed := self._filter(data):
                return passed
        # trio-websocket asks for more only when it has handed over every message before this frame.
        self.peer_closing = True
        self.when_peer_closes()
        await self._released.wait()
        held, self.frames.held = self.frames.held, bytearray()
        return held or await self._receive(max_bytes)

    async def _receive(self, max_bytes: int | None) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            if is_gone(error):
                LIMITS_HIT.labels("ping_s").inc()
                logger.info("peer gone: it acknowledges nothing")
            raise

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        try:
            await self._stream.send_all(data)
        except trio.Cancelled:
            self.half_sent = True
            raise

    def _filter(self, data: bytes | bytearray) -> bytes:
        try:
            return self.frames.feed(data, trio.current_time())
        except Flood as flood:
            LIMITS_HIT.labels("flood").inc()
            logger.warning("connection cut: %s", flood)
            raise trio.BrokenResourceError(str(flood)) from flood

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        self.open()
        self.release()
        await super().aclose()


class WebSocket(Channel):
    """An open WebSocket connection."""

    def __init__(self, connection: WebSocketConnection, stream: HeldStream, peer: str, limits: LimitsConfig) -> None:
        self.peer = peer
        self._connection = connection
        self._stream = stream
        self._limits = limits
        self._receiving = trio.CancelScope()
        self._stopped = False
        self._our_close: tuple[int, str] | None = None
        stream.when_peer_closes = lambda: self._receiving.cancel()  # noqa: PLW0108 - each receive has its own scope

    @property
    def receiving_message(self) -> bool:
        """See Channel."""
        return self._stream.frames.mid_message

    async def pause(self, until: float) -> None:
        """See Channel."""
        with trio.CancelScope() as self._receiving:
            if not (self._stopped or self._stream.peer_closing):
                await trio.sleep_until(until)

    def stop(self) -> None:
        """See Channel."""
        self._stopped = True
        self._receiving.cancel()

    async def receive(self) -> Received | None:
        """See Channel. The end is the peer's Close frame."""
        with trio.CancelScope() as self._receiving:
            if not (self._stream.peer_closing or self._stopped):
                try:
                    message: str | bytes = await self._connection.get_message()
                except ConnectionClosed:
                    raise Disconnected from None
                return Received(message, isinstance(message, str) or self._stream.frames.parts.popleft())
        return None

    async def send(self, message: str | bytes) -> None:
        """See Channel. A peer that is too slow is cut off: half a frame cannot be taken back."""
        with trio.move_on_after(self._limits.send_s) as scope:
            try:
                await self._connection.send_message(message)
            except ConnectionClosed:
                raise Disconnected from None
        if scope.cancelled_caught:
            await self._cut(self._limits.send_s)
            raise Disconnected

    async def _cut(self, waited_s: float) -> None:
        LIMITS_HIT.labels("send_s").inc()
        logger.warning("connection cut peer=%s: it took no data for %g s", self.peer, waited_s)
        await trio.aclose_forcefully(self._stream)

    async def close(self, ending: Ending, reason: str = "") -> None:
        """See Channel: answer the peer's Close frame, or send one."""
        code = CLOSE_CODES[ending]
        answering = self._stream.peer_closing
        self._stream.release()
        with trio.move_on_after(self._limits.close_s) as scope:
            if answering:
                with suppress(ConnectionClosed):
                    await self._connection.get_message()
            else:
                self._stream.frames.closing = True
                if self._connection.closed is None:
                    self._our_close = code, reason
                await self._connection.aclose(code, _shorten(reason) or None)
        if scope.cancelled_caught:
            LIMITS_HIT.labels("close_s").inc()
        await trio.aclose_forcefully(self._stream)

    async def keep_alive(self) -> None:
        """Ping the peer at the interval, whatever else is sent: some clients leave a server that does not.

        Others answer only while they read, so that no answer is no sign of death; TCP finds out (see `watch_peer`).
        """
        due = trio.current_time()
        while True:
            due += self._limits.ping_s
            await trio.sleep_until(due)
            with trio.move_on_at(due + self._limits.ping_s):
                await self._connection.ping()
            if self._stream.half_sent:
                await self._cut(self._limits.ping_s)
                return

    @property
    def outcome(self) -> Outcome:
        """See Channel: code and reason of the Close frame that came first. Codes that nobody knows are `other`."""
        code, reason = self._closed
        return Outcome(str(code) if code in _KNOWN_CODES else "other", reason)

    @property
    def _closed(self) -> tuple[int, str]:
        if self._our_close is not None:
            return self._our_close
        closed = self._connection.closed
        return (ABNORMAL, "") if closed is None else (closed.code, closed.reason or "")

    @property
    def refused_message(self) -> bool:
        """Whether the library has ended the connection because a message was too long."""
        return self._closed[0] == TOO_BIG and not self._stream.peer_closing


@asynccontextmanager
async def accept(
    stream: trio.abc.Stream, head: bytes, early: bytes, peer: str, limits: LimitsConfig, subprotocol: str = ""
) -> AsyncIterator[WebSocket]:
    """Answer an upgrade and serve the connection while the context lasts.

    `head` is a request head that is known to be clean, `early` what the peer sent behind it, `subprotocol` the one of
    those in the head that is selected.
    """
    held = HeldStream(ReplayStream(early, stream), limits.message_bytes)
    async with _no_answer_after_close(held), trio.open_nursery() as nursery:
        with trio.fail_after(limits.head_s):
            request = await wrap_server_stream(
                nursery,
                ReplayStream(head, held),
                message_queue_size=0,  # so that a message is with the session before the next frame is read
                max_message_size=min(PART_BYTES, limits.message_bytes),
                receive_buffer_size=None,
            )
            try:
                connection = await request.accept(subprotocol=subprotocol or None)
            except ConnectionClosed:
                raise trio.BrokenResourceError("the peer closed before the handshake was over") from None
        held.open()
        websocket = WebSocket(connection, held, peer, limits)
        nursery.start_soon(_keep_alive, websocket)
        try:
            yield websocket
        finally:
            if websocket.refused_message:
                LIMITS_HIT.labels("message_bytes").inc()
            with trio.CancelScope(shield=True):  # else Cancelled would take the place of a fault
                await trio.aclose_forcefully(held)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _no_answer_after_close(stream: HeldStream) -> AsyncIterator[None]:
    """trio-websocket answers what breaks the protocol, and fails where a Close frame is sent already."""
    try:
        yield
    except* LocalProtocolError:
        if not stream.frames.closing:
            raise


async def _keep_alive(websocket: WebSocket) -> None:
    with suppress(ConnectionClosed):
        await websocket.keep_alive()


def _shorten(reason: str) -> str:
    """A Close frame holds 123 bytes of reason."""
    return reason.encode()[:123].decode(errors="ignore")
