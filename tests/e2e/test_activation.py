"""Sockets that a service manager hands over, as sd_listen_fds(3) has it, without a service manager."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "sttd"])
"""


@contextmanager
def activated(listener: socket.socket, name: str, **extra: str) -> Iterator[subprocess.Popen[str]]:
    number = listener.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(number), name],
        pass_fds=[number],
        env=environment("/nonexistent", **extra),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_who_connects_before_the_daemon_starts_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as early:
        early.settimeout(30)
        early.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with activated(listener, "plain"):
            assert re.match(rb"HTTP/1.1 200 .*ok\n", early.recv(65536), re.DOTALL)


def test_a_burst_of_clients_before_the_daemon_starts_is_served_whole() -> None:
    with ExitStack() as open_ones, socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        clients = [
            open_ones.enter_context(socket.create_connection(listener.getsockname(), timeout=30)) for _ in range(60)
        ]
        for client in clients:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with activated(listener, "plain"):
            assert [client.recv(65536)[:12] for client in clients] == [b"HTTP/1.1 200"] * 60


def test_a_socket_for_wyoming_alone_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, activated(listener, "wyoming") as process:
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            client.sendall(b'{"type": "ping"}\n')
            assert b'"pong"' in client.recv(4096)
        assert process.poll() is None


def test_what_systemd_has_no_socket_for_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with activated(listener, "plain", STTD_WYOMING__LISTEN=f"127.0.0.1:{port}") as process:
            assert process.stdout is not None
            said = ""
            while "Try it" not in said:
                said += process.stdout.readline()
            assert re.findall(r"ws://[^ /]+", said) == [f"ws://127.0.0.1:{listener.getsockname()[1]}"] * 4
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b'{"type": "ping"}\n')
                assert b'"pong"' in client.recv(4096)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (socket.SOCK_STREAM, "tls", "is to speak TLS, which needs server.tls_cert"),
        (socket.SOCK_STREAM, "health", "needs a socket for sessions"),
        (socket.SOCK_DGRAM, "plain", "is not a listening stream socket"),
    ],
)
def test_a_socket_that_is_of_no_use_is_refused(kind: int, name: str, said: str) -> None:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            found.listen()
        with activated(found, name) as process:
            _output, errors = process.communicate(timeout=30)
    assert said in errors
    assert "Traceback" not in errors
    assert process.returncode in (69, 78)
