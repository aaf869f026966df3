"""The front door of every port: request heads parsed under a size limit and a deadline.

Plain requests are answered here. An upgrade is checked, and trio-websocket is given a fresh head made from what was
checked: its own parsing of hostile heads can raise what nobody catches, so raw peer bytes never reach it.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import logging
import termios
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from sttd.http.access import Access, Grant, Refused, is_loopback
from sttd.http.admission import Connections
from sttd.metrics import LIMITS_HIT, REJECTED
from sttd.wires.websocket import WebSocket, accept, watch_peer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from sttd.config.config import LimitsConfig

logger = logging.getLogger(__name__)
LINGER_S = 1.0
UNKNOWN = "?"
NO_UPGRADE = (
    "This is the address of a WebSocket, and the request has no header `Upgrade: websocket`. "
    "If there is a proxy in between, it must pass the headers Upgrade and Connection on."
)
PRIVATE = ("/metrics",)
"""What is answered to those only who may open a session."""


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
        return "websocket" in (token.strip().lower() for token in self.headers.get("upgrade", "").split(","))


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

    def __init__(
        self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None, reason: str = "request"
    ) -> None:
        """`reason`: a word for the metrics."""
        super().__init__(message)
        self.reason = reason
        self.response = Response(status, message + "\n", headers or {})

    @classmethod
    def later(cls, reason: str, message: str) -> BadRequest:
        """There is no room now."""
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": "5"}, reason)


Respond = Callable[[Request], Response]
Upgrade = Callable[[Request, WebSocket], Awaitable[None]]


@dataclass
class House:
    """What every connection is served by. Replaced as a whole, or in part, when settings are read again."""

    limits: LimitsConfig
    access: Access
    tls: ssl.SSLContext | None = None


class PatientListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts where there is room."""

    def __init__(self, listener: trio.SocketListener, room: Callable[[], Awaitable[None]]) -> None:
        self._listener = listener
        self._room = room

    async def accept(self) -> trio.SocketStream:
        """See trio.abc.Listener."""
        await self._room()
        return await self._listener.accept()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self._listener.aclose()


class FrontDoor:
    """Serves connections: `respond` answers plain requests, `routes` run the WebSockets of their paths."""

    def __init__(self, house: House, respond: Respond, routes: Mapping[str, Upgrade], busy: Callable[[], str]) -> None:
        """`busy` says why there can be no more WebSockets for now, or nothing."""
        self.house = house
        self._busy = busy
        self._respond = respond
        self._routes = routes
        self.connections = Connections(house.limits)

    def replace(self, house: House) -> None:
        """Serve new connections, and check heads, by other rules."""
        self.house = house
        self.connections.limits = house.limits

    async def serve(self, stream: trio.SocketStream, *, tls: bool = False, plain_only: bool = False) -> None:
        """Serve one connection to its end. Nothing that goes wrong with it gets past here."""
        peer, address = _peer(stream)
        with self.connections.one_more(address):
            try:
                await self._serve(stream, peer, address, tls=tls, plain_only=plain_only)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                pass  # the peer went away in the middle of it
            except* Exception:
                logger.exception("a connection ended by a fault in sttd; the others go on")
            finally:
                await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.SocketStream, peer: str, address: str, *, tls: bool, plain_only: bool) -> None:
        limits = self.house.limits
        watch_peer(stream, limits.ping_s)
        local = not address or is_loopback(address)
        talk: trio.abc.Stream = stream
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        request, grant = None, None
        with self.connections.half_open(address, partial(_has_unread, stream)) as deadline:
            try:
                if limit := self.connections.full(address):
                    LIMITS_HIT.labels(limit).inc()
                    raise BadRequest.later(limit, "Too many connections; try again.")
                if tls:
                    assert self.house.tls is not None
                    talk = trio.SSLStream(stream, self.house.tls, server_side=True, https_compatible=True)
                    await talk.do_handshake()
                request = await self._read_head(http, talk)
                access = self.house.access
                if request.is_upgrade and not plain_only:
                    head, grant = self._upgrade_head(request, access, local=local)
                elif request.path in self._routes and not plain_only:
                    raise BadRequest(HTTPStatus.UPGRADE_REQUIRED, NO_UPGRADE, {"Upgrade": "websocket"})
                elif request.path in PRIVATE:
                    access.admit_plain(request.headers, local=local)
            except BadRequest as bad:
                _count_refusal(peer, bad.reason)
                await _answer(http, talk, bad.response)
                return
            except Refused as refused:
                _count_refusal(peer, refused.reason)
                await _answer(http, talk, _refusal(refused))
                return
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint)
                if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                    LIMITS_HIT.labels("head_bytes").inc()
                _count_refusal(peer, "head")
                await _answer(http, talk, Response(status, f"{status.phrase}: {error}\n"))
                return
            if grant is None:
                await _answer(http, talk, self._respond(request), bare=request.method == "HEAD")
                return
        if deadline.cancelled_caught or request is None or grant is None:
            LIMITS_HIT.labels("head_s" if trio.current_time() >= deadline.deadline else "half_open").inc()
            return
        early = bytes(http.trailing_data[0])
        request = replace(request, target=f"{request.path}?{grant.query}")
        access.sessions[grant.holder] += 1
        try:
            async with accept(talk, head, early, peer, limits, grant.subprotocol) as websocket:
                await self._routes[request.path](request, websocket)
        finally:
            access.sessions[grant.holder] -= 1

    async def _read_head(self, http: h11.Connection, stream: trio.abc.Stream) -> Request:
        while True:
            event = http.next_event()
            if isinstance(event, h11.Request):
                headers: dict[str, str] = {}
                for raw_name, raw_value in event.headers:
                    name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
                    headers[name] = f"{headers[name]}, {value}" if name in headers else value
                return Request(event.method.decode("ascii"), _origin_form(event.target.decode("ascii")), headers)
            if event is not h11.NEED_DATA:
                raise trio.BrokenResourceError("the peer closed before it sent a request")
            http.receive_data(bytes(await stream.receive_some()))

    def _upgrade_head(self, request: Request, access: Access, *, local: bool) -> tuple[bytes, Grant]:
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
                {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
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
        grant = access.admit(headers, request.query, local=local)
        if reason := self._busy():
            LIMITS_HIT.labels("lag_s").inc()
            raise BadRequest.later("busy", reason)
        clean = [
            ("Host", "sttd"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
        ]
        if grant.subprotocol:
            clean.append(("Sec-WebSocket-Protocol", grant.subprotocol))
        head = h11.Connection(h11.CLIENT).send(h11.Request(method="GET", target=request.path, headers=clean))
        assert head is not None
        return head, grant


def _origin_form(target: str) -> str:
    """Path and query of a request target, which may be in absolute form (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    path = rest[len(rest.split("/", 1)[0].split("?", 1)[0]) :]
    return path if path.startswith("/") else f"/{path}"


def _count_refusal(peer: str, reason: str) -> None:
    REJECTED.labels(reason).inc()
    if reason == "token_sessions":
        LIMITS_HIT.labels(reason).inc()
    logger.info("refused peer=%s reason=%s", peer, reason)


def _refusal(refused: Refused) -> Response:
    headers = {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
        HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
    }
    return Response(refused.status, f"{refused}\n", headers.get(refused.status, {}))


async def _answer(http: h11.Connection, stream: trio.abc.Stream, response: Response, *, bare: bool = False) -> None:
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
    bottom = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(bottom, trio.SocketStream)
    await bottom.send_eof()
    # To close with unread bytes pending would reset the connection and could take the answer with it.
    with trio.move_on_after(LINGER_S):
        while await bottom.receive_some():
            pass


def _has_unread(stream: trio.SocketStream) -> bool:
    """Whether the peer has sent something that was not read yet."""
    waiting = array("i", [0])
    try:
        fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, waiting)
    except OSError:
        return False
    return waiting[0] > 0


def _peer(stream: trio.SocketStream) -> tuple[str, str]:
    """For the log, and the address alone; that is empty for a local socket."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "unknown", UNKNOWN
    if stream.socket.family == trio.socket.AF_UNIX:
        return "local", ""
    host, port, *_rest = name
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", host
