"""A session over a connection and a provider that are only pretended, for what real ones show too rarely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from sttd.config.config import Config
from sttd.events import Ending
from sttd.protocols.json_events import JsonEvents
from sttd.protocols.vosk_server import VoskServer
from sttd.session.queues import SharedBudget
from sttd.session.session import Session
from tests.support import Clip, at_16k_mono
from tests.unit.fakes import Behaviour, FakeChannel, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Sequence


async def session(messages: Sequence[str | bytes], finals: list[str]) -> tuple[list[tuple[str, str]], FakeProvider]:
    """What the client is told, and who heard the audio."""
    channel, provider = FakeChannel(messages), FakeProvider(Behaviour(finals))
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
    provider = FakeProvider(Behaviour(["one", "two", "three"]))
    await Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0)).run()
    finals = [event for event in channel.sent if event["type"] == "final"]
    assert [("words" in final, final["text"]) for final in finals] == [(False, "one"), (True, "two"), (False, "three")]


async def test_the_form_of_a_result_stays_with_what_was_said_before(utterances: list[bytes]) -> None:
    channel = FakeChannel([utterances[0], '{"config": {"max_alternatives": 3}}', utterances[1]])
    running = Session(
        channel, VoskServer(), FakeProvider(Behaviour(["one", "two"])), Config(), "sample_rate=16000", SharedBudget(0)
    )
    await running.run()
    results = [message for message in channel.sent if "partial" not in message]
    assert [set(result) for result in results] == [{"text"}, {"alternatives"}]


async def test_words_that_were_asked_for_in_the_query_stay_with_what_was_said_before(utterances: list[bytes]) -> None:
    channel = FakeChannel([utterances[0], '{"type": "config", "words": false}', utterances[1]])
    await Session(channel, JsonEvents(), FakeProvider(), Config(), "words=1", SharedBudget(0)).run()
    assert ["words" in event for event in channel.sent if event["type"] == "final"] == [True, False]


@pytest.mark.parametrize("messages", [[], [bytes(3200)], ['{"type": "config", "words": true}', bytes(3200)]])
async def test_a_drain_does_not_wait_for_a_model_that_loads(
    messages: list[str | bytes], autojump_clock: trio.testing.MockClock
) -> None:
    channel, provider = FakeChannel(messages, stays=True), FakeProvider(Behaviour(load_s=60.0))
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
    channel, provider = FakeChannel(messages), FakeProvider(Behaviour(load_s=20.0))
    started = trio.current_time()
    await Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0)).run()
    assert channel.ended == (Ending.DONE, "")
    assert trio.current_time() - started < 1


async def test_a_client_with_audio_does(utterances: list[bytes]) -> None:
    channel, provider = FakeChannel(utterances[:1]), FakeProvider(Behaviour(["one"], load_s=0.3))
    await Session(channel, JsonEvents(), provider, Config(), "", SharedBudget(0)).run()
    assert channel.sent[-1] == {"type": "final", "text": "one"}
    assert channel.ended == (Ending.DONE, "")


async def test_audio_is_measured_in_the_format_that_the_model_lets_through(utterances: list[bytes]) -> None:
    """A config that comes while the model loads, and that the model refuses, changes neither side of the session."""

    channel = FakeChannel(['{"type": "config", "sample_rate": 48000}', utterances[0]])
    running = Session(
        channel,
        JsonEvents(),
        FakeProvider(Behaviour(["one"], load_s=0.1, takes_rate=16000)),
        Config(),
        "",
        SharedBudget(0),
    )
    await running.run()
    assert [event["type"] for event in channel.sent if event["type"] != "partial"] == ["ready", "error", "final"]
    assert running._reader.received_s == pytest.approx(len(utterances[0]) / 32000)
