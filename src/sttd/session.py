"""One client's stream: a nursery with a reader, a feeder, a decoder and a sender, and the Close that ends it.

    socket -> reader -> (commands) -> feeder: audio pipeline -> (segments) -> decoder -> (events) -> sender -> socket

Both queues on the way in are bounded in seconds of audio: when the decoder falls behind, the socket is read no more.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import trio

from sttd.audio.format import RATE, seconds
from sttd.audio.pipeline import Speech, SpeechPause, UtteranceEnd, UtteranceStart
from sttd.config import apply_options
from sttd.errors import ModelError, ModelMissing, OptionError, first
from sttd.events import (
    Audio,
    Command,
    Configure,
    EndOfStream,
    Event,
    Failed,
    Final,
    MessageDone,
    Partial,
    Problem,
    Ready,
    Unusable,
)
from sttd.feeder import End, Feeder, Reopen, audio_seconds
from sttd.metrics import AUDIO, FAULTS, LIMITS_HIT, SESSIONS, SESSIONS_ENDED, UTTERANCES
from sttd.net.websocket import Disconnected, WebSocket
from sttd.queues import Memory, Outbox
from sttd.times import Times

if TYPE_CHECKING:
    from sttd.config import Config, SessionOptions
    from sttd.protocols.base import Protocol
    from sttd.recognizers.base import Recognizer
    from sttd.recognizers.worker import Provider

logger = logging.getLogger(__name__)

NORMAL, GOING_AWAY, POLICY, INTERNAL, TRY_LATER, IDLE, QUOTA = 1000, 1001, 1008, 1011, 1013, 4408, 4429
CODES = {*range(1000, 1016), IDLE, QUOTA}
RATE_BURST_S = 10.0
ITEM_BYTES, PARSED_FACTOR = 512, 32
"""What a message takes in memory beyond its audio, and by how much more room a text takes once it is parsed."""
LIVE, LIVE_AHEAD_S = 1.2, 2.0
"""Seconds of audio a second, and at first, from a client that sends as it is spoken."""
BATCH_S = 2.0
"""Audio that goes into one call of the recognizer, at most."""


class Session:
    """Runs one connection from its upgrade to its Close."""

    def __init__(
        self, websocket: WebSocket, protocol: Protocol, provider: Provider, config: Config, query: str, ahead: Memory
    ) -> None:
        """`ahead`: memory for audio that comes faster than it is decoded."""
        self._websocket = websocket
        self._protocol = protocol
        self._provider = provider
        self._config = config
        self._query = dict(parse_qsl(query, keep_blank_values=True))
        self._outbox = Outbox()
        self._times = Times(provider.name)
        options, buffer_s = config.session_options(), config.limits.buffer_s
        self._feeder = Feeder(
            options,
            provider,
            websocket,
            self._outbox,
            self._times,
            ahead,
            buffer_s,
            answers_recordings=protocol.answers_recordings,
        )
        self._commands, self._work = self._feeder.commands, self._feeder.work
        self._drain_s = math.inf
        self._progress = 0.0
        self._close = (NORMAL, "")
        self._ready = trio.Event()
        self._started = trio.current_time()
        self._waits_from = math.inf  # for a message
        self._ending = self._over = False
        self._format = options  # of the audio that comes; the feeder may still be at older audio
        self._options = options  # under which what is decoded now was said
        self._model_known = trio.Event()
        self._waiting_for_model = trio.CancelScope()
        self._received_s = 0.0
        self._finals = 0
        self._shown = ""  # the last partial, until a final takes its place
        self._said_last: Event | None = None  # before the Close

    @property
    def lag(self) -> float:
        """Seconds of audio that have come and are not decoded; none once it is closed and waits for a call only."""
        return 0.0 if self._over else self._feeder.seconds

    @property
    def live(self) -> bool:
        """Whether the client sends audio no faster than it is spoken."""
        return self._received_s <= LIVE * (trio.current_time() - self._started) + LIVE_AHEAD_S

    def drain(self, within_s: float) -> None:
        """Read no more, flush, say what is left, and close, all in so many seconds."""
        self._ending = True
        self._drain_s = within_s
        self._waiting_for_model.cancel()
        self._close = (GOING_AWAY, "sttd is stopping")
        self._websocket.stop_receiving()

    async def run(self) -> None:
        """The whole session. Faults in it are told to its client and logged, and end it alone."""
        name, peer = self._protocol.name, self._websocket.peer
        logger.info("connected protocol=%s peer=%s", name, peer)
        labels = name, self._provider.name
        SESSIONS.labels(*labels).inc()
        try:
            async with trio.open_nursery() as recognizing:
                recognizing.start_soon(self._recognize)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._read)
                        nursery.start_soon(self._keep_limits)
                        await self._send()
                        nursery.cancel_scope.cancel()
                    # Before the recognizer is left: a call into it that hangs cannot be cancelled.
                    await self._websocket.close(*self._close)
                finally:
                    self._over = True
                recognizing.cancel_scope.cancel()
        except* Disconnected:
            pass
        finally:
            self._commands.clear()
            SESSIONS.labels(*labels).dec()
            code, reason = self._websocket.closed
            SESSIONS_ENDED.labels(*labels, code if code in CODES else "other").inc()
            if self._websocket.refused_message:
                LIMITS_HIT.labels("message_bytes").inc()
            logger.info(
                "disconnected protocol=%s peer=%s code=%d reason=%r seconds=%.1f audio_s=%.1f finals=%d rtf=%.2f",
                name,
                peer,
                code,
                reason,
                trio.current_time() - self._started,
                self._received_s,
                self._finals,
                self._times.spent_s / max(self._received_s, 0.1),
            )

    async def _keep_limits(self) -> None:
        """End the session when it has lasted or been silent for too long; what was said is answered first."""
        limits = self._config.limits
        idle_s = limits.idle_s or math.inf
        last = self._started + (limits.session_s or math.inf)
        while not self._ending:
            # While it is not waited for a message, the client is not the one who is slow.
            idle_at = min(self._waits_from, trio.current_time()) + idle_s
            await trio.sleep_until(min(idle_at, last))
            if trio.current_time() >= last:
                self._cut("session_s", QUOTA, f"A session lasts {limits.session_s:g} s at most")
            elif trio.current_time() >= self._waits_from + idle_s:
                self._cut("idle_s", IDLE, f"Nothing was sent for {limits.idle_s:g} s")

    def _cut(self, limit: str, code: int, reason: str) -> None:
        """Read no more; flush, and say why at the end."""
        if self._ending:
            return
        self._ending = True
        LIMITS_HIT.labels(limit).inc()
        logger.info("session ended peer=%s limit=%s", self._websocket.peer, limit)
        problem = Problem.IDLE if code == IDLE else Problem.QUOTA
        self._close, self._said_last = (code, reason), Failed(reason, problem, fatal=True)
        self._websocket.stop_receiving()

    async def _read(self) -> None:
        """Reader: messages to commands, until the client or the daemon wants to end; then see that the end comes."""
        await self._read_commands()
        self._ending = True
        await self._commands.put((EndOfStream(), trio.current_time()), weight=0)
        if not await self._ready_in_time():
            self._say_last()
            return
        self._progress = trio.current_time()
        while not self._stalled():  # noqa: ASYNC110 - a moving deadline
            await trio.sleep(min(max(self._patience - self._idle, 0.1), 1.0))
        LIMITS_HIT.labels("flush_s").inc()
        logger.warning("session cut peer=%s: no progress in recognition for %.3g s", self._websocket.peer, self._idle)
        said = f"No progress in recognition for {self._idle:.3g} s"
        self._end(INTERNAL, "recognition took too long", said, Problem.STALLED)

    @property
    def _idle(self) -> float:
        """Seconds since recognition made progress."""
        return trio.current_time() - self._progress

    def _stalled(self) -> bool:
        """Whether recognition stands still, and not because of calls that take their time, of this session or another.

        The worst of the calls counts, so one that hangs is found. In a drain there is no more time than is left.
        """
        works = self._drain_s == math.inf and -math.inf < self._provider.overdue_s() < 0
        return self._idle >= self._patience and not works

    @property
    def _patience(self) -> float:
        """Seconds that recognition may stand still at the end: a slow machine gets more."""
        return min(self._config.limits.flush_s * self._provider.slowness, 0.9 * self._drain_s)

    async def _ready_in_time(self) -> bool:
        """Wait for a model that is loading, if there is audio for it, as long as the end of a session may take."""
        patience = self._patience if self._received_s or not self._provider.status else 0.0
        with trio.move_on_after(patience):
            await self._ready.wait()
        return self._ready.is_set()

    async def _options_are_known(self) -> bool:
        """Wait until it is known which options can be; False where the session is to end before."""
        with trio.CancelScope() as self._waiting_for_model:
            if not self._ending:
                await self._model_known.wait()
        return self._model_known.is_set()

    async def _read_commands(self) -> None:
        limits = self._config.limits
        received = AUDIO.labels(self._protocol.name, self._provider.name)
        while (message := await self._next_message()) is not None:
            duration = 0.0
            size = ITEM_BYTES + len(message) * (PARSED_FACTOR if isinstance(message, str) else 1)
            if isinstance(message, str) and len(message) > limits.text_bytes:
                LIMITS_HIT.labels("text_bytes").inc()
                command: Command = Unusable(f"a text message has more than {limits.text_bytes} characters")
            else:
                command = self._protocol.receive(message)
            if isinstance(command, EndOfStream):
                return
            if isinstance(command, Audio):
                command = Audio(command.data, self._websocket.complete)
                duration = audio_seconds(command, self._format)
                self._received_s += duration
                received.inc(duration)
            elif isinstance(command, Configure):
                if not await self._options_are_known():
                    return
                with suppress(OptionError):  # the feeder tells the client
                    self._format, _findings = self._feeder.checked(self._format, command.options)
            await self._commands.put((command, trio.current_time()), duration, size=size)
            if limits.audio_s and self._received_s >= limits.audio_s:
                self._cut("audio_s", QUOTA, f"A session may send {limits.audio_s:g} s of audio")
            if limits.rate and duration:
                await self._slow_down(limits.rate)

    async def _next_message(self) -> str | bytes | None:
        self._waits_from = trio.current_time()
        message = await self._websocket.receive()
        self._waits_from = math.inf
        return message

    async def _slow_down(self, rate: float) -> None:
        """Read no faster than `rate` times as fast as it was spoken, after a burst."""
        due = self._started + (self._received_s / rate) - RATE_BURST_S
        if due > trio.current_time():
            LIMITS_HIT.labels("rate").inc()
            await self._websocket.pause(due)

    async def _send(self) -> None:
        """Sender: events to messages, until the outbox is closed and empty."""
        while (next_one := await self._outbox.get()) is not None:
            event, options = next_one
            if isinstance(event, Final):
                self._finals += 1
                UTTERANCES.labels(self._protocol.name, event.engine or self._provider.name).inc()
                if self._config.log.transcripts:
                    logger.info("final peer=%s text=%r", self._websocket.peer, event.text)
            message = self._protocol.encode(event, options)
            if message is not None:
                await self._websocket.send(message)

    def _end(self, code: int, reason: str, said: str = "", problem: Problem = Problem.RECOGNIZER) -> None:
        """Close after what has been said so far, and what JSON clients are told."""
        self._close = (code, reason)
        self._outbox.put(MessageDone(), self._options)
        if said:
            self._outbox.put(Failed(said, problem, fatal=True), self._options)
        self._outbox.close()

    async def _recognize(self) -> None:
        """Get ready, then feed and decode."""
        try:
            if not await self._get_ready():
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed)
                await self._decode()
                nursery.cancel_scope.cancel()
            self._say_last()
        except* Exception as group:
            fault = first(group)
            FAULTS.inc()
            logger.error("recognition failed peer=%s", self._websocket.peer, exc_info=group)
            self._end(INTERNAL, "recognition failed", f"Recognition failed: {fault}", Problem.RECOGNIZER)

    async def _feed(self) -> None:
        await self._ready.wait()
        await self._feeder.run()

    async def _get_ready(self) -> bool:
        """Whether there is a model and the options can be used; if not the client is told."""
        try:
            self._format = self._options = self._feeder.options = apply_options(self._format, self._query)
            await self._provider.ready()
            if (cloud := self._provider.cloud) is not None:
                logger.info(
                    "the audio of peer=%s leaves this machine: it is sent to %s (%s)",
                    self._websocket.peer,
                    cloud.title,
                    cloud.destination,
                )
            await self._feeder.prepare()
        except ModelMissing as error:
            logger.warning("no model: peer=%s was told %r", self._websocket.peer, str(error))
            await self._without_model(str(error))
            return False
        except ModelError as error:
            logger.error("%s", error)
            self._end(INTERNAL, "the model does not load", str(error), Problem.MODEL)
            return False
        except OptionError as error:
            self._options = self._feeder.options = self._config.session_options()
            logger.warning("unusable query peer=%s: %s", self._websocket.peer, error)
            self._end(POLICY, str(error), str(error), Problem.OPTION)
            return False
        self._model_known.set()
        return True

    async def _without_model(self, message: str) -> None:
        """Tell the client, and let it stay until it closes, as documented; its audio comes to nothing.

        The plain protocol has no error message, so there the Close says it.
        """
        self._model_known.set()
        missing = Failed(message, Problem.NO_MODEL)
        self._outbox.put(missing, self._options)
        if self._protocol.encode(missing, self._options) is None:
            self._end(TRY_LATER, message)
            return
        while not isinstance((await self._commands.peek())[0], EndOfStream):
            self._commands.take()
        self._say_last()

    def _say_last(self) -> None:
        if self._said_last is not None:
            self._outbox.put(self._said_last, self._options)
        self._outbox.close()

    def _say(self, event: Event) -> None:
        if isinstance(event, Partial):
            self._times.partial()
            self._shown = event.text
        elif isinstance(event, Final):
            self._shown = ""
            self._feeder.unanswered = True
            event = replace(event, lag=round(self.lag, 2))
        self._outbox.put(event, self._options)
        if isinstance(event, Failed) and event.lasting and self._protocol.encode(event, self._options) is None:
            self._end(INTERNAL, event.message)

    async def _decode(self) -> None:
        """Decoder: work through the recognizer to events."""
        options: SessionOptions | None = self._feeder.options
        while options is not None:
            self._options = options
            async with self._provider.recognizer(options, self._say) as recognizer:
                if not self._ready.is_set():
                    self._outbox.put(Ready(), options)
                    self._ready.set()
                options = await self._decode_with(recognizer)

    async def _decode_with(self, recognizer: Recognizer) -> SessionOptions | None:
        """Until the end (None), or until another recognizer is needed (its options)."""
        while True:
            work = await self._work.peek()
            self._progress = self._times.begin()
            match work:
                case Speech():
                    pieces, confidence, done = self._take_speech()
                    await recognizer.accept(pieces, confidence=confidence)
                    self._times.spent(sum(map(seconds, pieces)))
                    if done:
                        self._outbox.put(MessageDone(), self._options)
                    continue
                case UtteranceStart(at):
                    self._times.started()
                    await recognizer.start(at / RATE)
                case SpeechPause(confidence):
                    await recognizer.pause(confidence=confidence)
                case UtteranceEnd(settled, confidence):
                    await recognizer.finish(settled=settled, confidence=confidence)
                    self._times.finished()
                    if self._shown:  # what turned out to be no speech; an empty partial takes it back
                        self._say(Partial(""))
                case MessageDone() as done:
                    self._outbox.put(done, self._options)
                case Reopen(options):
                    self._work.take()
                    return options
                case End():
                    return None
            self._work.take()

    def _take_speech(self) -> tuple[list[bytes], float, bool]:
        """What waits of the open utterance, up to BATCH_S: the pieces in which it came, the gate's confidence in them,
        and whether messages ended."""
        pieces: list[bytes] = []
        taken = confidence = 0.0
        done = False
        while self._work and isinstance(item := self._work.head, Speech | MessageDone) and taken < BATCH_S:
            if isinstance(item, Speech):
                pieces.append(item.pcm)
                confidence = item.confidence
                taken += seconds(item.pcm)
            else:
                done = True
            self._work.take()
        return pieces, confidence, done
