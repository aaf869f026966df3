"""The listening sockets, which sttd opens or systemd passes."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import trio

from sttd.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from sttd.config.config import Config, ServerConfig

BACKLOG = 128
FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


class Kind(Enum):
    """The protocol of a listener. The value is the name (FileDescriptorName=) of its socket in systemd's units."""

    PLAIN = "plain"
    TLS = "tls"
    HEALTH = "health"
    VOSK_SERVER = "vosk-server"
    WYOMING = "wyoming"


@dataclass(frozen=True)
class Listener:
    """A listening socket."""

    socket: trio.SocketListener
    kind: Kind

    @property
    def host(self) -> str:
        """The address without its port; `localhost` for a Unix socket, which only this machine can reach."""
        name = self.socket.socket.getsockname()
        return "localhost" if self.socket.socket.family == trio.socket.AF_UNIX else str(name[0])

    @property
    def address(self) -> str:
        """The address with its port, as in a URL; the path of a Unix socket."""
        name = self.socket.socket.getsockname()
        if self.socket.socket.family == trio.socket.AF_UNIX:
            return str(name)
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: at a TCP port, or at the path of a Unix socket."""

    kind: Kind
    host: str = "localhost"
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"


def read_address(address: str, kind: Kind, setting: str = "server.listen") -> Address:
    """Return the address that a text means, such as `127.0.0.1:8000`, `[::1]:8000` or `unix:/run/sttd/sttd.sock`.

    Raises ConfigError, naming the setting, if the text has another form.
    """
    scheme, _, path = address.partition(":")
    if scheme == "unix" and path.startswith("/"):
        return Address(kind, path="/" + path.lstrip("/"))
    return Address(kind, *_split(address.removeprefix("tcp://"), setting))


def _split(address: str, setting: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"{setting}: {address!r} is not host:port, such as 127.0.0.1:8000 or [::1]:8000, nor unix:/path"
        )
    return host, int(port)


def addresses(config: Config) -> list[Address]:
    """Return the addresses of all listeners.

    Raises ConfigError if an address is invalid, or if there is none for sessions.
    """
    settings = {
        "server.listen": (config.server.listen, Kind.PLAIN),
        "server.tls_listen": (config.server.tls_listen, Kind.TLS),
        "server.health_listen": (config.server.health_listen, Kind.HEALTH),
        "vosk_server.listen": (config.vosk_server.listen, Kind.VOSK_SERVER),
        "wyoming.listen": (config.wyoming.listen, Kind.WYOMING),
    }
    found = [read_address(text, kind, name) for name, (listed, kind) in settings.items() for text in listed]
    if not any(address.kind is not Kind.HEALTH for address in found):
        raise ConfigError("server.listen: is empty; at least one host:port is needed, such as 127.0.0.1:8000")
    return found


def tls_context(server: ServerConfig) -> ssl.SSLContext | None:
    """Return the context for TLS listeners (TLS 1.2 or newer); None if TLS is not configured.

    Raises ConfigError if the certificate or the key cannot be used.
    """
    if not server.tls_cert and not server.tls_listen:
        return None
    if not server.tls_cert:
        raise ConfigError("server.tls_listen needs server.tls_cert, and server.tls_key if tls_cert has no key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key or None, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(filter(None, (server.tls_cert, server.tls_key)))
        raise ConfigError(f"server.tls_cert: {files}: {getattr(error, 'strerror', None) or error}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key has a password, which sttd cannot ask for")


async def open_listeners(config: Config) -> list[Listener]:
    """Return the sockets that systemd passes, and listen on the configured addresses of which it passes none of a kind.

    `server.listen`, which has a default, is not used if systemd passes any. Raises Unavailable, naming the address and
    the reason, if an address cannot be opened; then all are closed.
    """
    listeners = _activated()
    given = {listener.kind for listener in listeners} | ({Kind.PLAIN} if listeners else set())
    try:
        for address in addresses(config):
            if address.kind in given:
                continue
            opened = [_opened_unix(address)] if address.path else await _opened(address.host, address.port)
            listeners += [Listener(one, address.kind) for one in opened]
    except BaseException:
        for listener in listeners:
            listener.socket.socket.close()
        raise
    return listeners


async def _opened(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on those addresses of a host name that this machine has: containers may resolve localhost to ::1 without
    having that address."""
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


def _opened_unix(address: Address) -> trio.SocketListener:
    """Listen at a path, in place of a socket that nothing listens at any more."""
    opened = socket.socket(socket.AF_UNIX)
    try:
        if _is_left_over(address.path):
            os.unlink(address.path)
        opened.bind(address.path)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise Unavailable(f"cannot listen on {address}: {_why(error)}") from None
    opened.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(opened))


def _is_left_over(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError):
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return stat.S_ISSOCK(os.stat(path).st_mode)
    return False


def _activated() -> list[Listener]:
    """Return the sockets that systemd passes (sd_listen_fds(3))."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    number = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    listeners = []
    for place in range(number):
        found = socket.socket(fileno=FIRST_FD + place)
        found.set_inheritable(False)
        if found.type != socket.SOCK_STREAM or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise Unavailable(f"the socket {found} that systemd passed is not a listening stream socket")
        kind = Kind.PLAIN
        with suppress(ValueError, IndexError):
            kind = Kind(names[place])
        listeners.append(Listener(trio.SocketListener(trio.socket.from_stdlib_socket(found)), kind))
    if listeners and all(listener.kind is Kind.HEALTH for listener in listeners):
        raise ConfigError("systemd passed only sockets for health; sttd.socket needs a socket for sessions")
    return listeners


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or give other addresses with --listen"
    return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror) or str(error)
