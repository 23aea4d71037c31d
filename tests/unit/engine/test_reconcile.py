"""The loop against an API in memory: what is written in which order, and what when calls fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from model_operator.adapters.kube import (
    ConflictError,
    KubeError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from model_operator.core.httproute import read_weights
from tests.unit.engine.played_engine import KEY, ROLLOUT, STEPS, World, running, stable

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Given a model that serves."""
    async with running() as played:
        played.create()
        await asyncio.sleep(1)
        await played.until("Idle")
        yield played


async def test_a_good_model_goes_through_every_weight(world: World) -> None:
    old = stable(world)
    world.roll_out(2)
    await world.until("Baking")
    await asyncio.sleep(1)
    new = stable(world)
    assert world.weights == [{old: 100}, {old: 90, new: 10}, {old: 50, new: 50}, {new: 100}]
    # and after the bake only the new one is left
    await world.until("Idle")
    await asyncio.sleep(5)
    assert world.kube.names("Deployment") == [new]
    assert world.kube.names("ModelRevision") == sorted([old, new])
    assert world.errors == []


async def test_a_rise_goes_by_pods_then_status_then_route(world: World) -> None:
    world.kube.calls.clear()
    world.roll_out(2)
    await world.until_true(lambda: len(world.weights) > 1)
    calls = world.kube.calls
    route = calls.index("apply HTTPRoute")
    assert calls.index("apply Deployment") < route
    # the intent is in the status, and the pods and the route were read live just before
    assert calls[route - 1] == "status ModelDeployment"
    assert {"get HTTPRoute", "list Pod"} <= set(calls[route - 8 : route])


async def test_a_fall_writes_the_route_before_anything_else(world: World) -> None:
    old = stable(world)
    world.roll_out(2)
    await world.until("Progressing")
    await world.until_true(lambda: len(world.weights) > 1)
    states: list[str] = []
    world.kube.fail = lambda call, _: (
        states.append(world.status["rollout"]["state"]) if call == "apply HTTPRoute" else None
    )
    world.kube.calls.clear()
    world.bad_share = 0.5
    status = await world.until("RolledBack")
    assert world.weights[-1] == {old: 100}
    # the status was not there yet, and came next
    route = world.kube.calls.index("apply HTTPRoute")
    assert states[0] == "Progressing"
    assert world.kube.calls[route + 1] == "status ModelDeployment"
    assert status["rollout"]["reason"] == "AnalysisFailed"


async def test_nothing_that_fails_delays_a_rollback(world: World) -> None:
    old = stable(world)
    world.roll_out(2)
    await world.until_true(lambda: len(world.weights) > 1)
    # given an API that refuses everything but routes
    world.kube.fail = lambda call, _: None if "HTTPRoute" in call else ServerError(call)
    # when the pods of the candidate stop being ready
    candidate = next(name for name in world.weights[-1] if name != old)
    world.unready.add(candidate)
    world.pods(world.kube.peek("Deployment", candidate))
    await asyncio.sleep(0.1)
    # then the route is written all the same
    assert world.weights[-1] == {old: 100}
    # and the rest follows when the API is back
    world.kube.fail = lambda *_: None
    status = await world.until("RolledBack")
    assert status["rolledBack"][0]["revision"] == candidate


async def test_a_fall_that_meets_a_conflict_is_written_at_once(world: World) -> None:
    old = stable(world)
    world.roll_out(2)
    await world.until_true(lambda: len(world.weights) > 1)
    conflicts = iter([ConflictError("a"), ConflictError("b")])
    world.kube.fail = lambda call, _: next(conflicts, None) if call == "apply HTTPRoute" else None
    candidate = next(name for name in world.weights[-1] if name != old)
    world.unready.add(candidate)
    world.pods(world.kube.peek("Deployment", candidate))
    await asyncio.sleep(0.05)
    assert world.weights[-1] == {old: 100}
    assert world.errors == []


async def test_a_rise_is_not_made_on_what_the_watches_believe(world: World) -> None:
    old = stable(world)
    world.roll_out(2)
    # given pods that are not ready any more, which the watches have not told yet
    candidate = "digits-cc5680b632"

    def stale(call: str, _: int) -> None:
        if call == "list Pod" and ("Deployment", candidate) in world.kube._objects:
            for number in range(2):
                world.kube._objects["Pod", f"{candidate}-{number}"]["status"] = {}
                pod = world.kube._objects["Pod", f"{candidate}-{number}"]
                pod["metadata"]["resourceVersion"] = str(10_000 + len(world.kube.calls))

    def fail(call: str, number: int) -> KubeError | None:
        stale(call, number)
        return None

    world.kube.fail = fail
    await asyncio.sleep(5)
    # then no weight rose
    assert world.weights == [{old: 100}]


async def test_an_invalid_spec_is_told_once_and_the_last_good_state_is_kept(world: World) -> None:
    old = stable(world)
    live = world.kube.peek("ModelDeployment", "digits")
    live["spec"]["rollout"] = {**ROLLOUT, "steps": [{"pause": {}, "setWeight": STEPS[0]}]}
    world.kube.put(live)
    await asyncio.sleep(5)
    stalled = next(c for c in world.status["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert "spec.rollout.steps[0]" in stalled["message"]
    # when the spec stays as it is, nothing more is written
    world.kube.calls.clear()
    await asyncio.sleep(60)
    assert world.kube.calls == []
    # and the route is looked after as before
    world.kube.remove("HTTPRoute", "digits")
    await asyncio.sleep(1)
    assert read_weights(world.kube.peek("HTTPRoute", "digits")) == {old: 100}


async def test_a_name_that_somebody_took_is_told_until_it_is_free() -> None:
    async with running() as world:
        # given a Service of somebody else with the ModelDeployment's name
        theirs = {"name": "digits", "namespace": KEY.namespace}
        world.kube.put({"apiVersion": "v1", "kind": "Service", "metadata": theirs, "spec": {}})
        world.create()
        await asyncio.sleep(5)
        stalled = next(c for c in world.status["conditions"] if c["type"] == "Stalled")
        assert "does not control" in stalled["message"]
        assert world.kube.peek("Service", "digits")["spec"] == {}
        # and trying again writes nothing
        world.kube.calls.clear()
        await asyncio.sleep(60)
        assert not [call for call in world.kube.calls if not call.startswith(("get", "list"))]
        # when the name is free
        world.kube.remove("Service", "digits")
        await asyncio.sleep(20)
        # then it is taken, and nothing is wrong any more
        stalled = next(c for c in world.status["conditions"] if c["type"] == "Stalled")
        assert stalled["status"] == "False"
        assert world.kube.peek("Service", "digits")["spec"]["selector"]


async def test_old_records_are_deleted_beyond_the_limit_but_never_one_that_is_needed(
    world: World,
) -> None:
    # given a revision that was rolled back
    world.bad_share = 0.5
    world.roll_out(9)
    bad = (await world.until("RolledBack"))["rolledBack"][0]["revision"]
    world.bad_share = 0.0
    # when more good ones follow than are to be kept
    live = world.kube.peek("ModelDeployment", "digits")
    live["spec"]["revisionHistoryLimit"] = 1
    world.kube.put(live)
    good = [stable(world)]
    for seed in (2, 3, 4):
        world.roll_out(seed)
        await world.until("Baking")
        await world.until("Idle")
        await asyncio.sleep(5)
        good.append(stable(world))
    # then stable, one old one and the one that must not be tried again are left
    names = world.kube.names("ModelRevision")
    assert {bad, good[-1]} <= set(names)
    assert len(names) == 3


async def test_a_restarted_operator_goes_on_from_the_record_of_its_tests() -> None:
    async with running() as world:
        world.create()
        await asyncio.sleep(1)
        await world.until("Idle")
        world.roll_out(2)
        await world.until_true(lambda: len(world.weights) > 1)
        await asyncio.sleep(5)
        kube, before = world.kube, world.status["candidate"]
        analysed = world.analyst.state(KEY)
    assert analysed is not None
    # when another operator starts from what is written
    async with running() as after:
        after.take_over(kube)
        await asyncio.sleep(1)
        # then it is the same rollout, at the same step, with the evidence so far
        candidate = after.status["candidate"]
        assert (candidate["startTime"], candidate["step"]) == (before["startTime"], before["step"])
        state = after.analyst.state(KEY)
        assert state is not None
        assert state["rollout"] == analysed["rollout"]
        recorded = after.kube.peek("ModelRevision", candidate["revision"])["status"]["tests"]
        assert recorded["analysis"]["tests"]["errors"]["events"]["counters"]["started"]
        await after.until("Idle")
        assert stable(after) == candidate["revision"]


def fail_once(k: int, error: KubeError) -> Callable[[str, int], KubeError | None]:
    return lambda _call, number: error if number == k else None


ERRORS_OF_THE_API = [
    ConflictError("409"),
    ThrottledError("429"),
    ServerError("500"),
    UnreachableError("timeout"),
]


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["good", "bad"])
@pytest.mark.parametrize("first", range(len(ERRORS_OF_THE_API)))
async def test_whichever_call_fails_the_end_is_the_same(share: float, first: int) -> None:
    # every eighth call; together the cases begin at different ones
    await fails_at_each(range(1 + 2 * first + (share > 0), 1000, 8), share, first)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["good", "bad"])
@pytest.mark.parametrize("first", range(len(ERRORS_OF_THE_API)))
async def test_whichever_call_fails_the_end_is_the_same_for_each(share: float, first: int) -> None:
    await fails_at_each(range(1, 1000), share, first)


async def fails_at_each(numbers: range, share: float, first: int) -> None:
    """Play a whole rollout for each call that fails, until there is no such call."""
    error = ERRORS_OF_THE_API[first]
    for k in numbers:
        async with running() as world:
            world.kube.fail = fail_once(k, error)
            world.create()
            await asyncio.sleep(1)
            await world.until("Idle")
            old, new = stable(world), "digits-cc5680b632"
            world.bad_share = share
            world.roll_out(2)
            await world.until("RolledBack" if share else "Baking")
            if not share:
                await world.until("Idle")
            await asyncio.sleep(30)
            assert stable(world) == (old if share else new), k
            assert world.kube.names("Deployment") == [stable(world)], k
            assert world.weights[-1] == {stable(world): 100}, k
            assert world.weights[1] == {old: 90, new: 10}, k
            if len(world.kube.calls) < k:
                return
