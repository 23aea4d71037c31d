"""Unfit models on the real cluster: refused before any request, with the loader's words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hack.demo.cluster import kubectl
from hack.demo.history import History, Outcome
from hack.demo.train import INPUT_NAME, OUTPUT_NAME, TrainedModel
from tests.e2e.conftest import FOREIGN, HUGE, MODERN, TWELVE_CLASSES
from tests.e2e.scene import Scene, failed, is_ready, weights_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Stage = Callable[..., Scene]
DEFINITE_S = 60.0
"""Long before the progress deadline of two minutes."""


def refused(s: Scene, version: int, change: Callable[[dict[str, Any]], None] | None = None) -> str:
    """Roll a version out that never gets a request; why it was refused."""
    began = time.monotonic()
    s.apply(version, expected=Outcome.ROLLED_BACK, change=change)
    why = s.wait_for_rollback(timeout_s=DEFINITE_S)
    assert time.monotonic() - began < DEFINITE_S
    history = s.history
    revision = history.revision_of(s.model(version).digest)
    assert revision is not None
    assert weights_of(history, revision) == []
    preflight = record(s, revision)["preflight"]
    assert not preflight["passed"]
    assert why.startswith(preflight["reason"])
    return why


def record(s: Scene, revision: str) -> dict[str, Any]:
    """The status of a ModelRevision, once it says how the preflight went."""
    deadline = time.monotonic() + 10
    while True:
        manifest = json.loads(kubectl("-n", s.namespace, "get", "mrev", revision, "-o", "json"))
        status: dict[str, Any] = manifest.get("status") or {}
        if "preflight" in status:
            return status
        assert time.monotonic() < deadline, f"no preflight recorded of {revision}"
        time.sleep(0.2)


def golden_request(s: Scene, model: TrainedModel, off: float = 0.0) -> dict[str, Any]:
    """One of the load generator's images, and what the model answers to it, perhaps not quite."""
    image = json.loads(s.models.requests.read_text())["images"][0]
    pixels = np.array([image], dtype=np.float32)
    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    (scores,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
    scores[0, 3] += off

    def tensor(name: str, array: Any) -> dict[str, Any]:
        return {
            "name": name,
            "datatype": "FP32",
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }

    return {
        "name": "the first image",
        "inputs": [tensor(INPUT_NAME, pixels)],
        "outputs": [tensor(OUTPUT_NAME, scores)],
    }


def checked_by(request: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["server"]["goldenRequests"] = [request]

    return change


def test_s29_opset_operator_and_memory_end_a_rollout_at_once(stage: Stage) -> None:
    # given a model that serves
    s = stage().serving(1, rate=20)
    # when models come that this server cannot run, then each is refused with its own reason
    why = refused(s, MODERN)
    assert why.startswith("UnsupportedModel")
    assert "opset 99" in why
    why = refused(s, FOREIGN)
    assert why.startswith("UnsupportedModel")
    assert "Enhance" in why
    why = refused(s, HUGE)
    assert why.startswith("OutOfMemory")
    assert "raise its memory limit" in why
    # and nobody noticed
    history = s.stop()
    assert failed(history) == 0
    assert is_ready(history, s.model(1).digest)


def test_s50_another_output_is_refused_unless_the_spec_allows_it(stage: Stage) -> None:
    def allow(manifest: dict[str, Any]) -> None:
        manifest["spec"]["rollout"]["preflight"] = {"signature": "Any"}
        # a server field as well: what was refused is not tried again by itself
        manifest["spec"]["server"]["env"] = [{"name": "AGAIN", "value": "1"}]

    s = stage().serving(1, rate=20)
    # given the record of what stable gives
    stable = s.history.revision_of(s.model(1).digest)
    assert stable is not None
    (output,) = record(s, stable)["signature"]["outputs"]
    # when a model with more classes comes
    why = refused(s, TWELVE_CLASSES)
    # then it is refused by the name of its output
    assert why.startswith("SignatureChanged")
    assert repr(output["name"]) in why
    assert "12]" in why
    assert "10]" in why
    # and where the spec allows it, it gets its first users
    digest = s.apply(TWELVE_CLASSES, change=allow).digest
    s.wait("users on it", lambda h: has_weight(h, digest), 90)
    s.stop()


def has_weight(history: History, digest: str) -> bool:
    """Whether the revision that the spec names now has users, whichever had this model before."""
    candidate = history.status.candidate
    return (
        candidate is not None
        and candidate.digest == digest
        and history.weights.get(candidate.revision, 0) > 0
    )


def test_s01_golden_requests_decide_before_any_user(stage: Stage) -> None:
    s = stage()
    # given a first model that does not answer as it should
    right = golden_request(s, s.model(1))
    s.apply(1, expected=Outcome.ROLLED_BACK, change=checked_by(golden_request(s, s.model(1), 1.0)))
    history = s.wait("it failed", lambda h: h.status.rollout.state == "Failed", DEFINITE_S)
    assert history.status.rollout.reason == "GoldenRequestFailed"
    assert "'the first image'" in history.status.rollout.message
    assert "[0, 3]" in history.status.rollout.message
    assert not is_ready(history, s.model(1).digest)
    # when the request is mended, then it serves
    s.apply(1, change=checked_by(right))
    s.wait("ready", lambda h: is_ready(h, s.model(1).digest), 120)
    s.recorder.start_load(20)
    # and another model that answers otherwise gets no user
    why = refused(s, 3, checked_by(right))
    assert why.startswith("GoldenRequestFailed")
    assert f"{OUTPUT_NAME!r} at [0, " in why
    assert failed(s.stop()) == 0
