"""The composition root: one daemon from a configuration."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from sttd.audio.pipeline import prepare
from sttd.config.config import Config
from sttd.config.settings import settings_of, value_of
from sttd.errors import ConfigError, ModelError, ModelMissing
from sttd.http import page
from sttd.http.access import Access
from sttd.http.admission import REFUSED_AT_ONCE, Admission
from sttd.http.front_door import FrontDoor, PatientListener, Rules, Served
from sttd.http.health import Health
from sttd.http.routes import Routes
from sttd.http.transcriptions import Transcriptions
from sttd.metrics import LIMITS_HIT, QUEUED
from sttd.ops import logs
from sttd.ops.files import fitted
from sttd.ops.notify import notify
from sttd.ops.signals import handle_signals
from sttd.ops.sockets import Kind, Listener, open_listeners, tls_context
from sttd.ops.watchdog import watch
from sttd.protocols.registry import PROTOCOLS
from sttd.protocols.vosk_server import VoskServer
from sttd.providers.registry import open_provider
from sttd.session.queues import SharedBudget
from sttd.session.session import Session
from sttd.wyoming import Peers, WyomingDoor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sttd.config.config import LimitsConfig
    from sttd.protocols.base import Protocol
    from sttd.wires.base import Channel
    from sttd.wires.websocket import WebSocket

logger = logging.getLogger(__name__)
LOOK_AGAIN_S = 5.0
LOADING_S = 30
"""Seconds by which the start timeout of the service manager is extended, again and again, while a model loads."""

RELOADED = ("limits.", "access.", "log.", "server.tls_cert", "server.tls_key", "wyoming.peers")
"""Settings that can be changed without a restart."""


class Daemon:
    """Serves sessions until it is told to stop."""

    def __init__(self, config: Config, read_again: Callable[[], Config] | None = None) -> None:
        """`read_again` returns the settings as they are now, for `reload`.

        Raises Unavailable if the provider cannot run here, and ConfigError if the settings cannot be used.
        """
        self.config = config
        self._read_again = read_again or (lambda: config)
        self.provider = open_provider(config)
        rules = Rules(self._fitted(config.limits), Access.read(config.access), tls_context(config.server))
        self.sessions: set[Session] = set()
        self._ahead = SharedBudget(config.limits.ahead_bytes)
        self._stop = trio.Event()
        self._started = False
        QUEUED.set_function(lambda: sum(session.lag for session in self.sessions))
        health = Health(self.provider, lambda: len(self.sessions), self._lag)
        websockets = {protocol.path: partial(self._serve_websocket, protocol) for protocol in PROTOCOLS}
        self._listeners: list[Listener] = []
        self._admission = Admission(rules.limits, self._busy)
        transcriptions = Transcriptions(self.provider, self._admission, self._serve_session)
        routes = Routes((*page.routes(), *health.routes(), *transcriptions.routes()), websockets)
        only_health = Routes(health.routes(), ())
        self._front_door = FrontDoor(rules, routes, websockets, self._admission, only_health)
        self._wyoming = WyomingDoor(self.config, self.provider, self._admission, self._serve_session)
        self._wyoming.limits = rules.limits

    def drain(self) -> None:
        """Accept no more connections, let every session send its last texts, and end."""
        self._stop.set()

    def reload(self) -> None:
        """Read the settings again and apply those that can be changed now. Invalid settings change nothing."""
        if self._stop.is_set():
            return
        if self._started:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._adopt(self._read_again())
        except ConfigError as error:
            logger.error("nothing is reloaded, all stays as it was: %s", error)
        except Exception:
            logger.exception("nothing is reloaded, all stays as it was")
        finally:
            if self._started:
                notify("READY=1")

    def _adopt(self, fresh: Config) -> None:
        changed = [key for key in settings_of(Config) if value_of(fresh, key) != value_of(self.config, key)]
        server = replace(self.config.server, tls_cert=fresh.server.tls_cert, tls_key=fresh.server.tls_key)
        access = Access.read(fresh.access)
        rules = Rules(self._fitted(fresh.limits), access, tls_context(server))
        peers = Peers.read(fresh)
        self._check_listeners(rules, peers)
        if access.holders != self._front_door.rules.access.holders:
            changed.append("access: tokens")
        self._ahead.left += fresh.limits.ahead_bytes - self.config.limits.ahead_bytes
        wyoming = replace(self.config.wyoming, peers=fresh.wyoming.peers)
        self.config = replace(
            self.config, limits=fresh.limits, access=fresh.access, log=fresh.log, server=server, wyoming=wyoming
        )
        self._front_door.rules = rules
        self._admission.limits = self._wyoming.limits = rules.limits
        self._wyoming.peers = peers
        logs.set_up(fresh.log)
        for key in changed:
            if not key.startswith((*RELOADED, "access:")):
                logger.error("%s cannot be changed without a restart; it stays as it was", key)
        taken = [key for key in changed if key.startswith((*RELOADED, "access:"))]
        logger.info("reloaded: %s", ", ".join(taken) or "nothing changed")

    def _fitted(self, limits: LimitsConfig) -> LimitsConfig:
        return fitted(limits, files_each=self.provider.files_each, refused=REFUSED_AT_ONCE)

    def _check_listeners(self, rules: Rules, peers: Peers) -> None:
        for listener in self._listeners:
            if listener.kind is Kind.WYOMING:
                peers.check_address(listener.host)
            elif listener.kind is not Kind.HEALTH:
                rules.access.check_address(listener.host)
            if listener.kind is Kind.TLS and rules.tls is None:
                raise ConfigError(f"{listener.address} is to speak TLS, which needs server.tls_cert")

    async def run(
        self,
        listening: Callable[[list[Listener]], None],
        leaving: Callable[[], None] = lambda: None,
        *,
        signals: bool = True,
    ) -> None:
        """Serve until drained.

        `listening` is called with the listeners once they are open, before the model is loaded. `leaving` is called
        after the last session: only a call into a recognizer can still run then, and it may never return.
        """
        self._listeners = await open_listeners(self.config)
        self._check_listeners(self._front_door.rules, self._wyoming.peers)
        async with trio.open_nursery() as nursery:
            if signals:
                await nursery.start(handle_signals, self.drain, self.reload)
            accepting = trio.CancelScope()
            nursery.start_soon(self._accept, nursery, accepting)
            nursery.start_soon(self._load)
            nursery.start_soon(self.provider.run)
            nursery.start_soon(watch, self._stuck, self._status)
            listening(self._listeners)
            await self._stop.wait()
            notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round((self._drain_s + 5) * 1e6)}")
            accepting.cancel()
            await self._finish()
            leaving()
            nursery.cancel_scope.cancel()
        await self.provider.aclose()

    async def _accept(self, sessions: trio.Nursery, accepting: trio.CancelScope) -> None:
        with accepting:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners:
                    serve = self._server(listener.kind)
                    patient = PatientListener(listener.socket, self._admission.room)
                    nursery.start_soon(partial(trio.serve_listeners, serve, [patient], handler_nursery=sessions))

    def _server(self, kind: Kind) -> Callable[[trio.SocketStream], Awaitable[None]]:
        """Return what serves the connections of a listener."""
        if kind is Kind.WYOMING:
            return self._wyoming.serve
        served = Served(
            tls=kind is Kind.TLS,
            health_only=kind is Kind.HEALTH,
            every_path=VoskServer.path if kind is Kind.VOSK_SERVER else "",
        )
        return partial(self._front_door.serve, served=served)

    async def _load(self) -> None:
        await trio.to_thread.run_sync(prepare, self.config.session_options())  # while files can be opened
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask_for_time)
            problem = await self._try_to_load()
            nursery.cancel_scope.cancel()
        # Without a model the daemon is up all the same: it answers, and takes the model once it is there.
        self._started = True
        notify("READY=1")
        if isinstance(problem, ModelMissing):
            logger.warning("no model: clients get an error until one is pulled (sttd models list, sttd models pull)")
        while problem is not None:
            await trio.sleep(LOOK_AGAIN_S)
            problem = await self._try_to_load()

    async def _try_to_load(self) -> ModelMissing | ModelError | None:
        """Load the model. Returns the error if that fails."""
        try:
            await self.provider.ready(abandon=True)
        except (ModelMissing, ModelError) as error:
            return error
        return None

    async def _serve_websocket(self, protocol: type[Protocol], query: str, websocket: WebSocket) -> None:
        await self._serve_session(protocol(), query, websocket)

    async def _serve_session(self, protocol: Protocol, query: str, channel: Channel) -> None:
        session = Session(channel, protocol, self.provider, self.config, query, self._ahead)
        self.sessions.add(session)
        try:
            if self._stop.is_set():
                session.drain(self._drain_s)
            await session.run()
        finally:
            self.sessions.remove(session)

    @property
    def _drain_s(self) -> float:
        """Seconds that sessions have to finish: `server.drain_s`, or more on a slow machine."""
        return self.config.server.drain_s * self.provider.slowness

    def _stuck(self) -> str:
        overdue = self.provider.overdue_s()
        return "" if overdue <= 0 else f"a call into the recognizer is {overdue:.0f} s past its deadline"

    def _status(self) -> str:
        number = len(self.sessions)
        what = self.provider.status or "ready"
        behind = f", {self._lag():.1f} s behind" if self._lag() > 1 else ""
        return f"{number} session{'s' * (number != 1)}, {self.provider.name} {self.provider.model}: {what}{behind}"

    def _lag(self) -> float:
        """Return the largest lag, in seconds, of the sessions that send audio no faster than it is spoken."""
        return max((session.lag for session in self.sessions if session.live), default=0.0)

    def _busy(self) -> str:
        """Return why no session can be added; empty if there is room."""
        if (lag := self._lag()) <= self.config.limits.lag_s:
            return ""
        logger.warning("session refused: another one is %.1f s behind (limits.lag_s)", lag)
        return "This machine does not keep up with its sessions; try again."

    async def _finish(self) -> None:
        self._front_door.drain()
        self._wyoming.drain()
        for session in self.sessions:
            session.drain(self._drain_s)
        with trio.move_on_after(self._drain_s):
            # Also for those that have not said yet what they want, `limits.head_s` at most.
            await self._admission.none_left()
        if self.sessions:
            LIMITS_HIT.labels("drain_s").inc(len(self.sessions))
            logger.warning("%d sessions cut off after drain_s", len(self.sessions))


async def _ask_for_time() -> None:
    while True:
        notify(f"EXTEND_TIMEOUT_USEC={LOADING_S * 1_000_000}\nSTATUS=the model is loading")
        await trio.sleep(LOADING_S / 3)
