"""Every way in which a session ends, every limit, and a drain at every stage; in the time of a clock that jumps."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from sttd.audio.pipeline import prepare
from sttd.config.config import Config, LimitsConfig, SessionOptions
from sttd.errors import ModelError, ModelMissing
from sttd.events import Ending
from sttd.metrics import REGISTRY
from sttd.protocols.json_events import JsonEvents
from sttd.protocols.plain import PlainText
from sttd.session.queues import SharedBudget
from sttd.session.session import Session
from tests.unit.fakes import VANISH, Behaviour, FakeChannel, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sttd.protocols.base import Protocol

SECOND = bytes(32000)
EOF = '{"type": "eof"}'
FLUSH = '{"type": "flush"}'


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    prepare(SessionOptions())


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """It jumps when nothing has happened for so long that no thread can still be at work."""
    return trio.testing.MockClock(autojump_threshold=0.01)


class Ran:
    """A session that is over."""

    def __init__(self, channel: FakeChannel, provider: FakeProvider, session: Session, took_s: float) -> None:
        self.channel = channel
        self.provider = provider
        self.session = session
        self.took_s = took_s
        self.ending = channel.ended[0]
        self.last = channel.sent[-1] if channel.sent else {}


async def run(
    script: Sequence[str | bytes | float | object],
    behaviour: Behaviour | None = None,
    *,
    protocol: type[Protocol] = JsonEvents,
    query: str = "gate=0&codes=1",
    stays: bool = False,
    while_it_runs: Callable[[Session], Any] | None = None,
    ahead: int = 0,
    **limits: float,
) -> Ran:
    channel, provider = FakeChannel(script, stays=stays), FakeProvider(behaviour)
    config = replace(Config(), limits=LimitsConfig(**limits))  # type: ignore[arg-type]
    session = Session(channel, protocol(), provider, config, query, SharedBudget(ahead))
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        if while_it_runs is not None:
            nursery.start_soon(while_it_runs, session)
        await session.run()
        nursery.cancel_scope.cancel()
    assert provider.recognizers == 0
    assert session.lag == 0
    return Ran(channel, provider, session, trio.current_time() - started)


def hits(limit: str) -> float:
    return REGISTRY.get_sample_value("sttd_limits_hit_total", {"limit": limit}) or 0.0


# Endings


@pytest.mark.parametrize("script", [[], [EOF], [SECOND], [SECOND, EOF], [SECOND, FLUSH, SECOND, 1.0]])
async def test_done(clock: trio.testing.MockClock, script: list[str | bytes]) -> None:
    ran = await run(script)
    assert ran.ending is Ending.DONE
    assert ran.channel.told == ["ready"] + ["final"] * script.count(SECOND)


@pytest.mark.parametrize("query", ["gate=maybe", "sample_rate=-1", "nonsense=1", "channels=2&channel=3"])
async def test_policy(clock: trio.testing.MockClock, query: str) -> None:
    ran = await run([SECOND], query=query, stays=True)
    assert ran.ending is Ending.POLICY
    assert ran.last["type"] == "error"
    assert query.split("=", maxsplit=1)[0].split("&", maxsplit=1)[0] in ran.channel.ended[1]


async def test_policy_of_the_model(clock: trio.testing.MockClock) -> None:
    behaviour = Behaviour(load_s=1.0, takes_rate=16000)
    ran = await run([SECOND], behaviour, query="sample_rate=8000&codes=1", stays=True)
    assert ran.ending is Ending.POLICY
    assert (ran.last["code"], ran.last["fatal"]) == ("bad_option", True)


async def test_model_missing(clock: trio.testing.MockClock) -> None:
    missing = Behaviour(fails_to_load=ModelMissing())
    ran = await run([SECOND, FLUSH, 5.0, SECOND, EOF], missing)
    assert (ran.ending, ran.channel.told) == (Ending.DONE, ["error"]), "it may stay until it closes, as documented"
    assert (ran.last["message"], ran.last["code"]) == ("No STT model available", "no_model")
    ran = await run([SECOND], missing, protocol=PlainText, stays=True)
    assert (ran.channel.sent, ran.channel.ended) == ([], (Ending.MODEL_MISSING, "No STT model available"))


@pytest.mark.parametrize("protocol", [JsonEvents, PlainText])
async def test_model_failed(clock: trio.testing.MockClock, protocol: type[Protocol]) -> None:
    ran = await run([SECOND], Behaviour(fails_to_load=ModelError("a file is damaged")), protocol=protocol, stays=True)
    assert ran.channel.ended == (Ending.MODEL_FAILED, "the model does not load")
    if protocol is JsonEvents:
        assert (ran.last["message"], ran.last["code"]) == ("a file is damaged", "model_failed")


@pytest.mark.parametrize("call", ["open", "start", "accept", "finish"])
async def test_recognizer_failed(clock: trio.testing.MockClock, call: str, caplog: pytest.LogCaptureFixture) -> None:
    ran = await run([SECOND, FLUSH], Behaviour(fails_in=call), stays=True)
    assert ran.channel.ended == (Ending.RECOGNIZER_FAILED, "recognition failed")
    assert (ran.last["code"], ran.last["message"]) == ("recognizer_failed", f"Recognition failed: {call}")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("call", ["start", "accept", "finish"])
async def test_stalled(clock: trio.testing.MockClock, call: str) -> None:
    before = hits("flush_s")
    ended: list[float] = []
    channel = FakeChannel([SECOND, EOF])
    session = Session(
        channel, JsonEvents(), FakeProvider(Behaviour(hangs_in=call)), Config(), "gate=0&codes=1", SharedBudget(0)
    )
    close = channel.close

    async def closing(ending: Ending, reason: str) -> None:
        ended.append(trio.current_time())
        await close(ending, reason)

    channel.close = closing  # type: ignore[method-assign]
    started = trio.current_time()
    await session.run()
    assert channel.ended[0] is Ending.STALLED
    assert (channel.sent[-1]["code"], channel.sent[-1]["fatal"]) == ("stalled", True)
    assert 30 <= ended[0] - started < 32, "the client does not wait for the call"
    assert hits("flush_s") == before + 1


async def test_a_slow_machine_is_not_stalled(clock: trio.testing.MockClock) -> None:
    ran = await run([SECOND, EOF], Behaviour(takes_s=50.0, slowness=3.0))
    assert (ran.ending, ran.channel.told) == (Ending.DONE, ["ready", "final"])


@pytest.mark.parametrize(
    "script",
    [[VANISH], [SECOND, VANISH], [SECOND, FLUSH, VANISH], [SECOND, 30.0, VANISH], ['{"type": "config"}', VANISH]],
)
@pytest.mark.parametrize("load_s", [0.0, 10.0])
async def test_disconnected(
    clock: trio.testing.MockClock, script: list[object], load_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    ran = await run(script, Behaviour(load_s=load_s))
    assert ran.ending is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Limits


async def test_idle(clock: trio.testing.MockClock) -> None:
    ran = await run([SECOND, 50.0, SECOND], stays=True, idle_s=60.0)
    assert ran.channel.ended == (Ending.IDLE, "Nothing was sent for 60 s")
    assert ran.channel.told == ["ready", "final", "final", "error"]
    assert (ran.last["code"], ran.last["fatal"]) == ("idle", True)
    assert 109 < ran.took_s < 115


async def test_a_client_that_is_not_read_is_not_idle(clock: trio.testing.MockClock) -> None:
    ran = await run([SECOND] * 20, Behaviour(takes_s=30.0), idle_s=5.0, buffer_s=1.0, flush_s=100.0)
    assert ran.ending is Ending.DONE


async def test_quota_of_audio(clock: trio.testing.MockClock) -> None:
    ran = await run([SECOND] * 9, stays=True, audio_s=5.0)
    assert ran.channel.ended == (Ending.QUOTA, "A session may send 5 s of audio")
    assert ran.channel.told == ["ready", "final", "error"]
    assert ran.channel.read == 5
    assert ran.provider.made[0].heard == 5 * len(SECOND), "what was read is answered"


async def test_quota_of_time(clock: trio.testing.MockClock) -> None:
    ran = await run([SECOND, 8.0] * 9, stays=True, session_s=20.0)
    assert ran.channel.ended == (Ending.QUOTA, "A session lasts 20 s at most")
    assert ran.channel.told == ["ready", "final", "final", "final", "error"]
    assert 20 <= ran.took_s < 22


async def test_reading_speed(clock: trio.testing.MockClock) -> None:
    before = hits("rate")
    ran = await run([SECOND] * 30, rate=2.0)
    assert 4 < ran.took_s < 8, "10 s at once, then 20 s at twice the speed of speech; some of that while it waits"
    assert hits("rate") > before


async def test_length_of_a_text(clock: trio.testing.MockClock) -> None:
    ran = await run(["x" * 400, SECOND], text_bytes=300)
    assert ran.channel.told == ["ready", "error", "final"]
    assert "more than 300 characters" in next(one for one in ran.channel.sent if one["type"] == "error")["message"]


@pytest.mark.parametrize("ahead", [0, 10 << 20])
async def test_audio_waits_in_memory_up_to_a_limit(clock: trio.testing.MockClock, ahead: int) -> None:
    read: list[int] = []

    async def look(session: Session) -> None:
        await trio.sleep(1)
        assert isinstance(session._channel, FakeChannel)
        read.append(session._channel.read)

    behaviour = Behaviour(takes_s=20.0)
    ran = await run([SECOND] * 30, behaviour, while_it_runs=look, buffer_s=2.0, ahead=ahead, flush_s=1000.0)
    assert ran.ending is Ending.DONE
    assert ran.provider.made[0].heard == 30 * len(SECOND)
    assert read[0] == 30 if ahead else 3 <= read[0] <= 7


# A drain


@pytest.mark.parametrize(
    ("script", "behaviour", "told"),
    [
        ([], Behaviour(load_s=60.0), []),
        ([SECOND], Behaviour(load_s=60.0), []),
        (['{"type": "config", "words": true}', SECOND], Behaviour(load_s=60.0), []),
        ([], Behaviour(), ["ready"]),
        ([SECOND], Behaviour(), ["ready", "final"]),
        ([SECOND, FLUSH], Behaviour(), ["ready", "final"]),
        ([SECOND] * 3, Behaviour(takes_s=0.1), ["ready", "final"]),
        ([SECOND] * 30, Behaviour(), ["ready", "final"]),
        ([SECOND] * 30, Behaviour(takes_s=3.0), ["ready", "error"]),
        ([SECOND], Behaviour(fails_to_load=ModelMissing()), ["error"]),
    ],
    ids=["loading", "audio", "config", "idle", "mid-utterance", "flushed", "decoding", "long", "slow", "no-model"],
)
async def test_drain(
    clock: trio.testing.MockClock, script: list[str | bytes], behaviour: Behaviour, told: list[str]
) -> None:
    async def drain(session: Session) -> None:
        await trio.sleep(1)
        session.drain(2.0)

    ran = await run(script, behaviour, stays=True, while_it_runs=drain)
    assert ran.ending is (Ending.STALLED if told[-1:] == ["error"] and behaviour.takes_s > 1 else Ending.GOING_AWAY)
    assert ran.channel.told == told
    assert ran.took_s < 4 + 2 * behaviour.takes_s


async def test_a_drain_while_the_reader_waits_for_room(clock: trio.testing.MockClock) -> None:
    async def drain(session: Session) -> None:
        await trio.sleep(1)
        session.drain(2.0)

    ran = await run([SECOND] * 30, Behaviour(takes_s=60.0), stays=True, while_it_runs=drain, buffer_s=1.0)
    assert ran.ending is Ending.STALLED
    assert ran.took_s < 4
    ran = await run([SECOND] * 6, Behaviour(takes_s=1.5), stays=True, while_it_runs=drain, buffer_s=1.0)
    assert (ran.ending, ran.channel.told) == (Ending.GOING_AWAY, ["ready", "final"])
    assert ran.provider.made[0].heard == ran.channel.read * len(SECOND), "what was read is answered"


async def test_a_drain_before_the_session_runs(clock: trio.testing.MockClock) -> None:
    channel = FakeChannel([SECOND], stays=True)
    session = Session(channel, JsonEvents(), FakeProvider(), Config(), "", SharedBudget(0))
    session.drain(5.0)
    await session.run()
    assert channel.ended == (Ending.GOING_AWAY, "sttd is stopping")


async def test_a_close_behind_a_config_while_the_model_loads(clock: trio.testing.MockClock) -> None:
    ran = await run(['{"type": "config", "words": true}'], Behaviour(load_s=60.0))
    assert ran.ending is Ending.DONE
    assert ran.took_s < 2


async def test_a_drain_behind_the_end_of_a_stream_while_the_model_loads(clock: trio.testing.MockClock) -> None:
    async def drain(session: Session) -> None:
        await trio.sleep(1)
        session.drain(2.0)

    ran = await run([SECOND, EOF], Behaviour(load_s=60.0), while_it_runs=drain)
    assert ran.ending is Ending.GOING_AWAY
    assert ran.took_s < 4
    ran = await run([SECOND, EOF], Behaviour(load_s=2.0), while_it_runs=drain)
    assert ran.channel.told == ["ready", "final"], "the model came in time: nothing is lost"


async def test_a_close_while_the_model_loads(clock: trio.testing.MockClock) -> None:
    ran = await run([1.0], Behaviour(load_s=60.0))
    assert ran.ending is Ending.DONE
    assert ran.took_s < 2
    ran = await run([SECOND, EOF], Behaviour(load_s=20.0))
    assert ran.channel.told == ["ready", "final"], "there is audio, which is worth the wait"
    ran = await run([SECOND, EOF], Behaviour(load_s=200.0))
    assert ran.took_s < 35, "but not for ever"
    assert ran.ending is Ending.MODEL_FAILED, "and what was said for nothing is told"
    assert (ran.last["type"], ran.last["code"]) == ("error", "model_failed")


async def test_the_last_error_is_in_the_form_that_a_config_asked_for(clock: trio.testing.MockClock) -> None:
    ran = await run(['{"type": "config", "codes": true}', *[SECOND] * 9], query="gate=0", stays=True, audio_s=5.0)
    assert ran.channel.told[-1] == "error"
    assert (ran.last["code"], ran.last["fatal"]) == ("quota", True)
