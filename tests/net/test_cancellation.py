"""A18: a session that is cancelled at any step leaves nothing behind, and says no more than that it was cut."""

from __future__ import annotations

import itertools
import logging
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, wrap_client_stream

from tests.net.inprocess import Running, running
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOLS = ["/ws/stt?gate=0&words=1", "/api/v1/ws?gate=0"]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when so many steps of all tasks have been made."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._left = steps
        self._scope = scope

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if not self._left:
            self._scope.cancel()


async def one_session(server: Running, path: str, steps: int) -> bool:
    """Whether it was cancelled before it ended."""
    ours, theirs = trio.socket.socketpair()
    scope = trio.CancelScope()
    instrument = CancelAt(steps, scope)

    async def serve() -> None:
        with scope:
            await server.daemon._front_door.serve(trio.SocketStream(theirs))

    async with trio.SocketStream(ours) as stream, trio.open_nursery() as nursery:
        trio.lowlevel.add_instrument(instrument)
        try:
            nursery.start_soon(serve)
            with trio.move_on_after(5) as patience, trio.CancelScope() as handshake:
                nursery.start_soon(give_up_with, scope, handshake)
                client = await wrap_client_stream(nursery, stream, "localhost", path)
                await client.send_message(bytes(32000))
                await client.send_message('{"type": "eof"}')
                while True:
                    await client.get_message()
        except (ConnectionClosed, HandshakeError):
            pass
        finally:
            trio.lowlevel.remove_instrument(instrument)
        assert not patience.cancelled_caught, f"the client waits for ever (step {steps})"
        nursery.cancel_scope.cancel()
    return scope.cancel_called


async def give_up_with(scope: trio.CancelScope, handshake: trio.CancelScope) -> None:
    """trio-websocket does not notice an end before the handshake."""
    while not scope.cancel_called:  # noqa: ASYNC110
        await trio.sleep(0.01)
    await trio.sleep(0.05)
    handshake.cancel()


@pytest.mark.parametrize("path", PROTOCOLS)
async def test_a18_a_session_is_cancelled_at_every_step(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests/plugins"), *sys.path])
    async with running(tmp_path, "moody") as server:
        for steps in itertools.count(1):
            cancelled = await one_session(server, path, steps)
            await server.settle()
            assert not server.daemon.sessions, steps
            assert server.daemon._admission.open == 0, steps
            assert server.daemon.provider.recognizers == 0, steps
            assert not [record for record in caplog.records if record.levelno >= logging.ERROR], steps
            if not cancelled:
                break
    print(f"cancelled at each of {steps - 1} steps")
    assert steps > 50
