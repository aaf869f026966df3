"""Every limit, by a client that breaks it, and the metric that counts it."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from sttd.config.config import LimitsConfig
from sttd.http.admission import GRACE_S, Admission
from sttd.metrics import REGISTRY
from tests.net.inprocess import Running, running
from tests.net.test_front_door import UPGRADE
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("plugins")
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(name="plugins")
def with_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests/plugins"), *sys.path])


def hits(limit: str) -> float:
    return REGISTRY.get_sample_value("sttd_limits_hit_total", {"limit": limit}) or 0.0


@asynccontextmanager
async def counted(limit: str) -> AsyncIterator[None]:
    before = hits(limit)
    yield
    assert hits(limit) > before, f"{limit} is not counted"


@asynccontextmanager
async def client(server: Running, protocol: str = "json") -> AsyncIterator[WebSocketConnection]:
    path = {"json": "/ws/stt?codes=1", "ungated": "/ws/stt?gate=0&codes=1", "plain": "/api/v1/ws"}[protocol]
    # trio-websocket's own way to connect leaves the socket open when the server closes first.
    async with await server.connect() as stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, "localhost", path)
        nursery.cancel_scope.cancel()


async def told(connection: WebSocketConnection) -> tuple[list[dict[str, Any]], int, str]:
    """All events, the close code and its reason."""
    events = []
    with trio.fail_after(10), suppress(ConnectionClosed):
        while True:
            events.append(json.loads(await connection.get_message()))
    closed = connection.closed
    assert closed
    return events, closed.code, closed.reason or ""


@asynccontextmanager
async def serving(tmp_path: Path, **limits: Any) -> AsyncIterator[Running]:
    async with running(tmp_path, "moody", **limits) as server:
        yield server


@pytest.mark.parametrize("protocol", ["json", "plain"])
async def test_a_client_that_sends_nothing(tmp_path: Path, protocol: str) -> None:
    async with counted("idle_s"), serving(tmp_path, idle_s=0.5) as server, client(server, protocol) as idle:
        started = trio.current_time()
        for _message in range(3):
            await trio.sleep(0.3)
            await idle.send_message(bytes(640))
        events, code, reason = await told(idle)
        assert 1.2 < trio.current_time() - started < 3
        assert (code, reason) == (4408, "Nothing was sent for 0.5 s")
        error = {"type": "error", "message": reason, "code": "idle", "fatal": True}
        assert events == ([{"type": "ready"}, error] if protocol == "json" else [])


async def test_a_client_that_waits_for_its_text_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recognizer that takes three seconds, and a limit of half a second."""
    async with running(tmp_path, "stuck", idle_s=0.5, flush_s=20.0) as server, client(server, "ungated") as patient:
        await patient.send_message(bytes(64000))
        await patient.send_message('{"type": "eof"}')
        events, code, _reason = await told(patient)
        assert (events[-1]["type"], code) == ("final", 1000)


async def test_a_session_that_lasts(tmp_path: Path) -> None:
    async with counted("session_s"), serving(tmp_path, session_s=0.5) as server, client(server) as long:
        with trio.CancelScope() as talking:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, long)
                events, code, reason = await told(long)
                talking.cancel()
        assert (code, reason) == (4429, "A session lasts 0.5 s at most")
        assert (events[-1]["code"], events[-1]["fatal"]) == ("quota", True)


async def test_what_cannot_be_used_has_a_code_and_the_session_goes_on(tmp_path: Path) -> None:
    async with counted("text_bytes"), serving(tmp_path, text_bytes=100) as server, client(server) as clumsy:
        for message in ("what?", '{"type": "config", "words": "perhaps"}', '{"type": "config", "words": true}' * 9):
            await clumsy.send_message(message)
        await clumsy.send_message('{"type": "eof"}')
        events, code, _reason = await told(clumsy)
        assert [(event["code"], event["fatal"]) for event in events[1:]] == [
            ("bad_message", False),
            ("bad_option", False),
            ("bad_message", False),
        ]
        assert code == 1000


async def talk(connection: WebSocketConnection) -> None:
    while True:
        try:
            await connection.send_message(bytes(640))
        except ConnectionClosed:
            return
        await trio.sleep(0.02)


async def test_a_session_with_much_audio(tmp_path: Path) -> None:
    async with counted("audio_s"), serving(tmp_path, audio_s=2.0) as server, client(server) as talker:
        await talker.send_message(bytes(3 * 32000))
        assert (await told(talker))[1:] == (4429, "A session may send 2 s of audio")


async def test_a_client_that_is_faster_than_it_may_be(tmp_path: Path) -> None:
    """Thirty seconds of audio take twelve at this rate, less ten that may come at once."""
    async with counted("rate"), serving(tmp_path, rate=2.5) as server, client(server) as talker:
        started = trio.current_time()
        for _second in range(30):
            await talker.send_message(bytes(32000))
        await talker.send_message('{"type": "eof"}')
        assert (await told(talker))[1] == 1000
        assert 1.8 < trio.current_time() - started < 6


async def test_one_address_does_not_take_all_connections(tmp_path: Path) -> None:
    """127.0.0.1 itself is not counted: behind it may be a proxy."""
    async with counted("connections_per_address"), running(tmp_path, connections_per_address=2) as server:
        others = [await trio.open_tcp_stream(server.host, server.port, local_address="127.0.0.7") for _ in range(2)]
        await trio.sleep(0.1)
        async with await trio.open_tcp_stream(server.host, server.port, local_address="127.0.0.7") as third:
            assert (await third.receive_some()).startswith(b"HTTP/1.1 503")
        assert (await server.exchange(LIVEZ)).endswith(b"ok\n")
        for other in others:
            await other.aclose()


async def test_who_only_connects_makes_room_for_who_wants_something(tmp_path: Path) -> None:
    async with counted("half_open"), running(tmp_path, half_open=3, head_s=30.0) as server:
        silent = [await server.connect() for _ in range(3)]
        await trio.sleep(GRACE_S + 0.1)
        silent += [await server.connect() for _ in range(2)]
        for first in silent[:2]:
            with trio.fail_after(2):
                assert await first.receive_some() == b""
        assert (await server.exchange(LIVEZ)).endswith(b"ok\n")
        with trio.move_on_after(0.2) as scope:
            await silent[-1].receive_some()
        assert scope.cancelled_caught, "the newest are still there"
        for stream in silent:
            await stream.aclose()


async def test_a_crowd_from_one_address_makes_room_itself(tmp_path: Path) -> None:
    async with running(tmp_path, half_open=3, head_s=30.0) as server:
        oldest = await server.connect()
        crowd: list[trio.SocketStream] = []
        for _wave in range(2):
            crowd += [await trio.open_tcp_stream(server.host, server.port, local_address="127.0.0.7") for _ in range(2)]
            await trio.sleep(GRACE_S + 0.1)
        for first in crowd[:2]:
            with trio.fail_after(2):
                assert await first.receive_some() == b""
        with trio.move_on_after(0.2) as scope:
            await oldest.receive_some()
        assert scope.cancelled_caught, "it came first, but from elsewhere"
        for stream in (oldest, *crowd):
            await stream.aclose()


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
async def test_a_burst_of_clients_is_served_whole(tmp_path: Path, delay_s: float) -> None:
    """As after a restart: all connect at once, and the last one before the first one has been read."""
    async with running(tmp_path, connections=40, half_open=2) as server:
        streams = [await server.connect() for _ in range(40)]
        await trio.sleep(delay_s)
        for stream in streams:
            await stream.send_all(LIVEZ)
        for stream in streams:
            async with stream:
                with trio.fail_after(5):
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_what_was_sent_and_is_not_read_yet_is_no_silence(tmp_path: Path) -> None:
    """sttd was busy with something else while the clients spoke."""
    limits = LimitsConfig(half_open=1)
    admission, answered = Admission(limits), []

    async def one(unread: bool) -> None:
        with admission.half_open("10.0.0.1", 10.0, lambda: unread) as deadline:
            await trio.sleep(GRACE_S + 1)
        answered.append(not deadline.cancelled_caught)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, True)
        nursery.start_soon(one, False)
        await trio.sleep(GRACE_S + 0.1)
        nursery.start_soon(one, False)
    assert sorted(answered) == [False, True, True]


async def test_heads(tmp_path: Path) -> None:
    async with counted("head_s"), running(tmp_path, head_s=0.3) as server, await server.connect() as slow:
        assert await slow.receive_some() == b""
    async with counted("head_bytes"), running(tmp_path, head_bytes=2048) as server:
        assert (await server.exchange(b"GET / HTTP/1.1\r\nX: " + b"a" * 4000)).startswith(b"HTTP/1.1 431")
    async with counted("connections"), running(tmp_path, connections=1) as server, await server.connect():
        assert (await server.exchange(UPGRADE + b"\r\n")).startswith(b"HTTP/1.1 503")


@pytest.mark.parametrize(("limit", "ahead"), [("buffer_s", 1 << 20), ("ahead_bytes", 0)])
async def test_more_audio_than_is_decoded(tmp_path: Path, limit: str, ahead: int) -> None:
    """The recognizer takes three seconds; nothing is lost."""
    async with counted(limit), running(tmp_path, "stuck", buffer_s=1.0, ahead_bytes=ahead) as server:
        async with client(server, "ungated") as hasty:
            for _second in range(8):
                await hasty.send_message(bytes(32000))
            await hasty.send_message('{"type": "eof"}')
            events, code, _reason = await told(hasty)
        assert (events[-1]["type"], code) == ("final", 1000)


async def test_a_text_that_is_too_long(tmp_path: Path) -> None:
    async with counted("text_bytes"), serving(tmp_path, text_bytes=300) as server, client(server) as talker:
        await talker.send_message('{"type": "config", "language": "' + "x" * 300 + '"}')
        await talker.send_message('{"type": "eof"}')
        events, code, _reason = await told(talker)
        assert "more than 300 characters" in events[-1]["message"]
        assert code == 1000


async def test_what_is_refused_is_counted_by_its_reason(tmp_path: Path) -> None:
    def refused(reason: str) -> float:
        return REGISTRY.get_sample_value("sttd_rejected_connections_total", {"reason": reason}) or 0.0

    async with running(tmp_path) as server:
        before = refused("request"), refused("head")
        await server.exchange(UPGRADE.replace(b"/ws/stt", b"/elsewhere") + b"\r\n")
        await server.exchange(b"\x16\x03\x01 TLS at a port without\r\n\r\n")
        assert (refused("request"), refused("head")) == (before[0] + 1, before[1] + 1)
