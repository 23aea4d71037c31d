"""From a plan to the objects, each written only when it differs from what is live."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from model_operator.adapters.applied import is_applied
from model_operator.adapters.kube import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    MODEL_REVISION,
    RESOURCES,
    SERVICE,
    AlreadyExistsError,
    ConflictError,
    Kube,
    KubeError,
    NotFoundError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from model_operator.adapters.ownership import controller_uid, require_same_owner
from model_operator.adapters.traffic.base import Traffic
from model_operator.api.labels import RESTART
from model_operator.api.types import ModelDeploymentStatus
from model_operator.core import desired
from model_operator.core.decision import Plan
from model_operator.core.httproute import http_route, read_backends
from model_operator.core.pod_template import render_pod_template
from model_operator.engine.attempts import Attempts
from model_operator.engine.last_spec import write_spec
from model_operator.engine.snapshot import Subject, Wanted
from model_operator.engine.store import Manifest, Store, object_key, revision_of

_LOWERING_S: Final = (1.0, 1.0, 2.0, 4.0, 8.0)
"""Deadlines of the attempts to take weight off a revision: a call that hangs is made again long
before its own deadline."""
_LOWERING_PAUSE_S: Final = 0.1
_LONGEST_LOWERING_PAUSE_S: Final = 1.0
_PER_REVISION: Final = (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET)


@dataclass(frozen=True, slots=True)
class Applier:
    """Writes the children of a ModelDeployment.

    Attributes:
        kube: The API.
        traffic: Writes the weights.
        store: The newest known objects; answers to writes go into it at once.
        default_image: Inference server image of new revisions that name none.
    """

    kube: Kube
    traffic: Traffic
    store: Store
    default_image: str

    async def record(self, subject: Subject, wanted: Wanted) -> None:
        """Write down the revision that the spec names, if that is not done yet."""
        name = wanted.target.revision
        if self.store.get("ModelRevision", subject.key.namespace, name) is not None:
            return
        model, server = wanted.spec.model, wanted.spec.server
        manifest = desired.model_revision(
            subject.parent,
            name,
            hash_=name.rpartition("-")[2],
            model=wanted.model,
            owner=wanted.owner,
            template=render_pod_template(subject.key.name, name, model, server, self.default_image),
        )
        try:
            # NB: created and never applied: a newer operator would render another template
            self.store.put(await self.kube.create(manifest))
        except AlreadyExistsError:
            live = await self.kube.get(MODEL_REVISION, subject.key.namespace, name)
            require_same_owner(live, manifest)
            self.store.put(live)

    async def workloads(self, subject: Subject, plan: Plan) -> None:
        """Bring the planned revisions' Deployments, Services and budgets about.

        What is refused for one of them, such as a quota's excess, keeps no other from its own.
        """
        parent, attempts = subject.parent, Attempts()
        for revision, replicas in plan.replicas.items():
            template = self._template(subject, revision)
            if template is None:
                continue
            await attempts(self._ensure(desired.service(parent, revision, revision)))
            await attempts(self._ensure(desired.disruption_budget(parent, revision)))
            restart = self._restart(subject, revision)
            deployment = desired.deployment(parent, revision, replicas, template, restart=restart)
            await attempts(self._ensure(deployment))
        attempts.settle()

    async def stable_service(
        self, subject: Subject, wanted: Wanted, status: ModelDeploymentStatus
    ) -> None:
        """Point the Service for clients inside the cluster at the stable revision."""
        if status.stable is not None:
            parent = subject.parent
            service = desired.service(parent, parent.name, status.stable.revision)
            await self._ensure(write_spec(service, wanted.raw))

    async def route(self, subject: Subject, wanted: Wanted, plan: Plan) -> bool:
        """Bring the route's weights about; whether it had to be written.

        For a rise: one attempt from what was observed, because after a conflict the rise must be
        decided anew.

        Raises:
            ConflictError: Somebody else wrote the route.
        """
        if not plan.weights:
            return False
        live = self.store.get("HTTPRoute", subject.key.namespace, subject.key.name)
        return await self._write_route(subject, wanted, plan, live)

    async def lower_route(self, subject: Subject, wanted: Wanted, plan: Plan) -> bool:
        """Take weight off a revision; whether the route had to be written.

        It is right whatever the route looks like by now, and whether or not a write whose answer
        was lost has been carried out. So whatever goes wrong, the route is read and written again.
        """
        key = subject.key
        live = self.store.get("HTTPRoute", key.namespace, key.name)
        failure: KubeError = UnreachableError("not tried")
        for attempt, deadline_s in enumerate(_LOWERING_S):
            try:
                async with asyncio.timeout(deadline_s):
                    return await self._write_route(subject, wanted, plan, live) or attempt > 0
            except TimeoutError:
                failure = UnreachableError(f"the route of {key} was not written in {deadline_s} s")
            except (ConflictError, UnreachableError) as error:
                failure = error
            except (ServerError, ThrottledError) as error:
                failure = error
                await asyncio.sleep(_pause_s(error))
            live = None
        raise failure

    async def _write_route(
        self, subject: Subject, wanted: Wanted, plan: Plan, live: Manifest | None
    ) -> bool:
        manifest = http_route(
            subject.parent,
            wanted.spec.route,
            plan.weights,
            tester=plan.tester,
            rolled_back=plan.rolled_back,
        )
        written = await self.traffic.write(manifest, live)
        if written is not None:
            self.store.put(written)
        return written is not None

    def retired(self, subject: Subject, plan: Plan) -> list[Manifest]:
        """Objects of revisions that are neither planned nor on the live route."""
        key = subject.key
        route = self.store.get("HTTPRoute", key.namespace, key.name)
        kept = set(plan.replicas) | (read_backends(route) if route else set())
        return [
            manifest
            for resource in _PER_REVISION
            for manifest in self.store.children(key, resource.kind)
            if revision_of(manifest)
            and revision_of(manifest) not in kept
            and controller_uid(manifest) == subject.parent.uid
            and not manifest["metadata"].get("deletionTimestamp")
        ]

    async def delete(self, manifests: list[Manifest]) -> None:
        """Delete objects, in the order in which they are given."""
        for manifest in manifests:
            kind, namespace, name = object_key(manifest)
            uid = manifest["metadata"]["uid"]
            await self.kube.delete(RESOURCES[kind], namespace, name, uid=uid)

    def _restart(self, subject: Subject, revision: str) -> str:
        """The restart that was asked for last; to forget it would be another restart."""
        asked: str = (subject.manifest["metadata"].get("annotations") or {}).get(RESTART, "")
        live = self.store.get("Deployment", subject.key.namespace, revision)
        if asked or live is None:
            return asked
        made: str = (live["spec"]["template"]["metadata"].get("annotations") or {}).get(RESTART, "")
        return made

    def _template(self, subject: Subject, revision: str) -> Manifest | None:
        """The recorded pod template; should the record be lost, the one that runs."""
        namespace = subject.key.namespace
        record = self.store.get("ModelRevision", namespace, revision)
        if record is not None:
            template: Manifest = record["spec"]["template"]
            return template
        live = self.store.get("Deployment", namespace, revision)
        return live["spec"]["template"] if live is not None else None

    async def _ensure(self, manifest: Manifest) -> None:
        kind, namespace, name = object_key(manifest)
        live = self.store.get(kind, namespace, name)
        if live is None:
            try:
                live = await self.kube.get(RESOURCES[kind], namespace, name)
            except NotFoundError:
                self.store.put(await self.kube.apply(manifest))
                return
        require_same_owner(live, manifest)
        if not is_applied(manifest, live):
            self.store.put(await self.kube.apply(manifest))


def _pause_s(error: KubeError) -> float:
    """As long as the server asks for, but no longer than a rollback can wait."""
    return min(error.retry_after_s or _LOWERING_PAUSE_S, _LONGEST_LOWERING_PAUSE_S)
