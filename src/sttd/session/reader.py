"""The reader of a session: the client's messages, through its protocol, to work for the feeder.

It knows at any time under which options the client's next message stands, and stamps each piece of work with what the
feeder has to know of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sttd.audio.format import bytes_per_second
from sttd.config.config import apply_options
from sttd.errors import OptionError
from sttd.events import Audio, Configure, EndOfStream, Flush, Problem, Unusable
from sttd.metrics import AUDIO, LIMITS_HIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sttd.config.config import LimitsConfig, SessionOptions
    from sttd.protocols.base import Protocol
    from sttd.providers.base import Provider
    from sttd.session.queues import SecondsQueue
    from sttd.wires.base import Channel, Received

RATE_BURST_S = 10.0
ITEM_BYTES, PARSED_FACTOR = 512, 32
"""What a message takes in memory beyond its audio, and by how much more room a text takes once it is parsed."""
LIVE, LIVE_AHEAD_S = 1.2, 2.0
"""Seconds of audio a second, and at first, from a client that sends as it is spoken."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio of one message, or of part of one, in the format of the options that hold."""

    data: bytes
    seconds: float
    complete: bool
    """Whether the message ends here."""
    arrived: float
    """When it came, of Trio's clock."""


@dataclass(frozen=True, slots=True)
class NewOptions:
    """From here on other options hold."""

    options: SessionOptions
    warnings: Sequence[str]
    """What the provider follows in part only."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A message cannot be used."""

    reason: str
    problem: Problem


Command = Chunk | NewOptions | Complaint | Flush | EndOfStream


class Reader:
    """One session's."""

    def __init__(
        self,
        channel: Channel,
        protocol: Protocol,
        provider: Provider,
        options: SessionOptions,
        limits: LimitsConfig,
        commands: SecondsQueue[Command],
        quota_reached: Callable[[str, str], None],
    ) -> None:
        """`quota_reached` is called with the name of the limit and a sentence for the client."""
        self.received_s = 0.0
        """Seconds of audio that have come."""
        self.waiting_since = math.inf
        """Since when the reader has waited for a message, of Trio's clock; infinite while it does not."""
        self._channel = channel
        self._protocol = protocol
        self._provider = provider
        self.options = options
        """Those that hold for the client's next message."""
        self._bytes_per_s = bytes_per_second(options.sample_rate, options.encoding, options.channels)
        self._limits = limits
        self._commands = commands
        self._quota_reached = quota_reached
        self._audio = AUDIO.labels(protocol.name, provider.name)
        self._started = trio.current_time()
        self._stopped = False
        self._model_known = trio.Event()
        self._waiting_for_model = trio.CancelScope()

    @property
    def live(self) -> bool:
        """Whether the client sends audio no faster than it is spoken."""
        return self.received_s <= LIVE * (trio.current_time() - self._started) + LIVE_AHEAD_S

    def model_is_known(self) -> None:
        """Let messages that change options pass: only a model that is loaded knows which options it can follow."""
        self._model_known.set()

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopped = True
        self._waiting_for_model.cancel()
        self._commands.lift()
        self._channel.stop()

    async def run(self) -> None:
        """Read until the client or the daemon wants the session to end. Raises Disconnected."""
        while (received := await self._next()) is not None:
            message = received.message
            size = ITEM_BYTES + len(message) * (PARSED_FACTOR if isinstance(message, str) else 1)
            command = self._understood(received)
            if isinstance(command, Configure):
                await self._wait_for_model()
                if not self._model_known.is_set():
                    return
                command = self._changed(command.options)
            if isinstance(command, EndOfStream):
                return
            duration = command.seconds if isinstance(command, Chunk) else 0.0
            await self._commands.put(command, duration, size=size)
            if duration:
                await self._count(duration)

    async def _wait_for_model(self) -> None:
        """Wait until it is known which options can be followed, or until the session is to end."""
        with trio.CancelScope() as self._waiting_for_model:
            if self._stopped or self._model_known.is_set():
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._notice_the_end)
                await self._model_known.wait()
                nursery.cancel_scope.cancel()

    async def _notice_the_end(self) -> None:
        await self._channel.pause(math.inf)
        self._waiting_for_model.cancel()

    async def _next(self) -> Received | None:
        self.waiting_since = trio.current_time()
        received = await self._channel.receive()
        self.waiting_since = math.inf
        return received

    def _understood(self, received: Received) -> Command | Configure:
        message = received.message
        if isinstance(message, str) and len(message) > self._limits.text_bytes:
            LIMITS_HIT.labels("text_bytes").inc()
            reason = f"a text message has more than {self._limits.text_bytes} characters"
            return Complaint(reason, Problem.MESSAGE)
        command = self._protocol.receive(message)
        match command:
            case Audio(data):
                return Chunk(data, len(data) / self._bytes_per_s, received.complete, trio.current_time())
            case Unusable(reason):
                return Complaint(reason, Problem.MESSAGE)
        return command

    def _changed(self, changes: Mapping[str, object]) -> Command:
        try:
            options = apply_options(self.options, changes)
            warnings = self._provider.check(options)
        except OptionError as error:
            return Complaint(str(error), error.problem)
        self.options = options
        self._bytes_per_s = bytes_per_second(options.sample_rate, options.encoding, options.channels)
        return NewOptions(options, warnings)

    async def _count(self, duration: float) -> None:
        """Count audio against the limits; after a burst, read it no faster than `limits.rate` allows."""
        limits = self._limits
        self.received_s += duration
        self._audio.inc(duration)
        if limits.audio_s and self.received_s >= limits.audio_s:
            self._quota_reached("audio_s", f"A session may send {limits.audio_s:g} s of audio")
        if limits.rate:
            due = self._started + self.received_s / limits.rate - RATE_BURST_S
            if due > trio.current_time():
                LIMITS_HIT.labels("rate").inc()
                await self._channel.pause(due)
