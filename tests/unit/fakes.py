"""A channel and a provider that only pretend, for what real ones show too rarely."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from sttd.config.config import Config
from sttd.errors import OptionError
from sttd.events import Ending, Final, Partial
from sttd.providers.base import Provider
from sttd.recognizers.base import Recognizer
from sttd.wires.base import Channel, Disconnected, Outcome, Received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.config.config import SessionOptions
    from sttd.recognizers.base import Emit

VANISH = object()
"""In a script: the client is gone."""


class FakeChannel(Channel):
    """A connection whose client follows a script: messages, seconds to wait, or VANISH; then it ends the stream."""

    peer, receiving_message = "test", False

    def __init__(self, script: Sequence[str | bytes | float | object], *, stays: bool = False) -> None:
        """`stays`: at the end of the script the client waits for answers, until it is told that no more is read."""
        self._script = list(script)
        self._stays = stays
        self._stopped = trio.Event()
        self.sent: list[dict[str, Any]] = []
        self.ended: tuple[Ending | None, str] = (None, "")
        self.read = 0
        """Messages."""

    async def receive(self) -> Received | None:
        await trio.lowlevel.checkpoint()
        while self._script and not self._stopped.is_set():
            step = self._script.pop(0)
            if isinstance(step, float):
                with trio.move_on_after(step):
                    await self._stopped.wait()
            elif step is VANISH:
                raise Disconnected
            else:
                assert isinstance(step, str | bytes)
                self.read += 1
                return Received(step)
        if self._stays:
            await self._stopped.wait()
        return None

    async def pause(self, until: float) -> None:
        if not self._script and not self._stays:
            return  # the client has closed
        with trio.move_on_at(until):
            await self._stopped.wait()

    async def send(self, message: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(json.loads(message))

    async def close(self, ending: Ending, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.ended = (ending, reason)

    @property
    def outcome(self) -> Outcome:
        return Outcome(str(self.ended[0]), self.ended[1])

    def stop(self) -> None:
        self._stopped.set()

    @property
    def told(self) -> list[str]:
        """The types of the events that were sent, but for partials."""
        return [event["type"] for event in self.sent if event["type"] != "partial"]


@dataclass
class Behaviour:
    """Of a provider and its recognizers."""

    finals: list[str] = field(default_factory=list)
    """Each utterance's final, in order; empty: none. Without any the final is `said`."""
    load_s: float = 0.0
    fails_to_load: Exception | None = None
    takes_rate: int = 0
    """The one sample rate that the model takes, if it is loaded."""
    fails_in: str = ""
    """The call that raises: open, start, accept or finish."""
    takes_s: float = 0.01
    """Each call."""
    hangs_in: str = ""
    """The call that does not come back, and cannot be cancelled for two minutes."""
    slowness: float = 1.0


class FakeRecognizer(Recognizer):
    def __init__(self, behaviour: Behaviour, emit: Emit) -> None:
        self._behaviour = behaviour
        self._emit = emit
        self.confidences: list[float] = []
        self.heard = 0
        """Bytes."""

    async def _call(self, name: str) -> None:
        behaviour = self._behaviour
        if behaviour.fails_in == name:
            raise ZeroDivisionError(name)
        if behaviour.hangs_in == name:
            with trio.CancelScope(shield=True):
                await trio.sleep(120)
        await trio.sleep(behaviour.takes_s)

    async def start(self, at: float) -> None:
        await self._call("start")

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        self.heard += sum(map(len, pieces))
        self.confidences.append(confidence)
        self._emit(Partial("a hypothesis"))
        await self._call("accept")

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        self.confidences.append(confidence)
        await self._call("finish")
        if text := self._behaviour.finals.pop(0) if self._behaviour.finals else "said":
            self._emit(Final(text))


class FakeProvider(Provider):
    def __init__(self, behaviour: Behaviour | None = None) -> None:
        super().__init__(Config(provider="fake"))
        self._behaviour = behaviour or Behaviour()
        self._loaded = False
        self.made: list[FakeRecognizer] = []

    @property
    def status(self) -> str:
        return "" if self._loaded or not self._behaviour.load_s else "the model is loading"

    @property
    def slowness(self) -> float:
        return self._behaviour.slowness

    def overdue_s(self) -> float:
        return -math.inf

    async def ready(self, *, abandon: bool = False) -> None:
        await trio.sleep(self._behaviour.load_s)
        if self._behaviour.fails_to_load is not None:
            raise self._behaviour.fails_to_load
        self._loaded = True

    def check(self, options: SessionOptions) -> Sequence[str]:
        if self._behaviour.takes_rate not in (0, options.sample_rate) and self._loaded:
            raise OptionError("the model knows no such rate")
        return ()

    @asynccontextmanager
    async def _open(self, options: SessionOptions, emit: Emit, *, live: bool) -> AsyncIterator[Recognizer]:
        if self._behaviour.fails_in == "open":
            raise ZeroDivisionError("open")
        self.made.append(FakeRecognizer(self._behaviour, emit))
        yield self.made[-1]
