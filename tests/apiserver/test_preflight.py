"""What a candidate must be before its first request: a real API server, real HTTP to the pods."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from model_operator.adapters.kube import MODEL_REVISION
from tests.apiserver.engine_world import (
    Behaviour,
    World,
    digest,
    model_deployment,
)
from tests.apiserver.played_kubelet import PIXELS, SCORES

pytestmark = pytest.mark.timeout(90)

TWELVE_SCORES = {**SCORES, "shape": [-1, 12]}


def new_model(seed: int, **rollout: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["spec"]["model"]["digest"] = digest(seed)
        manifest["spec"]["rollout"] |= rollout

    return edit


async def record(played: World, revision: str, *parts: str) -> dict[str, Any]:
    """The status of a ModelRevision, once these parts are in it."""

    async def written() -> bool:
        live = await played.get(MODEL_REVISION, revision)
        return set(parts) <= (live.get("status") or {}).keys()

    await played.until(f"{parts} of {revision}", written)
    status: dict[str, Any] = (await played.get(MODEL_REVISION, revision))["status"]
    return status


async def test_the_record_has_what_a_model_takes_and_gives(played: World) -> None:
    # given the first model of all, when it serves
    await played.create(model_deployment(played.namespace))
    revision = await played.until_ready()
    # then its record says what it takes and gives, and for which ONNX it was written
    signature = (await record(played, revision, "signature"))["signature"]
    assert signature["inputs"] == [PIXELS]
    assert signature["outputs"] == [SCORES]
    assert signature["opsetImports"] == [{"domain": "ai.onnx", "version": 17}]
    assert signature["producer"] == "played"


async def test_s50_a_model_with_other_outputs_never_gets_a_request(played: World) -> None:
    # given a model that serves, and another one with more classes
    await played.create(model_deployment(played.namespace))
    stable = await played.until_ready()
    played.behaviours[digest(2)] = Behaviour(outputs=(TWELVE_SCORES,))
    # when it is rolled out
    await played.change(new_model(2))
    status = await played.until_state("RolledBack")
    # then it is refused with the tensor's name, and stable never noticed
    assert status["rollout"]["reason"] == "SignatureChanged"
    for part in ("'scores'", "FP32 [-1, 12]", "FP32 [-1, 10]", "signature to Any"):
        assert part in status["rollout"]["message"]
    assert played.weights_seen == [{stable: 100}]
    refused = status["rolledBack"][-1]["revision"]
    preflight = (await record(played, refused, "preflight"))["preflight"]
    assert (preflight["passed"], preflight["reason"]) == (False, "SignatureChanged")
    await played.until_event("RolledBack")


async def test_s50_where_the_spec_allows_it_other_outputs_are_rolled_out(played: World) -> None:
    await played.create(model_deployment(played.namespace))
    stable = await played.until_ready()
    played.behaviours[digest(2)] = Behaviour(outputs=(TWELVE_SCORES,))
    await played.change(new_model(2, preflight={"signature": "Any"}))
    status = await played.until_state("Baking")
    assert status["former"]["revision"] == stable


async def test_pods_that_do_not_tell_block_nothing(played: World) -> None:
    # given a model whose pods do not say what it takes
    played.behaviours[digest(1)] = Behaviour(tells=False)
    await played.create(model_deployment(played.namespace))
    await played.until_ready()
    # when a new one comes, then it is rolled out after a while
    await played.change(new_model(2))
    status = await played.until_state("Baking")
    # and its record says that the two were not compared
    preflight = (await record(played, status["stable"]["revision"], "preflight"))["preflight"]
    assert (preflight["passed"], preflight["reason"]) == (True, "SignatureUnknown")
    assert status["former"]["revision"] in preflight["message"]


async def test_golden_requests_reach_the_server_as_they_were_written(played: World) -> None:
    # given golden requests with every kind of value that JSON has
    values = [1, 0.5, -1e-7, None, [2, 3]]
    words = {"name": "words", "datatype": "BYTES", "shape": [1], "data": ["$(HOME) größer"]}
    numbers = {"name": "scores", "datatype": "FP32", "shape": [6], "data": values}
    golden = {"name": "a seven", "inputs": [words], "outputs": [numbers]}
    manifest = model_deployment(played.namespace, server={"goldenRequests": [golden]})
    # when the ModelDeployment is created
    await played.create(manifest)
    revision = await played.until_ready()
    # then they are in the pods' argument
    live = await played.get(MODEL_REVISION, revision)
    (argument,) = [
        argument
        for argument in live["spec"]["template"]["spec"]["containers"][0]["args"]
        if argument.startswith("--golden=")
    ]
    (sent,) = json.loads(argument.removeprefix("--golden="))
    assert sent["inputs"] == [words]
    assert sent["outputs"] == [numbers]


async def test_a_failed_golden_request_ends_the_rollout_with_the_servers_words(
    played: World,
) -> None:
    await played.create(model_deployment(played.namespace))
    stable = await played.until_ready()
    message = "the golden request 'a seven' is answered otherwise"
    report = json.dumps({"reason": "GoldenRequestFailed", "message": message})
    played.behaviours[digest(2)] = Behaviour(exit_code=3, message=report)
    await played.change(new_model(2))
    status = await played.until_state("RolledBack")
    assert status["rollout"]["reason"] == "GoldenRequestFailed"
    assert message in status["rollout"]["message"]
    assert played.weights_seen == [{stable: 100}]
