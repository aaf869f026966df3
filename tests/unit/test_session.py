"""A session over a connection and a provider that are only pretended, for what real ones show too rarely."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sttd.config import Config
from sttd.events import Final, Partial
from sttd.protocols.json_events import JsonEvents
from sttd.queues import Memory
from sttd.recognizers.base import Recognizer
from sttd.session import Session
from tests.support import Clip, at_16k_mono

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.recognizers.base import Emit


class Channel:
    """A connection whose client has sent everything already."""

    peer, complete, receiving_message, refused_message = "test", True, False, False
    closed = (1000, "")

    def __init__(self, messages: Sequence[str | bytes]) -> None:
        self._messages = list(messages)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> str | bytes | None:
        await trio.lowlevel.checkpoint()
        return self._messages.pop(0) if self._messages else None

    async def send(self, message: str) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(json.loads(message))

    async def close(self, code: int, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()

    def stop_receiving(self) -> None:
        self._messages.clear()


class Changeable(Recognizer):
    """Shows a hypothesis at once; an utterance's final is the next of `finals`, and none where that is empty."""

    def __init__(self, emit: Emit, finals: list[str]) -> None:
        self._emit = emit
        self._finals = finals
        self.confidences: list[float] = []

    async def start(self, at: float) -> None:
        pass

    async def accept(self, pieces: Sequence[bytes], *, confidence: float = 1.0) -> None:
        self.confidences.append(confidence)
        self._emit(Partial("a hypothesis"))
        await trio.sleep(0.01)  # for the sender

    async def finish(self, *, settled: bool = False, confidence: float = 1.0) -> None:
        self.confidences.append(confidence)
        if text := self._finals.pop(0):
            self._emit(Final(text))


class Pretended:
    name, cloud, finds_endpoints, slowness = "pretended", None, False, 1.0

    def __init__(self, finals: list[str]) -> None:
        self._finals = finals
        self.made: list[Changeable] = []

    async def ready(self) -> None:
        await trio.lowlevel.checkpoint()

    def check(self, _options: object) -> Sequence[str]:
        return ()

    @asynccontextmanager
    async def recognizer(self, _options: object, emit: Emit) -> AsyncIterator[Recognizer]:
        self.made.append(Changeable(emit, self._finals))
        yield self.made[-1]


async def session(messages: Sequence[str | bytes], finals: list[str]) -> tuple[list[tuple[str, str]], Pretended]:
    """What the client is told, and who heard the audio."""
    channel, provider = Channel(messages), Pretended(finals)
    running = Session(channel, JsonEvents(), provider, Config(), "", Memory(0))  # type: ignore[arg-type]
    with trio.fail_after(10):
        await running.run()
    return [(event["type"], event.get("text", "")) for event in channel.sent], provider


@pytest.fixture(scope="module")
def utterances(two_cities: Clip) -> list[bytes]:
    pcm = at_16k_mono(two_cities)
    return [pcm[a * 3200 : b * 3200] + bytes(32000) for a, b in ((12, 46), (50, 62), (66, 82))]


async def test_a_partial_that_no_final_follows_is_taken_back(utterances: list[bytes]) -> None:
    said, _ = await session(utterances, ["one", "", "three"])
    assert said[0] == ("ready", "")
    without_repeats = [one for one, before in zip(said[1:], said, strict=False) if one != before]
    assert without_repeats == [
        ("partial", "a hypothesis"),
        ("final", "one"),
        ("partial", "a hypothesis"),
        ("partial", ""),
        ("partial", "a hypothesis"),
        ("final", "three"),
    ]


async def test_recognizers_are_told_how_sure_the_gate_is(utterances: list[bytes]) -> None:
    _, provider = await session(utterances[:1], ["one"])
    confidences = provider.made[0].confidences
    assert 0.8 < confidences[-1] < 1
    assert confidences == sorted(confidences), "of the utterance so far"
