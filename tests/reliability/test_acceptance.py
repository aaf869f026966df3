"""The acceptance figures, A1 to A18, each against the real process; `make reliability` prints them.

What is tested elsewhere too is tested here from outside, with the figure that it is judged by. docs/reliability.md has
the table, and where A12 to A15, A17 and A18 are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Self

import pytest
from websockets.exceptions import ConnectionClosed

from tests.net.test_front_door import HOSTILE, UPGRADE
from tests.reliability.figures import exchange, figure, processor_s, resident
from tests.support import (
    ROOT,
    Clip,
    Daemon,
    at_16k_mono,
    environment,
    finals,
    frame,
    json_events,
    pieces,
    running_daemon,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(1200)]
PLUGINS = f"{ROOT / 'tests' / 'plugins'}:{':'.join(sys.path)}"
ROOMY = ("--set", "limits.connections=700", "--set", "limits.half_open=600")


def told(client: ClientConnection) -> list[dict[str, Any]]:
    """Everything until the Close, whatever its code. A call has ten seconds and more before it counts as hanging."""
    events = []
    with suppress(ConnectionClosed):
        while True:
            events.append(json.loads(client.recv(30)))
    return events


class Live:
    """A session that goes on while something else happens; its text must be what it is without that."""

    def __init__(self, daemon: Daemon, pcm: bytes, seconds: float) -> None:
        self._daemon = daemon
        self._pcm = pcm
        self._until = time.monotonic() + seconds
        self.texts: set[str] = set()
        self.rounds = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while time.monotonic() < self._until or not self.rounds:
            with self._daemon.json(partials=0) as client:
                for piece in pieces(self._pcm):
                    client.send(piece)
                    time.sleep(0.02)
                client.send('{"type": "eof"}')
                self.texts.add(" ".join(finals([json.loads(message) for message in client])))
            self.rounds += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._until = 0
        self._thread.join()


@pytest.fixture(scope="module")
def daemon(models: Path) -> Iterator[Daemon]:
    with running_daemon(models, *ROOMY) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def speech(two_cities: Clip, daemon: Daemon) -> bytes:
    pcm = at_16k_mono(two_cities)[: 7 * 32000]
    with daemon.json(partials=0) as client:
        assert finals(json_events(client, pcm))
    return pcm


@pytest.fixture(scope="module")
def expected(daemon: Daemon, speech: bytes) -> str:
    with daemon.json(partials=0) as client:
        return " ".join(finals(json_events(client, speech)))


@pytest.fixture(autouse=True)
def nothing_left(daemon: Daemon, speech: bytes) -> Iterator[None]:
    """After each test the daemon has as many files, threads and sessions as before."""
    time.sleep(0.2)
    files = daemon.files()
    yield
    wait_until(lambda: daemon.status()["sessions"] == 0, 15, "sessions to end")
    wait_until(lambda: daemon.files() <= files, 15, "files to be closed")
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log()


def test_a01_autobahn(tmp_path: Path) -> None:
    program = shutil.which("kosoku", path=os.path.dirname(sys.executable)) or shutil.which("kosoku")
    if program is None:
        pytest.skip("kosoku is missing")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.echo"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        skipped = [word for group in ("9.*", "12.*", "13.*") for word in ("-x", group)]
        started = time.monotonic()
        done = subprocess.run(
            [program, "-p", "4", *skipped, "-o", str(tmp_path), address],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        took = time.monotonic() - started
    finally:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()
    (index,) = tmp_path.rglob("index.json")
    (results,) = json.loads(index.read_text()).values()
    behaviors = [result["behavior"] for result in results.values()]
    counts = {name: behaviors.count(name) for name in sorted(set(behaviors))}
    figure("A1", f"{len(behaviors)} Autobahn cases in {took:.0f} s: {counts}")
    assert len(behaviors) == 247, done.stdout[-2000:]
    assert not {"FAILED", "ERROR", "UNIMPLEMENTED"} & set(behaviors)
    assert counts.get("NON-STRICT", 0) <= 10


def test_a02_hostile_heads(daemon: Daemon) -> None:
    slowest = 0.0
    for name, data in HOSTILE.items():
        answer, took = exchange(daemon, data + frame(8, b""))
        slowest = max(slowest, took)
        assert took < 7, name
        assert answer == b"" or answer[:10] in (b"HTTP/1.1 1", b"HTTP/1.1 4"), (name, answer[:80])
    figure("A2", f"{len(HOSTILE)} hostile heads, all answered or cut; the slowest after {slowest:.1f} s")
    assert len(HOSTILE) >= 40


def test_a03_plain_requests(daemon: Daemon) -> None:
    times = sorted(
        exchange(daemon, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")[1] for _ in range(100)
    )
    figure("A3", f"100 GET /livez: median {1000 * times[50]:.1f} ms, slowest {1000 * times[-1]:.1f} ms (goal 100)")
    assert times[-1] < 0.1


def test_a04_half_open_connections(daemon: Daemon, speech: bytes, expected: str) -> None:
    pings = []
    with Live(daemon, speech, 7) as live, ExitStack() as stack:
        started = time.monotonic()
        silent, since = [], []
        for _number in range(500):
            silent.append(stack.enter_context(socket.create_connection(daemon.host_port)))
            since.append(time.monotonic())
        for client in silent[::2]:
            client.sendall(b"GET / HTTP/1.1\r\nX")
        ends = []
        while time.monotonic() - started < 5.5:
            before = time.monotonic()
            assert daemon.get("/livez") == (200, "ok\n")
            pings.append(time.monotonic() - before)
            time.sleep(0.02)
        for client, began in zip(silent, since, strict=True):
            client.settimeout(3)
            with suppress(ConnectionError):
                assert client.recv(10) == b""
            ends.append(time.monotonic() - began)
    p99 = quantiles(pings, n=100)[98]
    figure("A4", f"500 half-open connections cut by {max(ends):.1f} s; /livez p99 {1000 * p99:.1f} ms meanwhile")
    assert max(ends) < 7
    assert p99 < 0.25
    assert live.texts == {expected}


def test_a05_a_client_that_does_not_read() -> None:
    settings = ("--set", "limits.send_s=2", "--provider", "chatty")
    with running_daemon("/nonexistent", *settings, PYTHONPATH=PLUGINS) as chatty:
        before = resident(chatty)
        deaf = socket.create_connection(chatty.host_port)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(UPGRADE.replace(b"/ws/stt", b"/api/v1/ws") + b"\r\n")
        with open(ROOT / "src/sttd/sample.wav", "rb") as file:
            deaf.sendall(frame(2, file.read()[44:]) + frame(1, b'{"type": "flush"}'))
        started = time.monotonic()
        wait_until(lambda: "took no data" in chatty.log(), 20, "the client to be cut")
        took = time.monotonic() - started
        wait_until(lambda: chatty.status()["sessions"] == 0, 5, "its session to end")
        figure(
            "A5", f"cut {took:.1f} s after it stopped reading (limit 2 s); memory +{resident(chatty) - before:.1f} MiB"
        )
        deaf.close()
        assert took < 10
        assert resident(chatty) - before < 30


@pytest.mark.parametrize(
    ("name", "data", "expected_code"),
    [
        ("404", UPGRADE.replace(b"/ws/stt", b"/elsewhere") + b"\r\n", b"404"),
        ("426", UPGRADE.replace(b"Version: 13", b"Version: 8") + b"\r\n", b"426"),
        ("403", UPGRADE + b"Origin: https://evil.example\r\n\r\n", b"403"),
        ("431", UPGRADE + b"X: " + b"a" * 100_000, b"431"),
        ("1002", UPGRADE + b"\r\n" + frame(3, b""), b"101"),
        ("1007", UPGRADE + b"\r\n" + frame(1, b"\xff"), b"101"),
        ("1008", UPGRADE.replace(b"/ws/stt", b"/ws/stt?nonsense=1") + b"\r\n", b"101"),
    ],
)
def test_a06_the_socket_is_closed_after_a_rejection(
    daemon: Daemon, name: str, data: bytes, expected_code: bytes
) -> None:
    """The peer does nothing: it neither closes nor answers a Close frame."""
    answer, took = exchange(daemon, data, 12)
    figure("A6", f"{name}: closed after {took:.1f} s")
    assert answer.split()[1] == expected_code
    assert took < 7


@pytest.mark.parametrize("name", ["fragments", "pings", "empty messages"])
def test_a07_floods(daemon: Daemon, name: str) -> None:
    floods = {"fragments": frame(0, b"", fin=False), "pings": frame(9, b""), "empty messages": frame(2, b"")}
    data = UPGRADE + b"\r\n" + (frame(2, b"", fin=False) if name == "fragments" else b"") + floods[name] * 300_000
    before, started = processor_s(daemon), time.monotonic()
    with suppress(TimeoutError):
        exchange(daemon, data, 5)
    used = processor_s(daemon) - before
    figure("A7", f"{name}: {used:.2f} s of processor time, over after {time.monotonic() - started:.1f} s")
    assert used < 1


def test_a08_idle_sessions(daemon: Daemon) -> None:
    with ExitStack() as stack:
        for _number in range(20):
            stack.enter_context(daemon.json())
        wait_until(lambda: daemon.status()["sessions"] == 20, 10, "the first")
        before = resident(daemon)
        for _number in range(200):
            stack.enter_context(daemon.json())
        wait_until(lambda: daemon.status()["sessions"] == 220, 20, "all of them")
        each = (resident(daemon) - before) * 1024 / 200
    figure("A8", f"{each:.0f} KiB for an idle session (goal 64)")
    assert each < 64


def test_a10_stopping(models: Path, speech: bytes) -> None:
    with running_daemon(models) as idle:
        started = time.monotonic()
        idle.process.send_signal(signal.SIGTERM)
        assert idle.process.wait(10) == 0
        quick = time.monotonic() - started
    with running_daemon(models) as busy, ExitStack() as stack:
        clients = [stack.enter_context(busy.json(partials=0)) for _ in range(6)]
        for client in clients:
            for piece in pieces(speech):
                client.send(piece)
        time.sleep(1)
        started = time.monotonic()
        busy.process.send_signal(signal.SIGTERM)
        told = sum(bool(finals([json.loads(message) for message in client])) for client in clients)
        assert busy.process.wait(40) == 0
        took = time.monotonic() - started
    figure("A10", f"idle: ended after {quick:.2f} s; 6 busy sessions: {told} got their text, ended after {took:.1f} s")
    assert quick < 1
    assert told == 6
    assert took < 30


def test_a11_recognizers_that_fail(speech: bytes) -> None:
    for provider, said in (("moody", "two seconds are too much"), ("garbled", "returned no text, but int")):
        with running_daemon("/nonexistent", "--provider", provider, PYTHONPATH=PLUGINS) as failing:
            with failing.json(gate=0) as other, failing.json(gate=0) as client:
                client.send(bytes(64000))
                client.send('{"type": "flush"}')
                events = told(client)
                assert events[-1]["type"] == "error"
                assert said in events[-1]["message"]
                assert client.close_code == 1011
                other.ping().wait(2)
                if provider == "moody":
                    assert finals(json_events(other, bytes(32000))) == ["1.0 seconds"]
            wait_until(lambda: failing.status()["sessions"] == 0, 5, "sessions to end")
    settings = ("--set", "limits.flush_s=1", "--set", "server.drain_s=1")
    with running_daemon("/nonexistent", "--provider", "hanging", *settings, PYTHONPATH=PLUGINS) as hanging:
        with hanging.json(gate=0) as client:
            client.send(bytes(32000))
            client.send('{"type": "eof"}')
            events = told(client)
        assert "No progress" in events[-1]["message"]
        assert client.close_code == 1011
        hanging.process.send_signal(signal.SIGTERM)
        assert hanging.process.wait(10) == 0, "a call that hangs keeps nobody from stopping"
    figure("A11", "a recognizer that raises, that returns no text, that hangs: the client is told, the others go on")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", tmp_path], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sttd", "models", "pull", "tiny.en"],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        left = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    figure("disk full", f"exit code {done.returncode}, {left} bytes left behind: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
    assert left < 10_000


def test_a16_units() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    unit = ROOT / "systemd/sttd.service"
    worst = 0.0
    for drop_in in (None, *sorted((ROOT / "systemd/sttd.service.d").glob("*.conf"))):
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            shutil.copy(unit, folder)
            if drop_in:
                os.mkdir(f"{folder}/sttd.service.d")
                shutil.copy(drop_in, f"{folder}/sttd.service.d")
            done = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", "--threshold=15", f"{folder}/sttd.service"],
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, drop_in
        found = re.search(r"level for sttd.service: ([\d.]+)", done.stdout)
        assert found
        worst = max(worst, float(found[1]))
    figure("A16", f"systemd-analyze security: {worst} at worst, with any drop-in (goal 1.5)")
