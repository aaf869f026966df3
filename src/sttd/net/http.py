"""The front door of every port: request heads parsed under a size limit and a deadline.

Plain requests are answered here. An upgrade is checked, and trio-websocket is given a fresh head made from what was
checked: its own parsing of hostile heads can raise what nobody catches, so raw peer bytes never reach it.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from sttd.net.limits import Connections
from sttd.net.websocket import WebSocket, accept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sttd.config import LimitsConfig

logger = logging.getLogger(__name__)
LINGER_S = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request head. `target` is path and query; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return self.target.partition("?")[2]

    @property
    def is_upgrade(self) -> bool:
        """Whether it asks for a WebSocket."""
        return self.headers.get("upgrade", "").strip().lower() == "websocket"


@dataclass(frozen=True, slots=True)
class Response:
    """A plain answer."""

    status: HTTPStatus
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def json(cls, status: HTTPStatus, value: object) -> Response:
        """An answer in JSON."""
        return cls(status, json.dumps(value) + "\n", content_type="application/json")


class BadRequest(Exception):
    """A head that is not served; carries the answer."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = Response(status, message + "\n", headers or {})


Respond = Callable[[Request], Response]
Upgrade = Callable[[Request, WebSocket], Awaitable[None]]


class FrontDoor:
    """Serves connections: `respond` answers plain requests, `upgrade` runs the WebSockets of the paths it is for."""

    def __init__(
        self, limits: LimitsConfig, respond: Respond, routes: Mapping[str, Upgrade], busy: Callable[[], str]
    ) -> None:
        """`busy` says why there can be no more WebSockets for now, or nothing."""
        self._limits = limits
        self._busy = busy
        self._respond = respond
        self._routes = routes
        self.connections = Connections(limits.connections)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Nothing that goes wrong with it gets past here."""
        with self.connections.one_more():
            try:
                await self._serve(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the peer went away in the middle of it
            except Exception:
                logger.exception("a connection ended by a fault in sttd; the others go on")
            finally:
                await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        request = None
        with trio.move_on_after(self._limits.head_s) as deadline:
            try:
                if self.connections.full:
                    raise BadRequest(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "Too many connections; try again.",
                        {"Retry-After": "5"},
                    )
                request = await self._read_head(http, stream)
                if request.is_upgrade:
                    head = self._upgrade_head(request)
            except BadRequest as bad:
                await _answer(http, stream, bad.response)
                return
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint)
                await _answer(http, stream, Response(status, f"{status.phrase}: {error}\n"))
                return
            if not request.is_upgrade:
                await _answer(http, stream, self._respond(request), bare=request.method == "HEAD")
                return
        if deadline.cancelled_caught or request is None:
            logger.debug("no request head within %g s", self._limits.head_s)
            return
        early = bytes(http.trailing_data[0])
        async with accept(stream, head, early, _peer(stream), self._limits) as websocket:
            await self._routes[request.path](request, websocket)

    async def _read_head(self, http: h11.Connection, stream: trio.SocketStream) -> Request:
        while True:
            event = http.next_event()
            if isinstance(event, h11.Request):
                headers: dict[str, str] = {}
                for raw_name, raw_value in event.headers:
                    name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
                    headers[name] = f"{headers[name]}, {value}" if name in headers else value
                return Request(event.method.decode("ascii"), event.target.decode("ascii"), headers)
            if event is not h11.NEED_DATA:
                raise trio.BrokenResourceError("the peer closed before it sent a request")
            http.receive_data(await stream.receive_some())

    def _upgrade_head(self, request: Request) -> bytes:
        """A clean head for an upgrade that may be served."""
        headers = request.headers
        if request.path not in self._routes:
            raise BadRequest(HTTPStatus.NOT_FOUND, f"No WebSocket here; there is one at {' and '.join(self._routes)}.")
        if request.method != "GET":
            raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket opens with GET.", {"Allow": "GET"})
        if "upgrade" not in (token.strip().lower() for token in headers.get("connection", "").split(",")):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "An upgrade needs the header Connection: Upgrade.")
        if headers.get("sec-websocket-version", "").strip() != "13":
            raise BadRequest(
                HTTPStatus.UPGRADE_REQUIRED,
                "Only WebSocket version 13 is spoken.",
                {"Sec-WebSocket-Version": "13"},
            )
        if "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0":
            raise BadRequest(HTTPStatus.BAD_REQUEST, "An upgrade has no body.")
        key = headers.get("sec-websocket-key", "").strip()
        try:
            valid = len(base64.b64decode(key, validate=True)) == 16
        except (binascii.Error, ValueError):
            valid = False
        if not valid:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64.")
        if reason := self._busy():
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": "5"})
        clean = [
            ("Host", "sttd"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
        ]
        head = h11.Connection(h11.CLIENT).send(h11.Request(method="GET", target=request.path, headers=clean))
        assert head is not None
        return head


async def _answer(http: h11.Connection, stream: trio.SocketStream, response: Response, *, bare: bool = False) -> None:
    """Send an answer and end the connection in a way that lets the peer read it."""
    body = response.body.encode()
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        *response.headers.items(),
    ]
    head = h11.Response(status_code=int(response.status), reason=response.status.phrase, headers=headers)
    data = http.send(head) or b""
    if not bare:
        data += body
    await stream.send_all(data)
    await stream.send_eof()
    # To close with unread bytes pending would reset the connection and could take the answer with it.
    with trio.move_on_after(LINGER_S):
        while await stream.receive_some():
            pass


def _peer(stream: trio.SocketStream) -> str:
    try:
        host, port, *_rest = stream.socket.getpeername()
    except (OSError, ValueError):
        return "unknown"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
