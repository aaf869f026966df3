"""The listening sockets: opened here, or handed over by systemd."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import trio

from sttd.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from sttd.config.config import ServerConfig

BACKLOG = 128
FIRST_FD = 3
"""sd_listen_fds(3)."""


class Kind(Enum):
    """What is spoken at a listener. The value is the name of a socket (FileDescriptorName=) that is for it."""

    PLAIN = "plain"
    TLS = "tls"
    HEALTH = "health"


@dataclass(frozen=True)
class Listener:
    """A listening socket."""

    socket: trio.SocketListener
    kind: Kind

    @property
    def host(self) -> str:
        """The address without its port; that of a local socket leads to this machine only."""
        name = self.socket.socket.getsockname()
        return "localhost" if self.socket.socket.family == trio.socket.AF_UNIX else str(name[0])

    @property
    def address(self) -> str:
        """As in a URL."""
        name = self.socket.socket.getsockname()
        if self.socket.socket.family == trio.socket.AF_UNIX:
            return str(name)
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def split_address(address: str, setting: str = "server.listen") -> tuple[str, int]:
    """`127.0.0.1:8000` or `[::1]:8000` as host and port; ConfigError for anything else."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{setting}: {address!r} is not host:port, such as 127.0.0.1:8000 or [::1]:8000")
    return host, int(port)


def addresses(server: ServerConfig) -> list[tuple[str, int, Kind]]:
    """Host, port and kind of all that is to be listened at; ConfigError where one is no address, or there is none."""
    found = [
        (*split_address(address, f"server.{name}"), kind)
        for name, kind in (("listen", Kind.PLAIN), ("tls_listen", Kind.TLS), ("health_listen", Kind.HEALTH))
        for address in getattr(server, name)
    ]
    if not any(kind is not Kind.HEALTH for _host, _port, kind in found):
        raise ConfigError("server.listen: is empty; at least one host:port is needed, such as 127.0.0.1:8000")
    return found


def tls_context(server: ServerConfig) -> ssl.SSLContext | None:
    """For the listeners that speak TLS, 1.2 or newer; None without any. ConfigError where the files are of no use."""
    if not server.tls_cert and not server.tls_listen:
        return None
    if not server.tls_cert:
        raise ConfigError("server.tls_listen needs server.tls_cert, and server.tls_key where the key is not in it")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key or None, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(filter(None, (server.tls_cert, server.tls_key)))
        raise ConfigError(f"server.tls_cert: {files}: {getattr(error, 'strerror', None) or error}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key has a password, which nobody could enter")


async def open_listeners(server: ServerConfig) -> list[Listener]:
    """Those that systemd hands over; else listen at every address, or at none: Unavailable says at which and why."""
    if given := _activated():
        return given
    listeners: list[Listener] = []
    try:
        for host, port, kind in addresses(server):
            listeners += [Listener(one, kind) for one in await _opened(host, port)]
    except BaseException:
        for listener in listeners:
            listener.socket.socket.close()
        raise
    return listeners


async def _opened(host: str, port: int) -> list[trio.SocketListener]:
    """Listen at all addresses of a name that this machine has: containers know localhost as ::1, and have no ::1."""
    opened: list[trio.SocketListener] = []
    absent: OSError | None = None
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        for address in dict.fromkeys(str(sockaddr[0]) for *_kind, sockaddr in found):
            try:
                opened += await trio.open_tcp_listeners(port, host=address, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if absent and not opened:
            raise absent
    except OSError as error:
        for listener in opened:
            listener.socket.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {_why(error)}") from None
    return opened


def _activated() -> list[Listener]:
    """The sockets of sd_listen_fds(3)."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    number = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    listeners = []
    for place in range(number):
        found = socket.socket(fileno=FIRST_FD + place)
        found.set_inheritable(False)
        if found.type != socket.SOCK_STREAM or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise Unavailable(f"the socket {found} that systemd hands over does not listen for streams")
        kind = Kind.PLAIN
        with suppress(ValueError, IndexError):
            kind = Kind(names[place])
        listeners.append(Listener(trio.SocketListener(trio.socket.from_stdlib_socket(found)), kind))
    if listeners and all(listener.kind is Kind.HEALTH for listener in listeners):
        raise ConfigError("systemd hands over sockets for health alone; sttd.socket needs one for sessions")
    return listeners


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or give other addresses with --listen"
    return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror) or str(error)
