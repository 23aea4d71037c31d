"""Whether an apply would change anything, by what a real API server recorded of ownership."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from model_operator.adapters.applied import is_applied

Manifest = dict[str, Any]

DESIRED: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "digits-1",
        "namespace": "vision",
        "labels": {"app": "digits"},
        "ownerReferences": [{"uid": "u1", "name": "digits", "controller": True}],
    },
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "args": ["serve", "--name=digits"],
                        "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}],
                        "resources": {"requests": {"cpu": "0.5"}},
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            }
        },
    },
}
OWNED: Manifest = {
    "f:metadata": {
        "f:labels": {"f:app": {}},
        "f:ownerReferences": {'k:{"uid":"u1"}': {}},
    },
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"server"}': {
                        ".": {},
                        "f:name": {},
                        "f:args": {},
                        "f:ports": {
                            'k:{"containerPort":8080,"protocol":"TCP"}': {
                                ".": {},
                                "f:containerPort": {},
                                "f:name": {},
                                "f:protocol": {},
                            }
                        },
                        "f:resources": {"f:requests": {"f:cpu": {}}},
                    }
                },
                "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
            }
        },
    },
}


@pytest.fixture
def live() -> Manifest:
    """What the API server made of it: with defaults, status and its own spelling of quantities."""
    manifest = copy.deepcopy(DESIRED)
    manifest["metadata"]["managedFields"] = [
        {"manager": "model-operator", "operation": "Apply", "fieldsV1": copy.deepcopy(OWNED)},
        {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}},
    ]
    manifest["metadata"]["uid"] = "d1"
    manifest["spec"]["progressDeadlineSeconds"] = 600
    container(manifest)["terminationMessagePath"] = "/dev/termination-log"
    container(manifest)["resources"]["requests"]["cpu"] = "500m"
    manifest["status"] = {"readyReplicas": 2}
    return manifest


def container(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def owned(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["metadata"]["managedFields"][0]["fieldsV1"]
    return found


def test_defaults_status_and_spelling_need_no_apply(live: Manifest) -> None:
    assert is_applied(DESIRED, live)


def test_a_value_that_others_changed_needs_one(live: Manifest) -> None:
    live["spec"]["replicas"] = 5
    assert not is_applied(DESIRED, live)


def test_a_new_value_needs_one(live: Manifest) -> None:
    desired = copy.deepcopy(DESIRED)
    container(desired)["args"].append("--threads=2")
    assert not is_applied(desired, live)


def test_a_field_that_is_not_wanted_any_more_needs_one(live: Manifest) -> None:
    desired = copy.deepcopy(DESIRED)
    del container(desired)["resources"]
    assert not is_applied(desired, live)


def test_an_item_that_is_not_wanted_any_more_needs_one(live: Manifest) -> None:
    desired = copy.deepcopy(DESIRED)
    container(desired)["ports"] = []
    assert not is_applied(desired, live)


def test_a_field_that_others_took_over_needs_one(live: Manifest) -> None:
    del owned(live)["f:spec"]["f:replicas"]
    assert not is_applied(DESIRED, live)


def test_an_item_that_others_added_is_theirs(live: Manifest) -> None:
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})
    assert is_applied(DESIRED, live)


def test_an_atomic_list_is_ours_as_a_whole(live: Manifest) -> None:
    container(live)["args"].append("--added-by=others")
    assert not is_applied(DESIRED, live)


def with_list(name: str, items: list[Manifest]) -> tuple[Manifest, Manifest]:
    """An object with an atomic list that we own as a whole, as it is desired and as it is live."""
    metadata: Manifest = {"labels": {"app": "digits"}}
    fields = {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {f"f:{name}": {}}}
    manager = {"manager": "model-operator", "operation": "Apply", "fieldsV1": fields}
    desired: Manifest = {"metadata": metadata, "spec": {name: items}}
    live = copy.deepcopy(desired)
    live["metadata"]["managedFields"] = [manager]
    return desired, live


def test_a_field_of_an_atomic_item_that_is_not_wanted_any_more_needs_one() -> None:
    desired, live = with_list("parentRefs", [{"name": "main"}])
    assert is_applied(desired, live)
    live["spec"]["parentRefs"][0]["sectionName"] = "http"
    assert not is_applied(desired, live)


def test_defaults_of_references_in_the_environment_need_no_apply() -> None:
    desired, live = with_list("env", [{"fieldRef": {"fieldPath": "status.podIP"}}])
    live["spec"]["env"][0]["fieldRef"]["apiVersion"] = "v1"
    assert is_applied(desired, live)


def test_a_changed_owner_reference_needs_one(live: Manifest) -> None:
    live["metadata"]["ownerReferences"][0]["controller"] = False
    assert not is_applied(DESIRED, live)


def test_what_was_never_applied_needs_one(live: Manifest) -> None:
    live["metadata"]["managedFields"] = live["metadata"]["managedFields"][1:]
    assert not is_applied(DESIRED, live)
