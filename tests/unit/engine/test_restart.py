"""What an operator knows that comes after another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from model_operator.adapters.kube import ServerError
from tests.unit.engine.played_engine import ROLLOUT, STEPS, World, running, stable

pytestmark = pytest.mark.looptime
INVALID = {**ROLLOUT, "steps": [{"pause": {}, "setWeight": STEPS[0]["setWeight"]}]}


async def at_its_first_weight(world: World) -> None:
    world.create()
    await asyncio.sleep(1)
    await world.until("Idle")
    world.roll_out(2)
    await world.until_true(lambda: len(world.weights) == 2)
    await asyncio.sleep(1)


def reasons(world: World) -> list[str]:
    events = [world.kube.peek("Event", name) for name in world.kube.names("Event")]
    return [event["reason"] for event in events]


def edit_rollout(world: World, rollout: dict[str, Any]) -> None:
    live = world.kube.peek("ModelDeployment", "digits")
    live["spec"]["rollout"] = rollout
    world.kube.put(live)


async def test_a_bad_candidate_is_rolled_back_under_a_spec_that_became_invalid() -> None:
    # given a candidate on the traffic
    async with running() as before:
        await at_its_first_weight(before)
        old = stable(before)
    # when the spec becomes invalid while no operator is there, and the candidate bad
    edit_rollout(before, INVALID)
    async with running() as world:
        world.bad_share = 0.5
        world.take_over(before.kube)
        # then it is judged by the last spec that could be used, and the fault is told
        status = await world.until("RolledBack")
        assert world.weights[-1] == {old: 100}
        stalled = next(c for c in status["conditions"] if c["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")


async def test_an_edited_spec_is_the_last_good_one_without_a_new_revision() -> None:
    async with running() as before:
        await at_its_first_weight(before)
        # given steps that were edited in mid-rollout
        edit_rollout(before, {**ROLLOUT, "steps": [STEPS[0], {"pause": {}}]})
        await asyncio.sleep(5)
    edit_rollout(before, INVALID)
    # when another operator starts under an invalid spec
    async with running() as world:
        world.take_over(before.kube)
        # then it follows the edited steps
        await world.until("Paused")


async def test_the_end_of_a_rollout_is_told_by_whoever_comes_after_a_crash() -> None:
    # given an operator that dies between the status and the event
    async with running() as before:
        await at_its_first_weight(before)
        before.kube.fail = lambda call, _: ServerError(call) if call == "create Event" else None
        before.bad_share = 0.5
        await before.until("RolledBack")
    assert "RolledBack" not in reasons(before)
    before.kube.fail = lambda *_: None
    # when others start, one after the other
    for _ in range(2):
        async with running() as after:
            after.take_over(before.kube)
            await asyncio.sleep(5)
    # then it is told, and told once
    assert reasons(before).count("RolledBack") == 1


async def test_an_event_that_the_api_does_not_take_is_posted_later() -> None:
    async with running() as world:
        await at_its_first_weight(world)
        # given an API that takes no events for a minute
        world.kube.fail = lambda call, _: ServerError(call) if call == "create Event" else None
        world.bad_share = 0.5
        await world.until("RolledBack")
        await asyncio.sleep(60)
        assert "RolledBack" not in reasons(world)
        # when it does again
        world.kube.fail = lambda *_: None
        await asyncio.sleep(10)
        # then it is told once
        assert reasons(world).count("RolledBack") == 1


async def test_a_lost_status_is_known_again_from_the_records() -> None:
    async with running() as before:
        await at_its_first_weight(before)
        before.bad_share = 0.5
        bad = (await before.until("RolledBack"))["rolledBack"][0]["revision"]
        await asyncio.sleep(60)
        old = stable(before)
    # when the status is lost
    live = before.kube.peek("ModelDeployment", "digits")
    del live["status"]
    before.kube.put(live)
    async with running() as world:
        world.take_over(before.kube)
        await asyncio.sleep(30)
        # then stable is stable, and what was rolled back is not tried again
        assert stable(world) == old
        assert world.status["rolledBack"][0]["revision"] == bad
        assert world.status["rollout"]["state"] == "RolledBack"
        assert world.kube.names("Deployment") == [old]
        assert "apply HTTPRoute" not in world.kube.calls


async def test_time_in_which_no_operator_looked_is_no_missing_evidence() -> None:
    # given a candidate whose evidence is missing for a moment
    async with running() as before:
        await at_its_first_weight(before)
        live = before.kube.peek("ModelDeployment", "digits")
        live["status"]["candidate"]["insufficientSinceTime"] = "2020-01-01T00:00:00Z"
        record = before.kube.peek("ModelRevision", live["status"]["candidate"]["revision"])
    # and nothing is recorded of its tests yet
    before.kube.put({**record, "status": {}})
    before.kube.put(live)
    # when another operator comes years later
    async with running() as world:
        world.take_over(before.kube)
        # then it gathers evidence, and the rollout goes on
        await world.until("Idle")
        assert not world.status.get("rolledBack")
        assert stable(world) == "digits-cc5680b632"


async def test_time_in_which_no_operator_looked_is_no_progress_deadline() -> None:
    # given a candidate that waits for its pods
    async with running() as before:
        before.create()
        await asyncio.sleep(1)
        await before.until("Idle")
        before.unready.add("digits-cc5680b632")
        before.roll_out(2)
        await before.until("Progressing")
        await asyncio.sleep(1)
        live = before.kube.peek("ModelDeployment", "digits")
        live["status"]["candidate"]["waitingSinceTime"] = "2020-01-01T00:00:00Z"
    before.kube.put(live)
    # when another operator comes years later
    async with running() as world:
        world.unready.add("digits-cc5680b632")
        world.take_over(before.kube)
        await asyncio.sleep(60)
        # then the candidate still has its time
        assert world.status["candidate"]["revision"] == "digits-cc5680b632"
        world.unready.clear()
        world.pods(world.kube.peek("Deployment", "digits-cc5680b632"))
        await world.until("Baking")
