"""Deepgram's live endpoint as its documentation describes it, with a real model behind it."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import trio
import vosk
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from tests.cloud.standin import Certificates, Standin
from tests.support import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUERY = {
    "model", "language", "encoding", "sample_rate", "channels", "interim_results", "endpointing", "utterance_end_ms",
    "vad_events", "smart_format", "punctuate", "keyterm",
}  # fmt: skip
QUIET_S = 6.0
INTERIM_S = 0.5


@dataclass
class Reject:
    """Refuse the upgrade, as documented."""

    status: int


@dataclass
class CloseAfter:
    """A Close frame, after so many seconds of audio."""

    seconds: float
    code: int
    reason: str


@dataclass
class DropAfter:
    """The TCP connection ends, after so many seconds of audio."""

    seconds: float


class NeverFinalize:
    """Finalize is not answered."""


@dataclass
class SlowFinalize:
    """Finalize is answered late."""

    seconds: float


class Silent:
    """Nothing is ever answered."""


@dataclass
class Says:
    """A message that is not as documented, before anything else."""

    text: str


@dataclass
class Late:
    """The upgrade is answered late."""

    seconds: float


@dataclass
class Stream:
    """What one connection brought."""

    query: dict[str, list[str]]
    seconds: float = 0.0
    keepalives: int = 0
    finalized: int = 0
    closed_properly: bool = False


class Recognizer:
    """Vosk's, whose times go on where those of its last user ended."""

    def __init__(self, model: Any) -> None:
        self._vosk = vosk.KaldiRecognizer(model, 16000)
        self._vosk.SetWords(True)
        self._fed = self._base = 0.0

    def reset(self) -> None:
        self._vosk.FinalResult()
        self._vosk.Reset()
        self._base = self._fed

    def accept(self, pcm: bytes) -> dict[str, Any] | None:
        self._fed += len(pcm) / 32000
        return self._placed(self._vosk.Result()) if self._vosk.AcceptWaveform(pcm) else None

    def final(self) -> dict[str, Any]:
        return self._placed(self._vosk.FinalResult())

    def partial(self) -> str:
        return str(json.loads(self._vosk.PartialResult())["partial"])

    def _placed(self, result: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(result)
        for word in found.get("result", ()):
            word["start"] -= self._base
            word["end"] -= self._base
        return found


class DeepgramStandin(Standin):
    """`/v1/listen`."""

    def __init__(self, certificates: Certificates, model: Path) -> None:
        super().__init__(certificates)
        vosk.SetLogLevel(-1)
        self._model = vosk.Model(str(model))
        self.streams: list[Stream] = []
        self._recognizers: list[Recognizer] = []

    @contextmanager
    def recognizer(self) -> Iterator[Recognizer]:
        """One that was used before, where there is one: a new one is slow at first."""
        recognizer = self._recognizers.pop() if self._recognizers else Recognizer(self._model)
        try:
            yield recognizer
        finally:
            recognizer.reset()
            self._recognizers.append(recognizer)

    @property
    def base_url(self) -> str:
        return f"wss://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream, message_queue_size=0)
            headers = {name.lower(): value.decode() for name, value in request.headers}
            url = urlsplit(request.path)
            query = parse_qs(url.query)
            fault = self.next_fault(query.get("language", [""])[0])
            self.expect(url.path == "/v1/listen", url.path)
            self.expect(set(query) <= QUERY, f"query {set(query) - QUERY}")
            self.expect(query.get("encoding") == ["linear16"] and query.get("sample_rate") == ["16000"], "no format")
            if headers.get(b"authorization") != f"Token {KEY}":
                fault = Reject(401)
            if isinstance(fault, Late):
                await trio.sleep(fault.seconds)
            if isinstance(fault, Reject):
                await request.reject(
                    fault.status,
                    extra_headers=[(b"dg-request-id", b"req_secret"), (b"dg-error", b"for org_secret")],
                    body=b'{"err_code":"ERROR","err_msg":"for org_secret","request_id":"req_secret"}',
                )
                return
            connection = await request.accept()
            found = Stream(query)
            self.streams.append(found)
            with suppress(ConnectionClosed), self.recognizer() as recognizer:
                await Listener(self, recognizer, connection, found, fault).run(stream)
            nursery.cancel_scope.cancel()


class Listener:
    """One accepted connection."""

    def __init__(
        self, standin: Standin, recognizer: Recognizer, connection: WebSocketConnection, stream: Stream, fault: object
    ) -> None:
        self._standin = standin
        self._connection = connection
        self._stream = stream
        self._fault = fault
        self._recognizer = recognizer
        self._start = 0.0
        self._interim = 0.0

    async def run(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        fault = self._fault
        if isinstance(fault, Says):
            await self._connection.send_message(fault.text)
        while True:
            with trio.move_on_after(QUIET_S) as quiet:
                message = await self._connection.get_message()
            if quiet.cancelled_caught:
                await self._connection.aclose(1011, "NET-0001: no audio or KeepAlive in time")
                return
            if isinstance(message, bytes):
                self._standin.expect(message, "an empty binary message")
                self._standin.expect(20 <= len(message) / 32 <= 250 or len(message) < 640, f"{len(message)} bytes")
                await self._hear(message)
                if isinstance(fault, CloseAfter | DropAfter) and self._stream.seconds >= fault.seconds:
                    if isinstance(fault, CloseAfter):
                        await self._connection.aclose(fault.code, fault.reason)
                    else:
                        await trio.aclose_forcefully(stream)
                    return
            elif not await self._control(json.loads(message)):
                return

    async def _control(self, message: dict[str, str]) -> bool:
        """Whether the stream goes on."""
        match message:
            case {"type": "KeepAlive"}:
                self._stream.keepalives += 1
            case {"type": "Finalize"}:
                self._stream.finalized += 1
                if isinstance(self._fault, NeverFinalize):
                    await self._interim_results()
                else:
                    if isinstance(self._fault, SlowFinalize):
                        await trio.sleep(self._fault.seconds)
                    await self._final(from_finalize=True)
            case {"type": "CloseStream"}:
                await self._final()
                await self._send({"type": "Metadata", "request_id": "req_secret", "duration": self._stream.seconds})
                self._stream.closed_properly = True
                await self._connection.aclose(1000)
                return False
            case _:
                self._standin.expect(False, f"the message {message}")
        return True

    async def _hear(self, pcm: bytes) -> None:
        self._stream.seconds += len(pcm) / 32000
        found = await trio.to_thread.run_sync(self._recognizer.accept, pcm)
        if found is not None:
            await self._results(found, is_final=True, speech_final=True)
        elif self._stream.seconds - self._interim >= INTERIM_S:
            self._interim = self._stream.seconds
            await self._interim_results()

    async def _interim_results(self) -> None:
        text = self._recognizer.partial()
        words = text.split()
        step = (self._stream.seconds - self._start) / max(1, len(words))
        spread = [
            {"word": word, "start": self._start + n * step, "end": self._start + (n + 1) * step, "conf": 0.5}
            for n, word in enumerate(words)
        ]
        await self._results({"text": text, "result": spread})

    async def _final(self, *, from_finalize: bool = False) -> None:
        await self._results(
            await trio.to_thread.run_sync(self._recognizer.final), is_final=True, from_finalize=from_finalize
        )

    async def _results(self, found: dict[str, Any], *, is_final: bool = False, **flags: bool) -> None:
        words = [
            {"word": word["word"], "start": word["start"], "end": word["end"], "confidence": word["conf"]}
            for word in found.get("result", ())
        ]
        alternative = {"transcript": found["text"], "confidence": 0.9, "words": words}
        await self._send(
            {
                "type": "Results",
                "channel_index": [0, 1],
                "start": self._start,
                "duration": self._stream.seconds - self._start,
                "is_final": is_final,
                "channel": {"alternatives": [alternative]},
                "metadata": {"request_id": "req_secret", "model_uuid": "x", "model_info": {}},
                **flags,
            }
        )
        if is_final:
            self._start = self._stream.seconds

    async def _send(self, message: dict[str, Any]) -> None:
        if not isinstance(self._fault, Silent):
            await self._connection.send_message(json.dumps(message))
