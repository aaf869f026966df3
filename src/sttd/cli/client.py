"""A client of the JSON protocol: what `sttd transcribe` runs, and an example of how to talk to the daemon."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import urlencode

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    connect_websocket_url,
)

from sttd.audio.wav import read_head
from sttd.errors import RecognitionError, Unavailable, first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PIECE_S = 0.1
MAX_PIECE_BYTES = 2**20
"""More than 0.1 s of what sttd takes: `read` allocates what it is asked for, and a damaged header may say 4 GHz."""
ABNORMAL = 1006
STANDARD_INPUT = "standard input"


class Recording:
    """Audio to send: a WAV file, or raw s16 mono at 16 kHz from standard input."""

    def __init__(self, path: str) -> None:
        """RecognitionError where the file cannot be used."""
        self.options: dict[str, object] = {}
        self.empty = True
        self._name = STANDARD_INPUT if path == "-" else path
        self._file: BinaryIO = sys.stdin.buffer
        self._left, self._piece = -1, int(16000 * PIECE_S) * 2
        if path == "-":
            return
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - read until the process ends
            head = read_head(self._file)
        except OSError as error:
            raise RecognitionError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            self._file.close()
            hint = f"ffmpeg -i {shlex.quote(path)} -ar 16000 -ac 1 -c:a pcm_s16le converted.wav"
            raise RecognitionError(f"{path} {error}; another program can convert it: {hint}") from None
        frames = min(int(head.rate * PIECE_S), MAX_PIECE_BYTES // head.frame_bytes)
        self._left, self._piece = head.size, max(1, frames) * head.frame_bytes
        self.options = {"sample_rate": head.rate, "channels": head.channels, "encoding": head.encoding}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._name != STANDARD_INPUT:
            self._file.close()

    def next_piece(self) -> bytes:
        """A tenth of a second at most; empty at the end. RecognitionError where it cannot be read."""
        try:
            piece = self._file.read(self._piece if self._left < 0 else min(self._piece, self._left))
        except OSError as error:
            raise RecognitionError(f"{self._name}: {error.strerror}") from None
        if self._left >= 0:
            self._left -= len(piece)
        self.empty = self.empty and not piece
        return piece


async def transcribe(
    url: str, recording: Recording, options: Mapping[str, object], show: Callable[[str, str], None]
) -> None:
    """Stream a recording; `show` is called with each event's type and text, or message. SttdError where that fails."""
    query = ("&" if "?" in url else "?") + urlencode({**recording.options, **options})
    try:
        async with trio.open_nursery() as nursery:
            websocket = await _connected(nursery, url, url + query)
            nursery.start_soon(_send, websocket, recording)
            await _show_events(websocket, show)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first(group) from None
    if recording.empty:
        raise RecognitionError("there was no audio to send")


async def _connected(nursery: trio.Nursery, url: str, target: str) -> WebSocketConnection:
    try:
        return await connect_websocket_url(nursery, target)
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


async def _send(websocket: WebSocketConnection, recording: Recording) -> None:
    try:
        while piece := await trio.to_thread.run_sync(recording.next_piece, abandon_on_cancel=True):
            await websocket.send_message(piece)
        await websocket.send_message('{"type": "eof"}')
    except ConnectionClosed:
        return  # the other task reports it
