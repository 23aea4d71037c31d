"""Subresources, printer columns and immutability, as clients of the API see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_operator.api.parse import parse_model_deployment, to_manifest
from model_operator.api.types import (
    CandidateStatus,
    Condition,
    Evidence,
    ModelDeploymentStatus,
    ModelRevisionStatus,
    RolledBackStatus,
    RolloutStatus,
    Signature,
    StableStatus,
    Tensor,
    TrafficStatus,
)
from tests.apiserver.control_plane import ApiError, ControlPlane, KubectlError
from tests.unit.api.manifests import DIGEST, changed, minimal, model_deployment

_GROUP = "/apis/modeldeployment.dev/v1alpha1"
_MERGE = "application/merge-patch+json"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_TIME = "2026-11-22T18:00:00.250Z"
_REVISION = "digits-8f6c2d19aa"


def _path(namespace: str, plural: str = "modeldeployments") -> str:
    return f"{_GROUP}/namespaces/{namespace}/{plural}"


def _status() -> ModelDeploymentStatus:
    return ModelDeploymentStatus(
        observed_generation=1,
        replicas=3,
        selector=f"modeldeployment.dev/revision={_REVISION}",
        conditions=(
            Condition(type="Ready", status="True", reason="Serving", last_transition_time=_TIME),
        ),
        rollout=RolloutStatus(state="Progressing", reason="Step", message="5 % for 2m"),
        stable=StableStatus(revision=_REVISION, digest=DIGEST, replicas=3, ready_replicas=2),
        candidate=CandidateStatus(revision="digits-candidate", percent=5, step=0, start_time=_TIME),
        traffic=(
            TrafficStatus(revision=_REVISION, desired_percent=95, confirmed_percent=95),
            TrafficStatus(revision="digits-candidate", desired_percent=5),
        ),
        rolled_back=(RolledBackStatus(revision="digits-bad", reason="Errors", time=_TIME),),
    )


def _model_revision() -> dict[str, Any]:
    return {
        "apiVersion": "modeldeployment.dev/v1alpha1",
        "kind": "ModelRevision",
        "metadata": {"name": _REVISION, "labels": {"modeldeployment.dev/name": "digits"}},
        "spec": {
            "model": minimal()["spec"]["model"],
            "hash": "8f6c2d19aa",
            "template": {"spec": {"containers": [{"name": "server", "image": "a:1"}]}},
        },
    }


def _columns(control_plane: ControlPlane, path: str) -> dict[str, Any]:
    table = control_plane.request("GET", path, accept=_TABLE)
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


def _refusal(control_plane: ControlPlane, path: str, patch: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as refused:
        control_plane.request("PATCH", path, patch, content_type=_MERGE)
    return refused.value.message


def test_a_status_survives_the_api_server_unchanged(
    control_plane: ControlPlane, namespace: str
) -> None:
    created = control_plane.request("POST", _path(namespace), model_deployment())

    control_plane.request(
        "PUT", f"{_path(namespace)}/digits/status", {**created, "status": to_manifest(_status())}
    )

    stored = control_plane.request("GET", f"{_path(namespace)}/digits")
    assert stored["status"] == to_manifest(_status())
    assert parse_model_deployment(stored).status == _status()


def test_a_status_write_changes_no_spec_and_a_spec_write_no_status(
    control_plane: ControlPlane, namespace: str
) -> None:
    path = f"{_path(namespace)}/digits"
    control_plane.request("POST", _path(namespace), model_deployment())
    both = {"spec": {"replicas": 7}, "status": {"replicas": 5}}

    control_plane.request("PATCH", f"{path}/status", both, content_type=_MERGE)
    after_status = control_plane.request("GET", path)
    control_plane.request("PATCH", path, {**both, "status": {}}, content_type=_MERGE)
    after_spec = control_plane.request("GET", path)

    assert (after_status["spec"]["replicas"], after_status["status"]["replicas"]) == (3, 5)
    assert (after_spec["spec"]["replicas"], after_spec["status"]["replicas"]) == (7, 5)
    assert after_spec["metadata"]["generation"] == after_status["metadata"]["generation"] + 1


def test_the_status_of_every_new_object_can_be_written(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.request("POST", _path(namespace), minimal())
    empty = {"status": to_manifest(ModelDeploymentStatus())}

    stored = control_plane.request(
        "PATCH", f"{_path(namespace)}/digits/status", empty, content_type=_MERGE
    )

    assert stored["status"] == empty["status"]


def test_an_autoscaler_reads_and_writes_the_scale_of_stable(
    control_plane: ControlPlane, namespace: str
) -> None:
    path = f"{_path(namespace)}/digits"
    control_plane.request("POST", _path(namespace), minimal())
    new = control_plane.request("GET", f"{path}/scale")
    control_plane.request(
        "PATCH", f"{path}/status", {"status": to_manifest(_status())}, content_type=_MERGE
    )

    control_plane.request("PATCH", f"{path}/scale", {"spec": {"replicas": 6}}, content_type=_MERGE)
    scale = control_plane.request("GET", f"{path}/scale")

    assert new["spec"]["replicas"] == 2, "an autoscaler leaves an object with 0 alone"
    assert scale["spec"]["replicas"] == 6
    assert scale["status"] == {
        "replicas": 3,
        "selector": f"modeldeployment.dev/revision={_REVISION}",
    }
    assert control_plane.request("GET", path)["spec"]["replicas"] == 6


def test_columns_say_whether_it_serves_and_how_far_the_rollout_is(
    control_plane: ControlPlane, namespace: str
) -> None:
    path = f"{_path(namespace)}/digits"
    control_plane.request("POST", _path(namespace), model_deployment())
    control_plane.request(
        "PATCH", f"{path}/status", {"status": to_manifest(_status())}, content_type=_MERGE
    )

    columns = _columns(control_plane, path)

    assert columns.pop("Age")
    assert columns == {
        "Name": "digits",
        "Ready": "True",
        "Revision": _REVISION,
        "Replicas": 2,
        "State": "Progressing",
        "Weight": 5,
        "Reason": "Step",
        "Candidate": "digits-candidate",
        "Digest": DIGEST,
        "Message": "5 % for 2m",
    }


def test_kubectl_shows_the_wide_columns_only_when_asked(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.request("POST", _path(namespace), model_deployment())

    narrow = control_plane.kubectl("get", "mdep", "-n", namespace)
    wide = control_plane.kubectl("get", "mdep", "-n", namespace, "-o", "wide")

    header = "NAME READY REVISION REPLICAS STATE WEIGHT REASON AGE"
    assert narrow.splitlines()[0].split() == header.split()
    assert wide.splitlines()[0].split() == [*header.split(), "CANDIDATE", "DIGEST", "MESSAGE"]


def test_a_revision_never_changes(control_plane: ControlPlane, namespace: str) -> None:
    path = f"{_path(namespace, 'modelrevisions')}/{_REVISION}"
    control_plane.request("POST", _path(namespace, "modelrevisions"), _model_revision())
    image = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "a:2"}]}}}}
    for patch in (
        {"spec": {"hash": "0000000000"}},
        {"spec": {"owner": {"team": "vision"}}},
        {"spec": {"model": {"uri": "https://elsewhere.example/model.onnx"}}},
        image,
    ):
        assert "a revision never changes" in _refusal(control_plane, path, patch)

    control_plane.request("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, content_type=_MERGE)
    control_plane.request("PUT", path, control_plane.request("GET", path))


def test_a_revision_keeps_its_record(control_plane: ControlPlane, namespace: str) -> None:
    path = f"{_path(namespace, 'modelrevisions')}/{_REVISION}"
    control_plane.request("POST", _path(namespace, "modelrevisions"), _model_revision())
    record = to_manifest(
        ModelRevisionStatus(
            signature=Signature(inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 64)),)),
            evidence=tuple(
                Evidence(
                    metric="errors", verdict="pass", step=0, percent=5, time=_TIME, value="0.001"
                )
                for _ in range(64)
            ),
            tests={"errors": {"version": 1, "log": [0.5, {"nested": None}]}},
            verdict="pass",
            promoted_time=_TIME,
        )
    )

    stored = control_plane.request(
        "PATCH", f"{path}/status", {"status": record}, content_type=_MERGE
    )

    assert stored["status"] == record
    columns = _columns(control_plane, path)
    assert (columns["Model"], columns["Verdict"], columns["Digest"]) == ("digits", "pass", DIGEST)


def test_a_metric_source_belongs_to_the_cluster_and_cannot_shadow_the_built_in_one(
    control_plane: ControlPlane,
) -> None:
    source = {
        "apiVersion": "modeldeployment.dev/v1alpha1",
        "kind": "MetricSource",
        "metadata": {"name": "prometheus"},
        "spec": {"prometheus": {"url": "http://prometheus.monitoring.svc:9090"}},
    }
    create = f"{_GROUP}/metricsources?dryRun=All&fieldValidation=Strict"

    accepted = control_plane.request("POST", create, source)

    assert accepted["spec"] == source["spec"]
    for path, value, words in (
        ("metadata.name", "pods", "'pods' is built in"),
        ("spec.prometheus.url", "prometheus:9090", "must be http:// or https://"),
        ("spec.prometheus.url", "http://a/?b=c", "without query or fragment"),
        ("spec.prometheus.scrapeInterval", "0s", "must be longer than 0s"),
        ("spec.prometheus.timeout", "0s", "must be longer than 0s"),
        ("spec.namespaces", ["vision", "vision"], "Duplicate value"),
        ("spec.prometheus.bearerToken", {"name": "a"}, "key: Required value"),
    ):
        with pytest.raises(ApiError) as refused:
            control_plane.request("POST", create, changed(source, path, value))
        assert words in refused.value.message


@pytest.mark.parametrize("short", ["mdep", "mrev", "msrc", "models"])
def test_short_names_and_the_category_are_known(control_plane: ControlPlane, short: str) -> None:
    control_plane.kubectl("get", short, "-A")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("mdep.spec.rollout.steps", "Default: 5 %, 25 % and 50 % for 2m each."),
        ("mdep.spec.rollout.steps.setWeight.percent", "percent"),
        ("mdep.spec.server.affinity.nodeAffinity", "FIELDS:"),
        ("mdep.status.candidate", "nextActionTime"),
        ("mrev.status.evidence", "threshold"),
        ("msrc.spec.prometheus.scrapeInterval", "Default: 15s."),
    ],
)
def test_kubectl_explains_each_field(control_plane: ControlPlane, field: str, words: str) -> None:
    assert words in " ".join(control_plane.kubectl("explain", field).split())


def test_kubectl_explain_refuses_what_is_not_there(control_plane: ControlPlane) -> None:
    with pytest.raises(KubectlError, match='field "steps" does not exist'):
        control_plane.kubectl("explain", "mdep.spec.steps")


def test_client_side_apply_stores_the_whole_crd_in_its_annotation(
    control_plane: ControlPlane,
) -> None:
    applied = control_plane.kubectl("apply", "--dry-run=server", "-f", "crds", "-o", "json")

    for crd in json.loads(applied)["items"]:
        last = crd["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        assert len(last) < 100_000, crd["metadata"]["name"]


def test_a_second_client_side_apply_changes_nothing(
    control_plane: ControlPlane, namespace: str
) -> None:
    manifest = json.dumps(model_deployment())
    apply = ("apply", "-n", namespace, "-f", "-")

    first = control_plane.kubectl(*apply, stdin=manifest)
    second = control_plane.kubectl(*apply, stdin=manifest)

    assert first.strip().endswith("created")
    assert second.strip().endswith("unchanged")


def test_two_appliers_share_metrics_by_name(control_plane: ControlPlane, namespace: str) -> None:
    base = changed(minimal(), "spec.rollout.analysis.metrics", [_value_metric("latency")])
    mine = changed(base, "spec", {"rollout": {"analysis": {"metrics": [_value_metric("size")]}}})
    apply = ("apply", "--server-side", "-n", namespace, "-f", "-")

    control_plane.kubectl(*apply, "--field-manager=owner", stdin=json.dumps(base))
    control_plane.kubectl(*apply, "--field-manager=auditor", stdin=json.dumps(mine))

    stored = control_plane.request("GET", f"{_path(namespace)}/digits")
    metrics = stored["spec"]["rollout"]["analysis"]["metrics"]
    assert [metric["name"] for metric in metrics] == ["latency", "size"]


def _value_metric(name: str) -> dict[str, Any]:
    return {"name": name, "type": "Value", "value": {"query": name, "max": "1"}}
