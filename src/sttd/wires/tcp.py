"""What all wires do with their sockets."""

from __future__ import annotations

import errno
import fcntl
import socket
import termios
from array import array

import trio

LINGER_S = 1.0
KEEPALIVES = 4
CLOSED, CLOSE_WAIT = b"\x07", b"\x08"
"""States of a connection, of <netinet/tcp.h>."""


def watch_peer(stream: trio.SocketStream, ping_s: float) -> None:
    """Have the kernel end the connection where nothing acknowledges what is sent (tcp(7)), pings above all.

    That is a machine that is gone: a live one acknowledges, whatever its program does.
    """
    if stream.socket.family != trio.socket.AF_UNIX:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(ping_s * 1000))
        # For wires without pings.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(ping_s)))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(ping_s / KEEPALIVES)))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVES)


def is_gone(error: BaseException) -> bool:
    """Whether the kernel has given the peer up."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
    return cause is not None and is_gone(cause)


def has_unread(stream: trio.SocketStream) -> bool:
    """Whether the peer has sent something that was not read yet."""
    waiting = array("i", [0])
    try:
        fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, waiting)
    except OSError:
        return False
    return waiting[0] > 0


def peer_has_closed(stream: trio.SocketStream) -> bool:
    """Whether the peer has closed its side, even if something of it was not read yet."""
    if stream.socket.family == trio.socket.AF_UNIX:
        return False
    info = stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return bytes(info)[:1] in (CLOSE_WAIT, CLOSED)


async def linger(stream: trio.SocketStream) -> None:
    """End the connection. To close with unread bytes pending would reset it and could take the answer with it."""
    await stream.send_eof()
    with trio.move_on_after(LINGER_S):
        while await stream.receive_some():
            pass
