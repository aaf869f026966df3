"""A WebSocket as a session sees it, with peers that end it at odd moments; and faults behind the front door."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from wsproto.utilities import LocalProtocolError

from sttd.config.config import AccessConfig, LimitsConfig
from sttd.events import Ending
from sttd.http.access import Access
from sttd.http.admission import Admission
from sttd.http.front_door import FrontDoor, Rules
from sttd.http.routes import Routes
from sttd.wires.base import Disconnected, Outcome, Received
from sttd.wires.websocket import ReplayStream, WebSocket
from tests.net.test_front_door import UPGRADE
from tests.support import frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handle = Callable[[WebSocket], Awaitable[None]]


def door(handle: Handle, **limits: float) -> FrontDoor:
    async def upgrade(_query: str, websocket: WebSocket) -> None:
        await handle(websocket)

    given = LimitsConfig(**limits)  # type: ignore[arg-type]
    rules = Rules(given, Access(AccessConfig()))
    return FrontDoor(rules, Routes((), ()), {"/ws/stt": upgrade}, Admission(given))


@asynccontextmanager
async def served(handle: Handle, **limits: float) -> AsyncIterator[trio.SocketStream]:
    """The peer's end of a connection that was upgraded."""
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(theirs) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(door(handle, **limits).serve, trio.SocketStream(ours))
        await peer.send_all(UPGRADE + b"\r\n")
        assert (await peer.receive_some()).startswith(b"HTTP/1.1 101 ")
        with trio.fail_after(10):
            yield peer


async def test_a_peer_that_breaks_the_protocol_while_its_text_is_made() -> None:
    done = trio.Event()

    async def handle(websocket: WebSocket) -> None:
        with pytest.raises(Disconnected):
            await websocket.receive()
        with pytest.raises(Disconnected):
            await websocket.send("text")
        assert websocket.outcome.code == "1002"
        done.set()

    async with served(handle) as peer:
        await peer.send_all(frame(3, b"there is no such frame"))
        await done.wait()


async def test_a_peer_that_answers_pings_stays() -> None:
    async def handle(websocket: WebSocket) -> None:
        assert await websocket.receive() == Received("hello")
        await websocket.close(Ending.DONE)

    async with served(handle, ping_s=0.2) as peer:
        for _round in range(2):
            ping = await peer.receive_some()
            assert ping[0] == 0x89
            await peer.send_all(frame(10, bytes(ping[2:])))
        await peer.send_all(frame(1, b"hello"))
        while (answer := await peer.receive_some())[0] == 0x89:
            pass
        assert answer[0] == 0x88


async def test_a_peer_that_does_not_read_is_cut_though_nothing_is_received() -> None:
    done = trio.Event()

    async def handle(websocket: WebSocket) -> None:
        with suppress(Disconnected):
            while True:
                await websocket.send("x" * 100_000)
        done.set()

    async with served(handle, send_s=0.2):
        await done.wait()


async def test_a_pause_ends_when_no_more_is_to_be_received() -> None:
    done = trio.Event()

    async def handle(websocket: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.pause, trio.current_time() + 100)
            await trio.testing.wait_all_tasks_blocked()
            websocket.stop()
        await websocket.pause(trio.current_time() + 100)
        assert await websocket.receive() is None
        done.set()

    async with served(handle):
        await done.wait()


async def test_a_peer_that_breaks_the_protocol_before_the_handshake_is_answered() -> None:
    async def handle(_websocket: WebSocket) -> None:
        raise AssertionError

    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(theirs) as peer:
        await peer.send_all(UPGRADE + b"\r\n")
        theirs.shutdown(socket.SHUT_RDWR)
        with trio.fail_after(5):
            await door(handle).serve(trio.SocketStream(ours))


async def test_a_fault_of_sttds_own_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(_websocket: WebSocket) -> None:
        raise ZeroDivisionError

    async with served(handle) as peer:
        assert await peer.receive_some() == b""
    assert "a connection ended by a fault in sttd" in caplog.text


async def test_a_peer_that_is_gone_before_it_is_looked_at() -> None:
    async def handle(_websocket: WebSocket) -> None:
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _address = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()  # with a reset: the socket has no peer any more
    with trio.fail_after(5):
        await door(handle).serve(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))


async def test_replay_keeps_the_rules_of_streams() -> None:
    async def pair() -> tuple[ReplayStream, trio.abc.Stream]:
        one, other = trio.testing.memory_stream_pair()
        return ReplayStream(b"", one), other

    await trio.testing.check_two_way_stream(pair, None)
    stream = ReplayStream(b"first", trio.testing.memory_stream_pair()[0])
    with pytest.raises(ValueError, match="at least 1"):
        await stream.receive_some(0)
    assert await stream.receive_some(2) == b"fi"


@pytest.mark.parametrize(
    "data",
    [frame(9, b"still there?"), frame(10, b""), frame(1, b"text"), frame(2, bytes(99)), frame(3, b"")],
    ids=["ping", "pong", "text", "audio", "nonsense"],
)
async def test_what_crosses_the_close_does_no_harm(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Clients send what they like as long as they have not read the Close frame."""

    found = []

    async def handle(websocket: WebSocket) -> None:
        await websocket.close(Ending.DONE)
        found.append(websocket.outcome)

    async with served(handle, close_s=2) as peer:
        assert (await peer.receive_some())[0] == 0x88
        await peer.send_all(data)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with suppress(trio.BrokenResourceError) if data == frame(3, b"") else nullcontext():  # that ends it at once
            await peer.send_all(frame(8, b"\x03\xe8"))
            assert await peer.receive_some() == b""
    assert found == [Outcome("1000")]
    assert not caplog.records


async def test_a_ping_of_which_half_had_come_before_the_close(caplog: pytest.LogCaptureFixture) -> None:
    ping = frame(9, b"still there?")
    begun = trio.Event()

    async def handle(websocket: WebSocket) -> None:
        await begun.wait()
        await websocket.close(Ending.DONE)

    async with served(handle, close_s=2) as peer:
        await peer.send_all(ping[:9])
        await trio.testing.wait_all_tasks_blocked(0.05)
        begun.set()
        assert (await peer.receive_some())[0] == 0x88
        await peer.send_all(ping[9:])
        with suppress(trio.BrokenResourceError):
            assert await peer.receive_some() == b""
    assert not caplog.records


async def test_a_close_after_the_peer_has_broken_the_protocol() -> None:
    found = []

    async def handle(websocket: WebSocket) -> None:
        with pytest.raises(Disconnected):
            await websocket.receive()
        await websocket.close(Ending.DONE)
        found.append(websocket.outcome.code)

    async with served(handle) as peer:
        await peer.send_all(frame(3, b""))
        while await peer.receive_some():
            pass
    assert found == ["1002"]


async def test_a_fault_that_looks_like_one_after_the_close(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(_websocket: WebSocket) -> None:
        raise LocalProtocolError("ours")

    async with served(handle) as peer:
        assert await peer.receive_some() == b""
    assert "a connection ended by a fault in sttd" in caplog.text
