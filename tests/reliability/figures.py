"""What is measured of a daemon from outside, and printed."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support import Daemon


def figure(name: str, text: str) -> None:
    print(f"\n[{name}] {text}")


def resident(daemon: Daemon) -> float:
    """MiB."""
    with open(f"/proc/{daemon.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def processor_s(daemon: Daemon) -> float:
    with open(f"/proc/{daemon.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def exchange(daemon: Daemon, data: bytes, patience: float = 8) -> tuple[bytes, float]:
    """What comes back until the daemon closes, and after how long."""
    started, answer = time.monotonic(), b""
    with socket.create_connection(daemon.host_port, timeout=patience) as client:
        with suppress(ConnectionError):
            client.sendall(data)
        with suppress(ConnectionError):
            while chunk := client.recv(65536):
                answer += chunk
    return answer, time.monotonic() - started
