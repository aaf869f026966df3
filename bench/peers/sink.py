"""trio-websocket alone: a server that answers one event and reads what comes. The least that sttd's loop can cost.

python -m bench.peers.sink PORT
"""

from __future__ import annotations

import sys
from contextlib import suppress

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket


async def sink(request: WebSocketRequest) -> None:
    connection = await request.accept()
    with suppress(ConnectionClosed):
        await connection.send_message('{"type": "ready"}')
        while True:
            await connection.get_message()


if __name__ == "__main__":
    trio.run(serve_websocket, sink, "127.0.0.1", int(sys.argv[1]), None)
