"""What the chart's roles let the operator do, one right at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from tests.chart.audited import Call
from tests.chart.running import Installation

Manifest = dict[str, Any]

_ROLES: Final = ("clusterroles", "roles")
_BINDINGS: Final = ("clusterrolebindings", "rolebindings")


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """A verb on a resource, such as `patch` on `deployments` in the group `apps`.

    Attributes:
        resource: Plural, with its subresource.
        namespace: Where it is needed or granted; empty for the whole cluster.
    """

    group: str
    resource: str
    verb: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """One right of one role.

    Attributes:
        role: The live role, with a rule for each right.
        index: Which of these rules it is.
    """

    right: Right
    role: Manifest
    index: int

    @property
    def path(self) -> str:
        """The role's own path in the API."""
        metadata = self.role["metadata"]
        scope = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
        plural = "roles" if scope else "clusterroles"
        return f"/apis/rbac.authorization.k8s.io/v1/{scope}{plural}/{metadata['name']}"

    def without(self) -> Manifest:
        """The role with all its other rights."""
        rules = [rule for at, rule in enumerate(self.role["rules"]) if at != self.index]
        return {**self.role, "rules": rules}

    def is_used_by(self, call: Call) -> bool:
        """Whether a call needs it."""
        right = self.right
        in_scope = right.namespace in ("", call.namespace)
        return in_scope and (right.group, right.resource, right.verb) in call.uses()


def grants(installed: Installation) -> list[Grant]:
    """Every right that the release gives its operator."""
    found = []
    roles = {(role["kind"], _place(role), role["metadata"]["name"]): role
             for role in _objects(installed, _ROLES)}  # fmt: skip
    for binding in _objects(installed, _BINDINGS):
        if all(each["name"] != installed.account.name for each in binding["subjects"]):
            continue
        reference, namespace = binding["roleRef"], _place(binding)
        home = namespace if reference["kind"] == "Role" else ""
        role = roles[reference["kind"], home, reference["name"]]
        # without its version, so that it can be written at any time
        metadata = {k: v for k, v in role["metadata"].items() if k != "resourceVersion"}
        split = {
            **role,
            "metadata": metadata,
            "rules": [rule for each in role["rules"] for rule in _split(each)],
        }
        found += [
            Grant(_right(rule, namespace), split, index)
            for index, rule in enumerate(split["rules"])
        ]
    return found


def _objects(installed: Installation, plurals: tuple[str, ...]) -> list[Manifest]:
    own = f"app.kubernetes.io/instance={installed.release}"
    answer = installed.api.kubectl("get", ",".join(plurals), "-A", "-l", own, "-o", "json")
    items: list[Manifest] = json.loads(answer)["items"]
    return items


def _place(manifest: Manifest) -> str:
    namespace: str = manifest["metadata"].get("namespace", "")
    return namespace


def _split(rule: Manifest) -> Iterator[Manifest]:
    for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
        yield {**rule, "apiGroups": [group], "resources": [resource], "verbs": [verb]}


def _right(rule: Manifest, namespace: str) -> Right:
    return Right(rule["apiGroups"][0], rule["resources"][0], rule["verbs"][0], namespace)
