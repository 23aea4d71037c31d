"""S40: whichever call to the API server fails, and however it fails, the end is the same."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.fault_proxy import LOST, Fault
from tests.apiserver.lanes import Lane, Rollout, lanes_behind

logger = logging.getLogger(__name__)

_LANES: Final = 8
_MOST_CALLS: Final = 500
_LOWERING_CALLS: Final = 5
"""Calls from the decision to roll back to the route's write, with one that failed on the way: that
one, a read of the route, a read of the version that the write is bound to, and the write."""
EVERY_CALL: Final = (Fault.CONFLICT, Fault.LOST_BY_RESET)
"""The faults that are tried at every call also in the ordinary suite: the answer that says that
somebody else was quicker, and the write of which nobody knows."""
SAMPLED: Final = tuple(fault for fault in Fault if fault not in EVERY_CALL)
_STRIDE: Final = 15


@pytest.fixture
async def lanes(controllers: ControlPlane, tmp_path: Path) -> AsyncIterator[list[Lane]]:
    """Given models that serve, each in a namespace of its own."""
    names = [f"lane-{uuid.uuid4().hex[:8]}" for _ in range(_LANES)]
    for name in names:
        controllers.kubectl("create", "namespace", name)
    async with lanes_behind(controllers, names, tmp_path) as (serving, _):
        yield serving


@dataclass(slots=True)
class Sweep:
    """One kind of fault at one call after the other, until a rollout has no such call any more.

    Attributes:
        played: Every rollout with its fault.
        done: Whether the last call was passed.
    """

    good: bool
    numbers: Iterator[int]
    fault: Fault
    played: list[Rollout] = field(default_factory=list)
    done: bool = False

    async def play_in(self, lane: Lane) -> None:
        while not self.done:
            k = next(self.numbers)
            rollout = await lane.play(good=self.good, k=k, fault=self.fault)
            self.played.append(rollout)
            self.done = self.done or not rollout.was_hit or k >= _MOST_CALLS


async def sweep(lanes: list[Lane], fault: Fault, *, stride: int, first: int = 1) -> None:
    """Play a promotion and a rollback for each call that fails."""
    for good in (True, False):
        one = Sweep(good, itertools.count(first, stride), fault)
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(one.play_in(lane))
        hit = [rollout for rollout in one.played if rollout.was_hit]
        kind = "promotion" if good else "rollback"
        logger.info("%s: %d calls of a %s failed, one in each", fault.value, len(hit), kind)
        assert len(hit) * stride > 20
        for rollout in one.played:
            assert good or _lowering_calls(rollout) <= _LOWERING_CALLS, rollout


def _lowering_calls(rollout: Rollout) -> int:
    """Calls of the engine from the decision to roll back to the write of the route."""
    assert rollout.decided_at is not None
    after = rollout.calls[rollout.decided_at :]
    writes = [
        number
        for number, call in enumerate(after, start=1)
        if (call.method, call.kind) == ("PATCH", "httproutes")
        and (rollout.decided_at + number != rollout.k or rollout.fault in LOST)
    ]
    return writes[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", EVERY_CALL, ids=lambda fault: fault.value)
async def test_s40_the_end_is_the_same_whichever_call_fails(
    lanes: list[Lane], fault: Fault
) -> None:
    await sweep(lanes, fault, stride=1)


@pytest.mark.timeout(300)
async def test_s40_the_end_is_the_same_however_a_call_fails(lanes: list[Lane]) -> None:
    for first, fault in enumerate(SAMPLED, start=1):
        await sweep(lanes, fault, stride=_STRIDE, first=first)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", SAMPLED, ids=lambda fault: fault.value)
async def test_s40_the_end_is_the_same_whichever_call_fails_and_however(
    lanes: list[Lane], fault: Fault
) -> None:
    await sweep(lanes, fault, stride=1)
