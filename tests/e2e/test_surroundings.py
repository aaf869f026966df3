"""What a daemon is started in: streams that are closed or that nobody reads, terminals that go away."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support import environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COMMAND = (sys.executable, "-m", "sttd", "--listen", "127.0.0.1:0", "--log-level", "debug")


@contextmanager
def started(
    models: Path, command: Sequence[str] = COMMAND, **streams: int | IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment(models), **streams)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def url_of(output: IO[bytes]) -> str:
    for line in output:
        if found := re.search(rb"ws://[\d.]+:\d+/ws/stt", line):
            return found[0].decode()
    raise AssertionError("sttd did not say where it listens")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serves(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def waited(child: int) -> int:
    """The status with which a child ends, within 20 s."""
    status: list[tuple[int, int]] = []

    def ended() -> bool:
        status.append(os.waitpid(child, os.WNOHANG))
        return status[-1][0] == child

    wait_until(ended, 20, "the daemon to end")
    return status[-1][1]


def answered(url: str) -> bool:
    with suppress(InvalidStatus):
        return greeted(url)
    return False


def greeted(url: str) -> bool:
    with connect(url, compression=None) as client:
        return client.recv(20) == '{"type": "ready"}'


def test_a_log_that_nobody_reads_stops_no_session(models: Path) -> None:
    with started(models, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = url_of(process.stdout)
        assert all(greeted(url) for _number in range(400))  # some 400 bytes each; a pipe holds 64 KiB
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_standard_streams(models: Path, closed: tuple[int, ...]) -> None:
    """It serves, and ends with 0."""
    closing = " ".join(f"{number}>&-" for number in closed)
    port = free_port()
    command = f"exec {shlex.join(COMMAND[:3])} --listen 127.0.0.1:{port} --log-level debug {closing}"
    with started(models, ("sh", "-c", command)) as process:
        wait_until(lambda: process.poll() is not None or serves(port), 30, "sttd")
        assert greeted(f"ws://127.0.0.1:{port}/ws/stt")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def in_terminal(models: Path, *command: str) -> tuple[int, int]:
    """Start a command in a terminal of its own: its process and the terminal's other end."""
    child, terminal = pty.fork()
    if not child:
        os.execve(command[0], command, environment(models))
    return child, terminal


def test_a_terminal_that_goes_away_ends_the_daemon_that_was_started_in_it(models: Path) -> None:
    child, terminal = in_terminal(models, *COMMAND)
    said = b""
    while b"Try it" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(waited(child)) == 0


def test_nohup_outlives_the_terminal(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    child, terminal = in_terminal(
        models, "/usr/bin/env", "nohup", "sh", "-c", f"exec {shlex.join(COMMAND)} >{log} 2>&1"
    )
    wait_until(lambda: log.exists() and b"Try it" in log.read_bytes(), 30, "sttd")
    os.close(terminal)
    wait_until(lambda: b"reloaded" in log.read_bytes(), 10, "the SIGHUP to be taken for a reload")
    with log.open("rb") as output:
        assert greeted(url_of(output))
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(waited(child)) == 0


def test_more_connections_than_open_files_are_refused_and_the_sessions_go_on(models: Path) -> None:
    command = (*COMMAND, "--set", "limits.connections=1000")
    limited = ("sh", "-c", f"ulimit -n 80; exec {shlex.join(command)} 2>&1")
    with started(models, limited, stdout=subprocess.PIPE) as process, ExitStack() as clients:
        assert process.stdout is not None
        wanted = "limits.connections = 1000 needs 1048 open files, and this process may have 80: serving at most 32"
        said, found = "", None
        while wanted not in said or found is None:  # in any order; the test's timeout ends it
            line = process.stdout.readline().decode()
            assert line, said
            said += line
            found = found or re.search(r"ws://[\d.]+:\d+/ws/stt", line)
        url = found[0]
        first = clients.enter_context(connect(url, compression=None))
        assert first.recv(20) == '{"type": "ready"}'
        address = ("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        crowd = [clients.enter_context(socket.create_connection(address)) for _number in range(150)]
        for client in crowd:
            client.sendall(b"GET /ws/stt HTTP/1.1\r\nHost: x\r\n")  # and no more
        first.send('{"type": "flush"}')
        first.send("no JSON")
        assert "error" in str(first.recv(20))
        for client in crowd:
            client.close()
        wait_until(lambda: answered(url), 20, "room for another session")
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read().decode()
        assert "Traceback" not in rest
        assert "Too many open files" not in rest
