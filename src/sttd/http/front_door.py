"""The front door of every port: it admits connections, answers plain requests and hands over WebSockets."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from sttd.errors import SttdError
from sttd.http.access import Access, is_loopback
from sttd.http.exchange import Exchange
from sttd.http.messages import Refused, Request, Response
from sttd.http.routes import Need, Route, Routes
from sttd.http.upgrade import check_upgrade, clean_head, upgrade_required
from sttd.metrics import LIMITS_HIT, REJECTED
from sttd.wires.tcp import watch_peer
from sttd.wires.websocket import WebSocket, accept

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from sttd.config.config import LimitsConfig
    from sttd.http.access import Grant
    from sttd.http.admission import Admission

logger = logging.getLogger(__name__)
KEEP_ALIVE_S = 5.0
"""A connection without a request in progress is kept open for so long, or `limits.head_s` if that is shorter."""

ServeWebSocket = Callable[[str, WebSocket], Awaitable[None]]
"""Called with the query of the address, without tokens."""


@dataclass
class Rules:
    """What every connection is served by. Replaced as a whole when settings are read again."""

    limits: LimitsConfig
    access: Access
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What is served at a listener."""

    tls: bool = False
    health_only: bool = False
    """No WebSockets, and no requests but those about the daemon's health."""
    every_path: str = ""
    """The path that a WebSocket is taken for whose path is none of sttd's; empty: there is none."""


class PatientListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts connections while there is room for them."""

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
    """Serves connections."""

    def __init__(
        self,
        rules: Rules,
        routes: Routes,
        websockets: Mapping[str, ServeWebSocket],
        admission: Admission,
        health: Routes | None = None,
    ) -> None:
        """`websockets` are served by path; `health` are the routes of listeners for health alone."""
        self.rules = rules
        self._routes = routes
        self._health = health or routes
        self._websockets = websockets
        self._admission = admission
        self._draining = False
        self._waiting: dict[Exchange, trio.CancelScope] = {}  # for a request

    def drain(self) -> None:
        """Serve the requests that have begun, and no more on the same connection."""
        self._draining = True
        for exchange, scope in self._waiting.items():
            if exchange.kept_alive:
                scope.cancel()

    async def serve(self, stream: trio.SocketStream, served: Served = Served()) -> None:
        """Serve one connection to its end. Nothing that goes wrong with it gets past here."""
        await self._admission.guard(stream, partial(self._serve, stream, served))

    async def _serve(self, stream: trio.SocketStream, served: Served, peer: str, address: str) -> None:
        limits = self.rules.limits
        watch_peer(stream, limits.ping_s)
        exchange = Exchange(stream, limits, peer, local=not address or is_loopback(address))
        try:
            while await self._serve_one(exchange, address, served):
                if self._draining and exchange.kept_alive:
                    break
        finally:
            self._waiting.pop(exchange, None)

    async def _serve_one(self, exchange: Exchange, address: str, served: Served) -> bool:
        """Serve one request. Returns whether another may follow."""
        try:
            request = await self._receive(exchange, address, served)
            if request is None:
                return False
            if served.health_only:
                return await self._respond(exchange, request, self._health)
            if not (request.is_upgrade or request.path in self._websockets):
                return await self._respond(exchange, request, self._routes)
            grant = self._check_upgrade(request)
            path, head = request.path, clean_head(request, grant.subprotocol)
            del request  # its headers would be kept as long as the WebSocket is open
            with self._admission.session(grant.holder):
                await self._serve_websocket(exchange, path, head, grant)
                return False
        except Refused as refused:
            _count_refusal(exchange.peer, refused.reason)
            return await exchange.answer(refused.response, last=self._draining)

    async def _receive(self, exchange: Exchange, address: str, served: Served) -> Request | None:
        """Return the next request; None if the peer closes instead, or says nothing in time."""
        request = None
        first, head_s = not exchange.answered, self.rules.limits.head_s
        wait_s = head_s if first else min(KEEP_ALIVE_S, head_s)
        with self._admission.half_open(address, wait_s, exchange.has_unread) as deadline:
            self._waiting[exchange] = deadline
            if first and (limit := self._admission.full(address)):
                LIMITS_HIT.labels(limit).inc()
                raise Refused.busy(limit, "Too many connections; try again.")
            if first and served.tls:
                assert self.rules.tls is not None
                secure = trio.SSLStream(exchange.stream, self.rules.tls, server_side=True, https_compatible=True)
                exchange.stream = secure
                await secure.do_handshake()
            request = await exchange.receive()
        del self._waiting[exchange]
        if deadline.cancelled_caught and not exchange.kept_alive:
            LIMITS_HIT.labels("head_s" if trio.current_time() >= deadline.deadline else "half_open").inc()
        if request is not None and request.is_upgrade and served.every_path and request.path not in self._websockets:
            request = replace(request, target=f"{served.every_path}?{request.query}")
        return request

    def _check_upgrade(self, request: Request) -> Grant:
        """Raises Refused if the request may not become a WebSocket."""
        if request.path not in self._websockets:
            message = f"No WebSocket here; there is one at {' and '.join(self._websockets)}."
            raise Refused(HTTPStatus.NOT_FOUND, "request", message)
        if not request.is_upgrade:
            raise upgrade_required()
        check_upgrade(request)
        return self.rules.access.admit(request.headers, request.query, local=request.local)

    async def _serve_websocket(self, exchange: Exchange, path: str, head: bytes, grant: Grant) -> None:
        limits = self.rules.limits
        upgraded = accept(exchange.stream, head, exchange.leave(), exchange.peer, limits, grant.subprotocol)
        async with upgraded as websocket:
            await self._websockets[path](grant.query, websocket)

    async def _respond(self, exchange: Exchange, request: Request, routes: Routes) -> bool:
        """Answer a plain request. Returns whether another may follow. Raises Refused."""
        route = routes.find(request)
        with request.resources:
            try:
                request = self._admitted(request, route)
                response = await _response(route, request)
            except Refused as refused:
                if route.told is not None:
                    refused.response = route.told(refused, request)
                raise
            return await exchange.answer(response, last=self._draining)

    def _admitted(self, request: Request, route: Route) -> Request:
        """Return the request without its token. Raises Refused."""
        access = self.rules.access
        if route.need is Need.TOKEN:
            access.admit_plain(request.headers, local=request.local)
        elif route.need is Need.PAGE:
            access.admit_page(request.headers, local=request.local)
        elif route.need is Need.SESSION:
            grant = access.admit(request.headers, request.query, local=request.local)
            request.resources.enter_context(self._admission.session(grant.holder))
            return replace(request, target=f"{request.path}?{grant.query}")
        return request


async def _response(route: Route, request: Request) -> Response:
    """Have a route's handler answer, in time. Raises Refused."""
    request.body.max_bytes = route.max_body
    with trio.move_on_after(route.deadline_s):
        try:
            return await route.handler(request)
        except (Refused, trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except SttdError as error:
            return Response(error.status, f"{error}\n")
        except Exception:
            logger.exception("a request ended by a fault in sttd peer=%s path=%s", request.peer, request.path)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, "A fault in sttd; its log says more.\n")
    if request.body.complete:
        raise Refused.busy("deadline", f"No answer within {route.deadline_s:g} s.")
    message = f"The body did not come within {route.deadline_s:g} s."
    raise Refused(HTTPStatus.REQUEST_TIMEOUT, "deadline", message)


def _count_refusal(peer: str, reason: str) -> None:
    if not reason:  # nothing but a path that is not there
        return
    REJECTED.labels(reason).inc()
    logger.info("refused peer=%s reason=%s", peer, reason)
