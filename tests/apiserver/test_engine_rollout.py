"""Rollouts from the first create to promotion or rollback, against a real API server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from model_operator.adapters.kube import DEPLOYMENT, SERVICE
from model_operator.core.httproute import read_weights
from tests.apiserver.engine_world import (
    Behaviour,
    World,
    condition,
    digest,
    model_deployment,
)

pytestmark = pytest.mark.timeout(90)


def new_model(seed: int) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["spec"]["model"]["digest"] = digest(seed)

    return edit


async def serving(played: World, **spec: Any) -> str:
    """Given a model that serves; its revision."""
    await played.create(model_deployment(played.namespace, **spec))
    return await played.until_ready()


async def test_s01_a_first_create_serves_without_a_canary(played: World) -> None:
    # when a ModelDeployment is created where there was nothing
    revision = await serving(played)
    # then all users are on it, with no step before
    status = await played.status()
    assert played.weights_seen == [{revision: 100}]
    assert "candidate" not in status
    assert condition(status, "Stalled")["status"] == "False"
    assert await played.events() == ["RolloutStarted", "Promoted"]
    # and clients inside the cluster reach it by the ModelDeployment's name
    service = await played.get(SERVICE, "digits")
    assert service["spec"]["selector"]["modeldeployment.dev/revision"] == revision


async def test_s02_every_weight_is_seen_in_order_and_then_the_new_model_serves(
    played: World,
) -> None:
    old = await serving(played)
    pods_before = set(played.pods)
    # when a good new model comes
    await played.change(new_model(2))
    status = await played.until_state("Baking")
    new = status["stable"]["revision"]
    # then every configured weight was there in order, and nothing else
    await played.until_weights({old: 100}, {old: 90, new: 10}, {old: 50, new: 50}, {new: 100})
    # and the old one stays for the bake with the very same pods
    assert status["former"]["revision"] == old
    assert pods_before <= set(played.pods)

    async def old_is_gone() -> bool:
        return await played.deployments() == [new]

    await played.until("the former revision is let go after the bake", old_is_gone)
    record = (await played.revisions())[new]["status"]
    assert record["promotedTime"]
    assert {entry["verdict"] for entry in record["evidence"]} >= {"pass"}


async def test_s04_a_model_that_answers_errors_is_taken_off_the_route(played: World) -> None:
    old = await serving(played)
    # when a new model answers half of its requests with 500
    played.behaviours[digest(2)] = Behaviour(error_share=0.5)
    await played.change(new_model(2))
    status = await played.until_state("RolledBack")
    bad = status["rolledBack"][0]["revision"]
    # then its weight is 0 again, and the reason has metric, value, threshold and sample count
    await played.until_weights({old: 100}, {old: 90, bad: 10}, {old: 100})
    assert status["rollout"]["reason"] == "AnalysisFailed"
    assert "errors" in status["rollout"]["message"]
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "Stalled")["reason"] == "AnalysisFailed"

    # and it is taken down once nobody reaches it, with its evidence kept
    async def bad_is_gone() -> bool:
        return await played.deployments() == [old]

    await played.until("the bad revision is taken down", bad_is_gone)
    record = (await played.revisions())[bad]["status"]
    assert record["rolledBackReason"] == "AnalysisFailed"
    failed = [entry for entry in record["evidence"] if entry["verdict"] == "fail"]
    assert failed[-1]["metric"] == "errors"
    assert failed[-1]["threshold"] == "0.02"
    assert float(failed[-1]["value"]) > 0.02
    assert failed[-1]["samples"] > 0
    await played.until_event("RolledBack")


async def test_s18_a_crash_loop_rolls_back_although_the_metrics_source_is_away(
    played: World,
) -> None:
    # given a candidate under traffic, whose metrics source does not exist
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["analysis"]["metricSource"] = "gone"
    await played.create(manifest)
    old = await played.until_ready()
    await played.change(new_model(2))
    status = await played.until_state("Held")
    new = status["candidate"]["revision"]
    assert read_weights(await played.route()) == {old: 90, new: 10}
    # when its containers end again and again
    played.behaviours[digest(2)] = Behaviour(exit_code=1)
    # then it is rolled back all the same
    status = await played.until_state("RolledBack")
    assert status["rolledBack"][0]["revision"] == new
    assert read_weights(await played.route()) == {old: 100}


async def test_s22_a_spec_that_goes_back_to_stable_is_stable_at_once(played: World) -> None:
    # given a rollout at its first step, held there by a pause
    steps = [{"setWeight": {"percent": 10, "duration": "100ms"}}, {"pause": {}}]
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["steps"] = steps
    await played.create(manifest)
    old = await played.until_ready()
    pods_before = {name for name, pod in played.pods.items() if pod.revision == old}
    await played.change(new_model(2))
    status = await played.until_state("Paused")
    new = status["candidate"]["revision"]
    # when the spec goes back
    await played.change(new_model(1))
    # then stable has everything at once, without analysis, and no pod was restarted
    await played.until_state("Idle")
    await played.until_weights({old: 100}, {old: 90, new: 10}, {old: 100})
    assert condition(await played.status(), "Ready")["status"] == "True"
    assert pods_before <= set(played.pods)
    await played.until_event("Superseded")


@pytest.mark.parametrize(
    ("exit_code", "report"),
    [
        (3, {"reason": "DigestMismatch", "message": "it is sha256:1234"}),
        (3, {"reason": "UnsupportedModel", "message": "opset 99 is not known"}),
    ],
)
async def test_s29_a_model_that_cannot_be_loaded_is_never_weighted(
    played: World, exit_code: int, report: dict[str, str]
) -> None:
    old = await serving(played)
    # when the server of a new model ends with a definite reason
    played.behaviours[digest(2)] = Behaviour(exit_code=exit_code, message=json.dumps(report))
    await played.change(new_model(2))
    # then the rollout ends long before its deadline, in the loader's words
    status = await played.until_state("RolledBack")
    assert status["rollout"]["reason"] == report["reason"]
    assert report["message"] in status["rollout"]["message"]
    assert played.weights_seen == [{old: 100}]


async def test_s30_a_collapse_of_readiness_takes_the_weight_within_two_seconds(
    played: World,
) -> None:
    # given a candidate at 50 %
    steps = [{"setWeight": {"percent": 50, "duration": "100ms"}}, {"pause": {}}]
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["steps"] = steps
    await played.create(manifest)
    old = await played.until_ready()
    await played.change(new_model(2))
    await played.until_state("Paused")
    # when none of its pods is ready any more
    played.behaviours[digest(2)].ready = False

    async def weight_is_0() -> bool:
        return read_weights(await played.route()) == {old: 100}

    # then its weight is 0 within two seconds
    assert await played.until("weight 0", weight_is_0) < 2.0
    status = await played.until_state("RolledBack")
    assert status["rollout"]["reason"] == "ReadinessCollapsed"


async def test_s49_the_same_uri_with_another_digest_is_another_revision(played: World) -> None:
    old = await serving(played)
    # when the digest changes and nothing else
    await played.change(new_model(2))
    # then there is a new revision, and the old one's record stays as it is
    await played.until_state("Baking")
    revisions = await played.revisions()
    assert len(revisions) == 2
    assert revisions[old]["spec"]["model"]["digest"] == digest(1)
    uris = {revision["spec"]["model"]["uri"] for revision in revisions.values()}
    assert len(uris) == 1


async def test_deleting_takes_everything_along(played: World) -> None:
    # given a rollout at its first step
    await serving(played)
    await played.change(new_model(2))
    await played.until_state("Progressing")
    # when the ModelDeployment is deleted
    mdep = await played.mdep()
    await played.delete(mdep)

    # then owner references have it all collected, and no finalizer holds it up
    async def all_gone() -> bool:
        return not await played.deployments() and not await played.revisions()

    await played.until("all is collected", all_gone)
    assert "finalizers" not in mdep["metadata"]


async def test_deployments_are_redundant_by_default(played: World) -> None:
    revision = await serving(played)
    deployment = await played.get(DEPLOYMENT, revision)
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["spec"]["replicas"] == 2
