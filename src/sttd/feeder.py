"""The feeder of a session: commands through the audio pipeline to work for the recognizer.

It owns the session's options, since they change between two pieces of audio.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sttd.audio.arrivals import Arrivals
from sttd.audio.format import bytes_per_second, seconds
from sttd.audio.pipeline import Pipeline, Segment, Speech, UtteranceStart, prepare
from sttd.config import SessionOptions, apply_options
from sttd.errors import OptionError
from sttd.events import Audio, Command, Configure, EndOfStream, Failed, MessageDone, Problem, Unusable, Warned
from sttd.queues import Memory, Outbox, SecondsQueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sttd.net.websocket import WebSocket
    from sttd.recognizers.worker import Provider
    from sttd.times import Times

logger = logging.getLogger(__name__)

SLICE_BYTES = 1 << 18
"""Audio that passes through the pipeline in one go, or a second's worth: well under 5 ms of the event loop."""
BYTES_PER_S = 192_000
"""48 kHz stereo: of formats that take more a session's buffer holds fewer seconds."""
LEAST_BATCH_S = 0.1
"""Audio that goes into one call of the recognizer, at least, while an utterance goes on."""
LEAST_WEIGHT, REOPEN_WEIGHT = 0.005, 1.0
"""Seconds that anything in a queue counts for at least, so that messages without audio are bounded too."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """The recognizer has to be made anew with these options."""

    options: SessionOptions


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows."""


Work = Segment | MessageDone | Reopen | End


class Feeder:
    """One session's. `commands` come from its reader; `work` is for its decoder."""

    def __init__(
        self,
        options: SessionOptions,
        provider: Provider,
        websocket: WebSocket,
        outbox: Outbox,
        times: Times,
        ahead: Memory,
        buffer_s: float,
        *,
        answers_recordings: bool,
    ) -> None:
        """`ahead`: memory for audio that comes faster than it is decoded, beyond `buffer_s` seconds.

        `answers_recordings`: see Protocol.
        """
        self.options = options
        self.commands: SecondsQueue[tuple[Command, float]] = SecondsQueue(
            buffer_s, least_weight=LEAST_WEIGHT, capacity_bytes=buffer_s * BYTES_PER_S, memory=ahead
        )
        """With the times at which they came."""
        self.work: SecondsQueue[Work] = SecondsQueue(buffer_s, batch=LEAST_BATCH_S, least_weight=LEAST_WEIGHT)
        self.unanswered = False
        """Something was put, or said, since the last MessageDone."""
        self._provider = provider
        self._websocket = websocket
        self._outbox = outbox
        self._times = times
        self._answers_recordings = answers_recordings
        self._findings: Sequence[str] = ()
        self._warned: set[str] = set()
        self._complained = False
        self._explained = False
        self._pipeline: Pipeline
        self._arrivals: Arrivals
        self._duration = 0.0  # of the message so far
        self._reply_due = False  # the last message's utterance is still open, so what it says may not be complete
        self._patience = self._deadline = math.inf

    @property
    def seconds(self) -> float:
        """Of audio that have come and are not decoded."""
        return self.commands.seconds + self.work.seconds

    async def prepare(self) -> None:
        """Get ready for the first options; OptionError where the model, which is loaded by now, cannot use them."""
        self._findings = self._provider.check(self.options)
        await trio.to_thread.run_sync(prepare, self.options)

    def checked(self, options: SessionOptions, changes: Mapping[str, object]) -> tuple[SessionOptions, Sequence[str]]:
        """`options` with a client's changes, and what of them is used in part only. OptionError."""
        changed = apply_options(options, changes)
        return changed, self._provider.check(changed)

    async def run(self) -> None:
        """Feed until the end of the stream."""
        self._warn(self._findings, "options")
        self._pipeline = Pipeline(self.options, bounded=not self._provider.finds_endpoints)
        self._arrivals = Arrivals(trio.current_time())
        command: Command | None = None
        while not isinstance(command, EndOfStream):
            await self._outbox.room()
            command = None
            with trio.CancelScope(deadline=self._deadline):
                command, arrived = await self.commands.peek()
            if command is None and self._websocket.receiving_message:
                self._deadline = trio.current_time() + self._patience
                continue
            match command:
                case Audio():
                    await self._take_audio(command, arrived)
                case Unusable(reason):
                    self._complain(reason, Problem.MESSAGE)
                case Configure(changes):
                    await self._configure(changes)
                case _:
                    await self._flush()
            if command is not None and not isinstance(command, EndOfStream):
                self.commands.take()
        levels = "heard peer=%s level_db=%.0f offset=%.3f full_scale=%.4f longest_gap_s=%.1f"
        logger.info(levels, self._websocket.peer, *self._pipeline.doctor.summary)
        await self._put_mark(End())

    async def _take_audio(self, audio: Audio, arrived: float) -> None:
        """Feed a message, or part of one, and say by when the next has to come if it is not to end the utterance."""
        pipeline = self._pipeline
        if not audio.data and not self._duration:
            return  # a keep-alive, or how some clients end a stream: it puts nothing off
        if self._reply_due and self._answers_recordings and self._arrivals.recording(speaking=pipeline.mid_speech):
            await self._flush()
        elif self._reply_due:
            await self._put_mark(MessageDone(), urgent=False)
        await self._feed_audio(audio.data)
        await self._see_doctor(audio.data)
        self._duration += audio_seconds(audio, self.options)
        self._reply_due = audio.complete and pipeline.speaking
        self._deadline = math.inf
        if audio.complete:
            if not self._reply_due and self.unanswered:
                await self._put_mark(MessageDone())
            self._arrivals.came(self._duration, arrived)
            self._duration = 0.0
            self._patience = self._arrivals.patience(self.options, speaking=pipeline.mid_speech)
            if pipeline.unsettled:
                self._deadline = trio.current_time() + self._patience

    async def _feed_audio(self, data: bytes) -> None:
        pipeline = self._pipeline
        size = min(pipeline.bytes_per_second, SLICE_BYTES)
        view = memoryview(data)
        for start in range(0, len(view), size):
            if start:
                await trio.lowlevel.checkpoint()
            await self._put_work(pipeline.feed(view[start : start + size]))

    async def _flush(self) -> None:
        await self._put_work(self._pipeline.flush())
        await self._put_mark(MessageDone())
        self._reply_due, self._deadline = False, math.inf

    async def _see_doctor(self, data: bytes) -> None:
        pipeline = self._pipeline
        findings = pipeline.doctor.look(data)
        if pipeline.doctor.due:
            findings += await trio.to_thread.run_sync(pipeline.doctor.examine)
        self._warn(findings, "audio")
        if missed := pipeline.take_missed():
            self._explain(missed)

    def _explain(self, missed: str) -> None:
        """Say why there is no text: to the log, and the first time to a client that asked for warnings."""
        logger.debug("audio of peer=%s: %s", self._websocket.peer, missed)
        if not self._explained:
            self._outbox.put(Warned(missed), self.options)
        self._explained = True

    def _warn(self, findings: Sequence[str], about: str) -> None:
        """To the log and to clients that asked for it, each once."""
        for finding in findings:
            if finding not in self._warned:
                logger.warning("%s of peer=%s: %s", about, self._websocket.peer, finding)
                self._outbox.put(Warned(finding), self.options)
            self._warned.add(finding)

    async def _put_mark(self, mark: MessageDone | Reopen | End, *, urgent: bool = True) -> None:
        self.unanswered = False
        await self.work.put(mark, weight=REOPEN_WEIGHT if isinstance(mark, Reopen) else None, urgent=urgent)

    async def _put_work(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self.unanswered = True
            self._times.put(segment)
            if isinstance(segment, Speech):
                await self.work.put(segment, seconds(segment.pcm), urgent=False)
            else:
                await self.work.put(segment, urgent=not isinstance(segment, UtteranceStart))

    async def _configure(self, changes: Mapping[str, object]) -> None:
        """Change the options, unless they cannot be used; an open utterance ends first."""
        try:
            options, findings = self.checked(self.options, changes)
        except OptionError as error:
            self._complain(str(error), Problem.OPTION)
            return
        if options == self.options:
            return
        await self._flush()
        self.options = options
        self._warn(findings, "options")
        await trio.to_thread.run_sync(prepare, options)
        await self._put_mark(Reopen(options))
        self._pipeline = Pipeline(options, bounded=not self._provider.finds_endpoints, at=self._pipeline.samples)

    def _complain(self, reason: str, problem: Problem) -> None:
        """About a message that cannot be used: to the client where its protocol has errors, and once to the log."""
        if not self._complained:
            logger.warning("unusable message peer=%s (said once): %s", self._websocket.peer, reason)
        self._complained = True
        self._outbox.put(Failed(reason, problem), self.options)


def audio_seconds(audio: Audio, options: SessionOptions) -> float:
    """Duration of audio that came in the format of these options."""
    return len(audio.data) / bytes_per_second(options.sample_rate, options.encoding, options.channels)
