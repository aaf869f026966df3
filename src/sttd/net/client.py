"""A client of the JSON protocol: what `sttd transcribe` runs, and an example of how to talk to the daemon."""

from __future__ import annotations

import json
import sys
import wave
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

from sttd.errors import RecognitionError, SttdError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PIECE_S = 0.1
ABNORMAL = 1006


class Recording:
    """Audio to send: a WAV file, or raw s16 mono at 16 kHz from standard input."""

    def __init__(self, path: str) -> None:
        """RecognitionError where the file cannot be used."""
        self.options: dict[str, object] = {}
        self._read: Callable[[int], bytes]
        self._rate = 16000
        if path == "-":
            stdin: BinaryIO = sys.stdin.buffer
            self._read = lambda frames: stdin.read(2 * frames)
            return
        encodings = {1: "pcm_u8", 2: "pcm_s16le", 3: "pcm_s24le", 4: "pcm_s32le"}
        try:
            file = wave.open(path)  # noqa: SIM115 - read until the process ends
            if file.getsampwidth() not in encodings:
                raise wave.Error(f"samples of {file.getsampwidth()} bytes")
        except (OSError, EOFError, RuntimeError, ValueError, wave.Error) as error:
            raise RecognitionError(f"{path}: {str(error) or 'is cut off'}; a PCM WAV file is needed") from None
        self._rate = file.getframerate()
        self._read = file.readframes
        self.options = {
            "sample_rate": self._rate,
            "channels": file.getnchannels(),
            "encoding": encodings[file.getsampwidth()],
        }

    def next_piece(self) -> bytes:
        """A tenth of a second; empty at the end."""
        return self._read(int(self._rate * PIECE_S))


async def transcribe(
    url: str, recording: Recording, options: Mapping[str, object], show: Callable[[str, str], None]
) -> None:
    """Stream a recording; `show` is called with each event's type and text. SttdError where that fails."""
    query = ("&" if "?" in url else "?") + urlencode({**recording.options, **options})
    try:
        async with open_websocket_url(url + query) as websocket, trio.open_nursery() as nursery:
            nursery.start_soon(_send, websocket, recording)
            await _show_events(websocket, show)
            nursery.cancel_scope.cancel()
    except* (OSError, HandshakeError) as group:
        raise Unavailable(f"no sttd answers at {url}: {group.exceptions[0]!r}; is it running?") from None
    except* SttdError as group:
        raise group.exceptions[0] from None


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
        if event.get("type") == "error":
            raise RecognitionError(event["message"])
        show(event["type"], event.get("text", ""))


async def _send(websocket: WebSocketConnection, recording: Recording) -> None:
    try:
        while piece := await trio.to_thread.run_sync(recording.next_piece, abandon_on_cancel=True):
            await websocket.send_message(piece)
        await websocket.send_message('{"type": "eof"}')
    except ConnectionClosed:
        return  # the other task reports it
