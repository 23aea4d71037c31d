"""One ModelDeployment from what is seen to what must be, as often as anything about it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from model_operator.adapters.kube import (
    DEPLOYMENT,
    MODEL_DEPLOYMENT,
    POD,
    ConflictError,
    Kube,
    NotFoundError,
)
from model_operator.adapters.ownership import NotOursError
from model_operator.api.parse import InvalidSpec, to_manifest
from model_operator.api.types import ModelDeploymentStatus, replace
from model_operator.core.conditions import invalid_spec
from model_operator.core.decision import Decision
from model_operator.core.desired import pod_selector
from model_operator.core.httproute import read_weights
from model_operator.core.observed import Judgement, Observed
from model_operator.core.rollout import decide
from model_operator.core.view import trial
from model_operator.engine.analyst import Analyst
from model_operator.engine.announce import Announcer
from model_operator.engine.apply import Applier
from model_operator.engine.drains import Drains
from model_operator.engine.preflight import SignatureReader
from model_operator.engine.records import Recorder
from model_operator.engine.snapshot import Subject, Wanted, observe, read_subject, read_wanted
from model_operator.engine.store import Key, Store, is_deleting
from model_operator.engine.telemetry import Metrics

logger = logging.getLogger(__name__)

INVALID_SPEC: Final = "InvalidSpec"
NAME_TAKEN: Final = "NameTaken"
_ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True)
class Case:
    """What was decided, and on what grounds."""

    subject: Subject
    wanted: Wanted
    observed: Observed
    judgement: Judgement | None
    decision: Decision


@dataclass(slots=True)
class Reconciler:
    """Works on one key of the queue at a time; everything that it remembers can be lost.

    Attributes:
        add_after: Has a key worked on again after so many seconds.
        clock: Seconds since the epoch.
        rollback_enabled: False only under a test switch.
    """

    kube: Kube
    store: Store
    applier: Applier
    analyst: Analyst
    drains: Drains
    signatures: SignatureReader
    recorder: Recorder
    announcer: Announcer
    metrics: Metrics
    add_after: Callable[[Key, float], None]
    clock: Callable[[], float]
    rollback_enabled: bool = True
    _good: dict[Key, Wanted] = field(default_factory=dict)
    _taken: dict[Key, str] = field(default_factory=dict)

    async def __call__(self, key: Key) -> None:
        """Reconcile; what somebody else wrote in the meantime is read again at once.

        Raises:
            KubeError: The API failed; the queue has the key come again.
        """
        begun = time.monotonic()
        for _ in range(_ATTEMPTS - 1):
            try:
                await self._reconcile_or_explain(key)
                break
            except ConflictError as error:
                logger.info("%s: %s; reading again", key, error)
                await self._read_live(key)
        else:
            await self._reconcile_or_explain(key)
        self.metrics.reconciled(time.monotonic() - begun)

    async def _reconcile_or_explain(self, key: Key) -> None:
        """Reconcile; a name that somebody else took is told to the user until it is free."""
        try:
            await self._reconcile(key)
        except NotOursError as error:
            self._taken[key] = str(error)
            subject = self._subject(key)
            if subject is not None:
                status = invalid_spec(
                    subject.status,
                    subject.generation,
                    str(error),
                    self.clock(),
                    reason=NAME_TAKEN,
                )
                await self._write_status(subject, status)
            raise
        if self._taken.pop(key, None) is not None:
            self.add_after(key, 0.0)

    async def _reconcile(self, key: Key) -> None:
        subject = self._subject(key)
        if subject is None:
            self._forget(key)
            return
        wanted, problem = self._wanted(subject)
        if wanted is None:
            status = invalid_spec(subject.status, subject.generation, problem, self.clock())
            await self._write_status(subject, status)
            return
        self._follow(subject, wanted)
        case = self._decide(subject, wanted)
        if self._needs_live(case):
            await self._read_live(key)
            subject = self._subject(key)
            if subject is None:
                self._forget(key)
                return
            wanted, problem = self._wanted(subject)
            case = self._decide(subject, wanted or case.wanted)
        problem = problem or self._taken.get(key, "")
        if case.decision.route_first:
            subject = await self._lower(case, problem)
        else:
            subject = await self._raise_or_keep(case, problem)
        await self._finish(subject, case)

    async def _lower(self, case: Case, problem: str) -> Subject:
        """Route first; nothing that fails on the way delays it."""
        plan = case.decision.plan
        written = await self.applier.lower_route(case.subject, case.wanted, plan)
        if written:
            self.metrics.lowered(case.subject.key)
        subject = await self._write_status(case.subject, self._status(case, problem))
        await self._tell(subject, case)
        await self.applier.stable_service(subject, case.decision.status)
        if written:
            await self.announcer.drift(case.subject, plan, case.observed)
        await self.applier.record(subject, case.wanted)
        await self.applier.workloads(subject, plan)
        return subject

    async def _raise_or_keep(self, case: Case, problem: str) -> Subject:
        """Pods, then the intent into status, then the route."""
        plan = case.decision.plan
        await self.applier.record(case.subject, case.wanted)
        await self.applier.workloads(case.subject, plan)
        subject = await self._write_status(case.subject, self._status(case, problem))
        try:
            if await self.applier.route(subject, case.wanted, plan):
                await self.announcer.drift(case.subject, plan, case.observed)
        finally:
            await self._tell(subject, case)
        return subject

    async def _tell(self, subject: Subject, case: Case) -> None:
        """What was decided, once it stands in the status: no later failure swallows the news."""
        self.recorder.note(subject.key, case.judgement, case.decision.transitions)
        await self.announcer.transitions(subject, case.wanted, case.decision.transitions)

    async def _finish(self, subject: Subject, case: Case) -> None:
        """What no traffic depends on."""
        self._follow(subject, case.wanted)
        await self.applier.stable_service(subject, case.decision.status)
        await self.applier.delete(self.applier.retired(subject, case.decision.plan))
        known = self.signatures.signatures(subject.key, subject.status)
        recorded_s = await self.recorder.write(subject, case.wanted, known)
        for delay_s in (case.decision.next_s, recorded_s):
            if delay_s is not None:
                self.add_after(subject.key, delay_s)

    # ------------------------------------------------------------------------------ what is seen

    def _subject(self, key: Key) -> Subject | None:
        manifest = self.store.get("ModelDeployment", key.namespace, key.name)
        if manifest is None or is_deleting(manifest):
            return None
        return read_subject(key, manifest)

    def _wanted(self, subject: Subject) -> tuple[Wanted | None, str]:
        """What the spec asks for; when it is invalid, the last good one and what is wrong."""
        try:
            wanted = read_wanted(subject.manifest)
        except InvalidSpec as error:
            return self._good.get(subject.key), str(error)
        self._good[subject.key] = wanted
        return wanted, ""

    def _decide(self, subject: Subject, wanted: Wanted) -> Case:
        now = self.clock()
        observed = observe(
            self.store,
            subject,
            wanted.target,
            self.signatures.signatures(subject.key, subject.status),
            drained=self.drains.drained(subject.key),
            rollback_enabled=self.rollback_enabled,
            now=now,
        )
        judgement = self.analyst.judgement(subject.key)
        decision = decide(wanted.spec, subject.status, observed, judgement, now)
        return Case(subject, wanted, observed, judgement, decision)

    def _needs_live(self, case: Case) -> bool:
        """Whether the decision is of those that are made from live objects only.

        A fall of weight is not: it is right on suspicion, and must not wait for anything.
        """
        if case.decision.route_first:
            return False
        plan, route = case.decision.plan, case.observed.route
        live = route.weights if route else {}
        rises = any(weight > live.get(name, 0) for name, weight in plan.weights.items())
        return rises or bool(self.applier.retired(case.subject, plan))

    async def _read_live(self, key: Key) -> None:
        """Read what a weight or a deletion depends on, past the watches."""
        selector = pod_selector(key.name)
        try:
            manifest, route, pods, deployments = await asyncio.gather(
                self.kube.get(MODEL_DEPLOYMENT, key.namespace, key.name),
                self.applier.traffic.read(key.namespace, key.name),
                self.kube.list(POD, namespace=key.namespace, selector=selector),
                self.kube.list(DEPLOYMENT, namespace=key.namespace, selector=selector),
            )
        except NotFoundError:
            self.store.discard("ModelDeployment", key.namespace, key.name)
            return
        self.store.put(manifest)
        if route is None:
            self.store.discard("HTTPRoute", key.namespace, key.name)
        else:
            self.store.put(route)
        self.store.replace("Pod", pods, owner=key)
        self.store.replace("Deployment", deployments, owner=key)

    # ---------------------------------------------------------------------------- what is written

    async def _write_status(self, subject: Subject, status: ModelDeploymentStatus) -> Subject:
        if status == subject.status:
            return subject
        written = await self.kube.replace_status(subject.manifest, to_manifest(status))
        self.store.put(written)
        return read_subject(subject.key, written)

    def _status(self, case: Case, problem: str) -> ModelDeploymentStatus:
        """The decided status; if something is wrong with the spec, it says so."""
        status = case.decision.status
        if not problem:
            return status
        # NB: against the decided conditions, which know of no problem, it would begin anew at
        # every look: each would write the status, and so bring about the next
        ready = (entry for entry in status.conditions if entry.type == "Ready")
        before = (entry for entry in case.subject.status.conditions if entry.type != "Ready")
        status = replace(status, conditions=(*ready, *before))
        taken = problem == self._taken.get(case.subject.key)
        reason = NAME_TAKEN if taken else INVALID_SPEC
        return invalid_spec(status, case.subject.generation, problem, self.clock(), reason=reason)

    # --------------------------------------------------------------------------- what is followed

    def _follow(self, subject: Subject, wanted: Wanted) -> None:
        """Analyse who is on trial, and watch those drain who lost their weight."""
        key, status = subject.key, subject.status
        on_trial = None if wanted.spec.suspend else trial(wanted.spec, status)
        tests = self.recorder.tests(key, on_trial.revision) if on_trial else {}
        self.analyst.follow(key, on_trial, wanted.spec.rollout.analysis, tests)
        self.drains.follow(key, self._leaving(key, status))
        self.signatures.follow(key, status)

    def _leaving(self, key: Key, status: ModelDeploymentStatus) -> frozenset[str]:
        """Revisions with pods that the live route gives no weight and that are no candidate."""
        route = self.store.get("HTTPRoute", key.namespace, key.name)
        if route is None:
            return frozenset()
        weights = read_weights(route)
        candidate = status.candidate.revision if status.candidate else ""
        return frozenset(
            name
            for deployment in self.store.children(key, "Deployment")
            if weights.get(name := deployment["metadata"]["name"], 0) == 0 and name != candidate
        )

    def _forget(self, key: Key) -> None:
        self._good.pop(key, None)
        self._taken.pop(key, None)
        self.analyst.forget(key)
        self.drains.follow(key, frozenset())
        self.signatures.forget(key)
        self.recorder.forget(key)
