"""Limits that a peer runs into below the protocols: each ends what it should, and is counted."""

from __future__ import annotations

import math
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from sttd.config.config import Config
from sttd.engines.base import Calls
from sttd.http.admission import machine_of
from sttd.metrics import REGISTRY
from sttd.providers.base import Provider
from sttd.server import Daemon
from tests.net.inprocess import Running, running
from tests.net.test_front_door import UPGRADE
from tests.net.test_limits import LIVEZ, client, counted, hits, told
from tests.support import ROOT, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HANGS_S = 3
PING, CLOSE, BINARY, TEXT = 9, 8, 2, 1


@pytest.fixture(autouse=True)
def with_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STTD_TEST_HANGS_S", str(HANGS_S))
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests/plugins"), *sys.path])


@asynccontextmanager
async def raw(server: Running, path: bytes = b"/ws/stt?gate=0") -> AsyncIterator[trio.SocketStream]:
    """A peer that does nothing by itself."""
    async with await server.connect() as stream:
        await stream.send_all(UPGRADE.replace(b"/ws/stt", path) + b"\r\n")
        head = await stream.receive_some()
        assert head.startswith(b"HTTP/1.1 101 "), head
        with trio.fail_after(15):
            yield stream


async def end(stream: trio.SocketStream) -> None:
    """Read until the daemon is gone."""
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


def ended(code: str) -> float:
    labels = {"protocol": "json", "provider": "moody", "code": code}
    return REGISTRY.get_sample_value("sttd_sessions_ended_total", labels) or 0.0


async def test_a_message_that_is_too_long(tmp_path: Path) -> None:
    async with running(tmp_path, "moody", message_bytes=20_000) as server:
        for data in (frame(BINARY, bytes(20_001)), frame(TEXT, b"x" * 20_001)):
            before = ended("1009")
            async with counted("message_bytes"), raw(server) as peer:
                await peer.send_all(data)
                await end(peer)
            assert ended("1009") == before + 1
        hit = hits("message_bytes")
        async with raw(server) as peer:
            await peer.send_all(frame(CLOSE, b"\x03\xf1"))
            await end(peer)
        assert hits("message_bytes") == hit, "this one says 1009 itself"


async def test_a_flood(tmp_path: Path) -> None:
    async with running(tmp_path, "moody") as server, counted("flood"), raw(server) as peer:
        with suppress(trio.BrokenResourceError):
            await peer.send_all(frame(PING, b"") * 10_000)
        await end(peer)


async def test_a_peer_that_does_not_read(tmp_path: Path) -> None:
    async with running(tmp_path, "chatty", send_s=0.3) as server, counted("send_s"), raw(server) as peer:
        for _utterance in range(8):
            await peer.send_all(frame(BINARY, bytes(3200)) + frame(TEXT, b'{"type": "flush"}'))
        with trio.fail_after(10):
            while server.daemon.sessions:  # noqa: ASYNC110 - a set has no event
                await trio.sleep(0.05)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_peer_is_pinged_regularly_and_stays_without_an_answer(tmp_path: Path, *, streaming: bool) -> None:
    """Clients of Node's ws leave where no ping comes; Python's websocket-client answers only while it reads."""
    async with running(tmp_path, "moody", ping_s=0.1) as server, raw(server) as peer:
        received = b""
        with trio.fail_after(10):
            while len(received) < 19 + 10 * 6:
                if streaming:
                    await peer.send_all(frame(BINARY, bytes(320)))
                received += await peer.receive_some()
        assert re.fullmatch(rb'\x81\x11{"type": "ready"}(\x89\x04.{4})*(\x89.{0,4})?', received, re.DOTALL)
        assert server.daemon.sessions
        await peer.send_all(frame(8, b""))
        await end(peer)


async def test_a_peer_that_does_not_answer_a_close(tmp_path: Path) -> None:
    """What sttd has said is what counts, in the metrics too."""
    before = ended("4408")
    async with running(tmp_path, "moody", close_s=0.2, idle_s=0.3) as server, counted("close_s"), raw(server) as peer:
        await end(peer)
        await server.settle()
    assert ended("4408") == before + 1


async def test_a_call_that_hangs_ends_its_session_with_a_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here for three seconds, in which the Close has come already; for ever in test_a11."""
    monkeypatch.setattr("sttd.engines.base.TIMES_AUDIO", 0.0)
    monkeypatch.setattr("sttd.engines.base.TIMEOUT_S", 0.2)
    async with counted("flush_s"), running(tmp_path, "hanging", flush_s=0.5) as server:
        async with client(server, "ungated") as talker:
            started = trio.current_time()
            for _second in range(30):  # more than the queues hold
                await talker.send_message(bytes(32000))
                await talker.send_message('{"type": "flush"}')
            await talker.send_message('{"type": "eof"}')
            events, code, _reason = await told(talker)
        assert (events[-1]["code"], events[-1]["fatal"], code) == ("stalled", True, 1011)
        assert server.daemon._lag() == 0, "who is gone keeps nobody out"
        assert trio.current_time() - started < HANGS_S
        assert server.daemon.sessions, "the call goes on"


async def test_a_plugin_s_call_has_the_time_that_an_engine_s_has(tmp_path: Path) -> None:
    """It takes three seconds, six times as long as a session waits without a sign of progress."""
    async with running(tmp_path, "stuck", flush_s=0.5) as server, client(server, "ungated") as talker:
        await talker.send_message(bytes(3200))
        await talker.send_message('{"type": "eof"}')
        events, code, _reason = await told(talker)
    assert (events[-1]["text"], code) == ("at last", 1000)


async def test_a_machine_that_does_not_keep_up(tmp_path: Path) -> None:
    async with running(tmp_path, "stuck", lag_s=0.5) as server, client(server, "ungated") as talker:
        for _utterance in range(2):
            await talker.send_message(bytes(32000))
            await talker.send_message('{"type": "flush"}')
        with trio.fail_after(5):
            while server.daemon._lag() <= 0.5:  # noqa: ASYNC110 - a sum has no event
                await trio.sleep(0.02)
        async with counted("lag_s"):
            assert (await server.exchange(UPGRADE + b"\r\n")).startswith(b"HTTP/1.1 503")


async def test_messages_without_audio_keep_nobody_out(tmp_path: Path) -> None:
    """While a recognizer takes three seconds, a client sends what is no audio; it is bounded, and no lag."""
    texts = [b'{"type": "config", "words": true}', b'{"type": "config", "words": false}', b'{"type": "flush"}']
    async with running(tmp_path, "stuck", lag_s=0.5) as server, raw(server) as peer:
        await peer.send_all(frame(BINARY, bytes(3200)) + frame(TEXT, b'{"type": "flush"}'))
        await peer.send_all(b"".join(frame(TEXT, text) for text in texts * 200))
        await trio.sleep(0.5)
        assert server.daemon._lag() == 0
        async with raw(server):
            pass


async def test_texts_are_bounded_by_what_they_take_in_memory(tmp_path: Path) -> None:
    """Of texts that become large when they are parsed few are taken while the recognizer is busy."""
    large = b'{"type": "config", "x": [' + b"{}," * 5000 + b"{}]}"
    async with running(tmp_path, "stuck", ahead_bytes=0) as server, raw(server) as peer:
        await peer.send_all(frame(BINARY, bytes(3200)) + frame(TEXT, b'{"type": "flush"}'))
        with trio.move_on_after(1):
            for _text in range(2000):
                await peer.send_all(frame(TEXT, large))
        (session,) = server.daemon.sessions
        assert len(session._commands) < 10


async def test_a_stop_that_takes_too_long(tmp_path: Path) -> None:
    async with counted("drain_s"), running(tmp_path, "stuck", drain_s=0.3) as server, raw(server) as peer:
        await peer.send_all(frame(BINARY, bytes(3200)) + frame(TEXT, b'{"type": "flush"}'))
        await trio.sleep(0.2)
        server.daemon.drain()
        await end(peer)


async def test_a_call_that_hangs_while_the_daemon_stops(tmp_path: Path) -> None:
    async with running(tmp_path, "hanging", drain_s=1.0) as server, client(server, "ungated") as talker:
        await talker.send_message(bytes(3200))
        await talker.send_message('{"type": "flush"}')
        await trio.sleep(0.2)
        server.daemon.drain()
        events, code, _reason = await told(talker)
        assert (events[-1]["code"], code) == ("stalled", 1011)


async def test_who_was_let_in_is_answered_when_the_daemon_stops(tmp_path: Path) -> None:
    async with running(tmp_path, "moody") as server, await server.connect() as slow, await server.connect() as talker:
        await slow.send_all(LIVEZ[:10])
        await talker.send_all(UPGRADE[:10])
        await trio.sleep(0.1)
        server.daemon.drain()
        await trio.sleep(0.1)
        await slow.send_all(LIVEZ[10:])
        await talker.send_all(UPGRADE[10:] + b"\r\n")
        assert (await slow.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert (await talker.receive_some()).startswith(b"HTTP/1.1 101 ")
        answer = b""
        while chunk := await talker.receive_some():
            answer += chunk
        assert b"\x03\xe9sttd is stopping" in answer


async def test_a_session_without_a_model_is_told_why_it_ends(tmp_path: Path) -> None:
    async with running(tmp_path, "vosk", idle_s=0.3) as server, client(server) as idle:
        events, code, _reason = await told(idle)
    assert [event["code"] for event in events] == ["no_model", "idle"]
    assert code == 4408


@pytest.mark.parametrize(
    ("address", "machine"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("", ""),
        ("?", "?"),
    ],
)
def test_what_counts_as_one_machine(address: str, machine: str) -> None:
    assert machine_of(address) == machine


async def test_a_reload_tells_the_service_manager_nothing_before_the_start_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY would end the start before the model has decoded anything."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr("sttd.ops.logs.set_up", lambda _config: None)
        Daemon(Config(provider="moody")).reload()
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
        async with running(tmp_path, "moody") as server:
            while b"READY=1" not in manager.recv(4096):
                pass
            server.daemon.reload()
            assert manager.recv(4096).startswith(b"RELOADING=1")
            assert manager.recv(4096) == b"READY=1"
            server.daemon.drain()
            server.daemon.reload()
            with pytest.raises(BlockingIOError):
                manager.recv(4096)


async def test_a_slow_machine_is_not_a_stuck_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than `flush_s` and `drain_s` is waited for where everything takes so long."""
    monkeypatch.setattr(Provider, "slowness", 20.0)
    async with running(tmp_path, "stuck", flush_s=0.5, drain_s=0.5) as server:
        for ending in (frame(TEXT, b'{"type": "eof"}'), b""):
            async with raw(server) as peer:
                await peer.send_all(frame(BINARY, bytes(3200)) + ending)
                if not ending:
                    await trio.sleep(0.2)
                    server.daemon.drain()
                answer = b""
                while b"at last" not in answer and (chunk := await peer.receive_some()):
                    answer += chunk
                assert b"at last" in answer


def test_time_limits_follow_the_warm_up() -> None:
    calls = Calls()
    calls.warm_up(5.0, lambda: None)
    assert calls.slowness == 1.0
    calls.warm_up(0.01, lambda: time.sleep(0.1))
    assert 30 <= calls.slowness < 300
    calls.timed(1.0, lambda: None)
    with ThreadPoolExecutor(1) as thread:
        go = threading.Event()
        hanging = thread.submit(calls.timed, 0.0, go.wait)
        while calls.overdue_s() == -math.inf:
            time.sleep(0.01)
        assert calls.overdue_s() < -200
        go.set()
        hanging.result()
