"""How often a session goes to a thread: each time costs more than all that its own tasks do with that audio."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.net.inprocess import running
from tests.support import Clip, at_16k_mono, pieces

if TYPE_CHECKING:
    from pathlib import Path

MOST_A_SECOND = 12
SECONDS = 3.0


@pytest.mark.parametrize("gate", [0, 1])
async def test_small_messages_do_not_each_go_to_a_thread(
    gate: int, still_models: Path, korean: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    hops = itertools.count()
    real = trio.to_thread.run_sync

    async def counted(*args: Any, **options: Any) -> Any:
        next(hops)
        return await real(*args, **options)

    async with running(still_models, "vosk") as server:
        with trio.fail_after(60):
            await server.daemon.provider.ready()
        url = f"ws://{server.host}:{server.port}/ws/stt?gate={gate}"
        async with open_websocket_url(url) as client:
            assert json.loads(await client.get_message()) == {"type": "ready"}
            monkeypatch.setattr(trio.to_thread, "run_sync", counted)
            started = trio.current_time()
            speech = at_16k_mono(korean[0])
            for number, piece in enumerate(pieces((speech * 9)[: int(SECONDS * 32000)], 20)):
                await trio.sleep_until(started + number * 0.02)
                await client.send_message(piece)
            await trio.sleep_until(started + SECONDS)
            assert 0 < next(hops) <= MOST_A_SECOND * SECONDS
