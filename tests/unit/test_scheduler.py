"""Who is decoded next, and what becomes of calls whose session is gone."""

from __future__ import annotations

import threading
from functools import partial

import trio
from trio.testing import wait_all_tasks_blocked

from sttd.recognizers.scheduler import Scheduler, Turn, Urgency


class Calls:
    """Blocking calls that end when they are told to, and the order in which they began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def call(self, name: str) -> str:
        self.began.append(name)
        assert self.gates[name].wait(10)
        return name

    async def run(self, name: str, turn: Turn) -> None:
        self.gates.setdefault(name, threading.Event())
        assert await turn.run(partial(self.call, name)) == name

    async def finish(self, name: str) -> None:
        self.gates[name].set()
        await settle()


async def settle() -> None:
    """Until threads that were told to end have, and others have begun."""
    for _ in range(3):
        await trio.sleep(0.05)
        await wait_all_tasks_blocked()


async def test_finals_go_before_what_may_become_one_and_that_before_partials() -> None:
    scheduler, calls = Scheduler(1), Calls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, "running", scheduler.turn(Urgency.FINAL))
        await settle()
        for name in ("partial", "pause", "final", "second final"):
            urgency = Urgency[name.rpartition(" ")[2].upper()]
            nursery.start_soon(calls.run, name, scheduler.turn(urgency))
            await settle()
        for name in ("running", "final", "second final", "pause", "partial"):
            await calls.finish(name)
    assert calls.began == ["running", "final", "second final", "pause", "partial"]


async def test_a_waiting_turn_can_become_more_urgent() -> None:
    scheduler, calls = Scheduler(1), Calls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, "running", scheduler.turn(Urgency.FINAL))
        await settle()
        early = scheduler.turn(Urgency.PAUSE)
        nursery.start_soon(calls.run, "early", early)
        await settle()
        nursery.start_soon(calls.run, "final", scheduler.turn(Urgency.FINAL))
        await settle()
        early.urgency = Urgency.FINAL
        for name in ("running", "early", "final"):
            await calls.finish(name)
    assert calls.began == ["running", "early", "final"]


async def test_an_abandoned_call_keeps_its_place_until_it_ends_and_a_cancelled_wait_takes_none() -> None:
    scheduler, calls = Scheduler(1), Calls()
    async with trio.open_nursery() as nursery:
        abandoned, waiting = trio.CancelScope(), trio.CancelScope()

        async def within(scope: trio.CancelScope, name: str) -> None:
            with scope:
                await calls.run(name, scheduler.turn(Urgency.FINAL))

        nursery.start_soon(within, abandoned, "abandoned")
        await settle()
        nursery.start_soon(within, waiting, "waiting")
        nursery.start_soon(calls.run, "next", scheduler.turn(Urgency.FINAL))
        await settle()
        abandoned.cancel()
        waiting.cancel()
        await settle()
        assert calls.began == ["abandoned"], "the place is taken as long as the thread runs"
        await calls.finish("abandoned")
        await calls.finish("next")
    assert calls.began == ["abandoned", "next"]


async def test_partials_are_for_when_a_place_stays_free() -> None:
    scheduler, calls = Scheduler(2), Calls()
    assert Scheduler(1).spare_turn() is None
    turn = scheduler.spare_turn()
    assert turn is not None
    assert scheduler.spare_turn() is None, "its place is taken from the moment it is given"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, "partial", turn)
        nursery.start_soon(calls.run, "final", scheduler.turn(Urgency.FINAL))
        await settle()
        assert set(calls.began) == {"partial", "final"}
        await calls.finish("final")
        await calls.finish("partial")
    unused = scheduler.spare_turn()
    assert unused is not None
    with trio.CancelScope() as scope:
        scope.cancel()
        await unused.run(list)
    assert scheduler.spare_turn() is not None, "a turn that was cancelled before it began gives its place back"


async def test_calls_that_nobody_waits_for_leave_a_place_free_and_go_last() -> None:
    scheduler, calls = Scheduler(2), Calls()
    async with trio.open_nursery() as nursery:
        for name in ("behind 1", "behind 2", "behind 3"):
            nursery.start_soon(calls.run, name, scheduler.turn(Urgency.BEHIND))
            await settle()
        assert calls.began == ["behind 1"]
        assert scheduler.spare_turn() is None, "one place is left, for a final"
        for name in ("final 1", "final 2"):
            nursery.start_soon(calls.run, name, scheduler.turn(Urgency.FINAL))
            await settle()
        assert calls.began == ["behind 1", "final 1"]
        for name in ("final 1", "final 2", "behind 1", "behind 2", "behind 3"):
            await calls.finish(name)
    assert calls.began == ["behind 1", "final 1", "final 2", "behind 2", "behind 3"]


async def test_with_a_single_place_calls_that_nobody_waits_for_run_too() -> None:
    scheduler, calls = Scheduler(1), Calls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, "behind 1", scheduler.turn(Urgency.BEHIND))
        await settle()
        nursery.start_soon(calls.run, "behind 2", scheduler.turn(Urgency.BEHIND))
        await settle()
        nursery.start_soon(calls.run, "final", scheduler.turn(Urgency.FINAL))
        await settle()
        for name in ("behind 1", "final", "behind 2"):
            await calls.finish(name)
    assert calls.began == ["behind 1", "final", "behind 2"]
