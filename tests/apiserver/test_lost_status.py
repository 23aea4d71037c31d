"""S54 and S42: a ModelDeployment that loses its status, and one that is deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from model_operator.adapters.kube import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    MODEL_REVISION,
    POD,
    SERVICE,
)
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import (
    Behaviour,
    World,
    digest,
    model_deployment,
    operator,
    put,
    settings,
    world,
)

pytestmark = pytest.mark.timeout(120)
Manifest = dict[str, Any]
PAUSED = [{"setWeight": {"percent": 25, "duration": "100ms"}}, {"pause": {}}]
CHILDREN = (MODEL_REVISION, DEPLOYMENT, SERVICE, DISRUPTION_BUDGET, HTTP_ROUTE, POD)


@pytest.fixture
async def played(controllers: ControlPlane, namespace: str) -> AsyncIterator[World]:
    """A namespace without an operator."""
    async with world(controllers.kubeconfig, namespace) as around:
        around.requests_per_s = 100.0
        yield around


async def new_model(played: World, seed: int) -> None:
    await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(seed)))


async def without_status(played: World, *, records: bool) -> None:
    """A restore from a backup without statuses, of the ModelRevisions' too if asked for."""
    await put(played.kube, {**await played.mdep(), "status": {}}, "status")
    for revision in (await played.revisions()).values() if records else ():
        await put(played.kube, {**revision, "status": {}}, "status")


@pytest.mark.parametrize("records", [False, True], ids=["its own", "the revisions' too"])
async def test_s54_stable_is_known_again_when_the_status_is_lost(
    controllers: ControlPlane, played: World, *, records: bool
) -> None:
    configured = settings(controllers.kubeconfig, played.namespace)
    # given a second revision that was promoted, and a third that was rolled back
    async with operator(configured):
        await played.create(model_deployment(played.namespace))
        await played.until_ready()
        await new_model(played, 2)
        await played.until_state("Baking")
        await played.until_state("Idle")
        played.behaviours[digest(3)] = Behaviour(error_share=0.5)
        await new_model(played, 3)
        before = await played.until_state("RolledBack")

        async def taken_down() -> bool:
            return len(await played.deployments()) == 1

        await played.until("the bad one is taken down", taken_down)
    events, weights, pods = await played.events(), [*played.weights_seen], {*played.pods}
    # when the statuses are lost
    await without_status(played, records=records)
    async with operator(configured):
        # then everything is as it was: nothing is created, tried or restarted anew
        status = await played.until_state(before["rollout"]["state"])
        assert status["stable"]["revision"] == before["stable"]["revision"]
        assert "candidate" not in status
        await played.until_ready()
        tried = [entry["revision"] for entry in status.get("rolledBack", ())]
        known = [entry["revision"] for entry in before.get("rolledBack", ())]
        assert tried == known, "the route remembers it even when no record does"
    new_events = (await played.events())[len(events) :]
    assert not {"RolloutStarted", "Promoted", "StepEntered"} & {*new_events}
    assert played.weights_seen == weights
    assert {*played.pods} == pods


async def test_s54_a_candidate_whose_status_is_lost_begins_again_without_weight(
    controllers: ControlPlane, played: World
) -> None:
    configured = settings(controllers.kubeconfig, played.namespace)
    # given a candidate at 25 %
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["steps"] = PAUSED
    async with operator(configured):
        await played.create(manifest)
        old = await played.until_ready()
        await new_model(played, 2)
        new = (await played.until_state("Paused"))["candidate"]["revision"]
    pods = {*played.pods}
    # when the status is lost
    await without_status(played, records=False)
    async with operator(configured):
        await played.until_state("Paused")
    # then stable has everything first, and the candidate comes again by its steps
    shares = {old: 75, new: 25}
    await played.until_weights({old: 100}, shares, {old: 100}, shares)
    assert (await played.status())["stable"]["revision"] == old
    assert pods <= {*played.pods}


@pytest.mark.parametrize("there", [True, False], ids=["with the operator", "without it"])
async def test_s42_a_deletion_in_mid_canary_takes_everything_along(
    controllers: ControlPlane, played: World, *, there: bool
) -> None:
    configured = settings(controllers.kubeconfig, played.namespace)
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["steps"] = PAUSED
    async with operator(configured):
        # given a candidate at 25 %
        await played.create(manifest)
        await played.until_ready()
        await new_model(played, 2)
        await played.until_state("Paused")
        mdep = await played.mdep()
        if there:
            # when it is deleted
            await played.delete(mdep)
            await until_collected(played)
    if not there:
        await played.delete(mdep)
        await until_collected(played)
    # then all of it is collected by its owner references, and no finalizer held it up
    assert "finalizers" not in mdep["metadata"]


async def until_collected(played: World) -> None:
    async def all_gone() -> bool:
        left = [
            item["metadata"]["name"]
            for kind in CHILDREN
            for item in (await played.kube.list(kind, namespace=played.namespace)).items
        ]
        return not left

    try:
        await played.until("all is collected", all_gone, timeout_s=40.0)
    except KeyError as error:  # there is no status any more to tell of
        raise AssertionError("not all was collected") from error
