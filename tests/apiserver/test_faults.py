"""S40: whichever call to the API server fails, and however it fails, the end is the same."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from model_operator.settings import LeaseSettings
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.fault_proxy import LOST, Fault
from tests.apiserver.lanes import Failing, Lane, Rollout, lanes_behind

logger = logging.getLogger(__name__)

_LANES: Final = 8
_LED_LANES: Final = 3
_LEASE: Final = LeaseSettings(duration_s=4, renew_s=3.0, retry_s=0.2)
_SPACING: Final = 20
"""In the ordinary suite one rollout has a fault at every so many calls: far enough for the one to
be over before the next, and a third of the time that one rollout for each call takes."""
_MOST_CALLS: Final = 200
_LOWERING_CALLS: Final = 5
"""Calls from the decision to roll back to the route's write, with one that failed on the way: that
one, a read of the route, a read of the version that the write is bound to, and the write."""
EVERY_CALL: Final = (Fault.CONFLICT, Fault.LOST_BY_RESET)
"""The faults that are tried at every call also in the ordinary suite: the answer that says that
somebody else was quicker, and the write of which nobody knows."""
SAMPLED: Final = tuple(fault for fault in Fault if fault not in EVERY_CALL)


@pytest.fixture
async def lanes(controllers: ControlPlane, tmp_path: Path) -> AsyncIterator[list[Lane]]:
    """Given models that serve, each in a namespace of its own."""
    names = [f"lane-{uuid.uuid4().hex[:8]}" for _ in range(_LANES)]
    for name in names:
        controllers.kubectl("create", "namespace", name)
    async with lanes_behind(controllers, names, tmp_path) as (serving, _):
        yield serving


@pytest.fixture
async def led_lanes(controllers: ControlPlane, tmp_path: Path) -> AsyncIterator[list[Lane]]:
    """Given models that serve, each under an operator of its own that leads by a Lease."""
    lanes: list[Lane] = []
    async with AsyncExitStack() as stack:
        for number in range(_LED_LANES):
            name, folder = f"lane-{uuid.uuid4().hex[:8]}", tmp_path / str(number)
            controllers.kubectl("create", "namespace", name)
            folder.mkdir()
            behind = lanes_behind(controllers, [name], folder, lease=_LEASE)
            (lane,), _ = await stack.enter_async_context(behind)
            lanes.append(lane)
        yield lanes


async def sweep(lanes: list[Lane], failing: Iterable[Failing]) -> None:
    """Play a promotion and a rollback for each of these, in all lanes at the same time.

    Of a fault and a kind of rollout no more are played once there is no such call any more.
    """
    played: list[Rollout] = []
    passed: set[tuple[Fault, bool]] = set()
    waiting = iter([(one, good) for one in failing for good in (True, False)])

    async def work(lane: Lane) -> None:
        for one, good in waiting:
            if (one.fault, good) not in passed:
                rollout = await lane.play(good=good, failing=one)
                played.append(rollout)
                if not rollout.failed:
                    passed.add((one.fault, good))

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(work(lane))
    for (fault, good), count in sorted(_failed(played).items(), key=str):
        kind = "promotions" if good else "rollbacks"
        logger.info("%s: %d calls of %s failed", fault.value, count, kind)
    for rollout in played:
        assert rollout.good or _lowering_calls(rollout) <= _LOWERING_CALLS, rollout


def _failed(played: list[Rollout]) -> Counter[tuple[Fault, bool]]:
    """How many calls failed, by fault and whether it was a promotion."""
    counts: Counter[tuple[Fault, bool]] = Counter()
    for rollout in played:
        if rollout.failing is not None:
            counts[rollout.failing.fault, rollout.good] += len(rollout.failed)
    assert min(counts.values()) > 1
    return counts


def _lowering_calls(rollout: Rollout) -> int:
    """Calls of the engine from the decision to roll back to the write of the route."""
    begun, failing = rollout.decided_at, rollout.failing
    assert begun is not None
    assert failing is not None
    for number, call in enumerate(rollout.calls[begun:], start=begun + 1):
        carried_out = not rollout.fails(number) or failing.fault in LOST
        if (call.method, call.kind) == ("PATCH", "httproutes") and carried_out:
            return number - begun
    raise AssertionError(f"no write of the route in {rollout}")


@pytest.mark.timeout(300)
async def test_s40_the_end_is_the_same_whichever_call_fails(lanes: list[Lane]) -> None:
    firsts = range(1, _SPACING + 1)
    await sweep(lanes, [Failing(fault, n, _SPACING) for n in firsts for fault in EVERY_CALL])


@pytest.mark.timeout(300)
async def test_s40_the_end_is_the_same_however_a_call_fails(lanes: list[Lane]) -> None:
    firsts = (3, 10, 17)
    await sweep(lanes, [Failing(fault, n, _SPACING) for n in firsts for fault in SAMPLED])


@pytest.mark.parametrize(
    "takeovers",
    [
        pytest.param(
            [
                (Failing(fault, first, takeover=True, kind="leases"), first % 2 == 0)
                for first in range(1, 4)
                for fault in EVERY_CALL
            ]
            + [
                (Failing(EVERY_CALL[first % 2], first, _SPACING, takeover=True), first % 4 < 2)
                for first in (7, 10, 13, 16)
            ],
            id="some",
            marks=pytest.mark.timeout(300),
        ),
        pytest.param(
            [
                (Failing(fault, first, _SPACING, takeover=True), good)
                for fault in Fault
                for first in range(1, _SPACING + 1)
                for good in (True, False)
            ],
            id="all",
            marks=[pytest.mark.full, pytest.mark.timeout(1800)],
        ),
    ],
)
async def test_s39_s40_the_end_is_the_same_whichever_call_of_a_takeover_fails(
    led_lanes: list[Lane], takeovers: list[tuple[Failing, bool]]
) -> None:
    """Also those for the Lease, the first lists, and those that make the last leader's too late."""
    waiting = iter(takeovers)
    failed: Counter[str] = Counter()

    async def work(lane: Lane) -> None:
        for failing, good in waiting:
            rollout = await lane.play(good=good, failing=failing)
            failed.update(call.kind for call in rollout.failed.values())

    async with asyncio.TaskGroup() as group:
        for lane in led_lanes:
            group.create_task(work(lane))
    assert failed.total() >= len(takeovers)
    assert failed["leases"]


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
async def test_s40_the_end_is_the_same_whichever_single_call_fails_and_however(
    lanes: list[Lane], fault: Fault
) -> None:
    await sweep(lanes, [Failing(fault, n) for n in range(1, _MOST_CALLS)])
