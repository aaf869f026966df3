"""A daemon in the test's own process, so that its tasks can be counted."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from sttd.config.config import Config, LimitsConfig, ModelsConfig, ServerConfig
from sttd.server import Daemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sttd.ops.sockets import Listener


class Running:
    """A daemon in this process."""

    def __init__(self, daemon: Daemon, address: str) -> None:
        self.daemon = daemon
        host, _, port = address.rpartition(":")
        self.host, self.port = host, int(port)
        self.tasks = 0

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.host, self.port)

    async def exchange(self, data: bytes, *, limit: float = 8) -> bytes:
        """Send bytes, and read until the daemon closes; fails if it does not."""
        answer = bytearray()
        async with await self.connect() as stream:
            try:
                await stream.send_all(data)
                with trio.fail_after(limit):
                    while chunk := await stream.receive_some():
                        answer += chunk
            except trio.BrokenResourceError:
                pass
        return bytes(answer)

    async def settle(self) -> None:
        """Wait until no task is left that a connection had."""
        with trio.fail_after(3):
            while trio.lowlevel.current_statistics().tasks_living > self.tasks:  # noqa: ASYNC110 - a count has no event
                await trio.sleep(0.01)


@asynccontextmanager
async def running(
    models: Path, provider: str = "vosk", *, drain_s: float = 30.0, **limits: Any
) -> AsyncIterator[Running]:
    """A daemon on a free port; without a model where there is none in `models`."""
    config = Config(
        provider=provider,
        server=ServerConfig(listen=("127.0.0.1:0",), drain_s=drain_s),
        models=ModelsConfig(dir=str(models)),
        limits=replace(LimitsConfig(head_s=1.0, close_s=1.0), **limits),
    )
    daemon = Daemon(config)
    addresses: list[str] = []
    opened = trio.Event()

    def listening(found: list[Listener]) -> None:
        addresses.extend(listener.address for listener in found)
        opened.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: daemon.run(listening, signals=False))
        await opened.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        server = Running(daemon, addresses[0])
        assert (await server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"ok\n")
        await trio.sleep(0.1)
        server.tasks = trio.lowlevel.current_statistics().tasks_living
        yield server
        daemon.drain()
