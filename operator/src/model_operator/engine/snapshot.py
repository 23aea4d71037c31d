"""One ModelDeployment's objects, parsed: what a reconcile works on."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from model_operator.api.labels import REQUEST
from model_operator.api.parse import parse_spec, parse_status
from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus
from model_operator.core.desired import Parent
from model_operator.core.httproute import read_acceptance, read_rollback, read_weights
from model_operator.core.observed import Observed, Request, Route, Target, Workload
from model_operator.core.revision import revision_name
from model_operator.core.signatures import Signatures
from model_operator.engine.store import Key, Manifest, Store, revision_of
from model_operator.engine.workload import workload


@dataclass(frozen=True, slots=True)
class Wanted:
    """A spec that can be acted on, and the revision that it names.

    Attributes:
        model: ``spec.model`` as the user wrote it.
        owner: ``spec.owner`` as the user wrote it.
        raw: The whole spec as the user wrote it.
    """

    spec: ModelDeploymentSpec
    target: Target
    model: Manifest
    owner: Manifest | None
    raw: Manifest


@dataclass(frozen=True, slots=True)
class Subject:
    """The ModelDeployment itself.

    Attributes:
        manifest: As it was last seen.
        status: Its status, parsed.
    """

    key: Key
    manifest: Manifest
    status: ModelDeploymentStatus

    @property
    def parent(self) -> Parent:
        """For the children's metadata."""
        return Parent(self.key.namespace, self.key.name, self.manifest["metadata"]["uid"])

    @property
    def generation(self) -> int:
        """Of the spec."""
        generation: int = self.manifest["metadata"].get("generation", 0)
        return generation

    def with_status(self, status: ModelDeploymentStatus) -> Subject:
        """The same ModelDeployment with another status."""
        return Subject(self.key, self.manifest, status)


def read_subject(key: Key, manifest: Manifest) -> Subject:
    """Parse all but the spec, which may be invalid."""
    return Subject(key, manifest, parse_status(manifest))


def read_wanted(manifest: Manifest) -> Wanted:
    """Parse the spec.

    Raises:
        InvalidSpec: It cannot be acted on.
    """
    spec = parse_spec(manifest)
    raw: Manifest = manifest["spec"]
    name = revision_name(manifest["metadata"]["name"], spec.model.digest, raw.get("server") or {})
    return Wanted(spec, Target(name, spec.model.digest), raw["model"], raw.get("owner"), raw)


def observe(
    store: Store,
    subject: Subject,
    target: Target,
    signatures: Signatures,
    *,
    drained: frozenset[str],
    rollback_enabled: bool,
    now: float,
) -> Observed:
    """The world of a ModelDeployment as the store has it.

    Args:
        store: The newest known objects.
        subject: The ModelDeployment.
        target: The revision that its spec names.
        signatures: What its revisions take and give.
        drained: Revisions that get no requests any more.
        rollback_enabled: False only under a test switch.
        now: Seconds since the epoch.
    """
    key = subject.key
    route = store.get("HTTPRoute", key.namespace, key.name)
    return Observed(
        name=key.name,
        generation=subject.generation,
        target=target,
        workloads=_workloads(store, key, now),
        route=read_route(route, drained) if route is not None else None,
        request=read_request(subject.manifest),
        signatures=signatures,
        rollback_enabled=rollback_enabled,
    )


def read_route(manifest: Manifest, drained: frozenset[str]) -> Route:
    """The live route as the decision sees it."""
    acceptance = read_acceptance(manifest)
    weights = read_weights(manifest)
    return Route(
        weights=weights,
        accepted=acceptance.accepted,
        drained=frozenset(r for r in drained if weights.get(r, 0) == 0),
        rolled_back=read_rollback(manifest),
        message=acceptance.message,
        refused=acceptance.refused,
    )


def _workloads(store: Store, key: Key, now: float) -> dict[str, Workload]:
    pods: dict[str, list[Manifest]] = {}
    for pod in store.children(key, "Pod"):
        pods.setdefault(revision_of(pod), []).append(pod)
    return {
        revision_of(deployment): workload(deployment, pods.get(revision_of(deployment), ()), now)
        for deployment in store.children(key, "Deployment")
    }


def read_request(manifest: Manifest) -> Request | None:
    """A person's request; one that cannot be read is none, as nothing could be answered."""
    text = (manifest["metadata"].get("annotations") or {}).get(REQUEST)
    if not text:
        return None
    try:
        raw = msgspec.json.decode(text, type=dict[str, str])
        return Request(raw["id"], raw["action"], raw["revision"])
    except (msgspec.DecodeError, KeyError):
        return None
