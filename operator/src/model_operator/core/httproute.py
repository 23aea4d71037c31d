"""The HTTPRoute of a ModelDeployment, written from a plan and read back into weights.

`spec.rules` is an atomic list that cannot be shared, so the operator owns the whole route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from model_operator.api.labels import ROLLED_BACK
from model_operator.api.parse import to_manifest
from model_operator.api.types import Route as RouteSpec
from model_operator.core.desired import Parent
from model_operator.core.mark import Mark, read_mark, write_mark
from model_operator.core.pod_template import Manifest

API_VERSION = "gateway.networking.k8s.io/v1"
KIND = "HTTPRoute"
_SERVICE_PORT = 80


def http_route(
    parent: Parent,
    spec: RouteSpec,
    weights: Mapping[str, int],
    *,
    tester: str | None = None,
    rolled_back: Mark | None = None,
) -> Manifest:
    """Render the route.

    Args:
        parent: Whom it belongs to.
        spec: Gateways, host names and the tester header.
        weights: Percent by revision.
        tester: Revision that requests with the tester header reach.
        rolled_back: The last rollback.
    """
    metadata = parent.metadata(parent.name)
    if rolled_back:
        metadata["annotations"] = {ROLLED_BACK: write_mark(rolled_back)}
    prefix: Manifest = {"path": {"type": "PathPrefix", "value": "/"}}
    rules: list[Manifest] = []
    if tester and spec.tester_header:
        header = {
            "type": "Exact",
            "name": spec.tester_header.name,
            "value": spec.tester_header.value,
        }
        match = {**prefix, "headers": [header]}
        rules.append({"matches": [match], "backendRefs": [_backend(tester, 1)]})
    backends = [_backend(revision, weight) for revision, weight in sorted(weights.items())]
    rules.append({"matches": [prefix], "backendRefs": backends})
    route_spec: Manifest = {"parentRefs": _parent_refs(spec), "rules": rules}
    if spec.hostnames:
        route_spec["hostnames"] = list(spec.hostnames)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": route_spec}


def _parent_refs(spec: RouteSpec) -> list[Manifest]:
    """Parents with the API's defaults filled in, so that they compare equal to the live ones."""
    defaults = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    refs: list[Manifest] = [{**defaults, **to_manifest(ref)} for ref in spec.parent_refs]
    return refs


def _backend(revision: str, weight: int) -> Manifest:
    return {
        "group": "",
        "kind": "Service",
        "name": revision,
        "port": _SERVICE_PORT,
        "weight": weight,
    }


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What the gateways say of a route.

    Attributes:
        accepted: Every parent accepts it and resolves its references at this generation.
        refused: A parent said no, at this generation; otherwise it has not answered yet.
        message: What is missing.
    """

    accepted: bool
    refused: bool = False
    message: str = ""


def read_weights(route: Manifest) -> dict[str, int]:
    """Percent by revision as the live route has it: the last rule is the users'."""
    rules = route.get("spec", {}).get("rules") or [{}]
    return {
        backend["name"]: backend.get("weight", 1) for backend in rules[-1].get("backendRefs") or ()
    }


def read_backends(route: Manifest) -> set[str]:
    """Every revision that some rule of the live route sends requests to, testers' too."""
    return {
        backend["name"]
        for rule in route.get("spec", {}).get("rules") or ()
        for backend in rule.get("backendRefs") or ()
    }


def read_rollback(route: Manifest) -> Mark | None:
    """The last rollback that the live route carries out."""
    return read_mark((route["metadata"].get("annotations") or {}).get(ROLLED_BACK))


def read_acceptance(route: Manifest) -> Acceptance:
    """Whether every parent of the live route accepts it as it is now."""
    generation = route["metadata"].get("generation", 0)
    namespace = route["metadata"]["namespace"]
    statuses = {
        _parent_key(status["parentRef"], namespace): status
        for status in route.get("status", {}).get("parents") or ()
    }
    for ref in route["spec"].get("parentRefs") or ():
        status = statuses.get(_parent_key(ref, namespace))
        label = f"{ref.get('kind', 'Gateway')} {ref.get('namespace', namespace)}/{ref['name']}"
        if status is None:
            return Acceptance(accepted=False, message=f"{label} has not answered yet")
        answer = _answer(status.get("conditions") or (), generation)
        if not answer.accepted:
            return replace(answer, message=f"{label}: {answer.message}")
    return Acceptance(accepted=True)


def _answer(conditions: Sequence[Manifest], generation: int) -> Acceptance:
    """What one parent says."""
    for kind in ("Accepted", "ResolvedRefs"):
        condition = next((found for found in conditions if found["type"] == kind), None)
        if condition is None:
            return Acceptance(accepted=False, message=f"{kind} is not known yet")
        if condition.get("observedGeneration", 0) < generation:
            message = f"{kind} is not known yet for generation {generation}"
            return Acceptance(accepted=False, message=message)
        if condition["status"] != "True":
            said = (condition.get("reason", ""), condition.get("message", ""))
            message = f"{kind} is {condition['status']}: {': '.join(filter(None, said))}"
            return Acceptance(accepted=False, refused=True, message=message)
    return Acceptance(accepted=True)


def _parent_key(ref: Manifest, namespace: str) -> tuple[object, ...]:
    return (
        ref.get("group", "gateway.networking.k8s.io"),
        ref.get("kind", "Gateway"),
        ref.get("namespace") or namespace,
        ref["name"],
        ref.get("sectionName"),
        ref.get("port"),
    )
