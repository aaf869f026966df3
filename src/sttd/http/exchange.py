"""HTTP/1.1 over one connection: requests in, answers out, one after the other (RFC 9112). h11 does the parsing.

What the peer sends is bounded: a head in bytes, a body by its route, both in time by whoever calls.
"""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from sttd.http.messages import Body, Refused, Request, Response
from sttd.metrics import LIMITS_HIT
from sttd.wires.tcp import has_unread, linger, peer_has_closed

if TYPE_CHECKING:
    from sttd.config.config import LimitsConfig


PIECE_BYTES = 1 << 16
LOOK_S = 1.0


class Exchange:
    """The server's side of a connection."""

    def __init__(self, socket: trio.SocketStream, limits: LimitsConfig, peer: str, *, local: bool) -> None:
        self.stream: trio.abc.Stream = socket
        """Where HTTP is spoken: the socket, or TLS on it."""
        self.peer = peer
        self._socket = socket
        self._limits = limits
        self._local = local
        self._is_head = self.answered = False
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)

    def leave(self) -> bytes:
        """End HTTP on this connection: the last call. Returns what the peer has sent behind the request."""
        early = bytes(self._http.trailing_data[0])
        del self._http  # memory that a WebSocket would hold all its life
        return early

    @property
    def kept_alive(self) -> bool:
        """Whether an answer was sent, and nothing of another request has come."""
        return self.answered and not self._http.trailing_data[0] and not self.has_unread()

    def has_unread(self) -> bool:
        """Whether the peer has sent something that was not read yet."""
        return has_unread(self._socket)

    async def receive(self) -> Request | None:
        """Return the next request, of which the body is not read; None if the peer closes instead.

        Raises Refused if the head is malformed.
        """
        self._is_head = False
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self._is_head = event.method == b"HEAD"
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if "content-length" in headers and "transfer-encoding" in headers:  # two readers could disagree (RFC 9112, 6.1)
            raise Refused(HTTPStatus.BAD_REQUEST, "head", "Content-Length and Transfer-Encoding exclude each other.")
        length = int(headers["content-length"]) if "content-length" in headers else None
        if length is None and "transfer-encoding" not in headers:
            length = 0
        body = Body(self._receive_body, length)
        target = _origin_form(event.target.decode("ascii"))
        return Request(event.method.decode("ascii"), target, headers, body, self.peer, self._local, left=self._left)

    async def _receive_body(self) -> bytes:
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        await trio.lowlevel.checkpoint()  # much may be here already, in pieces of a byte
        event = await self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _next_event(self) -> object:
        try:
            while True:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._http.receive_data(bytes(await self.stream.receive_some()))
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                LIMITS_HIT.labels("head_bytes").inc()
            raise Refused(status, "head", f"{status.phrase}: {error}") from error

    async def _left(self) -> None:
        """See Request. A client may send something before it leaves: its next request, or the end of TLS."""
        with suppress(OSError):
            if await self._socket.socket.recv(1, trio.socket.MSG_PEEK):
                while not peer_has_closed(self._socket):  # noqa: ASYNC110 - the kernel has no event for it
                    await trio.sleep(LOOK_S)

    async def answer(self, response: Response, *, last: bool = False) -> bool:
        """Send an answer, perhaps the last one. Returns whether the connection is open for another request.

        If not, it is ended in a way that lets the peer read the answer.
        """
        closing = not self._request_is_read() or last
        whole: bytes | None = None
        headers = [*response.headers.items()]
        if response.status != HTTPStatus.NOT_MODIFIED:  # RFC 9110, 8.6 and 15.4.5
            headers.append(("Content-Type", response.content_type))
        if isinstance(response.body, str | bytes) and response.status != HTTPStatus.NOT_MODIFIED:
            whole = response.body.encode() if isinstance(response.body, str) else response.body
            headers.append(("Content-Length", str(len(whole))))
        if closing:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=int(response.status), reason=response.status.phrase, headers=headers)
        if self._is_head:
            await self._send(head, h11.EndOfMessage())
        elif whole is not None and len(whole) <= PIECE_BYTES:
            await self._send(head, h11.Data(data=whole), h11.EndOfMessage())
        elif whole is not None:  # each piece has a timeout of its own
            await self._send(head)
            for start in range(0, len(whole), PIECE_BYTES):
                await self._send(h11.Data(data=whole[start : start + PIECE_BYTES]))
            await self._send(h11.EndOfMessage())
        else:
            await self._send(head)
            assert not isinstance(response.body, str | bytes)
            await response.body(lambda data: self._send(h11.Data(data=data)))
            await self._send(h11.EndOfMessage())
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self.answered = True
            return True
        await linger(self._socket)
        return False

    def _request_is_read(self) -> bool:
        """Whether the whole request has come and was understood."""
        try:
            if self._http.their_state is h11.SEND_BODY and not self._http.they_are_waiting_for_100_continue:
                self._http.next_event()  # the end of a request without a body, or of one that was read
        except h11.RemoteProtocolError:
            return False
        return self._http.their_state is h11.DONE

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        with trio.move_on_after(self._limits.send_s) as scope:
            await self.stream.send_all(data)
        if scope.cancelled_caught:
            LIMITS_HIT.labels("send_s").inc()
            raise trio.BrokenResourceError("the peer does not read")


def _origin_form(target: str) -> str:
    """Path and query of a request target, which may be in absolute form (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    path = rest[len(rest.split("/", 1)[0].split("?", 1)[0]) :]
    return path if path.startswith("/") else f"/{path}"
