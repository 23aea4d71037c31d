"""The work queue: one key at a time, none starved, what fails comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from contextlib import suppress

import pytest

from model_operator.adapters.kube import ThrottledError
from model_operator.engine.queue import WorkQueue

pytestmark = pytest.mark.looptime


class Work:
    """Records what is worked on, and when."""

    def __init__(self, *, workers: int = 2, duration_s: float = 0.0) -> None:
        self.begun: list[tuple[str, float]] = []
        self.most_at_once: dict[str, int] = {}
        self.failing: set[str] = set()
        self.retries: list[float] = []
        self._running: dict[str, int] = {}
        self._duration_s = duration_s
        self.queue: WorkQueue[str] = WorkQueue(
            self._work, failed=self._failed, workers=workers, jitter=lambda: 1.0
        )

    @property
    def times(self) -> list[float]:
        return [round(time, 3) for _, time in self.begun]

    async def _work(self, key: str) -> None:
        self.begun.append((key, asyncio.get_running_loop().time()))
        self._running[key] = self._running.get(key, 0) + 1
        self.most_at_once[key] = max(self.most_at_once.get(key, 0), self._running[key])
        await asyncio.sleep(self._duration_s)
        self._running[key] -= 1
        if key in self.failing:
            raise OSError("as the test wants it")

    def _failed(self, _key: Hashable, _error: Exception, retry_s: float) -> None:
        self.retries.append(retry_s)

    async def for_s(self, duration_s: float) -> None:
        """Work for so long, then stop in order."""
        running = asyncio.create_task(self.queue.run())
        await asyncio.sleep(duration_s)
        self.queue.stop()
        await running


async def test_a_key_that_always_comes_again_does_not_starve_the_rest() -> None:
    async def again(key: str) -> None:
        queue.add(key)

    queue: WorkQueue[str] = WorkQueue(again, failed=lambda *_: None, workers=1)
    queue.add("busy")
    running = asyncio.create_task(queue.run())
    for _ in range(10):
        await asyncio.sleep(0)
    queue.stop()
    async with asyncio.timeout(5):
        await running


async def test_a_key_that_is_added_while_it_waits_is_worked_on_once() -> None:
    work = Work()
    for _ in range(5):
        work.queue.add("one")
    assert work.queue.depth == 1
    await work.for_s(1)
    assert [key for key, _ in work.begun] == ["one"]


async def test_a_key_that_is_added_while_it_is_worked_on_is_worked_on_once_more() -> None:
    work = Work(workers=4, duration_s=0.9)
    work.queue.add("one")
    for moment in (0.3, 0.5, 0.7):
        asyncio.get_running_loop().call_later(moment, work.queue.add, "one")
    await work.for_s(5)
    assert work.times == [0.0, 0.9]
    assert work.most_at_once == {"one": 1}


async def test_a_slow_key_does_not_hold_up_another() -> None:
    work = Work(workers=2, duration_s=10.0)
    work.queue.add("slow")
    work.queue.add("other")
    await work.for_s(1)
    assert work.times == [0.0, 0.0]


async def test_of_several_delays_the_earliest_counts() -> None:
    work = Work()
    for delay_s in (5.0, 2.0, 9.0):
        work.queue.add_after("one", delay_s)
    await work.for_s(20)
    assert work.times == [2.0]


async def test_a_failing_key_comes_again_ever_later_until_it_succeeds() -> None:
    work = Work()
    work.failing = {"one"}
    work.queue.add("one")
    asyncio.get_running_loop().call_later(1.0, work.failing.clear)
    await work.for_s(60)
    assert work.retries == pytest.approx([0.1, 0.2, 0.4, 0.8])
    # and after a success the count begins anew
    assert work.times == [0.0, 0.1, 0.3, 0.7, 1.5]


async def test_a_delay_after_failures_never_exceeds_its_limit() -> None:
    work = Work()
    work.failing = {"one"}
    work.queue.add("one")
    await work.for_s(300)
    assert max(work.retries) == 10.0


async def test_jitter_spreads_retries_over_half_of_the_delay() -> None:
    seen: list[float] = []

    async def fail(_key: str) -> None:
        raise OSError("always")

    queue: WorkQueue[str] = WorkQueue(
        fail, failed=lambda _key, _error, retry_s: seen.append(retry_s), jitter=lambda: 0.0
    )
    queue.add("one")
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(0.06)
    queue.stop()
    await running
    assert seen[0] == 0.05


async def test_stopping_finishes_what_was_begun_and_begins_nothing_more() -> None:
    work = Work(workers=1, duration_s=2.0)
    work.queue.add("begun")
    work.queue.add("waiting")
    work.queue.add_after("delayed", 0.5)
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await work.for_s(1)
    assert [key for key, _ in work.begun] == ["begun"]
    assert asyncio.get_running_loop().time() == pytest.approx(2.0, abs=0.01)


async def test_a_handler_that_hangs_gives_way_to_news() -> None:
    work = Work(duration_s=10.0)
    work.queue.add("one")
    # when there is news for a key whose handler hangs
    asyncio.get_running_loop().call_later(3.0, work.queue.add, "one")
    with suppress(TimeoutError):
        async with asyncio.timeout(4.5):
            await work.for_s(4)
    # then it is worked on again at once
    assert work.times == [0.0, 3.0]


async def test_news_at_once_leave_a_handler_its_patience() -> None:
    work = Work(duration_s=10.0)
    work.queue.add("one")
    for moment in (0.1, 0.2):
        asyncio.get_running_loop().call_later(moment, work.queue.add, "one")
    with suppress(TimeoutError):
        async with asyncio.timeout(3.5):
            await work.for_s(3)
    assert work.times == [0.0, 1.0]


async def test_a_handler_without_news_may_take_its_time() -> None:
    work = Work(duration_s=10.0)
    work.queue.add("one")
    await work.for_s(20)
    assert work.times == [0.0]
    assert work.retries == []


async def test_a_server_that_is_slow_is_worked_with_although_there_is_always_news() -> None:
    finished: list[float] = []

    async def slow(key: str) -> None:
        asyncio.get_running_loop().call_later(0.1, queue.add, key)
        await asyncio.sleep(5.0)
        finished.append(asyncio.get_running_loop().time())

    queue: WorkQueue[str] = WorkQueue(slow, failed=lambda *_: None)
    queue.add("one")
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(60)
    queue.stop()
    await running
    # after attempts of one, two and four seconds each goes through
    assert finished[0] == pytest.approx(12.0)
    assert len(finished) > 5


async def test_a_server_that_asks_for_time_gets_it() -> None:
    work = Work()

    async def throttled(_key: str) -> None:
        raise ThrottledError("429", retry_after_s=3.0)

    queue: WorkQueue[str] = WorkQueue(throttled, failed=work._failed, jitter=lambda: 1.0)
    queue.add("one")
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(5)
    queue.stop()
    await running
    assert work.retries == [3.0, 3.0]
