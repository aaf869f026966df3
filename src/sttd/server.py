"""The composition root: one daemon from a configuration."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from sttd.errors import ModelError, ModelMissing
from sttd.net.http import FrontDoor, Request
from sttd.ops.notify import notify
from sttd.ops.signals import stop_on_signals
from sttd.ops.sockets import open_listeners
from sttd.protocols.json_events import JsonEvents
from sttd.protocols.plain import PlainText
from sttd.queues import Memory
from sttd.recognizers.worker import Provider
from sttd.session import Session
from sttd.web.health import Health
from sttd.web.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sttd.config import Config
    from sttd.net.websocket import WebSocket
    from sttd.protocols.base import Protocol

logger = logging.getLogger(__name__)
LOOK_AGAIN_S = 5.0
PROTOCOLS: tuple[type[Protocol], ...] = (PlainText, JsonEvents)


class Daemon:
    """Serves sessions until it is told to stop."""

    def __init__(self, config: Config) -> None:
        """Unavailable where the provider cannot run here."""
        self.config = config
        self.provider = Provider(config)
        self.sessions: set[Session] = set()
        self._ahead = Memory(config.limits.ahead_bytes)
        self._stop = trio.Event()
        self._idle = trio.Event()
        health = Health(self.provider, lambda: len(self.sessions), self._lag)
        websockets = {protocol.path: partial(self._serve_session, protocol) for protocol in PROTOCOLS}
        routes = Routes({"/livez": health.livez, "/readyz": health.readyz}, tuple(websockets))
        self._front_door = FrontDoor(config.limits, routes.respond, websockets, self._busy)

    def drain(self) -> None:
        """Stop accepting; let every session say what it has, and end."""
        self._stop.set()

    async def run(self, listening: Callable[[list[str]], None], *, signals: bool = True) -> None:
        """Serve until drained. `listening` is told the addresses once they are open, before the model is loaded."""
        listeners = await open_listeners(self.config.server.listen)
        async with trio.open_nursery() as nursery:
            if signals:
                await nursery.start(stop_on_signals, self.drain)
            accepting = trio.CancelScope()
            nursery.start_soon(self._accept, listeners, nursery, accepting)
            nursery.start_soon(self._load)
            nursery.start_soon(self.provider.keep_spare)
            listening([_address(listener) for listener in listeners])
            await self._stop.wait()
            notify("STOPPING=1")
            accepting.cancel()
            await self._finish()
            nursery.cancel_scope.cancel()
        await self.provider.aclose()

    async def _accept(
        self, listeners: list[trio.SocketListener], nursery: trio.Nursery, accepting: trio.CancelScope
    ) -> None:
        with accepting:
            await trio.serve_listeners(self._front_door.serve, listeners, handler_nursery=nursery)

    async def _load(self) -> None:
        missing = False
        try:
            await self.provider.ready(abandon=True)
        except ModelMissing:
            missing = True
            logger.warning("no model: clients get an error until one is pulled (sttd models list, sttd models pull)")
        except ModelError as error:
            logger.error("%s", error)
        # Without a model the daemon is up all the same: it answers, and takes the model once it is there.
        notify("READY=1")
        while missing:
            await trio.sleep(LOOK_AGAIN_S)
            with suppress(ModelMissing, ModelError):
                await self.provider.ready(abandon=True)
                missing = False

    async def _serve_session(self, protocol: type[Protocol], request: Request, websocket: WebSocket) -> None:
        session = Session(websocket, protocol(), self.provider, self.config, request.query, self._ahead)
        self.sessions.add(session)
        try:
            if self._stop.is_set():
                session.drain()
            await session.run()
        finally:
            self.sessions.remove(session)
            if not self.sessions:
                self._idle.set()
                self._idle = trio.Event()

    def _lag(self) -> float:
        """Seconds that the session which lags most is behind, of those that send audio no faster than it is spoken."""
        return max((session.lag for session in self.sessions if session.live), default=0.0)

    def _busy(self) -> str:
        """Why no session can be added; empty if one can."""
        if (lag := self._lag()) <= self.config.limits.lag_s:
            return ""
        logger.warning("session refused: another one is %.1f s behind (limits.lag_s)", lag)
        return "This machine does not keep up with its sessions; try again."

    async def _finish(self) -> None:
        for session in self.sessions:
            session.drain()
        with trio.move_on_after(self.config.server.drain_s):
            if self.sessions:
                await self._idle.wait()
        if self.sessions:
            logger.warning("%d sessions cut off after drain_s", len(self.sessions))


def _address(listener: trio.SocketListener) -> str:
    host, port, *_rest = listener.socket.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
