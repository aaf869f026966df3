"""What a session of a batch engine decodes, and when; with an engine that says what it was given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sttd.config.config import Config, SessionOptions
from sttd.engines.base import BatchEngine, Transcript
from sttd.events import Event, Final, Partial
from sttd.recognizers.batch import BatchRecognizer, StablePrefix
from sttd.recognizers.scheduler import Scheduler

SECOND = bytes(32000)


class Measuring(BatchEngine):
    """Its text is how many seconds it heard."""

    name: ClassVar[str] = "measuring"
    partial_interval_s = 1.0

    def __init__(self) -> None:
        super().__init__(Config(), Path())
        self.heard: list[tuple[float, bool]] = []
        self.go = threading.Event()
        self.go.set()
        self.fails = 0

    @property
    def workers(self) -> int:
        return 2

    def load(self) -> None:
        raise NotImplementedError

    def transcribe(
        self,
        pcm: bytes,
        options: SessionOptions,
        *,
        final: bool = True,
        live: bool = True,
        context: str = "",
        confidence: float = 1.0,
    ) -> Transcript:
        assert self.go.wait(10)
        self.heard.append((len(pcm) / 32000, final))
        if self.fails:
            self.fails -= 1
            raise ValueError("no luck")
        return Transcript(f"{len(pcm) / 32000:g} s")


class Session:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.engine = Measuring()
        self.events: list[Event] = []
        self.scheduler = Scheduler(self.engine.workers + 1)
        self.recognizer = BatchRecognizer(self.engine, SessionOptions(), self.events.append, self.scheduler, nursery)


@pytest.fixture
async def session(nursery: trio.Nursery) -> Session:
    session = Session(nursery)
    await session.recognizer.start(0)
    return session


def text(event: Event) -> str:
    """Of a final."""
    assert isinstance(event, Final)
    return event.text


async def quiet() -> None:
    """Until calls that were started have ended."""
    for _ in range(3):
        await trio.sleep(0.05)


async def test_what_was_decoded_in_the_pause_is_the_final(session: Session) -> None:
    await session.recognizer.accept([SECOND[:16000]])
    await session.recognizer.pause()
    await quiet()
    await session.recognizer.accept([SECOND[:9600]])
    await session.recognizer.finish(settled=True)
    assert session.engine.heard == [(0.5, True)]
    assert text(session.events[-1]) == "0.5 s"


async def test_a_final_waits_for_the_decoding_that_the_pause_began(session: Session) -> None:
    session.engine.go.clear()
    await session.recognizer.accept([SECOND[:16000]])
    await session.recognizer.pause()
    await quiet()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: session.recognizer.finish(settled=True))
        await quiet()
        assert not session.events
        session.engine.go.set()
    assert list(map(text, session.events)) == ["0.5 s"], (
        "and the early result is no partial of the utterance that is over"
    )
    assert session.engine.heard == [(0.5, True)]


async def test_speech_after_the_pause_makes_its_result_a_partial(session: Session) -> None:
    await session.recognizer.accept([SECOND[:16000]])
    await session.recognizer.pause()
    await quiet()
    assert session.events == [Partial("0.5 s")]
    await session.recognizer.accept([SECOND[:9600]])
    await session.recognizer.finish(settled=False)
    assert text(session.events[-1]) == "0.8 s"


async def test_pauses_with_nothing_new_between_them_are_decoded_once(session: Session) -> None:
    session.engine.go.clear()
    await session.recognizer.accept([SECOND[:16000]])
    for _ in range(3):
        await session.recognizer.pause()
        await quiet()
    session.engine.go.set()
    await session.recognizer.finish(settled=False)
    assert session.engine.heard == [(0.5, True)]
    assert list(map(text, session.events)) == ["0.5 s"]


async def test_a_session_takes_one_place_at_a_time_for_what_may_be_its_final(session: Session) -> None:
    session.engine.go.clear()
    for _ in range(3):
        await session.recognizer.accept([SECOND[:9600]])
        await session.recognizer.pause()
        await quiet()
    assert session.scheduler.spare_turn() is not None, "the other worker is free"
    session.engine.go.set()
    await session.recognizer.finish(settled=True)
    assert session.engine.heard == [(0.3, True), (0.9, True)]
    assert text(session.events[-1]) == "0.9 s"


async def test_a_failure_in_the_pause_loses_nothing(session: Session) -> None:
    session.engine.fails = 1
    await session.recognizer.accept([SECOND[:16000]])
    await session.recognizer.pause()
    await quiet()
    await session.recognizer.finish(settled=True)
    assert list(map(text, session.events)) == ["0.5 s"]


async def test_partials_are_one_at_a_time_and_of_the_newest_audio(session: Session) -> None:
    session.engine.go.clear()
    for _ in range(4):
        await session.recognizer.accept([SECOND])
        await quiet()
    session.engine.go.set()
    await quiet()
    await session.recognizer.accept([SECOND])
    await quiet()
    assert session.engine.heard == [(1.0, False), (5.0, False)]


words = st.lists(st.sampled_from(["it", "was", "the", "best", "worst", "of", "times"]), max_size=8)


@given(st.lists(words, min_size=1, max_size=6))
def test_words_that_two_hypotheses_agree_on_stay(hypotheses: list[list[str]]) -> None:
    stable = StablePrefix()
    shown = [stable.extended(" ".join(hypothesis)).split() for hypothesis in hypotheses]
    agreed: list[str] = []
    for last, now, text in zip(hypotheses, hypotheses[1:], shown[1:], strict=False):
        assert text[: len(agreed)] == agreed
        while len(agreed) < min(len(last), len(now)) and last[len(agreed)] == now[len(agreed)]:
            agreed.append(now[len(agreed)])
        assert text == agreed + now[len(agreed) :]


def test_punctuation_and_case_follow_the_newest_hypothesis() -> None:
    stable = StablePrefix()
    shown = [stable.extended(text) for text in ("It was the best.", "it was the best of", "It was, the best of times.")]
    assert shown[-1] == "It was, the best of times."


async def test_who_has_time_is_decoded_once_and_as_somebody_live_would_be(nursery: trio.Nursery) -> None:
    session = Session(nursery)
    later = BatchRecognizer(
        session.engine, SessionOptions(partials=False), session.events.append, session.scheduler, nursery, live=False
    )
    await later.start(0)
    await later.accept([SECOND[:16000]])
    await later.pause()
    await quiet()
    assert session.engine.heard == [], "there is no hurry"
    await later.accept([SECOND[:9600]])
    await later.finish(settled=True)
    assert session.engine.heard == [(0.5, True)]
    assert text(session.events[-1]) == "0.5 s"
