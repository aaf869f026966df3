"""A client of the JSON protocol: what `sttd transcribe` runs, and an example of how to talk to the daemon."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    connect_websocket_url,
)

from sttd.audio.format import RATE
from sttd.engines.base import sample as spoken
from sttd.errors import RecognitionError, Unavailable, first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PIECE_BYTES = RATE // 10 * 2
ABNORMAL = 1006


class Stream:
    """Audio to send, 16-bit, 16 kHz, mono: the sample that comes with sttd, or standard input."""

    def __init__(self, *, sample: bool) -> None:
        self.empty = True
        self._pieces: BinaryIO = io.BytesIO(spoken()) if sample else sys.stdin.buffer

    def next_piece(self) -> bytes:
        """Return a tenth of a second at most; nothing at the end. Raises RecognitionError if it cannot be read."""
        try:
            piece = self._pieces.read(PIECE_BYTES)
        except OSError as error:
            raise RecognitionError(f"standard input: {error.strerror}") from None
        self.empty = self.empty and not piece
        return piece


async def transcribe(
    url: str, token: str, stream: Stream, options: Mapping[str, object], show: Callable[[str, str], None]
) -> None:
    """Send a stream; `show` is called with each event's type and text, or message. SttdError where that fails."""
    query = ("&" if "?" in url else "?") + urlencode(options)
    try:
        async with trio.open_nursery() as nursery:
            websocket = await _connected(nursery, url, url + query, token)
            nursery.start_soon(_send, websocket, stream)
            await _show_events(websocket, show)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first(group) from None
    if stream.empty:
        raise RecognitionError("there was no audio to send")


async def _connected(nursery: trio.Nursery, url: str, target: str, token: str) -> WebSocketConnection:
    try:
        headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
        return await connect_websocket_url(nursery, target, extra_headers=headers)
    except ConnectionRejected as rejected:
        said = (rejected.body or b"").decode(errors="replace").strip()
        raise Unavailable(f"sttd at {url} refuses: {rejected.status_code} {said}".rstrip()) from None
    except (OSError, HandshakeError) as error:
        raise Unavailable(f"no sttd answers at {url}: {error!r}; is it running?") from None


async def _show_events(websocket: WebSocketConnection, show: Callable[[str, str], None]) -> None:
    while True:
        try:
            event = dict(json.loads(await websocket.get_message()))
        except ConnectionClosed as closed:
            if closed.reason is None or closed.reason.code == ABNORMAL:
                raise RecognitionError("the connection to the daemon was cut") from None
            if closed.reason.code != 1000:
                how = f"{closed.reason.code} {closed.reason.reason or ''}"
                raise RecognitionError(f"the daemon closed the connection: {how}") from None
            return
        except (ValueError, TypeError):
            raise RecognitionError("what came is not of the JSON protocol; its address ends in /ws/stt") from None
        show(str(event.get("type")), str(event.get("message", "") or event.get("text", "")))


async def _send(websocket: WebSocketConnection, stream: Stream) -> None:
    try:
        while piece := await trio.to_thread.run_sync(stream.next_piece, abandon_on_cancel=True):
            await websocket.send_message(piece)
        await websocket.send_message('{"type": "eof"}')
    except ConnectionClosed:
        return  # the other task reports it
