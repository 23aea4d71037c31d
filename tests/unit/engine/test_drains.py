"""A revision is drained when its own counters say that nobody reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from model_operator.engine.drains import Activity, Drains
from model_operator.engine.store import Key

pytestmark = pytest.mark.looptime
KEY = Key("vision", "digits")
LEAVING = frozenset({"digits-1"})


class Pods:
    """Pods whose activity is a function of the time."""

    def __init__(self) -> None:
        self.activity: Callable[[float], Activity | None] = lambda _: Activity({"a": 7.0}, 0.0)
        self.asked = 0
        self.drained_at: list[float] = []

    async def ask(self, _key: Key, _revision: str) -> Activity | None:
        self.asked += 1
        return self.activity(asyncio.get_running_loop().time())

    def changed(self, _key: Key) -> None:
        self.drained_at.append(asyncio.get_running_loop().time())


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
async def drains(pods: Pods) -> AsyncIterator[Drains]:
    watching = Drains(pods.ask, pods.changed, settle_s=2.0, give_up_s=60.0)
    yield watching
    watching.close()


async def test_counters_that_stand_still_for_the_settling_time_mean_drained(
    pods: Pods, drains: Drains
) -> None:
    pods.activity = lambda now: Activity({"a": min(now, 5.0)}, 0.0)
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(6)
    assert drains.drained(KEY) == frozenset()
    await asyncio.sleep(3)
    assert drains.drained(KEY) == LEAVING
    assert 7.0 <= pods.drained_at[0] <= 8.0


async def test_a_request_in_flight_is_waited_for(pods: Pods, drains: Drains) -> None:
    pods.activity = lambda now: Activity({"a": 7.0}, 1.0 if now < 30 else 0.0)
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(29)
    assert drains.drained(KEY) == frozenset()
    await asyncio.sleep(5)
    assert drains.drained(KEY) == LEAVING


async def test_a_revision_without_a_ready_pod_is_drained_at_once(
    pods: Pods, drains: Drains
) -> None:
    pods.activity = lambda _: Activity({}, 0.0)
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(0.1)
    assert drains.drained(KEY) == LEAVING


async def test_pods_that_do_not_answer_are_waited_for_but_not_for_ever(
    pods: Pods, drains: Drains
) -> None:
    pods.activity = lambda _: None
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(59)
    assert drains.drained(KEY) == frozenset()
    await asyncio.sleep(2)
    assert drains.drained(KEY) == LEAVING


async def test_a_drained_revision_is_not_asked_any_more(pods: Pods, drains: Drains) -> None:
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(5)
    asked = pods.asked
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(60)
    assert pods.asked == asked


async def test_a_revision_that_gets_weight_again_is_watched_anew(
    pods: Pods, drains: Drains
) -> None:
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(5)
    drains.follow(KEY, frozenset())
    assert drains.drained(KEY) == frozenset()
    pods.activity = lambda now: Activity({"a": now}, 0.0)
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(10)
    assert drains.drained(KEY) == frozenset()


async def test_a_defect_in_asking_ends_no_watch(pods: Pods, drains: Drains) -> None:
    def broken(now: float) -> Activity | None:
        if now < 10:
            raise KeyError("pod")
        return Activity({"a": 7.0}, 0.0)

    pods.activity = broken
    drains.follow(KEY, LEAVING)
    await asyncio.sleep(9)
    assert drains.drained(KEY) == frozenset()
    # when it can be asked again
    await asyncio.sleep(6)
    assert drains.drained(KEY) == LEAVING
