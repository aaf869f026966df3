"""One client's stream: a nursery with a reader, a feeder, a decoder and a sender, and the Close that ends it.

    socket -> reader -> (commands) -> feeder: audio pipeline -> (segments) -> decoder -> (events) -> sender -> socket

Both queues on the way in are bounded in seconds of audio: when the decoder falls behind, the socket is read no more.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import trio

from sttd.audio.format import RATE, bytes_per_second, seconds
from sttd.audio.pipeline import (
    Pipeline,
    Segment,
    Speech,
    SpeechPause,
    UtteranceEnd,
    UtteranceStart,
    arrival_pause,
    prepare,
)
from sttd.config import SessionOptions, apply_options
from sttd.errors import ModelError, ModelMissing, OptionError
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
    Ready,
    Unusable,
    Warned,
)
from sttd.metrics import AUDIO, FAULTS, LIMITS_HIT, SESSIONS, SESSIONS_ENDED, UTTERANCES
from sttd.net.websocket import Disconnected, WebSocket
from sttd.queues import Memory, Outbox, SecondsQueue
from sttd.times import Times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.config import Config
    from sttd.protocols.base import Protocol
    from sttd.recognizers.base import Recognizer
    from sttd.recognizers.worker import Provider

logger = logging.getLogger(__name__)

NORMAL, GOING_AWAY, POLICY, INTERNAL, TRY_LATER, IDLE, QUOTA = 1000, 1001, 1008, 1011, 1013, 4408, 4429
TOO_BIG = 1009
CODES = {*range(1000, 1016), IDLE, QUOTA}
RATE_BURST_S = 10.0
SLICE_BYTES = 1 << 18
"""Audio that passes through the pipeline in one go, or a second's worth: well under 5 ms of the event loop."""
LEAST_WEIGHT, REOPEN_WEIGHT = 0.005, 1.0
"""Seconds that anything in a queue counts for at least, so that messages without audio are bounded too."""
LIVE, LIVE_AHEAD_S = 1.2, 2.0
"""Seconds of audio a second, and at first, from a client that sends as it is spoken."""
LEAST_BATCH_S, BATCH_S = 0.1, 2.0
"""Audio that goes into one call of the recognizer, at least while an utterance goes on, and at most."""


@dataclass(frozen=True, slots=True)
class _Reopen:
    """The recognizer has to be made anew with these options."""

    options: SessionOptions


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing follows."""


_Work = Segment | MessageDone | _Reopen | _End


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
        self._query = query
        self._options = config.session_options()
        self._commands: SecondsQueue[tuple[Command, float]] = SecondsQueue(config.limits.buffer_s, memory=ahead)
        self._work: SecondsQueue[_Work] = SecondsQueue(config.limits.buffer_s, LEAST_BATCH_S)
        self._outbox = Outbox()
        self._progress = 0.0
        self._close = (NORMAL, "")
        self._unanswered = False  # work was put since the last MessageDone
        self._complained = False
        self._findings: Sequence[str] = ()
        self._warned: set[str] = set()
        self._ready = trio.Event()
        self._started = trio.current_time()
        self._waits_from = math.inf  # for a message
        self._ending = False
        self._received_s = 0.0
        self._finals = 0
        self._said_last: Event | None = None  # before the Close
        self._times = Times(provider.name)

    @property
    def lag(self) -> float:
        """Seconds of audio that have come and are not decoded."""
        return self._commands.seconds + self._work.seconds

    @property
    def live(self) -> bool:
        """Whether the client sends audio no faster than it is spoken."""
        return self._received_s <= LIVE * (trio.current_time() - self._started) + LIVE_AHEAD_S

    def drain(self) -> None:
        """Read no more, flush, say what is left, and close."""
        self._ending = True
        self._close = (GOING_AWAY, "sttd is stopping")
        self._websocket.stop_receiving()

    async def run(self) -> None:
        """The whole session. Faults in it are told to its client and logged, and end it alone."""
        name, peer = self._protocol.name, self._websocket.peer
        logger.info("connected protocol=%s peer=%s", name, peer)
        how = ""
        labels = name, self._provider.name
        SESSIONS.labels(*labels).inc()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._recognize)
                nursery.start_soon(self._keep_limits)
                await self._send()
                nursery.cancel_scope.cancel()
            await self._websocket.close(*self._close)
        except* Disconnected as gone:
            how = str(_first(gone))
        finally:
            self._commands.clear()
            SESSIONS.labels(*labels).dec()
            code = self._websocket.close_code
            SESSIONS_ENDED.labels(*labels, code if code in CODES else "other").inc()
            if code == TOO_BIG:
                LIMITS_HIT.labels("message_bytes").inc()
            AUDIO.labels(*labels).inc(self._received_s)
            logger.info(
                "disconnected protocol=%s peer=%s %s seconds=%.1f audio_s=%.1f finals=%d rtf=%.2f",
                name,
                peer,
                how or self._websocket.how_it_closed(),
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
        self._close, self._said_last = (code, reason), Failed(reason)
        self._websocket.stop_receiving()

    async def _read(self) -> None:
        """Reader: messages to commands, until the client or the daemon wants to end; then see that the end comes."""
        await self._read_commands()
        self._ending = True
        await self._commands.put((EndOfStream(), trio.current_time()))
        await self._ready.wait()
        patience = self._config.limits.flush_s
        self._progress = trio.current_time()
        while (idle := trio.current_time() - self._progress) < patience:  # noqa: ASYNC110 - a moving deadline
            await trio.sleep(patience - idle)
        LIMITS_HIT.labels("flush_s").inc()
        logger.warning("session cut peer=%s: no progress in recognition for %g s", self._websocket.peer, patience)
        self._end(INTERNAL, "recognition took too long", Failed(f"No progress in recognition for {patience:g} s"))

    async def _read_commands(self) -> None:
        limits = self._config.limits
        while (message := await self._next_message()) is not None:
            weight = LEAST_WEIGHT
            if isinstance(message, str) and len(message) > limits.text_bytes:
                LIMITS_HIT.labels("text_bytes").inc()
                command: Command = Unusable(f"a text message has more than {limits.text_bytes} characters")
            else:
                command = self._protocol.receive(message)
            if isinstance(command, EndOfStream):
                return
            size = 0
            if isinstance(command, Audio):
                command = Audio(command.data, self._websocket.complete)
                duration = self._duration(command)
                self._received_s += duration
                weight, size = max(weight, duration), len(command.data)
            await self._commands.put((command, trio.current_time()), weight, size=size)
            if limits.audio_s and self._received_s >= limits.audio_s:
                self._cut("audio_s", QUOTA, f"A session may send {limits.audio_s:g} s of audio")
            if limits.rate and size:
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

    def _duration(self, audio: Audio) -> float:
        options = self._options
        return len(audio.data) / bytes_per_second(options.sample_rate, options.encoding, options.channels)

    async def _send(self) -> None:
        """Sender: events to messages, until the outbox is closed and empty."""
        while (event := await self._outbox.get()) is not None:
            if isinstance(event, Final):
                self._finals += 1
                UTTERANCES.labels(self._protocol.name, event.engine or self._provider.name).inc()
                if self._config.log.transcripts:
                    logger.info("final peer=%s text=%r", self._websocket.peer, event.text)
            message = self._protocol.encode(event, self._options)
            if message is not None:
                await self._websocket.send(message)

    def _end(self, code: int, reason: str, event: Event | None = None) -> None:
        """Close after what has been said so far, and `event`."""
        self._close = (code, reason)
        self._outbox.put(MessageDone())
        if event is not None:
            self._outbox.put(event)
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
            if self._said_last is not None:
                self._outbox.put(self._said_last)
            self._outbox.close()
        except* Exception as group:
            fault = _first(group)
            FAULTS.inc()
            logger.error("recognition failed peer=%s", self._websocket.peer, exc_info=group)
            self._end(INTERNAL, "recognition failed", Failed(f"Recognition failed: {fault}"))

    async def _get_ready(self) -> bool:
        """Whether there is a model and the options can be used; if not the client is told."""
        try:
            await self._provider.ready()
            if (cloud := self._provider.cloud) is not None:
                logger.info(
                    "the audio of peer=%s leaves this machine: it is sent to %s (%s)",
                    self._websocket.peer,
                    cloud.title,
                    cloud.destination,
                )
            query = dict(parse_qsl(self._query, keep_blank_values=True))
            self._options, self._findings = self._checked(self._options, query)
            await self._prepare_audio()
        except ModelMissing as error:
            logger.warning("no model: peer=%s was told %r", self._websocket.peer, str(error))
            await self._without_model(str(error))
            return False
        except ModelError as error:
            logger.error("%s", error)
            self._end(INTERNAL, "the model does not load", Failed(str(error)))
            return False
        except OptionError as error:
            logger.warning("unusable query peer=%s: %s", self._websocket.peer, error)
            self._end(POLICY, str(error), Failed(str(error)))
            return False
        return True

    async def _without_model(self, message: str) -> None:
        """Tell the client, and let it stay until it closes, as documented; its audio comes to nothing.

        The plain protocol has no error message, so there the Close says it.
        """
        self._outbox.put(Failed(message))
        if self._protocol.encode(Failed(message), self._options) is None:
            self._end(TRY_LATER, message)
            return
        while not isinstance((await self._commands.peek())[0], EndOfStream):
            self._commands.take()
        self._outbox.close()

    def _checked(self, options: SessionOptions, changes: Mapping[str, object]) -> tuple[SessionOptions, Sequence[str]]:
        changed = apply_options(options, changes)
        return changed, self._provider.check(changed)

    async def _prepare_audio(self) -> None:
        await trio.to_thread.run_sync(prepare, self._options)

    async def _feed(self) -> None:
        """Feeder: commands through the audio pipeline to work for the decoder."""
        await self._ready.wait()
        self._warn(self._findings, "options")
        pipeline = Pipeline(self._options, bounded=not self._provider.finds_endpoints)
        reply_due = False  # the last message's utterance is still open, so what it says may not be complete
        pause, deadline = math.inf, math.inf
        last_audio = -math.inf
        duration = 0.0  # of the message so far
        while True:
            await self._outbox.room()
            command: Command | None = None
            with trio.CancelScope(deadline=deadline):
                command, arrived = await self._commands.peek()
            match command:
                case None if self._websocket.receiving_message:
                    deadline = trio.current_time() + pause
                    continue
                case Audio():
                    if reply_due:
                        await self._put_mark(MessageDone(), urgent=False)
                    await self._feed_audio(pipeline, command.data)
                    await self._see_doctor(pipeline, command.data)
                    duration += self._duration(command)
                    reply_due = command.complete and pipeline.speaking
                    deadline = math.inf
                    if command.complete:
                        if not reply_due and self._unanswered:
                            await self._put_mark(MessageDone())
                        pause = arrival_pause(self._options, duration, arrived - last_audio)
                        deadline = trio.current_time() + pause if reply_due else math.inf
                        duration, last_audio = 0.0, arrived
                case Unusable(reason):
                    self._complain(reason)
                case Configure(changes):
                    pipeline = await self._configure(pipeline, changes)
                    reply_due = pipeline.speaking
                case _:
                    await self._flush(pipeline)
                    reply_due, deadline = False, math.inf
            if isinstance(command, EndOfStream):
                logger.info("heard peer=%s %s", self._websocket.peer, pipeline.doctor.summary)
                await self._put_mark(_End())
                return
            if command is not None:
                self._commands.take()

    async def _feed_audio(self, pipeline: Pipeline, data: bytes) -> None:
        size = min(pipeline.bytes_per_second, SLICE_BYTES)
        view = memoryview(data)
        for start in range(0, len(view), size):
            if start:
                await trio.lowlevel.checkpoint()
            await self._put_work(pipeline.feed(view[start : start + size]))

    async def _flush(self, pipeline: Pipeline) -> None:
        await self._put_work(pipeline.flush())
        await self._put_mark(MessageDone())

    async def _see_doctor(self, pipeline: Pipeline, data: bytes) -> None:
        findings = pipeline.doctor.look(data)
        if pipeline.doctor.due:
            findings += await trio.to_thread.run_sync(pipeline.doctor.examine)
        self._warn(findings, "audio")

    def _warn(self, findings: Sequence[str], about: str) -> None:
        """To the log and to clients that asked for it, each once."""
        for finding in findings:
            if finding not in self._warned:
                logger.warning("%s of peer=%s: %s", about, self._websocket.peer, finding)
                self._outbox.put(Warned(finding))
            self._warned.add(finding)

    async def _put_mark(self, mark: MessageDone | _Reopen | _End, *, urgent: bool = True) -> None:
        self._unanswered = False
        await self._work.put(mark, REOPEN_WEIGHT if isinstance(mark, _Reopen) else LEAST_WEIGHT, urgent=urgent)

    async def _put_work(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self._unanswered = True
            self._times.put(segment)
            if isinstance(segment, Speech):
                await self._work.put(segment, max(LEAST_WEIGHT, seconds(segment.pcm)), urgent=False)
            else:
                await self._work.put(segment, LEAST_WEIGHT, urgent=not isinstance(segment, UtteranceStart))

    async def _configure(self, pipeline: Pipeline, changes: Mapping[str, object]) -> Pipeline:
        """Change the options; an open utterance ends first. The old pipeline if they cannot be used."""
        try:
            options, findings = self._checked(self._options, changes)
        except OptionError as error:
            self._complain(str(error))
            return pipeline
        if options == self._options:
            return pipeline
        await self._flush(pipeline)
        self._options = options
        self._warn(findings, "options")
        await self._prepare_audio()
        await self._put_mark(_Reopen(options))
        return Pipeline(options, bounded=not self._provider.finds_endpoints, at=pipeline.samples)

    def _complain(self, reason: str) -> None:
        """About a message that cannot be used: to the client where its protocol has errors, and once to the log."""
        if not self._complained:
            logger.warning("unusable message peer=%s (said once): %s", self._websocket.peer, reason)
        self._complained = True
        self._outbox.put(Failed(reason))

    def _say(self, event: Event) -> None:
        if isinstance(event, Partial):
            self._times.partial()
        elif isinstance(event, Final):
            self._unanswered = True
            event = replace(event, lag=round(self.lag, 2))
        self._outbox.put(event)
        if isinstance(event, Failed) and event.lasting and self._protocol.encode(event, self._options) is None:
            self._end(INTERNAL, event.message)

    async def _decode(self) -> None:
        """Decoder: work through the recognizer to events."""
        options: SessionOptions | None = self._options
        while options is not None:
            async with self._provider.recognizer(options, self._say) as recognizer:
                if not self._ready.is_set():
                    self._outbox.put(Ready())
                    self._ready.set()
                options = await self._decode_with(recognizer)

    async def _decode_with(self, recognizer: Recognizer) -> SessionOptions | None:
        """Until the end (None), or until another recognizer is needed (its options)."""
        while True:
            work = await self._work.peek()
            self._progress = self._times.begin()
            match work:
                case Speech():
                    pieces, done = self._take_speech()
                    await recognizer.accept(pieces)
                    self._times.spent(sum(map(seconds, pieces)))
                    if done:
                        self._outbox.put(MessageDone())
                    continue
                case UtteranceStart(at):
                    await recognizer.start(at / RATE)
                case SpeechPause():
                    await recognizer.pause()
                case UtteranceEnd(settled):
                    await recognizer.finish(settled=settled)
                    self._times.finished()
                case MessageDone() as done:
                    self._outbox.put(done)
                case _Reopen(options):
                    self._work.take()
                    return options
                case _End():
                    return None
            self._work.take()

    def _take_speech(self) -> tuple[list[bytes], bool]:
        """What waits of the open utterance, up to BATCH_S, in the pieces in which it came; whether messages ended."""
        pieces: list[bytes] = []
        taken = 0.0
        done = False
        while self._work and isinstance(item := self._work.head, Speech | MessageDone) and taken < BATCH_S:
            if isinstance(item, Speech):
                pieces.append(item.pcm)
                taken += seconds(item.pcm)
            else:
                done = True
            self._work.take()
        return pieces, done


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the exceptions in a group; which one hardly matters, they fell together."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
