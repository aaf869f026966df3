"""The deepgram provider: speech over a WebSocket as it comes (https://developers.deepgram.com/reference/streaming)."""

from __future__ import annotations

import json
import logging
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode

import h11
import trio
import wsproto.utilities
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from sttd.audio.format import RATE, SAMPLE_BYTES, seconds
from sttd.credentials import api_key
from sttd.errors import CloudError, NothingHeard
from sttd.events import Partial
from sttd.recognizers.base import Cloud, CloudRecognizer, final_placed
from sttd.recognizers.deepgram_results import Assembler
from sttd.recognizers.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.config import Config, SessionOptions
    from sttd.recognizers.base import Backstop
    from sttd.recognizers.deepgram_results import Heard

logger = logging.getLogger(__name__)

PIECE = RATE // 10 * SAMPLE_BYTES
REPLAY_SPEED = 4
"""What has waited for a connection is sent so many times as fast as it was spoken."""

KEEPALIVE_S = 4.0
CONNECT_S, CLOSE_S = 5.0, 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0
UNHEARD_S = 0.2
"""Results may be missing for so much of an utterance's end."""

LITTLE_S = 0.6
"""A Finalize need not be answered where so little audio waits for results, says the documentation."""

KEPT_S = 60.0
"""Audio that is kept for another connection, at most."""

AHEAD_S = 10.0
"""Audio that waits to be sent, before more is taken."""

MESSAGE_BYTES = 1 << 20
_REASONS = {
    400: "did not take the request",
    401: "rejected the API key",
    402: "says that the account has no credit",
    403: "does not allow this account to use the model",
    429: "has no room for another stream of this account",
}
_PERMANENT = {400, 401, 402, 403}


class Deepgram(Cloud):
    """One account at Deepgram, or at whatever answers at `deepgram.base_url`."""

    name: ClassVar[str] = "deepgram"
    title: ClassVar[str] = "Deepgram"
    library: ClassVar[str] = "trio_websocket"
    streaming: ClassVar[bool] = True
    takes_phrases: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.settings = config.deepgram
        self._key = api_key(self.name, config.deepgram.key_file)
        self.model = config.model or config.deepgram.model
        self._endpoint = Endpoint("deepgram.base_url", config.deepgram.base_url)
        self.destination = self._endpoint.host

    @asynccontextmanager
    async def recognizer(self, options: SessionOptions, backstop: Backstop) -> AsyncIterator[CloudRecognizer]:
        """See Cloud."""
        async with trio.open_nursery() as nursery:
            recognizer = DeepgramRecognizer(self, options, backstop)
            nursery.start_soon(recognizer.run)
            yield recognizer
            await recognizer.close()
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def connect(self, options: SessionOptions) -> AsyncIterator[WebSocketConnection]:
        """A connection upstream. CloudError where it is of no use to try again."""
        try:
            async with trio.open_nursery() as nursery, self._stream() as stream:
                with trio.fail_after(CONNECT_S):
                    connection = await wrap_client_stream(
                        nursery,
                        stream,
                        self._endpoint.netloc,
                        f"{self._endpoint.path}/v1/listen?{urlencode(self._query(options), doseq=True)}",
                        extra_headers=[(b"Authorization", f"Token {self._key}".encode())],
                        max_message_size=MESSAGE_BYTES,
                    )
                yield connection
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            rejected = _first(group)
            assert isinstance(rejected, ConnectionRejected)
            raise self._rejection(rejected) from None

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[trio.SocketStream | trio.SSLStream[trio.SocketStream]]:
        """A connection to the server, closed in the end: trio-websocket leaves one open that the peer has cut."""
        host, port, context = self._endpoint.host, self._endpoint.port, self._endpoint.tls
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        with trio.fail_after(CONNECT_S):
            if context is None:
                stream = await trio.open_tcp_stream(host, port)
            else:
                stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=context)
        try:
            yield stream
        finally:
            await trio.aclose_forcefully(stream)

    def _query(self, options: SessionOptions) -> dict[str, object]:
        query: dict[str, object] = {
            "model": self.model,
            "encoding": "linear16",
            "sample_rate": RATE,
            "channels": 1,
            "interim_results": "true",
            "endpointing": self.settings.endpointing_ms,
            "utterance_end_ms": 1000,
            "vad_events": "true",
            "smart_format": "true",
            "punctuate": "true",
        }
        if options.language:
            query["language"] = options.language
        if options.phrases:
            query["keyterm"] = list(options.phrases)
        return query

    def _rejection(self, rejected: ConnectionRejected) -> Exception:
        status = rejected.status_code
        headers = {name.lower(): value.decode(errors="replace") for name, value in rejected.headers or ()}
        logger.warning(
            "deepgram: status=%d request=%s error=%s body=%r",
            status,
            headers.get(b"dg-request-id", ""),
            self.without_key(headers.get(b"dg-error", "")),
            self.without_key((rejected.body or b"").decode(errors="replace"))[:500],
        )
        message = f"{self.title} {_REASONS.get(status, 'has a fault')} ({status})"
        return CloudError(message, permanent=True) if status in _PERMANENT else _Lost(message)

    def without_key(self, text: str) -> str:
        """For the log."""
        return text.replace(self._key, "[key]")


class _Lost(Exception):
    """There is no connection, or none any more; another may be had."""


class DeepgramRecognizer(CloudRecognizer):
    """One stream upstream for a session, opened with its first utterance.

    Audio is kept until a final covers it. When a connection is lost, a new one hears again what is kept.
    """

    def __init__(self, cloud: Deepgram, options: SessionOptions, backstop: Backstop) -> None:
        self._cloud = cloud
        self._options = options
        self._backstop = backstop
        self._changed = trio.Event()
        self._failure: CloudError | None = None
        self._kept = bytearray()
        self._kept_at = 0.0  # in the stream
        self._open = False  # an utterance
        self._finishing = False
        self._closing = False
        self._connection = trio.CancelScope()
        self._patient_from = 0.0
        self._pause = FIRST_PAUSE_S
        self._begin_connection()

    def _begin_connection(self) -> None:
        self._assembler = Assembler()
        self._sent = 0  # bytes of what is kept
        self._sent_s = 0.0  # in all
        self._anchors = [(0.0, self._kept_at)]
        self._finalize = self._finishing
        self._finalize_sent: float | None = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def start(self, at: float) -> None:
        """See Recognizer."""
        self._failure = None
        self._open = True
        self._kept_at = at
        self._anchors = [*self._anchors[-1:], (self._sent_s, at)]
        self._be_patient()
        self._wake()

    def _be_patient(self) -> None:
        self._patient_from, self._pause = trio.current_time(), FIRST_PAUSE_S

    async def accept(self, pieces: Sequence[bytes]) -> None:
        """See Recognizer. CloudError where there is no connection to be had."""
        for piece in pieces:
            self._kept += piece
        self._wake()
        while self._failure is None and self._unsent_s() > AHEAD_S:
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure
        excess = len(self._kept) - int(KEPT_S * RATE) * SAMPLE_BYTES
        if excess > 0:
            self._forget(min(excess, self._sent))

    def _unsent_s(self) -> float:
        return (len(self._kept) - self._sent) / SAMPLE_BYTES / RATE

    def _forget(self, size: int) -> None:
        """Let go of the oldest audio, which was sent."""
        del self._kept[:size]
        self._kept_at += size / SAMPLE_BYTES / RATE
        self._sent -= size

    async def finish(self, *, settled: bool = False) -> None:  # noqa: ARG002
        """See Recognizer. CloudError where no answer comes in time."""
        try:
            await self._finish()
        except CloudError as error:
            if (heard := self._assembler.so_far).text:
                error.heard = final_placed(heard, self._anchors)
            raise

    async def _finish(self) -> None:
        if self._kept and self._failure is None:
            self._finalize = self._finishing = True
            self._wake()
            with trio.move_on_after(self._cloud.settings.deadline_s + self._unsent_s() / REPLAY_SPEED):
                while not self._complete() and self._failure is None:
                    changed = self._changed
                    with trio.move_on_after(self._cloud.settings.finalize_s):
                        await changed.wait()
            if self._failure is None and not self._complete():
                self._fail(CloudError(f"{self._cloud.title} did not answer in {self._cloud.settings.deadline_s:g} s"))
        if self._failure is not None:
            raise self._failure
        self._say(self._assembler.take())
        self.take_pending()

    def _complete(self) -> bool:
        """Whether all that will be known of the utterance is known. NothingHeard where there will be no answer."""
        if not self._kept:
            return True
        if self._finalize_sent is None:
            return False
        if self._assembler.finalized:
            return True
        if trio.current_time() - self._finalize_sent < self._cloud.settings.finalize_s:
            return False
        unheard_s = self._sent_s - self._assembler.until
        if UNHEARD_S < unheard_s <= LITTLE_S and not self._assembler.so_far.text:
            raise NothingHeard(f"{self._cloud.title} had no answer to {unheard_s:.1f} s of audio")
        return unheard_s <= UNHEARD_S

    def take_pending(self) -> tuple[float, bytes]:
        """See CloudRecognizer."""
        at, pcm = self._kept_at, bytes(self._kept)
        self._open = self._finalize = self._finishing = False
        self._finalize_sent = None
        self._kept.clear()
        self._sent = 0
        self._assembler.end(self._sent_s)
        return at, pcm

    async def close(self) -> None:
        """End the stream upstream as documented."""
        self._closing = True
        self._wake()
        with trio.move_on_after(CLOSE_S):
            while self._closing:
                await self._changed.wait()

    async def run(self) -> None:
        """Keep a connection while there is something to be heard; runs until cancelled."""
        while not self._closing:
            if self._open and self._failure is None:
                await self._keep_connected()
            else:
                await self._changed.wait()
        self._closing = False
        self._wake()

    async def _keep_connected(self) -> None:
        """Connect, and again when the connection is lost in an utterance."""
        while self._open and not self._closing and self._failure is None:
            lost: BaseException | None = None
            with trio.CancelScope() as self._connection:
                try:
                    self._begin_connection()
                    async with self._cloud.connect(self._options) as connection:
                        await self._use(connection)
                except* _FAULTS as group:
                    lost = _first(group)
            if isinstance(lost, CloudError):
                self._fail(lost)
            elif lost is not None:
                await self._before_next(self._cloud.without_key(str(lost) or type(lost).__name__))

    async def _before_next(self, reason: str) -> None:
        """Wait, longer each time; give up after the deadline."""
        logger.warning("deepgram: no connection: %s", reason)
        wait = self._pause * random.uniform(0.75, 1.0)  # noqa: S311
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        if trio.current_time() + wait - self._patient_from > self._cloud.settings.deadline_s:
            self._fail(CloudError(f"{self._cloud.title} cannot be reached"))
        elif self._open:
            await trio.sleep(wait)

    def _fail(self, error: CloudError) -> None:
        """Give up the utterance, and the connection, which is of no use to the next one either."""
        self._failure = error
        self._connection.cancel()
        self._wake()

    async def _use(self, connection: WebSocketConnection) -> None:
        """Until the session ends; _Lost before that."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, connection)
            await self._send(connection)
            await connection.send_message('{"type": "CloseStream"}')
            with trio.move_on_after(CLOSE_S):
                while not connection.closed:
                    await self._changed.wait()
            nursery.cancel_scope.cancel()

    async def _send(self, connection: WebSocketConnection) -> None:
        last = trio.current_time()
        while not self._closing:
            changed = self._changed
            if self._sent < len(self._kept):
                piece = bytes(self._kept[self._sent : self._sent + PIECE])
                # Counted before it is sent: meanwhile the utterance may be given up, and the next begin.
                self._sent += len(piece)
                self._sent_s += seconds(piece)
                await connection.send_message(piece)
                last = trio.current_time()
                self._wake()
                if len(self._kept) - self._sent > PIECE:
                    await trio.sleep(seconds(piece) / REPLAY_SPEED)
            elif self._finalize:
                self._finalize = False
                self._assembler.expect_finalize()
                await connection.send_message('{"type": "Finalize"}')
                self._finalize_sent = trio.current_time()
                self._wake()
            else:
                with trio.move_on_at(last + KEEPALIVE_S) as idle:
                    await changed.wait()
                if idle.cancelled_caught:
                    await connection.send_message('{"type": "KeepAlive"}')
                    last = trio.current_time()

    async def _receive(self, connection: WebSocketConnection) -> None:
        while True:
            try:
                text = await connection.get_message()
            except ConnectionClosed as closed:
                self._wake()
                if self._closing:
                    return
                reason = closed.reason
                raise _Lost(f"closed with {reason.code} {reason.reason or ''}".strip() if reason else "cut") from None
            try:
                message = dict(json.loads(text))
                heard = self._assembler.receive(message)
            except (ValueError, TypeError, RecursionError):
                logger.warning("deepgram: a message that is not understood")
                continue
            if message.get("type") == "Error":
                raise _Lost("Deepgram reported an error")
            if message.get("type") == "Results":
                self._be_patient()
                self._backstop.cloud_answered()
            if heard is not None:
                self._take(heard)
            self._wake()

    def _take(self, heard: Heard) -> None:
        if not heard.final:
            if heard.transcript.text and self._options.partials:
                self._backstop.emit_from_cloud(Partial(heard.transcript.text))
            return
        self._say(heard)
        until = self._in_stream(heard.until)
        size = round((until - self._kept_at) * RATE) * SAMPLE_BYTES
        self._forget(max(0, min(size, self._sent)))

    def _say(self, heard: Heard) -> None:
        if heard.transcript.text:
            self._backstop.emit_from_cloud(final_placed(heard.transcript, self._anchors))

    def _in_stream(self, time: float) -> float:
        began, at = max((anchor for anchor in self._anchors if anchor[0] <= time), default=self._anchors[0])
        return time - began + at


_FAULTS = (
    CloudError,
    _Lost,
    OSError,
    trio.TooSlowError,
    HandshakeError,
    ConnectionClosed,
    # What these raise at an answer that is no WebSocket handshake goes through trio-websocket.
    h11.ProtocolError,
    wsproto.utilities.ProtocolError,
)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What happened; the first of what fell together."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
