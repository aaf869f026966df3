"""A session's stream to Deepgram: sending audio, keeping it until a final covers it, and reconnecting."""

from __future__ import annotations

import json
import logging
import random
from typing import TYPE_CHECKING

import h11
import trio
import wsproto.utilities
from trio_websocket import ConnectionClosed, HandshakeError

from sttd.audio.format import RATE, SAMPLE_BYTES, seconds
from sttd.clouds.deepgram_connection import TITLE, Lost
from sttd.clouds.deepgram_results import Assembler
from sttd.errors import CloudError, NothingHeard, first
from sttd.events import Partial
from sttd.recognizers.base import CloudRecognizer, final_placed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_websocket import WebSocketConnection

    from sttd.clouds.deepgram_connection import Connector
    from sttd.clouds.deepgram_results import Heard
    from sttd.config.config import SessionOptions
    from sttd.recognizers.base import CloudSupervisor

logger = logging.getLogger(__name__)

PIECE = RATE // 10 * SAMPLE_BYTES
REPLAY_SPEED = 4
"""Speed, in multiples of real time, at which audio is sent that has waited for a connection."""

KEEPALIVE_S = 4.0
CLOSE_S = 2.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 4.0
MAX_UNHEARD_S = 0.2
"""An utterance is complete without results for up to this much of its end."""

MAX_UNANSWERED_S = 0.6
"""According to the documentation Deepgram may not answer a Finalize if at most this much audio waits for results."""

MAX_KEPT_S = 60.0
"""Maximum audio that is kept for another connection."""

MAX_UNSENT_S = 10.0
"""Maximum audio that waits to be sent; `accept` waits beyond it."""


class DeepgramRecognizer(CloudRecognizer):
    """A session's stream to Deepgram, opened with the first utterance.

    Audio is kept until a final covers it. If a connection is lost, the kept audio is sent again over a new one.
    """

    def __init__(self, connector: Connector, options: SessionOptions, supervisor: CloudSupervisor) -> None:
        self._connector = connector
        self._settings = connector.settings
        self._options = options
        self._supervisor = supervisor
        self._changed = trio.Event()
        self._failure: CloudError | None = None
        self._kept = bytearray()
        self._kept_at = 0.0  # the begin of the kept audio, in the stream
        self._open = False  # whether an utterance is open
        self._finishing = False
        self._closing = False
        self._connection = trio.CancelScope()
        self._retrying_since = 0.0
        self._pause = FIRST_PAUSE_S
        self._begin_connection()

    def _begin_connection(self) -> None:
        self._assembler = Assembler()
        self._sent = 0  # bytes of the kept audio
        self._sent_s = 0.0  # audio sent over this connection
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
        self._reset_retries()
        self._wake()

    def _reset_retries(self) -> None:
        self._retrying_since, self._pause = trio.current_time(), FIRST_PAUSE_S

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer. Raises CloudError if there is no connection."""
        for piece in pieces:
            self._kept += piece
        self._wake()
        while self._failure is None and self._unsent_s() > MAX_UNSENT_S:
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure
        excess = len(self._kept) - int(MAX_KEPT_S * RATE) * SAMPLE_BYTES
        if excess > 0:
            self._forget(min(excess, self._sent))

    def _unsent_s(self) -> float:
        return (len(self._kept) - self._sent) / SAMPLE_BYTES / RATE

    def _forget(self, size: int) -> None:
        """Drop `size` bytes of the oldest kept audio, which has been sent."""
        del self._kept[:size]
        self._kept_at += size / SAMPLE_BYTES / RATE
        self._sent -= size

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:  # noqa: ARG002
        """See Recognizer. Raises CloudError if no answer comes in time."""
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
            with trio.move_on_after(self._settings.deadline_s + self._unsent_s() / REPLAY_SPEED):
                while not self._complete() and self._failure is None:
                    changed = self._changed
                    with trio.move_on_after(self._settings.finalize_s):
                        await changed.wait()
            if self._failure is None and not self._complete():
                self._fail(CloudError(f"{TITLE} did not answer in {self._settings.deadline_s:g} s"))
        if self._failure is not None:
            raise self._failure
        self._say(self._assembler.take())
        self.take_pending()

    def _complete(self) -> bool:
        """Return whether all results of the utterance have arrived. Raises NothingHeard if there will be no result."""
        if not self._kept:
            return True
        if self._finalize_sent is None:
            return False
        if self._assembler.finalized:
            return True
        if trio.current_time() - self._finalize_sent < self._settings.finalize_s:
            return False
        unheard_s = self._sent_s - self._assembler.until
        if MAX_UNHEARD_S < unheard_s <= MAX_UNANSWERED_S and not self._assembler.so_far.text:
            raise NothingHeard(f"{TITLE} had no answer to {unheard_s:.1f} s of audio")
        return unheard_s <= MAX_UNHEARD_S

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
        """End the stream to Deepgram as documented."""
        self._closing = True
        self._wake()
        with trio.move_on_after(CLOSE_S):
            while self._closing:
                await self._changed.wait()

    async def run(self) -> None:
        """Connect when an utterance needs a connection, and keep the connection in silence, until `close`."""
        while not self._closing:
            if self._open and self._failure is None:
                await self._keep_connected()
            else:
                await self._changed.wait()
        self._closing = False
        self._wake()

    async def _keep_connected(self) -> None:
        """Use a connection, and another one whenever it is lost during an utterance."""
        while self._open and not self._closing and self._failure is None:
            lost: BaseException | None = None
            with trio.CancelScope() as self._connection:
                try:
                    self._begin_connection()
                    async with self._connector.connect(self._options) as connection:
                        await self._use(connection)
                except* FAULTS as group:
                    lost = first(group)
            if isinstance(lost, CloudError):
                self._fail(lost)
            elif lost is not None:
                await self._before_next(self._connector.without_key(str(lost) or type(lost).__name__))

    async def _before_next(self, reason: str) -> None:
        """Pause before the next connection, longer each time. Fail after the deadline."""
        logger.warning("deepgram: no connection: %s", reason)
        wait = self._pause * random.uniform(0.75, 1.0)  # noqa: S311
        self._pause = min(2 * self._pause, MAX_PAUSE_S)
        if trio.current_time() + wait - self._retrying_since > self._settings.deadline_s:
            self._fail(CloudError(f"{TITLE} cannot be reached"))
        elif self._open:
            await trio.sleep(wait)

    def _fail(self, error: CloudError) -> None:
        """Give up the utterance and the connection, which would not serve the next utterance either."""
        self._failure = error
        self._connection.cancel()
        self._wake()

    async def _use(self, connection: WebSocketConnection) -> None:
        """Send and receive until the session ends. Raises Lost if the connection ends before that."""
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
                # Count the piece before sending: meanwhile the utterance may be given up, and the next one begin.
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
                raise Lost(f"closed with {reason.code} {reason.reason or ''}".strip() if reason else "cut") from None
            try:
                message = dict(json.loads(text))
                heard = self._assembler.receive(message)
            except (ValueError, TypeError, RecursionError):
                logger.warning("deepgram: ignored an invalid message")
                continue
            if message.get("type") == "Error":
                raise Lost("Deepgram reported an error")
            if message.get("type") == "Results":
                self._reset_retries()
                self._supervisor.cloud_answered()
            if heard is not None:
                self._take(heard)
            self._wake()

    def _take(self, heard: Heard) -> None:
        if not heard.final:
            if heard.transcript.text and self._options.partials:
                self._supervisor.emit_from_cloud(Partial(heard.transcript.text))
            return
        self._say(heard)
        until = self._in_stream(heard.until)
        size = round((until - self._kept_at) * RATE) * SAMPLE_BYTES
        self._forget(max(0, min(size, self._sent)))

    def _say(self, heard: Heard) -> None:
        if heard.transcript.text:
            self._supervisor.emit_from_cloud(final_placed(heard.transcript, self._anchors))

    def _in_stream(self, time: float) -> float:
        began, at = max((anchor for anchor in self._anchors if anchor[0] <= time), default=self._anchors[0])
        return time - began + at


FAULTS = (
    CloudError,
    Lost,
    OSError,
    trio.TooSlowError,
    HandshakeError,
    ConnectionClosed,
    # trio-websocket passes these two on if the server's answer is not a WebSocket handshake.
    h11.ProtocolError,
    wsproto.utilities.ProtocolError,
)
