"""Servers under test, each a process of its own on the loopback interface."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.corpus import ROOT, Missing, optional

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STARTING_S = 90


@dataclass(frozen=True)
class Server:
    """Where it answers, and its process."""

    address: str
    pid: int


def store() -> str:
    """The models' folder: the one that the tests fill, or that of STTD_MODELS__DIR."""
    return os.environ.get("STTD_MODELS__DIR", str(ROOT / ".cache/models"))


@contextmanager
def sttd(*arguments: str, **settings: str) -> Iterator[Server]:
    """A daemon that is ready."""
    environment = os.environ | {"STTD_MODELS__DIR": store(), "PYTHONUNBUFFERED": "1"} | settings
    command = [sys.executable, "-m", "sttd", "--listen", f"127.0.0.1:{free_port()}", *arguments]
    with running(command, environment) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"ws://([\d.]+:\d+)/ws/stt", line):
                wait(found[1], "/readyz")
                yield Server(found[1], process.pid)
                return
        raise Missing(f"a daemon that starts: {''.join(lines)}")


@contextmanager
def fastapi_sample(model: Path) -> Iterator[Server]:
    """See bench/peers."""
    for package in ("fastapi", "uvicorn"):
        if optional(package) is None:
            raise Missing(f"the package {package}")
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "bench.peers.fastapi_sample", str(model), address.rpartition(":")[2]]
    with running(command, dict(os.environ)) as process:
        wait(address, "/")
        yield Server(address, process.pid)


@contextmanager
def sink() -> Iterator[Server]:
    """See bench/peers."""
    address = f"127.0.0.1:{free_port()}"
    with running([sys.executable, "-m", "bench.peers.sink", address.rpartition(":")[2]], dict(os.environ)) as process:
        wait(address, "/", 400)  # it takes nothing but WebSockets
        yield Server(address, process.pid)


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def get(address: str, path: str) -> int:
    """The status of a plain request."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int(client.recv(4096).split()[1])


def wait(address: str, path: str, *statuses: int) -> None:
    """Until it answers that all is well, or with one of the statuses."""
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        try:
            if get(address, path) in (200, 404, *statuses):
                return
        except (OSError, IndexError):
            pass
        time.sleep(0.1)
    raise Missing(f"an answer of {address}")
