"""The listening sockets."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import trio

from sttd.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKLOG = 128


def split_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:8000` or `[::1]:8000` as host and port; ConfigError for anything else."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"server.listen: {address!r} is not host:port, such as 127.0.0.1:8000 or [::1]:8000")
    return host, int(port)


def check_addresses(addresses: Sequence[str]) -> None:
    """ConfigError where one is no address, or where there is none."""
    if not addresses:
        raise ConfigError("server.listen: is empty; at least one host:port is needed, such as 127.0.0.1:8000")
    for address in addresses:
        split_address(address)


async def open_listeners(addresses: Sequence[str]) -> list[trio.SocketListener]:
    """Listen on every address, or on none: Unavailable says which one cannot be had and why."""
    listeners: list[trio.SocketListener] = []
    try:
        for address in addresses:
            host, port = split_address(address)
            try:
                listeners += await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
            except OSError as error:
                raise Unavailable(f"cannot listen on {address}: {_why(error)}") from None
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or give other addresses with --listen"
    return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror) or str(error)
