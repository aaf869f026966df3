"""One client's stream: a nursery with a reader, a feeder, a decoder and a sender, and how it ends.

    channel -> reader -> (commands) -> feeder: audio pipeline -> (work) -> decoder -> (events) -> sender -> channel

Both queues on the way in are bounded in seconds of audio: when the decoder falls behind, the channel is read no more.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import trio

from sttd.audio.pipeline import prepare
from sttd.config.config import apply_options
from sttd.errors import ModelMissing, OptionError, RecognitionError, SttdError, first
from sttd.events import Ending, EndOfStream, Failed, Final, Problem, SessionOver
from sttd.metrics import FAULTS, LIMITS_HIT, SESSIONS, SESSIONS_ENDED, UTTERANCES
from sttd.session.decoder import Decoder
from sttd.session.feeder import Feeder
from sttd.session.queues import Outbox, SecondsQueue
from sttd.session.reader import Reader
from sttd.session.times import Times
from sttd.wires.base import Disconnected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.config.config import Config
    from sttd.protocols.base import Protocol
    from sttd.providers.base import Provider
    from sttd.session.decoder import Work
    from sttd.session.queues import SharedBudget
    from sttd.session.reader import Command
    from sttd.wires.base import Channel

logger = logging.getLogger(__name__)

BYTES_PER_S = 192_000
"""48 kHz stereo: of formats that take more a session's buffer holds fewer seconds."""
MIN_BATCH_S = 0.1
"""The minimum of audio in one call of the recognizer, while an utterance goes on."""
LOOK_AGAIN_S = 1.0
"""Between two looks at a call that takes longer than a session has patience, but is within its deadline."""
MIN_WEIGHT_S = 0.005
"""Seconds that anything in a queue counts for at least, so that messages without audio are bounded too."""


class Session:
    """Runs one connection from its first message to its last."""

    def __init__(
        self, channel: Channel, protocol: Protocol, provider: Provider, config: Config, query: str, ahead: SharedBudget
    ) -> None:
        """`query`: options as in a URL. `ahead`: memory for audio that comes faster than it is decoded."""
        self._channel = channel
        self._protocol = protocol
        self._provider = provider
        self._config = config
        self._options = apply_options(config.session_options(), protocol.defaults)  # at first
        self._refused: OptionError | None = None
        try:
            self._options = apply_options(self._options, dict(parse_qsl(query, keep_blank_values=True)))
        except OptionError as error:
            self._refused = error
        buffer_s = config.limits.buffer_s
        self._commands: SecondsQueue[Command] = SecondsQueue(
            buffer_s,
            min_weight=MIN_WEIGHT_S,
            capacity_bytes=buffer_s * BYTES_PER_S,
            shared=ahead if protocol.live else None,
        )
        self._work: SecondsQueue[Work] = SecondsQueue(buffer_s, batch=MIN_BATCH_S, min_weight=MIN_WEIGHT_S)
        self._outbox = Outbox()
        self._times = Times(provider.name)
        self._reader = Reader(
            channel, protocol, provider, self._options, config.limits, self._commands, self._quota_reached
        )
        self._feeder = Feeder(
            channel,
            protocol,
            self._commands,
            self._work,
            self._outbox,
            self._times,
            bounded=not provider.finds_endpoints,
        )
        self._decoder = Decoder(
            provider,
            self._work,
            self._outbox,
            self._times,
            lambda: self.lag,
            self._failed_for_good,
            live=protocol.live,
        )
        self._started = trio.current_time()
        self._ended_at = 0.0  # by the client or the daemon
        self._drain_s = math.inf
        self._drained_at = -math.inf
        self._watching = trio.CancelScope()
        self._ending = self._over = False
        self._end_as = Ending.DONE, ""
        self._last_event: Failed | None = None  # before the end
        self._finals = 0

    @property
    def lag(self) -> float:
        """Seconds of audio that have come and are not decoded; 0 once the session only waits for a call to return."""
        return 0.0 if self._over else self._commands.seconds + self._work.seconds

    @property
    def live(self) -> bool:
        """Whether the client sends audio no faster than it is spoken, and waits for the text."""
        return self._protocol.live and self._reader.live

    def drain(self, within_s: float) -> None:
        """Read no more, flush, send what is left, and close, all within so many seconds."""
        self._drain_s, self._drained_at = within_s, trio.current_time()
        self._watching.cancel()  # there is less patience
        self._stop(Ending.GOING_AWAY, "sttd is stopping")

    def _stop(self, ending: Ending, reason: str) -> None:
        """Read no more; flush, and say why at the end."""
        self._ending = True
        self._end_as = ending, reason
        self._reader.stop()

    async def run(self) -> None:
        """Run the whole session. Its client and the log are told of faults, which end this session alone."""
        name, peer = self._protocol.name, self._channel.peer
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
                    await self._channel.close(*self._end_as)
                finally:
                    self._over = True
                recognizing.cancel_scope.cancel()
        except* Disconnected:
            pass
        finally:
            self._commands.clear()
            SESSIONS.labels(*labels).dec()
            outcome = self._channel.outcome
            SESSIONS_ENDED.labels(*labels, outcome.code).inc()
            received_s = self._reader.received_s
            logger.info(
                "disconnected protocol=%s peer=%s code=%s reason=%r seconds=%.1f audio_s=%.1f finals=%d rtf=%.2f",
                name,
                peer,
                outcome.code,
                outcome.reason,
                trio.current_time() - self._started,
                received_s,
                self._finals,
                self._times.spent_s / max(received_s, 0.1),
            )

    # How it ends

    async def _keep_limits(self) -> None:
        """End the session when it has lasted or been silent for too long; what was said is answered first."""
        limits = self._config.limits
        idle_s = limits.idle_s or math.inf
        last = self._started + (limits.session_s or math.inf)
        while not self._ending:
            # While nobody waits for a message, the client is not the slow one.
            idle_at = min(self._reader.waiting_since, trio.current_time()) + idle_s
            await trio.sleep_until(min(idle_at, last))
            if trio.current_time() >= last:
                self._quota_reached("session_s", f"A session lasts {limits.session_s:g} s at most")
            elif trio.current_time() >= self._reader.waiting_since + idle_s:
                self._limit_reached("idle_s", Ending.IDLE, f"Nothing was sent for {limits.idle_s:g} s", Problem.IDLE)

    def _quota_reached(self, limit: str, message: str) -> None:
        self._limit_reached(limit, Ending.QUOTA, message, Problem.QUOTA)

    def _limit_reached(self, limit: str, ending: Ending, message: str, problem: Problem) -> None:
        if self._ending:
            return
        LIMITS_HIT.labels(limit).inc()
        logger.info("session ended peer=%s limit=%s", self._channel.peer, limit)
        self._last_event = Failed(message, problem, fatal=True)
        self._stop(ending, message)

    def _failed_for_good(self, failure: Failed) -> None:
        """End the session if its protocol has no other way to tell the client."""
        if not self._protocol.tells_errors:
            self._end(Ending.RECOGNIZER_FAILED, failure.message)

    def _end(self, ending: Ending, reason: str, last_event: Failed | None = None) -> None:
        """End after the events so far, and a last one."""
        self._end_as = ending, reason
        self._last_event = last_event
        self._close_outbox()

    def _end_with(self, error: SttdError) -> None:
        self._end(error.ending, error.summary or str(error), Failed(str(error), error.problem, fatal=True))

    def _close_outbox(self) -> None:
        """Let the sender end, once it has sent what was said and why the session ends."""
        if self._last_event is not None:
            self._outbox.put(self._last_event, self._reader.options)
        self._outbox.put(SessionOver(), self._reader.options)
        self._outbox.close()

    async def _read(self) -> None:
        """Read until the client or the daemon wants to end; then see that the end comes."""
        await self._reader.run()
        self._ending = True
        await self._commands.put(EndOfStream(), weight=0)
        if not await self._model_in_time():
            if self._reader.received_s and self._drain_s == math.inf:  # what was said is lost, and that is told
                message = "The model is still loading; try again."
                self._end(Ending.MODEL_FAILED, message, Failed(message, Problem.MODEL, fatal=True))
            else:
                self._close_outbox()
            return
        self._ended_at = trio.current_time()
        while not self._stalled():
            left_s = self._patience - self._standstill_s
            with trio.move_on_after(left_s + 0.01 if left_s > 0 else LOOK_AGAIN_S) as self._watching:
                await trio.sleep_forever()
        LIMITS_HIT.labels("flush_s").inc()
        message = f"No progress in recognition for {self._standstill_s:.3g} s"
        logger.warning("session cut peer=%s: %s", self._channel.peer, message)
        self._end(Ending.STALLED, "recognition took too long", Failed(message, Problem.STALLED, fatal=True))

    async def _model_in_time(self) -> bool:
        """Wait for a model that still loads, if there is audio for it; in a drain as long as the drain allows."""
        since = trio.current_time()
        while not self._decoder.opened.is_set():
            patience = self._patience if self._reader.received_s or not self._provider.status else 0.0
            left_s = max(since, self._drained_at) + patience - trio.current_time()
            if left_s <= 0:
                return False
            with trio.move_on_after(left_s + 0.01) as self._watching:  # a drain looks again
                await self._decoder.opened.wait()
        return True

    @property
    def _standstill_s(self) -> float:
        """Seconds since recognition made progress, or since the end of the stream."""
        return trio.current_time() - max(self._ended_at, self._decoder.progress_at)

    def _stalled(self) -> bool:
        """Whether recognition stands still, and not because of calls that take their time, of this session or another.

        The worst of the calls counts, so a call that hangs is found. In a drain there is no more time than is left.
        """
        works = self._drain_s == math.inf and -math.inf < self._provider.overdue_s() < 0
        return self._standstill_s >= self._patience and not works

    @property
    def _patience(self) -> float:
        """Seconds that recognition may stand still at the end: a slow machine gets more."""
        return min(self._config.limits.flush_s * self._provider.slowness, 0.9 * self._drain_s)

    # What it does

    async def _send(self) -> None:
        """Send events as messages, until the outbox is closed and empty."""
        while (next_one := await self._outbox.get()) is not None:
            event, options = next_one
            if isinstance(event, Final):
                self._finals += 1
                UTTERANCES.labels(self._protocol.name, event.engine or self._provider.name).inc()
                if self._config.log.transcripts:
                    logger.info("final peer=%s text=%r", self._channel.peer, event.text)
            for message in self._protocol.encode(event, options):
                await self._channel.send(message)

    async def _recognize(self) -> None:
        """Get ready, then feed and decode."""
        try:
            if (warnings := await self._get_ready()) is None:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed, warnings)
                await self._decoder.run(self._options)
                nursery.cancel_scope.cancel()
            self._close_outbox()
        except* Exception as group:
            FAULTS.inc()
            logger.error("recognition failed peer=%s", self._channel.peer, exc_info=group)
            message = f"Recognition failed: {first(group)}"
            failure = Failed(message, Problem.RECOGNIZER, fatal=True)
            self._end(Ending.RECOGNIZER_FAILED, RecognitionError.summary, failure)

    async def _feed(self, warnings: Sequence[str]) -> None:
        await self._decoder.opened.wait()
        await self._feeder.run(self._options, warnings)

    async def _get_ready(self) -> Sequence[str] | None:
        """Wait for the model. Returns warnings about the options; None if there can be no session, which is told."""
        try:
            if self._refused is not None:
                raise self._refused
            await self._provider.ready()
            warnings = self._provider.check(self._options)
        except ModelMissing as error:
            logger.warning("no model: peer=%s was told %r", self._channel.peer, str(error))
            await self._without_model(error)
            return None
        except SttdError as error:
            logger.warning("no session peer=%s: %s", self._channel.peer, error)
            self._end_with(error)
            return None
        if self._provider.destination:
            logger.info(
                "the audio of peer=%s leaves this machine: it is sent to %s (%s)",
                self._channel.peer,
                self._provider.title,
                self._provider.destination,
            )
        await trio.to_thread.run_sync(prepare, self._options)
        self._reader.model_is_known()
        return warnings

    async def _without_model(self, error: ModelMissing) -> None:
        """Tell the client, and let it stay until it closes, as documented; its audio comes to nothing.

        Without error messages in the protocol, the end of the connection says it.
        """
        if not self._protocol.tells_errors:
            self._end_with(error)
            return
        self._reader.model_is_known()
        self._outbox.put(Failed(str(error), error.problem), self._reader.options)
        while not isinstance(await self._commands.peek(), EndOfStream):
            self._commands.take()
        self._close_outbox()
