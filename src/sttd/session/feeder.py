"""The feeder of a session: the reader's commands, through the audio pipeline, to work for the decoder."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from sttd.audio.arrivals import Arrivals
from sttd.audio.format import seconds
from sttd.audio.pipeline import Pipeline, Speech, UtteranceStart, prepare
from sttd.events import EndOfStream, Failed, Flush, FlushDone, MessageDone, Problem, Warned
from sttd.session.decoder import End, Reopen
from sttd.session.reader import Chunk, Complaint, NewOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sttd.audio.pipeline import Segment
    from sttd.config.config import SessionOptions
    from sttd.protocols.base import Protocol
    from sttd.session.decoder import Work
    from sttd.session.queues import Outbox, SecondsQueue
    from sttd.session.reader import Command
    from sttd.session.times import Times
    from sttd.wires.base import Channel

logger = logging.getLogger(__name__)

SLICE_BYTES = 1 << 18
"""Audio that passes through the pipeline in one go, or a second's worth: well under 5 ms of the event loop."""
MARK_WEIGHT, REOPEN_WEIGHT = 0.001, 1.0
"""Seconds that the end of a message and a change of recognizer count for in a queue."""


class Feeder:
    """One session's."""

    def __init__(
        self,
        channel: Channel,
        protocol: Protocol,
        commands: SecondsQueue[Command],
        work: SecondsQueue[Work],
        outbox: Outbox,
        times: Times,
        *,
        bounded: bool,
    ) -> None:
        """`bounded`: see Pipeline."""
        self._channel = channel
        self._answers_recordings = protocol.answers_recordings
        self._answers_messages = protocol.answers_messages
        self._commands = commands
        self._work = work
        self._outbox = outbox
        self._times = times
        self._bounded = bounded
        self._warned: set[str] = set()
        self._complained = False
        self._explained = False
        self._options: SessionOptions
        self._pipeline: Pipeline
        self._arrivals: Arrivals
        self._duration = 0.0  # of the message so far
        self._marks_due = 0  # of messages whose last utterance is still open, so what they say may not be complete
        self._unmarked = False  # whether anything was put since the last mark
        self._patience = self._deadline = math.inf

    async def run(self, options: SessionOptions, warnings: Sequence[str]) -> None:
        """Feed until the end of the stream, beginning with these options; `warnings` are about them."""
        self._options = options
        self._warn(warnings, "options")
        self._pipeline = Pipeline(options, bounded=self._bounded)
        self._arrivals = Arrivals(trio.current_time())
        command: Command | None = None
        while not isinstance(command, EndOfStream):
            await self._outbox.room()
            command = None
            with trio.CancelScope(deadline=self._deadline):
                command = await self._commands.peek()
            if command is None and self._channel.receiving_message:
                self._deadline = trio.current_time() + self._patience
                continue
            match command:
                case Chunk():
                    await self._take_audio(command)
                case Complaint(reason, problem):
                    self._complain(reason, problem)
                case NewOptions(options, warnings):
                    await self._change_options(options, warnings)
                case Flush():
                    await self._flush()
                    await self._work.put(FlushDone())
                case _:  # the end, or a pause in arrival
                    await self._flush()
            if command is not None and not isinstance(command, EndOfStream):
                self._commands.take()
        levels = "heard peer=%s level_db=%.0f offset=%.3f full_scale=%.4f longest_gap_s=%.1f"
        logger.info(levels, self._channel.peer, *self._pipeline.doctor.summary)
        await self._work.put(End())

    async def _take_audio(self, audio: Chunk) -> None:
        """Feed a message, or part of one, and say by when the next has to come if it is not to end the utterance."""
        if not audio.data and not self._duration:
            # A keep-alive, or how some clients end a stream: it puts nothing off.
            self._marks_due += 1
            if self._marks_due == 1:
                await self._put_marks(urgent=self._answers_messages)
            return
        if self._marks_due:
            await self._end_message_before()
        await self._feed_audio(audio.data)
        await self._see_doctor(audio.data)
        self._duration += audio.seconds
        self._deadline = math.inf
        if audio.complete:
            await self._end_message(audio.arrived)

    async def _end_message_before(self) -> None:
        """Another message follows: the one before gets its mark, and its reply if it is a recording."""
        pipeline = self._pipeline
        open_yet = pipeline.speaking or pipeline.undecided
        if open_yet and self._arrivals.recording(speaking=pipeline.mid_speech):
            await self._flush()
        else:
            await self._put_marks(urgent=self._unmarked and not pipeline.speaking)

    async def _end_message(self, arrived: float) -> None:
        pipeline = self._pipeline
        self._marks_due += 1
        self._arrivals.came(self._duration, arrived)
        self._duration = 0.0
        self._patience = self._arrivals.patience(self._options, speaking=pipeline.mid_speech)
        # Without a pause in arrival nothing but more audio would decide whether there was speech.
        undecided = pipeline.speaking or (pipeline.undecided and self._patience < math.inf)
        if not (self._answers_recordings and undecided):
            await self._put_marks(urgent=self._answers_messages or (self._unmarked and not pipeline.speaking))
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
        await self._put_marks(urgent=True)
        self._deadline = math.inf

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
        logger.debug("audio of peer=%s: %s", self._channel.peer, missed)
        if not self._explained:
            self._outbox.put(Warned(missed), self._options)
        self._explained = True

    def _warn(self, findings: Sequence[str], about: str) -> None:
        """To the log and to clients that asked for it, each once."""
        for finding in findings:
            if finding not in self._warned:
                logger.warning("%s of peer=%s: %s", about, self._channel.peer, finding)
                self._outbox.put(Warned(finding), self._options)
            self._warned.add(finding)

    async def _put_marks(self, *, urgent: bool) -> None:
        """Place the marks of messages that are done with."""
        for left in range(self._marks_due, 0, -1):
            await self._work.put(MessageDone(), weight=MARK_WEIGHT, urgent=urgent and left == 1)
        self._marks_due = 0
        self._unmarked = False

    async def _put_work(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self._unmarked = True
            self._times.put(segment)
            if isinstance(segment, Speech):
                await self._work.put(segment, seconds(segment.pcm), urgent=False)
            else:
                await self._work.put(segment, urgent=not isinstance(segment, UtteranceStart))

    async def _change_options(self, options: SessionOptions, warnings: Sequence[str]) -> None:
        """End an open utterance, and go on with other options."""
        if options == self._options:
            return
        await self._flush()
        self._options = options
        self._warn(warnings, "options")
        await trio.to_thread.run_sync(prepare, options)
        await self._work.put(Reopen(options), weight=REOPEN_WEIGHT)
        self._pipeline = Pipeline(options, bounded=self._bounded, at=self._pipeline.samples)

    def _complain(self, reason: str, problem: Problem) -> None:
        """About a message that cannot be used: to the client where its protocol has errors, and once to the log."""
        if not self._complained:
            logger.warning("unusable message peer=%s (said once): %s", self._channel.peer, reason)
        self._complained = True
        self._outbox.put(Failed(reason, problem), self._options)
