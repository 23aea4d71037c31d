"""The objects of a revision: redundant, restricted, and never named after a role."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from model_operator.api.labels import ROLLED_BACK
from model_operator.api.types import (
    Duration,
    Header,
    Model,
    ParentReference,
    Route,
    Server,
)
from model_operator.core import desired
from model_operator.core.httproute import (
    http_route,
    read_acceptance,
    read_backends,
    read_rollback,
    read_weights,
)
from model_operator.core.mark import Mark, write_mark
from model_operator.core.pod_template import render_pod_template
from tests.builders import digest

PARENT = desired.Parent("vision", "digits", "uid-1")
OLD, NEW = "digits-0000000001", "digits-0000000002"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ROUTE = Route(
    parent_refs=(ParentReference(name="main", namespace="gateway"),),
    hostnames=("digits.example.com",),
    tester_header=Header(name="x-model-candidate", value="true"),
)


def template(uri: str = "https://models.example/m.onnx", **server: Any) -> dict[str, Any]:
    model = Model(uri=uri, digest=digest(1))
    return render_pod_template("digits", NEW, model, Server(**server), "server:1")


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def flags(pod: dict[str, Any]) -> dict[str, str]:
    return dict(argument[2:].partition("=")[::2] for argument in container(pod)["args"][1:])


def test_pods_conform_to_the_restricted_profile() -> None:
    pod = template()
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_image_is_pinned_to_the_default_unless_the_user_set_one() -> None:
    assert container(template())["image"] == "server:1"
    assert container(template(image="mine:2"))["image"] == "mine:2"


def test_the_server_is_told_what_to_serve_and_as_what() -> None:
    assert flags(template())["model"] == "https://models.example/m.onnx"
    assert flags(template())["digest"] == digest(1)
    assert flags(template())["name"] == "digits"
    assert flags(template())["revision"] == NEW


def test_a_claim_is_mounted_read_only_and_the_server_gets_a_file() -> None:
    pod = template("pvc://models/digits/3/model.onnx")
    assert flags(pod)["model"] == "file:///mnt/models/digits/3/model.onnx"
    volume = next(v for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v)
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    mount = next(m for m in container(pod)["volumeMounts"] if m["name"] == volume["name"])
    assert mount == {"name": volume["name"], "mountPath": "/mnt/models", "readOnly": True}


def test_startup_waits_at_least_ten_minutes_and_readiness_notices_within_two_seconds() -> None:
    probes = container(template())
    startup, readiness = probes["startupProbe"], probes["readinessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= 2


@pytest.mark.parametrize("grace", ["5s", "60s", "10m"])
def test_the_server_drains_within_the_grace_period(grace: str) -> None:
    pod = template(termination_grace_period=Duration(grace))
    delay, drain = (float(flags(pod)[f"drain-{part}"][:-1]) for part in ("delay", "timeout"))
    assert 0 < delay + drain < pod["spec"]["terminationGracePeriodSeconds"]
    assert "lifecycle" not in container(pod)


def test_nothing_on_a_pod_names_its_role() -> None:
    text = str(template())
    assert not any(role in text for role in ("stable", "candidate", "canary"))


def test_pods_spread_over_nodes_and_zones() -> None:
    pod = template()["spec"]
    # one constraint: nodes without the label of a second one would not be spread over either
    (constraint,) = pod["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    (preferred,) = pod["affinity"]["podAntiAffinity"][PREFERRED]
    assert preferred["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    for selector in (constraint["labelSelector"], preferred["podAffinityTerm"]["labelSelector"]):
        assert selector["matchLabels"].items() <= template()["metadata"]["labels"].items()


def test_a_users_affinity_to_nodes_leaves_the_zones_and_one_to_pods_is_taken_as_it_is() -> None:
    node: dict[str, Any] = {"nodeAffinity": {PREFERRED: []}}
    spread = template(affinity=node)["spec"]["affinity"]
    assert spread["nodeAffinity"] == node["nodeAffinity"]
    assert spread["podAntiAffinity"][PREFERRED]
    own: dict[str, Any] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}
    }
    assert template(affinity=own)["spec"]["affinity"] == own


def test_s36_pods_of_a_lost_node_are_made_elsewhere_within_half_a_minute() -> None:
    tolerated = template()["spec"]["tolerations"]
    assert {t["key"]: t["tolerationSeconds"] for t in tolerated} == {
        "node.kubernetes.io/not-ready": 30,
        "node.kubernetes.io/unreachable": 30,
    }


@pytest.mark.parametrize(
    "own",
    [{"operator": "Exists"}, {"key": "node.kubernetes.io/unreachable", "operator": "Exists"}],
)
def test_what_the_user_tolerates_goes_before_the_default(own: dict[str, str]) -> None:
    tolerated = template(tolerations=(own,))["spec"]["tolerations"]
    assert tolerated[0] == own
    assert [t for t in tolerated[1:] if t["key"] == own.get("key", t["key"])] == []


def test_what_the_user_set_for_pods_arrives_there() -> None:
    pod = template(
        node_selector={"gpu": "yes"},
        service_account_name="reader",
        env=({"name": "A", "value": "1"},),
        resources={"limits": {"cpu": "2"}},
    )
    assert pod["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert pod["spec"]["serviceAccountName"] == "reader"
    assert container(pod)["env"] == [{"name": "A", "value": "1"}]
    assert container(pod)["resources"] == {"limits": {"cpu": "2"}}


def test_s55_another_restart_changes_the_pods_and_nothing_else() -> None:
    before = desired.deployment(PARENT, NEW, 3, template())
    first = desired.deployment(PARENT, NEW, 3, template(), restart="monday")
    assert pods_of(first)["metadata"].pop("annotations") == {
        "modeldeployment.dev/restart": "monday"
    }
    assert first == before
    rolling = before["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0, "a restart goes below no floor"


def pods_of(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]
    return found


def test_every_selector_selects_the_revisions_pods_and_no_others() -> None:
    labels = template()["metadata"]["labels"]
    selectors = [
        desired.service(PARENT, NEW, NEW)["spec"]["selector"],
        desired.disruption_budget(PARENT, NEW)["spec"]["selector"]["matchLabels"],
        desired.deployment(PARENT, NEW, 2, template())["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert selector["modeldeployment.dev/revision"] == NEW


def test_every_child_is_collected_with_its_model_deployment() -> None:
    children = [
        desired.service(PARENT, NEW, NEW),
        desired.service(PARENT, "digits", NEW),
        desired.disruption_budget(PARENT, NEW),
        desired.deployment(PARENT, NEW, 2, template()),
        desired.model_revision(PARENT, NEW, hash_="0", model={}, owner=None, template={}),
        http_route(PARENT, ROUTE, {NEW: 100}),
    ]
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("uid-1", True)
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "model-operator"
        assert "finalizers" not in child["metadata"]


def test_a_route_gives_back_the_weights_that_it_was_made_of() -> None:
    weights = {OLD: 95, NEW: 5}
    assert read_weights(http_route(PARENT, ROUTE, weights)) == weights


def test_testers_reach_the_candidate_before_users_do() -> None:
    route = http_route(PARENT, ROUTE, {OLD: 100}, tester=NEW)
    testers, users = route["spec"]["rules"]
    assert testers["matches"][0]["headers"] == [
        {"type": "Exact", "name": "x-model-candidate", "value": "true"}
    ]
    assert [backend["name"] for backend in testers["backendRefs"]] == [NEW]
    assert [backend["name"] for backend in users["backendRefs"]] == [OLD]
    assert read_weights(route) == {OLD: 100}
    assert read_backends(route) == {OLD, NEW}


def test_a_route_carries_the_mark_of_a_rollback_and_only_then() -> None:
    time = "2026-01-01T00:00:00.000Z"
    mark = Mark(time, NEW, "AnalysisFailed", "errors: 7 of 9 are bad", time)
    marked = http_route(PARENT, ROUTE, {OLD: 100}, rolled_back=mark)
    assert read_rollback(marked) == mark
    assert read_rollback(http_route(PARENT, ROUTE, {OLD: 100})) is None
    assert len(write_mark(replace(mark, message="x" * 100_000))) < 2_000


@pytest.mark.parametrize("text", ["", "2026-01-01T00:00:00.000Z", "[]", "{}", '{"rollout": 1}'])
def test_a_mark_that_somebody_broke_is_none(text: str) -> None:
    route = http_route(PARENT, ROUTE, {OLD: 100})
    route["metadata"]["annotations"] = {ROLLED_BACK: text}
    assert read_rollback(route) is None


def answered(generation: int = 3, status: str = "True") -> dict[str, Any]:
    """A live route with its gateway's answer."""
    route = http_route(PARENT, ROUTE, {NEW: 100})
    route["metadata"]["generation"] = 3
    conditions = [
        {"type": kind, "status": status, "observedGeneration": generation, "message": "why"}
        for kind in ("Accepted", "ResolvedRefs")
    ]
    reference = {"name": "main", "namespace": "gateway"}
    route["status"] = {"parents": [{"parentRef": reference, "conditions": conditions}]}
    return route


def test_a_route_is_accepted_when_every_parent_said_so_of_this_generation() -> None:
    assert read_acceptance(answered()).accepted
    assert not read_acceptance(answered(generation=2)).accepted
    refused = read_acceptance(answered(status="False"))
    assert not refused.accepted
    assert "why" in refused.message


def test_a_route_is_not_accepted_while_one_parent_is_silent() -> None:
    silent = answered()
    silent["spec"]["parentRefs"].append({"name": "second", "namespace": "gateway"})
    found = read_acceptance(silent)
    assert not found.accepted
    assert "second" in found.message


@pytest.mark.parametrize("missing", ["Accepted", "ResolvedRefs"])
def test_a_condition_that_is_missing_is_no_acceptance(missing: str) -> None:
    route = answered()
    parent = route["status"]["parents"][0]
    parent["conditions"] = [c for c in parent["conditions"] if c["type"] != missing]
    assert not read_acceptance(route).accepted


def test_listeners_of_one_gateway_are_parents_of_their_own() -> None:
    route = answered()
    (reference,) = route["spec"]["parentRefs"]
    route["spec"]["parentRefs"] = [{**reference, "sectionName": name} for name in ("a", "b")]
    (status,) = route["status"]["parents"]
    for present in itertools.chain([["a"]], [["a", "b"]]):
        route["status"]["parents"] = [
            {**status, "parentRef": {**status["parentRef"], "sectionName": name}}
            for name in present
        ]
        assert read_acceptance(route).accepted == (present == ["a", "b"])
