"""A client of the JSON protocol: what `sttd transcribe -` and `sttd listen` run, and an example for others."""

from __future__ import annotations

import io
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlencode

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    connect_websocket_url,
    wrap_client_stream,
)

from sttd.audio.format import RATE
from sttd.cli.options import URL
from sttd.engines.base import sample as spoken
from sttd.errors import RecognitionError, Unavailable, first

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    Event = Mapping[str, Any]

PIECE_BYTES = RATE // 10 * 2
FLUSH, EOF = '{"type": "flush"}', '{"type": "eof"}'
CONNECT_S = 10.0
ABNORMAL, IN_ORDER = 1006, 1000
FOR_GOOD = (1008, 4429)
"""Close codes: an option cannot be used; the quota is used up."""


class Refused(RecognitionError):
    """The daemon ended the session for a reason that another attempt meets again."""


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
    url: str, token: str, stream: Stream, options: Mapping[str, object], show: Callable[[Event], None]
) -> None:
    """Send a stream; `show` is called with each event. Raises SttdError if that fails."""
    try:
        async with connected(url, token, options) as websocket, trio.open_nursery() as nursery:
            nursery.start_soon(_send, websocket, stream)
            while (event := await next_event(websocket)) is not None:
                show(event)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first(group) from None
    if stream.empty:
        raise RecognitionError("there was no audio to send")


@asynccontextmanager
async def connected(url: str, token: str, options: Mapping[str, object]) -> AsyncIterator[WebSocketConnection]:
    """Connect to a daemon, at an address like `ws://host:3000/ws/stt` or `unix:/path`.

    Raises Unavailable if none answers there, or if it refuses.
    """
    query = urlencode(options)
    headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
    async with trio.open_nursery() as nursery:
        try:
            with trio.fail_after(CONNECT_S):  # an answer that is none is waited for without an end otherwise
                if url.startswith("unix:"):
                    stream = await trio.open_unix_socket(url.removeprefix("unix:"))
                    target = f"/ws/stt?{query}"
                    websocket = await wrap_client_stream(nursery, stream, "localhost", target, extra_headers=headers)
                else:
                    target = f"{url}{'&' if '?' in url else '?'}{query}"
                    websocket = await connect_websocket_url(nursery, target, extra_headers=headers)
        except trio.TooSlowError:
            hint = ", or is its certificate not one that this machine trusts" if url.startswith("wss:") else ""
            raise Unavailable(f"{url} does not answer within {CONNECT_S:g} s; is it sttd{hint}?") from None
        except ConnectionRejected as rejected:
            said = (rejected.body or b"").decode(errors="replace").strip()
            raise Unavailable(f"sttd at {url} refuses: {rejected.status_code} {said}".rstrip()) from None
        except ValueError as error:
            raise Unavailable(f"{url}: {error}; an address is like {URL}, or unix:/path") from None
        except (OSError, HandshakeError) as error:
            raise Unavailable(f"no sttd answers at {url}: {error!r}; is it running?") from None
        yield websocket
        nursery.cancel_scope.cancel()


async def next_event(websocket: WebSocketConnection) -> Event | None:
    """Return the next event; None after the session's end. Raises RecognitionError if it does not end in order."""
    try:
        return dict(json.loads(await websocket.get_message()))
    except ConnectionClosed as closed:
        if closed.reason is None or closed.reason.code == ABNORMAL:
            raise RecognitionError("the connection to the daemon was cut") from None
        if closed.reason.code == IN_ORDER:
            return None
        kind = Refused if closed.reason.code in FOR_GOOD else RecognitionError
        raise kind(f"the daemon closed the connection: {closed.reason.code} {closed.reason.reason or ''}") from None
    except (ValueError, TypeError):
        raise Refused("what came is not of the JSON protocol; its address ends in /ws/stt") from None


async def _send(websocket: WebSocketConnection, stream: Stream) -> None:
    try:
        while piece := await trio.to_thread.run_sync(stream.next_piece, abandon_on_cancel=True):
            await websocket.send_message(piece)
        await websocket.send_message(EOF)
    except ConnectionClosed:
        return  # the other task reports it
