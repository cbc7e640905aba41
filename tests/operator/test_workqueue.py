"""The queue in virtual time: each key once, one worker per key, growing delays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chattts_operator.workqueue import WorkQueue
from tests.operator.fakes import run_virtual

Handle = Callable[[str], Awaitable[float | None]]


async def work(queue: WorkQueue[str], handle: Handle, seconds: float, workers: int = 3) -> None:
    tasks = [asyncio.create_task(queue.work(handle)) for _ in range(workers)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def log_of(story: Callable[[WorkQueue[str], list[tuple[float, str]]], Awaitable[None]]) -> list[tuple[float, str]]:
    """What was handled when, in seconds from the start."""

    async def main() -> list[tuple[float, str]]:
        log: list[tuple[float, str]] = []
        await story(WorkQueue(first_back_off=1.0, longest_back_off=8.0, chance=lambda: 0.5), log)
        return log

    return run_virtual(main())


def now() -> float:
    return round(asyncio.get_running_loop().time() - 1000.0, 3)


def test_many_adds_are_one() -> None:
    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        async def handle(key: str) -> None:
            log.append((now(), key))

        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert queue.depth() == 2
        await work(queue, handle, 5)

    assert log_of(story) == [(0, "a"), (0, "b")]


def test_a_key_is_in_one_hand_and_comes_again_if_added_meanwhile() -> None:
    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        busy: set[str] = set()

        async def handle(key: str) -> None:
            assert key not in busy
            busy.add(key)
            log.append((now(), key))
            if len(log) == 1:
                asyncio.get_running_loop().call_later(1, queue.add, "a")
                asyncio.get_running_loop().call_later(2, queue.add, "a")
            await asyncio.sleep(3)
            busy.discard(key)

        queue.add("a")
        await work(queue, handle, 20)

    assert log_of(story) == [(0, "a"), (3, "a")]


def test_back_off_grows_and_is_forgotten_after_a_success() -> None:
    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        async def handle(key: str) -> None:
            log.append((now(), key))
            if len(log) not in (6, 8):
                raise ValueError("no")

        queue.add("a")
        await work(queue, handle, 30)
        queue.add("a")
        await work(queue, handle, 30)

    assert [time for time, _ in log_of(story)] == [0, 1, 3, 7, 15, 23, 30, 31]


def test_events_do_not_cut_a_back_off_short() -> None:
    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        async def handle(key: str) -> None:
            log.append((now(), key))
            queue.add(key)  # its own write wakes it
            raise ValueError("no")

        queue.add("a")
        await work(queue, handle, 16)

    assert [time for time, _ in log_of(story)] == [0, 1, 3, 7, 15]


def test_an_event_after_the_failure_does_not_cut_the_back_off_short() -> None:
    """The event of our own status write comes when the reconcile is over already."""

    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        async def handle(key: str) -> None:
            log.append((now(), key))
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, queue.add, key)
            loop.call_later(0.2, queue.add, key, 0.1)
            raise ValueError("no")

        queue.add("a", 0.5)
        queue.add("a")
        await work(queue, handle, 16)

    assert [time for time, _ in log_of(story)] == [0, 1, 3, 7, 15]


def test_the_server_may_say_how_long_to_wait() -> None:
    class Busy(Exception):
        retry_after = 5.0

    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        async def handle(key: str) -> None:
            log.append((now(), key))
            raise Busy

        queue.add("a")
        await work(queue, handle, 11)

    assert [time for time, _ in log_of(story)] == [0, 5, 10]


def test_delays() -> None:
    """A key wants to come back; of two delays the shorter holds, and an event comes before both."""

    async def story(queue: WorkQueue[str], log: list[tuple[float, str]]) -> None:
        async def handle(key: str) -> float | None:
            log.append((now(), key))
            return 10 if len(log) == 1 else None

        queue.add("a")
        queue.add("b", 4)
        queue.add("b", 2)
        queue.add("b", 6)
        asyncio.get_running_loop().call_later(5, queue.add, "a")
        await work(queue, handle, 60)

    assert log_of(story) == [(0, "a"), (2, "b"), (5, "a")]


def test_how_long_the_first_waits() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        assert queue.oldest_seconds() == 0
        queue.add("a")
        await asyncio.sleep(7)
        queue.add("b")
        assert queue.oldest_seconds() == 7

    run_virtual(main())


def test_nothing_stays_behind() -> None:
    """Ten thousand keys that come and go."""

    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue(chance=lambda: 0.5)
        failed: set[str] = set()

        async def handle(key: str) -> None:
            if key not in failed:
                failed.add(key)
                raise ValueError("once")

        for number in range(10_000):
            queue.add(str(number))
        await work(queue, handle, 100)
        assert len(failed) == 10_000
        for name in ("_ready", "_since", "_working", "_again", "_timers", "_failures"):
            assert len(getattr(queue, name)) == 0, name

    run_virtual(main())


def test_a_deadlock_is_seen_by_the_virtual_clock() -> None:
    """The tests' own clock: waiting for nothing is an error and no endless test."""

    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtual(forever())
