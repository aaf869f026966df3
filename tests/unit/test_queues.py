"""The queue between feeder and decoder: small pieces gather, and nothing that ends an utterance waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.testing import wait_all_tasks_blocked

from sttd.session.queues import SecondsQueue, SharedBudget

if TYPE_CHECKING:
    import trio


async def test_small_pieces_gather_and_an_urgent_item_takes_them_along(nursery: trio.Nursery) -> None:
    queue: SecondsQueue[str] = SecondsQueue(10, batch=0.1)
    taken: list[list[str]] = []

    async def take() -> None:
        while True:
            await queue.peek()
            taken.append([queue.take() for _ in range(len(queue))])

    nursery.start_soon(take)
    for name in "abcd":
        await queue.put(name, 0.02, urgent=False)
        await wait_all_tasks_blocked()
    assert taken == []
    await queue.put("e", 0.02, urgent=False)
    await wait_all_tasks_blocked()
    assert taken == [list("abcde")]
    await queue.put("f", 0.02, urgent=False)
    await queue.put("end", 0.005)
    await wait_all_tasks_blocked()
    assert taken[1:] == [["f", "end"]]


async def test_a_sender_that_waits_for_room_makes_what_there_is_due(nursery: trio.Nursery) -> None:
    queue: SecondsQueue[str] = SecondsQueue(1, batch=0.1)
    await queue.put("start", 0.005, urgent=False)
    nursery.start_soon(lambda: queue.put("a second", 1.0, urgent=False))
    assert await queue.peek() == "start"
    assert queue.take() == "start"
    assert await queue.peek() == "a second"


async def test_a_full_queue_holds_its_sender_until_something_is_taken(nursery: trio.Nursery) -> None:
    queue: SecondsQueue[str] = SecondsQueue(1, batch=0.1)
    await queue.put("first", 0.9, urgent=False)
    nursery.start_soon(lambda: queue.put("second", 0.2, urgent=False))
    await wait_all_tasks_blocked()
    assert len(queue) == 1
    assert queue.take() == "first"
    await wait_all_tasks_blocked()
    assert queue.head == "second"


async def test_memory_that_queues_share_lets_one_run_ahead_and_is_given_back(nursery: trio.Nursery) -> None:
    shared = SharedBudget(100)
    queue: SecondsQueue[str] = SecondsQueue(1, shared=shared)
    other: SecondsQueue[str] = SecondsQueue(1, shared=shared)
    for name in ("in room", "in memory"):
        await queue.put(name, 0.9, size=60)
    await other.put("in room", 0.9, size=60)
    nursery.start_soon(lambda: other.put("too much", 0.9, size=60))
    await wait_all_tasks_blocked()
    assert (len(queue), len(other), shared.left) == (2, 1, 40)
    queue.clear()
    assert shared.left == 100
    other.take()
    await wait_all_tasks_blocked()
    assert (other.head, shared.left) == ("too much", 100)


async def test_a_format_of_many_bytes_a_second_fills_the_queue_sooner(nursery: trio.Nursery) -> None:
    queue: SecondsQueue[str] = SecondsQueue(10, capacity_bytes=100)
    await queue.put("first", 1, size=60)
    nursery.start_soon(lambda: queue.put("second", 1, size=60))
    await wait_all_tasks_blocked()
    assert len(queue) == 1
    queue.take()
    await wait_all_tasks_blocked()
    await queue.put("a third", 1, size=40)
    assert [queue.take(), queue.take()] == ["second", "a third"]
    await queue.put("larger than that", 1, size=1000)
    assert queue.take() == "larger than that"
