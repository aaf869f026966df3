"""Notify the service manager: the datagram protocol of sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send `state`, such as READY=1, to the service manager, if there is one. Does not block."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # a manager that does not read must not hold up all sessions
            channel.connect(address)
            channel.sendall(state.encode())
    except OSError as error:
        logger.warning("the service manager could not be notified of %s: %s", state, error)
