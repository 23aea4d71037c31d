"""Manifests as users write them, and ways to break them."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

DIGEST = "sha256:" + "8f6c" * 16
GOLDEN = {
    "name": "a seven",
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 2], "data": [0, 0.5]}],
    "outputs": [{"name": "words", "datatype": "BYTES", "shape": [1, 1], "data": [["seven"]]}],
    "tolerance": {"relative": "0.01", "absolute": "0"},
}
_STEP = re.compile(r"[^.\[\]]+")


def model_deployment(name: str = "digits") -> dict[str, Any]:
    """The design's example: every part of the spec that has a subject of its own."""
    return {
        "apiVersion": "modeldeployment.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "https://models.example/digits/3/model.onnx", "digest": DIGEST},
            "owner": {"team": "vision", "contact": "vision@example.com"},
            "replicas": 3,
            "server": {
                "resources": {
                    "requests": {"cpu": "1", "memory": "512Mi"},
                    "limits": {"memory": "512Mi"},
                },
                "executionProviders": ["CPUExecutionProvider"],
                "env": [{"name": "LOG", "value": "debug"}],
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "goldenRequests": [GOLDEN],
            },
            "route": {
                "parentRefs": [{"name": "main", "namespace": "gateway"}],
                "hostnames": ["digits.example.com"],
                "testerHeader": {"name": "x-model-candidate", "value": "true"},
            },
            "suspend": False,
            "revisionHistoryLimit": 10,
            "rollout": {
                "steps": [
                    {"setWeight": {"percent": 5, "duration": "2m"}},
                    {"setWeight": {"percent": 25, "duration": "5m"}},
                    {"pause": {}},
                    {"setWeight": {"percent": 50, "duration": "5m"}},
                ],
                "preflight": {"signature": "Compatible"},
                "progressDeadline": "30m",
                "bake": {"duration": "30m"},
                "analysis": {
                    "interval": "5s",
                    "confidence": "0.99",
                    "metricSource": "prometheus",
                    "metrics": [
                        {
                            "name": "errors",
                            "type": "Events",
                            "events": {
                                "bad": "bad{revision='{{ revision }}'}",
                                "total": "total{revision='{{ revision }}'}",
                                "maxRate": "0.01",
                                "minEvents": 50,
                            },
                        },
                        {
                            "name": "latency",
                            "type": "Value",
                            "value": {"query": "latency", "max": "0.250", "window": "1m"},
                        },
                        {
                            "name": "latency-vs-stable",
                            "type": "Comparison",
                            "comparison": {
                                "query": "latency{revision='{{ revision }}'}",
                                "maxIncreasePercent": 20,
                                "window": "1m",
                            },
                        },
                    ],
                    "onInsufficient": {"hold": "10m", "then": "Rollback"},
                },
            },
        },
    }


def minimal(name: str = "digits") -> dict[str, Any]:
    """The least that is accepted."""
    manifest = model_deployment(name)
    spec = manifest["spec"]
    manifest["spec"] = {
        "model": spec["model"],
        "route": {"parentRefs": [{"name": "main", "namespace": "gateway"}]},
    }
    return manifest


def changed(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with `value` at a path such as `spec.rollout.steps[2].pause`; `DELETED` removes it."""
    result = copy.deepcopy(manifest)
    *parents, last = _STEP.findall(path)
    at: Any = result
    for step in parents:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    if value is DELETED:
        del at[last]
    elif isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return result


DELETED = object()


@dataclass(frozen=True, slots=True)
class Broken:
    """One way to break the example, and who says what about it.

    Attributes:
        path: What is changed.
        value: What it is changed to.
        api: Words of the API server.
        at: Where the parser finds it, by default `path`.
        parser: Words of the parser.
    """

    path: str
    value: Any
    api: str
    parser: str
    at: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        return changed(model_deployment(), self.path, self.value)

    @property
    def found_at(self) -> str:
        return self.at or self.path

    def __str__(self) -> str:
        return f"{self.path}={self.value if self.value is not DELETED else 'nothing'}"


_STEPS = "spec.rollout.steps"
_ANALYSIS = "spec.rollout.analysis"
_METRICS = f"{_ANALYSIS}.metrics"
_GOLDEN = "spec.server.goldenRequests"
_DIGEST_WORDS = "must be sha256: and 64 lower-case hex digits"
_URI_WORDS = "must be https://HOST/PATH, http://HOST/PATH, pvc://CLAIM/PATH or file:///PATH"
_STEP_WORDS = "a step has exactly one of setWeight and pause; make two steps of it"
_RISE_WORDS = "weights must rise from step to step"
_ZERO_WORDS = "must be longer than 0s"
_SHARE_WORDS = "at least 0 and below 1"
_TYPE_WORDS = "a metric has exactly the member that its type names"


def _weight(percent: Any, duration: Any = "1m") -> dict[str, Any]:
    return {"setWeight": {"percent": percent, "duration": duration}}


BROKEN = (
    Broken("spec.model.digest", "sha256:abc", _DIGEST_WORDS, _DIGEST_WORDS),
    Broken("spec.model.digest", "sha256:" + "A" * 64, _DIGEST_WORDS, _DIGEST_WORDS),
    Broken("spec.model.digest", "md5:" + "a" * 64, _DIGEST_WORDS, _DIGEST_WORDS),
    Broken("spec.model.digest", DELETED, "spec.model.digest: Required value", "is required"),
    Broken("spec.model.uri", "ftp://models/a.onnx", _URI_WORDS, _URI_WORDS),
    Broken("spec.model.uri", "models/a.onnx", _URI_WORDS, _URI_WORDS),
    Broken("spec.model.uri", "file:///a b.onnx", _URI_WORDS, _URI_WORDS),
    Broken("spec.model.uri", "", _URI_WORDS, _URI_WORDS),
    Broken("spec.model", DELETED, "spec.model: Required value", "is required"),
    Broken("spec.modle", {}, 'unknown field "spec.modle"', "unknown field"),
    Broken("spec.rollout.step", [], 'unknown field "spec.rollout.step"', "unknown field"),
    Broken("spec.replicas", -1, "greater than or equal to 0", ">= 0"),
    Broken("spec.replicas", "3", "must be of type integer", "Expected `int`"),
    Broken("spec.route", DELETED, "spec.route: Required value", "is required"),
    Broken("spec.route.parentRefs", [], "at least 1 items", "length >= 1"),
    Broken("spec.route.parentRefs", [{"name": "a"}] * 9, "must have at most 8 items", "<= 8"),
    Broken(
        "spec.route.hostnames[0]", "Digits.example.com", "should match", "Expected `str` matching"
    ),
    Broken("spec.route.testerHeader.name", "x header", "should match", "Expected `str` matching"),
    Broken("spec.server.executionProviders", [], "at least 1 items", "length >= 1"),
    Broken("spec.server.terminationGracePeriod", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken("spec.server.imagePullPolicy", "Sometimes", "Unsupported value", "Invalid enum value"),
    Broken(f"{_GOLDEN}[0].inputs[0].datatype", "FLOAT", "Unsupported value", "Invalid enum value"),
    Broken(f"{_GOLDEN}[0].inputs[0].shape[0]", -1, "greater than or equal to 0", ">= 0"),
    Broken(f"{_GOLDEN}[0].inputs", [], "at least 1 items", "length >= 1"),
    Broken(f"{_GOLDEN}[0].outputs[0].data", "seven", "must be of type array", "Expected `array`"),
    Broken(f"{_GOLDEN}[0].tolerance.relative", "-1", "relative must be 0", "must be 0 or more"),
    Broken(f"{_GOLDEN}[0].name", "", "at least 1 chars long", "length >= 1"),
    Broken(_GOLDEN, [GOLDEN] * 9, "must have at most 8 items", "<= 8"),
    Broken(
        _GOLDEN, [GOLDEN] * 2, "Duplicate value", "name of another one", at=f"{_GOLDEN}[1].name"
    ),
    Broken("spec.rollout.preflight.signature", "Same", "Unsupported value", "Invalid enum value"),
    Broken(_STEPS, [], "should have at least 1 items", "length >= 1"),
    Broken(f"{_STEPS}[0]", {}, _STEP_WORDS, _STEP_WORDS),
    Broken(f"{_STEPS}[0].pause", {}, _STEP_WORDS, _STEP_WORDS, at=f"{_STEPS}[0]"),
    Broken(
        f"{_STEPS}[3]",
        _weight(25),
        _RISE_WORDS,
        f"{_RISE_WORDS}, but 25 follows 25",
        at=f"{_STEPS}[3].setWeight.percent",
    ),
    Broken(
        f"{_STEPS}[1]",
        _weight(4),
        _RISE_WORDS,
        f"{_RISE_WORDS}, but 4 follows 5",
        at=f"{_STEPS}[1].setWeight.percent",
    ),
    Broken(f"{_STEPS}[3].setWeight.percent", 101, "less than or equal to 100", "<= 100"),
    Broken(f"{_STEPS}[0].setWeight.percent", 0, "greater than or equal to 1", ">= 1"),
    Broken(f"{_STEPS}[0].setWeight.duration", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(f"{_STEPS}[0].setWeight.duration", "0m0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(f"{_STEPS}[0].setWeight.duration", "90", "should match", "is not a duration"),
    Broken(f"{_STEPS}[0].setWeight.duration", "1 day", "should match", "is not a duration"),
    Broken(f"{_STEPS}[0].setWeight.duration", 90, "must be of type string", "must be a string"),
    Broken(f"{_STEPS}[0].setWeight.duration", DELETED, "Required value", "is required"),
    Broken(f"{_STEPS}[2].pause.duration", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(_STEPS, [{"pause": {}}], "steps need a setWeight", "need a setWeight"),
    Broken("spec.rollout.progressDeadline", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken("spec.rollout.bake.duration", "-1m", "should match", "is not a duration"),
    Broken("spec.rollout.bake.replicas", 0, "greater than or equal to 1", ">= 1"),
    Broken(f"{_ANALYSIS}.interval", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(f"{_ANALYSIS}.confidence", "1", "above 0 and below 1", "above 0 and below 1"),
    Broken(f"{_ANALYSIS}.confidence", "0.0", "above 0 and below 1", "above 0 and below 1"),
    Broken(f"{_ANALYSIS}.confidence", "99%", "should match", "is not a decimal number"),
    Broken(f"{_ANALYSIS}.confidence", 0.99, "must be of type string", "must be a string"),
    Broken(f"{_ANALYSIS}.metricSource", "Prometheus", "should match", "Expected `str` matching"),
    Broken(f"{_ANALYSIS}.onInsufficient.hold", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(f"{_ANALYSIS}.onInsufficient.then", "Promote", "Unsupported value", "Invalid enum"),
    Broken(
        f"{_METRICS}[1].name",
        "errors",
        "Duplicate value",
        "'errors' is the name of another metric too",
    ),
    Broken(f"{_METRICS}[0].name", "Errors", "should match", "Expected `str` matching"),
    Broken(f"{_METRICS}[0].type", "Counter", "Unsupported value", "Invalid enum value"),
    Broken(
        f"{_METRICS}[0].type",
        "Value",
        _TYPE_WORDS,
        "does not belong to type Value",
        at=f"{_METRICS}[0].events",
    ),
    Broken(f"{_METRICS}[0].events", DELETED, _TYPE_WORDS, "is missing, but the type is Events"),
    Broken(
        f"{_METRICS}[0].value",
        {"query": "a", "max": "1"},
        _TYPE_WORDS,
        "does not belong to type Events",
    ),
    Broken(
        f"{_METRICS}[0].events.maxRate", "1", "at least 0 and below 1", "at least 0 and below 1"
    ),
    Broken(f"{_METRICS}[0].events.maxRate", "-0.1", _SHARE_WORDS, _SHARE_WORDS),
    Broken(f"{_METRICS}[0].events.bad", "", "at least 1 chars long", "length >= 1"),
    Broken(f"{_METRICS}[0].events.minEvents", 0, "greater than or equal to 1", ">= 1"),
    Broken(
        f"{_METRICS}[1].value.max",
        DELETED,
        "a Value metric needs max, min or both",
        "a Value metric needs max, min or both",
        at=f"{_METRICS}[1].value",
    ),
    Broken(f"{_METRICS}[1].value.min", "0.3", "min is above max", "min is above max"),
    Broken(f"{_METRICS}[1].value.window", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(f"{_METRICS}[2].comparison.window", "0s", _ZERO_WORDS, _ZERO_WORDS),
    Broken(
        f"{_METRICS}[2].comparison.maxIncreasePercent", -1, "greater than or equal to 0", ">= 0"
    ),
)
"""What both the API server and the parser refuse."""
