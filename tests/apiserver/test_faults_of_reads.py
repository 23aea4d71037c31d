"""Watches that end, lists that are behind, and a store that stops: nobody acts on what is old."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from model_operator.adapters.kube import POD
from model_operator.api.labels import MANAGED_BY, NAME
from model_operator.settings import LeaseSettings
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import condition
from tests.apiserver.fault_proxy import Call, FaultProxy, Watching
from tests.apiserver.lanes import Lane, lanes_behind

pytestmark = pytest.mark.timeout(180)


@asynccontextmanager
async def two_lanes(
    plane: ControlPlane, folder: Path, *, lease: bool = False, **engine: Any
) -> AsyncIterator[tuple[Lane, Lane, FaultProxy]]:
    """Given two models that serve."""
    names = [f"lane-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    for name in names:
        plane.kubectl("create", "namespace", name)
    leading = LeaseSettings(enabled=lease)
    async with lanes_behind(plane, names, folder, lease=leading, **engine) as ((one, other), proxy):
        yield one, other, proxy


async def play_both(one: Lane, other: Lane, timeout_s: float = 45.0) -> None:
    """A promotion and a rollback, each with its end held against what it must be."""
    await asyncio.gather(
        one.play(good=True, timeout_s=timeout_s), other.play(good=False, timeout_s=timeout_s)
    )


@pytest.mark.parametrize("watching", [Watching.CUT, Watching.GONE, Watching.REFUSED])
async def test_without_watches_the_lists_alone_carry_rollouts(
    controllers: ControlPlane, tmp_path: Path, watching: Watching
) -> None:
    async with two_lanes(controllers, tmp_path, relist_s=1.0) as (one, other, proxy):
        # when all watches end, and no new one lives
        proxy.cut(watching)
        # then promotions and rollbacks go on
        await play_both(one, other)
        # and when watches are let through again
        proxy.cut(Watching.OPEN)
        await play_both(one, other)


async def test_full_lists_that_are_behind_change_nothing(
    controllers: ControlPlane, tmp_path: Path
) -> None:
    async with two_lanes(controllers, tmp_path, relist_s=1.0) as (one, other, proxy):
        # given lists that show the world as it was before the rollouts, for ever
        proxy.remember()
        await asyncio.sleep(2.0)
        proxy.stale = lambda call: call.selector.startswith(MANAGED_BY) or not call.selector
        # then nothing that they lack is taken for gone, and nothing that they have for alive
        await play_both(one, other)


async def test_a_weight_does_not_rise_on_a_live_list_that_is_behind(
    controllers: ControlPlane, tmp_path: Path
) -> None:
    def of_pods(call: Call) -> bool:
        return call.kind == POD.plural and call.selector.startswith(NAME)

    async with two_lanes(controllers, tmp_path) as (one, other, proxy):
        # given live lists of pods that show the world as it was before the last rollout
        proxy.remember()
        await one.play(good=True)
        proxy.stale = of_pods
        before = [*one.world.weights_seen]
        # when a new model comes
        rollout = asyncio.create_task(one.play(good=True, timeout_s=60.0))
        await asyncio.sleep(5.0)
        # then it gets no weight
        assert one.world.weights_seen == before[-1:]
        # and another's rollback does not ask for such a list
        await other.play(good=False)
        # when lists are up to date again
        proxy.stale = lambda _call: False
        # then it goes on as if nothing had been
        await rollout


@pytest.mark.parametrize(
    ("outage_s", "lease"),
    [
        pytest.param(6.0, False, id="shorter than a lease"),
        pytest.param(
            60.0,
            True,
            id="longer than a lease",
            marks=[pytest.mark.full, pytest.mark.timeout(400)],
        ),
    ],
)
async def test_a_stopped_etcd_is_neither_a_verdict_nor_an_end(
    controllers: ControlPlane, tmp_path: Path, *, outage_s: float, lease: bool
) -> None:
    async with two_lanes(controllers, tmp_path, lease=lease) as (one, other, _):
        # given a good and a bad candidate on the traffic
        playing = asyncio.create_task(play_both(one, other, timeout_s=outage_s + 90.0))
        await asyncio.gather(one.until_weight(), other.until_weight())
        # when etcd stops for a while
        with controllers.stopped("etcd"):
            await asyncio.sleep(outage_s)
        # then the good one is promoted and the bad one rolled back, each once
        await playing
        assert condition(one.status, "Ready")["status"] == "True"
