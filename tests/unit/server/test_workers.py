import asyncio
import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from model_server.workers import DeadlineExceededError, OverloadedError, Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(count=3, max_waiting=50)
    yield workers
    workers.close()


def nothing() -> None:
    pass


def soon() -> float:
    return asyncio.get_running_loop().time() + 60


def slow_seven() -> int:
    time.sleep(0.01)
    return 7


async def test_a_result_comes_with_its_times(workers: Workers) -> None:
    timed = await workers.run(slow_seven, stop=nothing, deadline=soon())

    assert timed.result == 7
    assert timed.took_s >= 0.01
    assert timed.waited_s >= 0


async def test_what_the_work_raises_is_raised(workers: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 / 0, stop=nothing, deadline=soon())


async def test_jobs_are_done_in_the_order_of_their_coming() -> None:
    workers = Workers(count=1, max_waiting=50)
    order: list[int] = []

    await asyncio.gather(
        *(workers.run(partial(order.append, i), stop=nothing, deadline=soon()) for i in range(20))
    )

    assert order == list(range(20))
    workers.close()


async def test_no_slot_is_lost_or_doubled_whatever_callers_do() -> None:
    """Hundreds of jobs are cancelled, expire and fail at random; the count comes out even."""
    rng = random.Random(7)  # noqa: S311 - a repeatable test
    workers = Workers(count=3, max_waiting=20)
    lock = threading.Lock()
    running = most = 0
    outcomes: dict[str, int] = {}

    def work(duration_s: float) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(duration_s)
        with lock:
            running -= 1
        if duration_s > 0.0018:
            raise ArithmeticError

    async def caller() -> None:
        await asyncio.sleep(rng.uniform(0, 0.2))
        duration_s = rng.uniform(0, 0.002)
        deadline = asyncio.get_running_loop().time() + rng.choice([0.001, 10])
        try:
            async with asyncio.timeout(rng.choice([0.0005, 10])):
                await workers.run(lambda: work(duration_s), stop=nothing, deadline=deadline)
            outcome = "done"
        except (OverloadedError, DeadlineExceededError, ArithmeticError, TimeoutError) as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    await asyncio.gather(*(caller() for _ in range(600)))
    async with asyncio.timeout(30):
        while workers.must_wait or running:  # noqa: ASYNC110 - jobs nobody waits for any more
            await asyncio.sleep(0.001)

    assert most == 3
    assert workers.waiting == 0
    assert outcomes.keys() >= {"done", "TimeoutError", "DeadlineExceededError", "ArithmeticError"}
    assert workers.close() == 0, outcomes


async def test_closing_cancels_what_waits_and_lets_run_what_runs() -> None:
    workers = Workers(count=1, max_waiting=50)
    gate, entered = threading.Event(), threading.Event()

    def wait() -> bool:
        entered.set()
        return gate.wait(timeout=30)

    running = asyncio.create_task(workers.run(wait, stop=nothing, deadline=soon()))
    waiting = asyncio.create_task(workers.run(wait, stop=nothing, deadline=soon()))
    assert await asyncio.to_thread(entered.wait, 30)

    assert workers.close() == 1

    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
    gate.set()
    assert (await running).result is True


async def test_inputs_are_let_go_once_their_job_is_over(workers: Workers) -> None:
    class Tensor:
        pass

    tensor = Tensor()
    seen = weakref.ref(tensor)
    await workers.run(partial(id, tensor), stop=nothing, deadline=soon())

    del tensor
    # the thread lets go of its job right after it told the loop
    async with asyncio.timeout(30):
        while seen() is not None:
            gc.collect()
            await asyncio.sleep(0.001)
