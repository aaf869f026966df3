"""What all wires do with their sockets."""

from __future__ import annotations

import errno
import fcntl
import socket
import termios
from array import array

import trio

LINGER_S = 1.0


def watch_peer(stream: trio.SocketStream, ping_s: float) -> None:
    """Have the kernel end the connection where nothing acknowledges what is sent (tcp(7)), pings above all.

    That is a machine that is gone: a live one acknowledges, whatever its program does.
    """
    if stream.socket.family != trio.socket.AF_UNIX:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(ping_s * 1000))


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


async def linger(stream: trio.SocketStream) -> None:
    """End the connection. To close with unread bytes pending would reset it and could take the answer with it."""
    await stream.send_eof()
    with trio.move_on_after(LINGER_S):
        while await stream.receive_some():
            pass
