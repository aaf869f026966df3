"""Limits of open connections, in all and by address, and of sessions, in all and by token. Every wire asks here."""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sttd.http.messages import Refused
from sttd.metrics import LIMITS_HIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sttd.config.config import LimitsConfig
    from sttd.http.access import Holder

logger = logging.getLogger(__name__)

UNKNOWN = "?"
"""Stands for the address of a connection that was reset before it was accepted."""

UNCOUNTED = ("127.0.0.1", "::1", "")
"""Addresses without a limit of their own: this machine, from where a proxy connects, and local sockets."""


REFUSED_AT_ONCE = 16
"""The maximum number of connections beyond the limit that are accepted and refused. More wait in the kernel's queue."""

GRACE_S = 0.5
"""Seconds in which a new connection is not cut in favour of newer ones."""


@dataclass(frozen=True, eq=False)
class _HalfOpen:
    machine: str
    scope: trio.CancelScope
    since: float
    unread: Callable[[], bool]


class Admission:
    """Counts what is open against the limits, which may be changed."""

    def __init__(self, limits: LimitsConfig, busy: Callable[[], str] = lambda: "") -> None:
        """`busy` returns why no session can be added now; empty if there is room."""
        self.limits = limits
        self.open = 0
        """The number of open connections."""
        self._busy = busy
        self._uploads = 0
        self._sessions: Counter[str] = Counter()  # by the name of the token's holder
        self._by_machine: Counter[str] = Counter()
        self._none_left = trio.Event()
        self._one_less = trio.Event()
        self._half_open: deque[_HalfOpen] = deque()

    async def guard(self, stream: trio.SocketStream, serve: Callable[[str, str], Awaitable[None]]) -> None:
        """Serve one connection to its end; nothing that goes wrong with it gets past here.

        `serve` is called with the peer's name for the log, and with its address, which is empty for a local socket.
        """
        peer, address = _peer(stream)
        with self._connection(address):
            try:
                await serve(peer, address)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                pass  # the peer went away in the middle of it
            except* Exception:
                logger.exception("a connection ended by a fault in sttd; the others go on")
            finally:
                await trio.aclose_forcefully(stream)

    @contextmanager
    def _connection(self, address: str) -> Iterator[None]:
        """Count a connection for as long as the context lasts."""
        machine = machine_of(address)
        self.open += 1
        self._by_machine[machine] += 1
        try:
            yield
        finally:
            self.open -= 1
            self._one_less.set()
            self._one_less = trio.Event()
            self._by_machine[machine] -= 1
            if not self._by_machine[machine]:
                del self._by_machine[machine]
            if not self.open:
                self._none_left.set()
                self._none_left = trio.Event()

    async def none_left(self) -> None:
        """Wait until no connection is open."""
        if self.open:
            await self._none_left.wait()

    async def room(self) -> None:
        """Wait until another connection may be accepted, if only to be refused."""
        while self.open >= self.limits.connections + REFUSED_AT_ONCE:
            await self._one_less.wait()

    def full(self, address: str) -> str:
        """Return the name of the limit that the newest connection exceeds; empty if there is none."""
        if self.open > self.limits.connections:
            return "connections"
        machine = machine_of(address)
        if machine not in UNCOUNTED and self._by_machine[machine] > self.limits.connections_per_address:
            return "connections_per_address"
        return ""

    @contextmanager
    def session(self, holder: Holder) -> Iterator[None]:
        """Count a session for as long as the context lasts. Raises Refused if there is no room for it."""
        if holder.most and self._sessions[holder.name] >= holder.most:
            LIMITS_HIT.labels("token_sessions").inc()
            message = f"The token {holder.name!r} has its {holder.most} sessions already; end one."
            raise Refused.busy("token_sessions", message)
        if reason := self._busy():
            LIMITS_HIT.labels("lag_s").inc()
            raise Refused.busy("busy", reason)
        self._sessions[holder.name] += 1
        try:
            yield
        finally:
            self._sessions[holder.name] -= 1

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload for as long as the context lasts. Raises Refused if there is no room for it."""
        if self._uploads >= self.limits.uploads:
            LIMITS_HIT.labels("uploads").inc()
            raise Refused.busy("uploads", f"{self._uploads} recordings are being transcribed already; try again.")
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    @contextmanager
    def half_open(self, address: str, wait_s: float, unread: Callable[[], bool]) -> Iterator[trio.CancelScope]:
        """Limit the time in which a connection has to send a request, to `wait_s` seconds.

        If too many connections are half-open, the oldest is cut in favour of a new one: of the same address if there
        is one, so that a client which only opens connections keeps nobody out. A connection is not cut for this reason
        if it is new, or if `unread` returns that it has sent something: in a burst of clients none has been read yet.
        """
        machine = machine_of(address)
        with trio.move_on_after(wait_s) as scope:
            if len(self._half_open) >= self.limits.half_open:
                self._cut_for(machine)
            entry = _HalfOpen(machine, scope, trio.current_time(), unread)
            self._half_open.append(entry)
            try:
                yield scope
            finally:
                if entry in self._half_open:
                    self._half_open.remove(entry)

    def _cut_for(self, machine: str) -> None:
        late = trio.current_time() - GRACE_S
        silent = [one for one in self._half_open if one.since <= late and not one.unread()]
        if silent:
            oldest = next((one for one in silent if one.machine == machine), silent[0])
            self._half_open.remove(oldest)
            oldest.scope.cancel()


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


def machine_of(address: str) -> str:
    """Return what counts as one machine: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if found.version == 4 or found.is_loopback or found.is_link_local:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False))
