"""An echo server on sttd's front door and WebSockets, which is what the Autobahn cases are made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from sttd.config.config import AccessConfig, LimitsConfig
from sttd.events import Ending
from sttd.http.access import Access
from sttd.http.admission import Admission
from sttd.http.front_door import FrontDoor, Rules
from sttd.http.routes import Routes
from sttd.wires.base import Disconnected

if TYPE_CHECKING:
    from sttd.wires.websocket import WebSocket


async def echo(_query: str, websocket: WebSocket) -> None:
    parts = bytearray()
    try:
        while (received := await websocket.receive()) is not None:
            message = received.message
            if isinstance(message, str):
                await websocket.send(message)
                continue
            parts += message
            if received.complete:
                await websocket.send(bytes(parts))
                parts.clear()
        await websocket.close(Ending.DONE)
    except Disconnected:
        pass


async def main() -> None:
    limits = LimitsConfig(connections=1000, half_open=100)
    door = FrontDoor(Rules(limits, Access(AccessConfig())), Routes((), ("/",)), {"/": echo}, Admission(limits))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(door.serve, listeners)


if __name__ == "__main__":
    trio.run(main)
