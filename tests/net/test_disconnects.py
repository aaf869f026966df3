"""Clients that vanish at any moment: tasks, threads and recognizers go back to where they were."""

from __future__ import annotations

import random
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.net.inprocess import running
from tests.support import Clip, at_16k_mono, frame, pieces

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(200)
@pytest.mark.parametrize("provider", ["vosk", "faster_whisper"])
async def test_disconnecting_at_any_moment_leaves_nothing_behind(provider: str, models: Path, two_cities: Clip) -> None:
    chance = random.Random(5)
    stream = pieces(at_16k_mono(two_cities)[: 2 * 32000])
    idle_threads = threading.active_count()
    async with running(models, provider) as server:
        await server.daemon.provider.ready()
        await trio.sleep(0.1)
        server.tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(40):
            path = ("/ws/stt", "/api/v1/ws")[number % 2]
            async with await server.connect() as tcp, trio.open_nursery() as nursery:
                await tcp.send_all(UPGRADE.replace(b"PATH", path.encode()))
                nursery.cancel_scope.deadline = trio.current_time() + chance.random() * 0.5
                for piece in stream:
                    await tcp.send_all(frame(2, piece))
                    await trio.sleep(0.01)
                if number % 3 == 0:
                    await tcp.send_all(b'\x81\x8e\0\0\0\0{"type":"eof"}')
                if number % 4 == 0:
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.fail_after(60):
            while server.daemon.sessions:  # noqa: ASYNC110 - from outside there is only polling
                await trio.sleep(0.05)
        await server.settle()
        assert server.daemon.provider.recognizers == 0
        async with open_websocket_url(f"ws://{server.host}:{server.port}/ws/stt") as client:
            assert await client.get_message() == '{"type": "ready"}'
        with trio.fail_after(40):  # idle worker threads stay for ten seconds
            while threading.active_count() > idle_threads + 4:  # noqa: ASYNC110
                await trio.sleep(0.1)


UPGRADE = (
    b"GET PATH HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
