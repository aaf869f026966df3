"""Who gets in: connections, in all and by address, and sessions, in all and by token. Every wire asks here."""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sttd.http.messages import Refused
from sttd.metrics import LIMITS_HIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sttd.config.config import LimitsConfig
    from sttd.http.access import Holder

UNKNOWN = "?"
"""The address of a connection that has none any more."""

UNCOUNTED = ("127.0.0.1", "::1", "")
"""This machine itself, where a proxy's connections come from, and local sockets."""


REFUSED_AT_ONCE = 16
"""Connections beyond the limit that are open to be told so. More wait in the kernel's queue."""

GRACE_S = 0.5
"""A connection younger than this is not cut for newer ones."""


@dataclass(frozen=True, eq=False)
class _HalfOpen:
    machine: str
    scope: trio.CancelScope
    since: float
    unread: Callable[[], bool]


class Admission:
    """Counts what is open against the limits, which may be changed."""

    def __init__(self, limits: LimitsConfig, busy: Callable[[], str] = lambda: "") -> None:
        """`busy` returns why there can be no more sessions for now, or nothing."""
        self.limits = limits
        self.open = 0
        """Connections."""
        self._busy = busy
        self._sessions: Counter[str] = Counter()  # by the name of the token's holder
        self._by_machine: Counter[str] = Counter()
        self._none_left = trio.Event()
        self._one_less = trio.Event()
        self._half_open: deque[_HalfOpen] = deque()

    @contextmanager
    def connection(self, address: str) -> Iterator[None]:
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
        """Wait until there is no connection."""
        if self.open:
            await self._none_left.wait()

    async def room(self) -> None:
        """Wait until a connection may be accepted, be it to be refused."""
        while self.open >= self.limits.connections + REFUSED_AT_ONCE:
            await self._one_less.wait()

    def full(self, address: str) -> str:
        """Which limit the newest connection, which counts, has passed; none: empty."""
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
    def half_open(self, address: str, wait_s: float, unread: Callable[[], bool]) -> Iterator[trio.CancelScope]:
        """A connection that has to say what it wants in `wait_s` seconds; cut earlier when too many newer ones come.

        A client that only opens connections does not keep others out: the oldest of its address goes first. A client
        that has said something which is not read yet (`unread`), or that has only just come, is not cut for newer
        ones: in a burst of clients nobody has been read yet.
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


def machine_of(address: str) -> str:
    """What counts as one machine: an IPv4 address, or the /64 of an IPv6 address, of which a machine has many."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if found.version == 4 or found.is_loopback or found.is_link_local:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False))
