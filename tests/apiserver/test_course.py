"""Requests of people, missing data, deadlines, suspension, replicas and the bake, on a real API."""

from __future__ import annotations

import asyncio

import pytest

from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import (
    Behaviour,
    World,
    condition,
    digest,
    resource_versions,
)
from tests.apiserver.releases import (
    LONG,
    ONE,
    PAUSE,
    TWO,
    intact,
    release,
    serve,
    to,
    until_deployed,
    until_ready_pods,
)

pytestmark = pytest.mark.timeout(90)


async def until_reason(played: World, reason: str) -> None:
    async def given() -> bool:
        return bool((await played.status())["rollout"]["reason"] == reason)

    await played.until(reason, given)


# -------------------------------------------------------------------------- what people ask for


async def test_s09_aborted_retried_and_finished_with_its_events_in_order(played: World) -> None:
    # given a candidate that waits at its last weight
    await serve(played, to(10), to(50), PAUSE)
    await release(played, 2)
    await played.until_state("Paused")
    # when it is aborted
    await played.ask("abort", TWO)
    # then it has weight 0, and is not tried again by itself
    status = await played.until_state("RolledBack")
    assert status["rollout"]["reason"] == "Aborted"
    await until_deployed(played, ONE)
    steps = [{ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}]
    assert played.weights_seen == [{ONE: 100}, *steps, {ONE: 100}]
    # when a retry and then a promotion are asked for
    await played.ask("retry", TWO)
    await played.until_state("Paused")
    await played.ask("promote", TWO)
    await played.until_state("Idle")
    # then it went from the first step to the end
    assert played.weights_seen == [{ONE: 100}, *steps, {ONE: 100}, *steps, {TWO: 100}]
    # and the events tell just that, in order
    await played.until_event("BakeEnded")
    canary = ["RolloutStarted", "StepEntered", "StepEntered", "Paused"]
    assert await played.events() == [
        *("RolloutStarted", "Promoted"),
        *(*canary, "RolledBack"),
        *("Request", *canary),
        *("Request", "Promoted", "BakeEnded"),
    ]
    assert not played.lost


# ----------------------------------------------------------------------------------- missing data


async def test_s14_without_traffic_it_is_held_and_goes_on_by_itself(played: World) -> None:
    await serve(played, to(10), to(50))
    # when there are no requests
    played.requests_per_s = 0
    await release(played, 2)
    # then the rollout is held at its weight, and says so
    status = await played.until_state("Held")
    assert status["rollout"]["reason"] == "InsufficientData"
    await asyncio.sleep(1.0)
    assert played.weights_seen == [{ONE: 100}, {ONE: 90, TWO: 10}]
    # and goes on by itself when there are some
    played.requests_per_s = 100
    await played.until_weights({ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100})
    intact(played, TWO)


@pytest.mark.parametrize("then", ["Rollback", "Keep"])
async def test_s14_after_its_hold_on_insufficient_decides(played: World, then: str) -> None:
    await serve(played, to(10), to(50))
    policy = {"hold": "2s", "then": then}
    await played.change(
        lambda mdep: mdep["spec"]["rollout"]["analysis"].update(onInsufficient=policy)
    )
    # given a candidate without requests
    played.requests_per_s = 0
    await release(played, 2)
    await played.until_state("Held")
    canary = [{ONE: 100}, {ONE: 90, TWO: 10}]
    assert played.weights_seen == canary
    # when the time that its spec gives is over
    if then == "Rollback":
        # then it is rolled back, where its spec says that
        status = await played.until_state("RolledBack")
        assert status["rollout"]["reason"] == "InsufficientData"
        await played.until_weights(*canary, {ONE: 100})
    else:
        # then it stays where it is, for as long as it takes
        await asyncio.sleep(3.0)
        assert (await played.status())["rollout"]["state"] == "Held"
        assert played.weights_seen == canary
    intact(played, ONE)


# --------------------------------------------------------------------------- deadline and suspend


async def test_s32_a_rollout_that_does_not_get_on_is_aborted_at_its_deadline(
    played: World,
) -> None:
    # given a candidate at 10 % that lacks a pod for the next step
    await serve(played, to(10), to(50), progressDeadline="2s")
    played.behaviours[digest(2)] = Behaviour(most_ready=1)
    await played.change(lambda mdep: mdep["spec"].update(replicas=4))
    await until_ready_pods(played, ONE, 4)
    await release(played, 2)
    await until_reason(played, "WaitingForCapacity")
    canary = [{ONE: 100}, {ONE: 90, TWO: 10}]
    assert played.weights_seen == canary
    # when its deadline passes
    status = await played.until_state("RolledBack")
    # then it is taken off, and told why
    assert status["rollout"]["reason"] == "ProgressDeadlineExceeded"
    assert "1 of 2 pods" in status["rollout"]["message"]
    await played.until_weights(*canary, {ONE: 100})
    intact(played, ONE)


async def test_s32_paused_time_does_not_count_for_the_deadline(played: World) -> None:
    # given a pause that lasts longer than the deadline
    await serve(played, to(10), PAUSE, to(50), progressDeadline="1s")
    await release(played, 2)
    await played.until_state("Paused")
    await asyncio.sleep(2.0)
    assert (await played.status())["rollout"]["state"] == "Paused"
    # when it is promoted
    await played.ask("promote", TWO)
    # then it goes on to the end
    await played.until_weights({ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100})
    assert not (await played.status()).get("rolledBack")


async def test_s44_nothing_changes_while_suspended_and_it_goes_on_in_place(
    played: World,
) -> None:
    # given a candidate in its first step
    await serve(played, to(10, "1s"), to(50), bake=LONG)
    await release(played, 2)
    await played.until_weights({ONE: 100}, {ONE: 90, TWO: 10})
    # when it is suspended, and another model released
    await played.change(lambda mdep: mdep["spec"].update(suspend=True))
    await until_reason(played, "Suspended")
    started = (await played.status())["candidate"]["startTime"]
    await release(played, 3)
    await asyncio.sleep(0.5)
    await release(played, 2)
    await asyncio.sleep(0.5)
    # then nothing changes
    before = await versions(played)
    await asyncio.sleep(2.0)
    assert await versions(played) == before
    assert played.weights_seen == [{ONE: 100}, {ONE: 90, TWO: 10}]
    assert set(await played.deployments()) == {ONE, TWO}
    # when it is resumed
    await played.change(lambda mdep: mdep["spec"].update(suspend=False))
    # then the same rollout goes on in place
    await played.until_weights({ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100})
    assert (await played.status())["former"]["rolloutStartTime"] == started
    intact(played, ONE, TWO)


async def versions(played: World) -> dict[str, str]:
    """Of all but the records, which go on being kept: what was measured is still so."""
    found = await resource_versions(played)
    return {name: version for name, version in found.items() if "ModelRevision" not in name}


# --------------------------------------------------------------------------------------- replicas


def scale(control_plane: ControlPlane, played: World, replicas: int) -> None:
    """As an autoscaler does it."""
    control_plane.kubectl(
        "scale", "-n", played.namespace, "modeldeployment/digits", f"--replicas={replicas}"
    )


async def test_s34_more_replicas_while_paused_scale_both_sides_and_no_weight(
    played: World, controllers: ControlPlane
) -> None:
    # given a pause at 25 %
    await serve(played, to(25), PAUSE, to(50))
    await release(played, 2)
    await played.until_state("Paused")
    # when there are to be three times as many
    await asyncio.to_thread(scale, controllers, played, 6)
    # then stable has them, and the candidate what its next weight needs
    await until_ready_pods(played, ONE, 6)
    await until_ready_pods(played, TWO, 3)
    # and the rollout is where it was
    assert (await played.status())["rollout"]["state"] == "Paused"
    assert played.weights_seen == [{ONE: 100}, {ONE: 75, TWO: 25}]
    intact(played, ONE, TWO)


async def test_s34_s58_an_autoscaler_scales_stable_and_retries_no_bad_revision(
    played: World, controllers: ControlPlane
) -> None:
    # given a revision that was rolled back, and is still in the spec
    await serve(played)
    played.behaviours[digest(2)] = Behaviour(error_share=0.5)
    await release(played, 2)
    await played.until_state("RolledBack")
    await until_deployed(played, ONE)
    seen, events = [*played.weights_seen], await played.events()
    # when an autoscaler grows and shrinks it
    for replicas in (4, 1):
        await asyncio.to_thread(scale, controllers, played, replicas)
        # then stable has so many
        await until_ready_pods(played, ONE, replicas)
    # and the bad one is not tried again
    await asyncio.sleep(1.0)
    assert await played.deployments() == [ONE]
    assert played.weights_seen == seen
    assert await played.events() == events
    status = await played.status()
    assert [entry["revision"] for entry in status["rolledBack"]] == [TWO]
    assert status["replicas"] == 1


# ------------------------------------------------------------------------------------------- bake


async def test_s52_a_regression_in_the_bake_goes_back_to_the_warm_revision(
    played: World,
) -> None:
    # given a promotion, and a healthy time after it
    await serve(played, to(10), to(50), bake=LONG)
    await release(played, 2)
    await played.until_state("Baking")
    promotion = [{ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100}]
    await played.until_weights(*promotion)
    await asyncio.sleep(1.5)
    # when it begins to fail
    played.behaviours[digest(2)].error_share = 0.5
    # then the former revision has everything again, with the pods that it always had
    status = await played.until_state("RolledBack")
    assert status["stable"]["revision"] == ONE
    (rolled_back,) = status["rolledBack"]
    assert (rolled_back["revision"], rolled_back["reason"]) == (TWO, "AnalysisFailed")
    await played.until_weights(*promotion, {ONE: 100})
    assert condition(status, "Ready")["status"] == "True"
    await until_deployed(played, ONE)
    intact(played, ONE)
