"""Manifests of a ModelDeployment's children.

Every child carries a controller reference to its ModelDeployment, so that Kubernetes collects it
when that is deleted, with the operator there or gone; no finalizer is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_operator.api.labels import (
    API_VERSION,
    NAME,
    RESTART,
    REVISION,
    child_labels,
)
from model_operator.core.pod_template import Manifest

_PROGRESS_DEADLINE_S = 600


@dataclass(frozen=True, slots=True)
class Parent:
    """The ModelDeployment that children belong to.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: Its uid: a namesake that comes after it is another owner.
    """

    namespace: str
    name: str
    uid: str

    def metadata(self, name: str, revision: str | None = None) -> Manifest:
        """Metadata of a child named `name`, with the labels of its revision if it has one."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": child_labels(self.name, revision),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "ModelDeployment",
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        }


def selector_labels(name: str, revision: str) -> dict[str, str]:
    """What selects the pods of a revision."""
    return {NAME: name, REVISION: revision}


def model_revision(
    parent: Parent,
    revision: str,
    *,
    hash_: str,
    model: Manifest,
    owner: Manifest | None,
    template: Manifest,
) -> Manifest:
    """The record of a revision.

    Args:
        parent: Whom it belongs to.
        revision: Its name.
        hash_: The hash in its name.
        model: ``spec.model`` as a manifest.
        owner: ``spec.owner`` as a manifest.
        template: The rendered pod template, image pinned.
    """
    spec: Manifest = {"model": model, "hash": hash_, "template": template}
    if owner:
        spec["owner"] = owner
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRevision",
        "metadata": parent.metadata(revision, revision),
        "spec": spec,
    }


def deployment(
    parent: Parent, revision: str, replicas: int, template: Manifest, *, restart: str = ""
) -> Manifest:
    """The pods of a revision.

    Args:
        parent: Whom it belongs to.
        revision: Its name.
        replicas: Number of pods.
        template: As recorded in the ModelRevision.
        restart: Value under which the pods are made; another one than before replaces them.
    """
    if restart:
        metadata = template["metadata"]
        annotations = metadata.get("annotations", {}) | {RESTART: restart}
        template = template | {"metadata": metadata | {"annotations": annotations}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": parent.metadata(revision, revision),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": _PROGRESS_DEADLINE_S,
            "selector": {"matchLabels": selector_labels(parent.name, revision)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
            },
            "template": template,
        },
    }


def service(parent: Parent, name: str, revision: str) -> Manifest:
    """A Service over the pods of a revision.

    Args:
        parent: Whom it belongs to.
        name: The revision's name, or the ModelDeployment's for the one that clients inside the
            cluster use.
        revision: Whose pods it selects.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": parent.metadata(name, revision if name == revision else None),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(parent.name, revision),
            "ports": [
                {
                    "name": "http",
                    "port": 80,
                    "targetPort": "http",
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }


def disruption_budget(parent: Parent, revision: str) -> Manifest:
    """One pod at a time may be evicted, and a broken one always."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": parent.metadata(revision, revision),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector_labels(parent.name, revision)},
        },
    }


def pod_selector(name: str, revision: str | None = None) -> str:
    """Label selector, as a string, of the pods of a ModelDeployment or of one revision."""
    labels = selector_labels(name, revision) if revision else {NAME: name}
    return ",".join(f"{key}={value}" for key, value in labels.items())
