"""What the API server accepts as a ModelDeployment, what it refuses and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.control_plane import ApiError, ControlPlane
from tests.unit.api.manifests import BROKEN, Broken, changed, minimal, model_deployment

_CREATE = "/apis/modeldeployment.dev/v1alpha1/namespaces/default/modeldeployments"
_DRY_RUN = f"{_CREATE}?dryRun=All&fieldValidation=Strict"


@pytest.mark.parametrize("manifest", [model_deployment(), minimal()], ids=["full", "minimal"])
def test_a_valid_spec_is_accepted(control_plane: ControlPlane, manifest: dict[str, Any]) -> None:
    accepted = control_plane.request("POST", _DRY_RUN, manifest)

    assert accepted["spec"]["model"] == manifest["spec"]["model"]


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_broken_spec_is_refused_in_words_that_say_what_to_change(
    control_plane: ControlPlane, broken: Broken
) -> None:
    with pytest.raises(ApiError) as refused:
        control_plane.request("POST", _DRY_RUN, broken.manifest)

    assert refused.value.code in (400, 422)
    assert broken.api in refused.value.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.model.uri", "pvc://models/digits/3/model.onnx"),
        ("spec.model.uri", "file:///models/model.onnx"),
        ("spec.replicas", 0),
        ("spec.rollout.bake.duration", "0s"),
        ("spec.rollout.bake.duration", "1h30m"),
        (
            "spec.rollout.steps",
            [{"setWeight": {"percent": 5, "duration": "1m"}}, {"pause": {"duration": "250ms"}}],
        ),
        (
            "spec.rollout.steps",
            [{"setWeight": {"percent": p, "duration": "1.5h"}} for p in range(1, 33)],
        ),
        ("spec.rollout.steps", [{"setWeight": {"percent": 100, "duration": "1m"}}]),
        ("spec.rollout.analysis.metrics[0].events.maxRate", "0"),
        ("spec.rollout.analysis.metrics[0].events.maxRate", "1e-3"),
        ("spec.rollout.analysis.metrics[1].value.min", "-0.250"),
        ("spec.route.hostnames", ["*.example.com", "localhost"]),
        ("spec.server.resources", {"limits": {"cpu": 2, "nvidia.com/gpu": "1"}}),
        (
            "spec.server.env",
            [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        ),
        (
            "spec.server.affinity",
            {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
                        ]
                    }
                }
            },
        ),
    ],
    ids=str,
)
def test_the_limits_of_what_is_valid_are_accepted(
    control_plane: ControlPlane, path: str, value: object
) -> None:
    control_plane.request("POST", _DRY_RUN, changed(model_deployment(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.server.env", [{"value": "a"}], "spec.server.env[0].name: Required value"),
        ("spec.server.env", [{"name": "A"}, {"name": "A"}], "Duplicate value"),
        ("spec.server.resources", {"limits": {"cpu": "two"}}, "should match"),
        ("spec.server.resources", {"limit": {"cpu": "2"}}, "unknown field"),
        ("spec.server.affinity", {"nodeAfinity": {}}, "unknown field"),
        ("spec.server.tolerations", [{"tolerationSecond": 3}], "unknown field"),
        ("spec.route.hostnames", ["a.example", "a.example"], "Duplicate value"),
    ],
    ids=str,
)
def test_pod_fields_are_checked_as_in_a_pod(
    control_plane: ControlPlane, path: str, value: object, words: str
) -> None:
    with pytest.raises(ApiError) as refused:
        control_plane.request("POST", _DRY_RUN, changed(model_deployment(), path, value))

    assert words in refused.value.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 53, "metadata.name has at most 52 characters"),
        ("digits.v1", "metadata.name becomes a Service's name"),
        ("1digits", "metadata.name becomes a Service's name"),
    ],
)
def test_a_name_that_makes_no_service_name_is_refused(
    control_plane: ControlPlane, name: str, words: str
) -> None:
    with pytest.raises(ApiError) as refused:
        control_plane.request("POST", _DRY_RUN, model_deployment(name))

    assert words in refused.value.message


@pytest.mark.parametrize("name", ["a" * 52, "a", "digits-2"])
def test_a_name_that_leaves_room_for_revisions_is_accepted(
    control_plane: ControlPlane, name: str
) -> None:
    control_plane.request("POST", _DRY_RUN, model_deployment(name))


def test_replicas_is_the_only_default_that_is_stored(control_plane: ControlPlane) -> None:
    accepted = control_plane.request("POST", _DRY_RUN, minimal())

    assert accepted["spec"] == {**minimal()["spec"], "replicas": 2}
