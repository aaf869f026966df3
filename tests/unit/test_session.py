"""A session over a connection and a provider that are only pretended, for what real ones show too rarely."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from sttd.config.config import Config
from sttd.errors import OptionError
from sttd.events import Ending, Final, Partial
from sttd.protocols.json_events import JsonEvents
from sttd.providers.base import Provider
from sttd.recognizers.base import Recognizer
from sttd.session.queues import SharedBudget
from sttd.session.session import Session
from sttd.wires.base import Channel, Outcome, Received
from tests.support import Clip, at_16k_mono

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sttd.config.config import SessionOptions
    from sttd.recognizers.base import Emit


class FakeChannel(Channel):
    """A connection whose client has sent everything already."""

    peer, receiving_message = "test", False

    def __init__(self, messages: Sequence[str | bytes], *, stays: bool = False) -> None:
        """`stays`: the client waits for answers, until it is told that no more is received."""
        self._messages = list(messages)
        self.sent: list[dict[str, Any]] = []
        self.ended: tuple[Ending | None, str] = (None, "")
        self._stopped = trio.Event()
        if not stays:
            self._stopped.set()

    async def receive(self) -> Received | None:
        await trio.lowlevel.checkpoint()
        if not self._messages:
            await self._stopped.wait()
        return Received(self._messages.pop(0)) if self._messages else None

    async def pause(self, until: float) -> None:
        await trio.sleep_until(until)

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
        self._messages.clear()
        self._stopped.set()


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


class FakeProvider(Provider):
    def __init__(self, finals: list[str], load_s: float = 0.0) -> None:
        super().__init__(Config(provider="fake"))
        self._finals = finals
        self._load_s = load_s
        self.made: list[Changeable] = []

    @property
    def status(self) -> str:
        return "the model is loading" if self._load_s else ""

    async def ready(self, *, abandon: bool = False) -> None:
        await trio.sleep(self._load_s)
        self._load_s = 0.0

    @asynccontextmanager
    async def _open(self, options: SessionOptions, emit: Emit) -> AsyncIterator[Recognizer]:
        self.made.append(Changeable(emit, self._finals))
        yield self.made[-1]


async def session(messages: Sequence[str | bytes], finals: list[str]) -> tuple[list[tuple[str, str]], FakeProvider]:
    """What the client is told, and who heard the audio."""
    channel, provider = FakeChannel(messages), FakeProvider(finals)
    running = Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0))
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


async def test_a_change_of_options_leaves_what_was_said_before_as_it_was(utterances: list[bytes]) -> None:
    switch_on, switch_off = '{"type": "config", "words": true}', '{"type": "config", "words": false}'
    one, two, three = utterances
    channel = FakeChannel([one, switch_on, two, switch_off, three])
    provider = FakeProvider(["one", "two", "three"])
    await Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0)).run()
    finals = [event for event in channel.sent if event["type"] == "final"]
    assert [("words" in final, final["text"]) for final in finals] == [(False, "one"), (True, "two"), (False, "three")]


@pytest.mark.parametrize("messages", [[], [bytes(3200)], ['{"type": "config", "words": true}', bytes(3200)]])
async def test_a_drain_does_not_wait_for_a_model_that_loads(
    messages: list[str | bytes], autojump_clock: trio.testing.MockClock
) -> None:
    channel, provider = FakeChannel(messages, stays=True), FakeProvider([], load_s=60)
    running = Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await trio.sleep(1)
        running.drain(0.5)
    assert trio.current_time() < 2.1
    assert channel.ended == (Ending.GOING_AWAY, "sttd is stopping")


@pytest.mark.parametrize("messages", [[], ['{"type": "eof"}']])
async def test_a_client_without_audio_does_not_wait_for_a_model_that_loads(
    messages: list[str | bytes], autojump_clock: trio.testing.MockClock
) -> None:
    channel, provider = FakeChannel(messages), FakeProvider([], load_s=20)
    started = trio.current_time()
    await Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0)).run()
    assert channel.ended == (Ending.DONE, "")
    assert trio.current_time() - started < 1


async def test_a_client_with_audio_does(utterances: list[bytes]) -> None:
    channel, provider = FakeChannel(utterances[:1]), FakeProvider(["one"], load_s=0.3)
    await Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0)).run()
    assert channel.sent[-1] == {"type": "final", "text": "one"}
    assert channel.ended == (Ending.DONE, "")


async def test_audio_is_measured_in_the_format_that_the_model_lets_through(utterances: list[bytes]) -> None:
    """A config that comes while the model loads, and that the model refuses, changes neither side of the session."""

    class Choosy(FakeProvider):
        def check(self, options: Any) -> Sequence[str]:
            if options.sample_rate != 16000 and not self._load_s:
                raise OptionError("the model knows no such rate")
            return ()

    channel = FakeChannel(['{"type": "config", "sample_rate": 48000}', utterances[0]])
    running = Session(channel, JsonEvents(), Choosy(["one"], 0.1), Config(), "", SharedBudget(0))
    await running.run()
    assert [event["type"] for event in channel.sent if event["type"] != "partial"] == ["ready", "error", "final"]
    assert running._reader.received_s == pytest.approx(len(utterances[0]) / 32000)
