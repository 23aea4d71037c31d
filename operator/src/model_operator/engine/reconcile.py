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
    ForbiddenError,
    InvalidError,
    Kube,
    KubeError,
    NotFoundError,
    ServerError,
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
from model_operator.engine.attempts import Attempts
from model_operator.engine.drains import Drains
from model_operator.engine.last_spec import read_spec
from model_operator.engine.preflight import SignatureReader
from model_operator.engine.records import Recorder
from model_operator.engine.restore import with_roles
from model_operator.engine.resume import since_looked_at
from model_operator.engine.snapshot import Subject, Wanted, observe, read_subject, read_wanted
from model_operator.engine.store import Key, Store, is_deleting
from model_operator.engine.telemetry import Metrics
from model_operator.engine.untold import Untold

logger = logging.getLogger(__name__)

INVALID_SPEC: Final = "InvalidSpec"
NAME_TAKEN: Final = "NameTaken"
REFUSED: Final = "ObjectRefused"
_ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True)
class Trouble:
    """What only a person can mend.

    Attributes:
        reason: In CamelCase, for the condition.
        message: What to change.
    """

    reason: str
    message: str


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
    _refused: dict[Key, Trouble] = field(default_factory=dict)
    _looking_since: dict[Key, float] = field(default_factory=dict)
    _untold: Untold[Case] = field(default_factory=Untold)

    async def __call__(self, key: Key) -> None:
        """Reconcile; what somebody else wrote in the meantime is read again at once.

        Raises:
            KubeError: The API failed; the queue has the key come again.
        """
        begun = time.monotonic()
        try:
            await self._with_conflicts(key)
        except (KubeError, NotOursError):
            await self.announcer.post(key)  # what was decided before it failed
            raise
        self.metrics.reconciled(time.monotonic() - begun)

    async def _with_conflicts(self, key: Key) -> None:
        for _ in range(_ATTEMPTS - 1):
            try:
                await self._reconcile_or_explain(key)
            except ConflictError as error:
                logger.info("%s: %s; reading again", key, error)
                await self._read_live(key)
            else:
                return
        await self._reconcile_or_explain(key)

    async def _reconcile_or_explain(self, key: Key) -> None:
        """Reconcile; what the API refuses for good is told to the user until it is mended."""
        try:
            await self._reconcile(key)
        except (NotOursError, ForbiddenError, InvalidError) as error:
            reason = NAME_TAKEN if isinstance(error, NotOursError) else REFUSED
            trouble = self._refused[key] = Trouble(reason, str(error))
            subject = self._subject(key)
            if subject is not None:
                await self._write_status(subject, self._told(subject.status, subject, trouble))
            raise
        if self._refused.pop(key, None) is not None:
            self.add_after(key, 0.0)

    async def _reconcile(self, key: Key) -> None:
        subject = self._subject(key)
        if subject is None:
            self._forget(key)
            return
        wanted, trouble = self._wanted(subject)
        if wanted is None:
            if trouble is not None:
                await self._write_status(subject, self._told(subject.status, subject, trouble))
            return
        self._follow(subject, wanted)
        case = self._decide(subject, wanted)
        if self._needs_live(case):
            await self._read_live(key)
            subject = self._subject(key)
            if subject is None:
                self._forget(key)
                return
            wanted, trouble = self._wanted(subject)
            case = self._decide(subject, wanted or case.wanted)
        self._tell_late(case)
        trouble = trouble or self._refused.get(key)
        attempts = Attempts()
        if case.decision.route_first:
            subject = await self._lower(case, trouble, attempts)
        else:
            subject = await self._raise_or_keep(case, trouble, attempts)
        await self._finish(subject, case, attempts)

    async def _lower(self, case: Case, trouble: Trouble | None, attempts: Attempts) -> Subject:
        """Route first; nothing that fails on the way delays it."""
        plan = case.decision.plan
        written = await self.applier.lower_route(case.subject, case.wanted, plan)
        if written:
            self.metrics.lowered(case.subject.key)
        subject = await self._write_decided(case, trouble)
        self._tell(subject, case)
        if written:
            self.announcer.drift(case.subject, plan, case.observed)
        await attempts(self.applier.record(subject, case.wanted))
        await attempts(self.applier.workloads(subject, plan))
        return subject

    async def _raise_or_keep(
        self, case: Case, trouble: Trouble | None, attempts: Attempts
    ) -> Subject:
        """Pods, then the intent into status, then the route.

        Weights that the status has already are no rise but repaired, and wait for nothing. A rise
        waits until nothing is refused any more.
        """
        plan = case.decision.plan
        if _intended(case.subject.status) == dict(plan.weights):
            await attempts(self._route(case.subject, case))
        await attempts(self.applier.record(case.subject, case.wanted))
        await attempts(self.applier.workloads(case.subject, plan))
        subject = await self._write_decided(case, trouble)
        try:
            if not attempts.refusals:
                await self._route(subject, case)
        finally:
            self._tell(subject, case)
        return subject

    async def _route(self, subject: Subject, case: Case) -> None:
        if await self.applier.route(subject, case.wanted, case.decision.plan):
            self.announcer.drift(case.subject, case.decision.plan, case.observed)

    async def _finish(self, subject: Subject, case: Case, attempts: Attempts) -> None:
        """What no traffic depends on."""
        self._follow(subject, case.wanted)
        self.announcer.catch_up(subject, case.wanted)
        posted_s = await self.announcer.post(subject.key)
        status = case.decision.status
        await attempts(self.applier.stable_service(subject, case.wanted, status))
        await attempts(self.applier.delete(self.applier.retired(subject, case.decision.plan)))
        # NB: as they were seen: a candidate that was refused is none any more
        seen = case.observed.signatures
        recorded_s = await attempts(self.recorder.write(subject, case.wanted, seen))
        for delay_s in (case.decision.next_s, recorded_s, posted_s):
            if delay_s is not None:
                self.add_after(subject.key, delay_s)
        attempts.settle()

    # ------------------------------------------------------------------------------ what is told

    def _tell(self, subject: Subject, case: Case) -> None:
        """What was decided, once it stands in the status: no later failure swallows the news."""
        self._untold.forget(subject.key)
        self.recorder.note(subject.key, case.judgement, case.decision.transitions)
        self.announcer.transitions(subject, case.wanted, case.decision.transitions)

    def _tell_late(self, case: Case) -> None:
        """What stands in the status, although the answer to its write was lost."""
        decided = self._untold.take(case.subject.key, case.subject.status)
        if decided is not None:
            self._tell(case.subject, decided)

    # ------------------------------------------------------------------------------ what is seen

    def _subject(self, key: Key) -> Subject | None:
        manifest = self.store.get("ModelDeployment", key.namespace, key.name)
        if manifest is None or is_deleting(manifest):
            return None
        looking_since = self._looking_since.setdefault(key, self.clock())
        subject = since_looked_at(read_subject(key, manifest), looking_since)
        return with_roles(self.store, subject)

    def _wanted(self, subject: Subject) -> tuple[Wanted | None, Trouble | None]:
        """What the spec asks for; when it is invalid, the last good one and what is wrong."""
        try:
            wanted = read_wanted(subject.manifest)
        except InvalidSpec as error:
            last = self._good.get(subject.key) or read_spec(self.store, subject)
            return last, Trouble(INVALID_SPEC, str(error))
        self._good[subject.key] = wanted
        return wanted, None

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
        """Read what a weight or a deletion depends on, past the watches.

        Raises:
            ServerError: A list is older than what is known: nothing may be decided on it.
        """
        selector = pod_selector(key.name)
        known = {kind: self.store.newest(key, kind.kind) for kind in (POD, DEPLOYMENT)}
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
        for kind, listing in ((POD, pods), (DEPLOYMENT, deployments)):
            if listing.resource_version < known[kind]:
                raise ServerError(f"the list of {kind.plural} of {key} is behind")
            self.store.replace(kind.kind, listing, owner=key)

    # ---------------------------------------------------------------------------- what is written

    async def _write_decided(self, case: Case, trouble: Trouble | None) -> Subject:
        """Write the decided status; if something is wrong beside it, it says so."""
        status = case.decision.status
        if trouble is not None:
            # NB: against the decided conditions, which know of no trouble, it would begin anew at
            # every look: each would write the status, and so bring about the next
            ready = (entry for entry in status.conditions if entry.type == "Ready")
            before = (entry for entry in case.subject.status.conditions if entry.type != "Ready")
            status = replace(status, conditions=(*ready, *before))
            status = self._told(status, case.subject, trouble)
        if case.decision.transitions:
            self._untold.add(case.subject.key, status, case)
        return await self._write_status(case.subject, status)

    def _told(
        self, status: ModelDeploymentStatus, subject: Subject, trouble: Trouble
    ) -> ModelDeploymentStatus:
        return invalid_spec(
            status, subject.generation, trouble.message, self.clock(), reason=trouble.reason
        )

    async def _write_status(self, subject: Subject, status: ModelDeploymentStatus) -> Subject:
        if status == subject.status:
            return subject
        written = await self.kube.replace_status(subject.manifest, to_manifest(status))
        self.store.put(written)
        return read_subject(subject.key, written)

    # --------------------------------------------------------------------------- what is followed

    def _follow(self, subject: Subject, wanted: Wanted) -> None:
        """Analyse who is on trial, and watch those drain who lost their weight."""
        key, status = subject.key, subject.status
        on_trial = trial(wanted.spec, status)
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
        self._refused.pop(key, None)
        self._looking_since.pop(key, None)
        self._untold.forget(key)
        self.announcer.forget(key)
        self.analyst.forget(key)
        self.drains.follow(key, frozenset())
        self.signatures.forget(key)
        self.recorder.forget(key)


def _intended(status: ModelDeploymentStatus) -> dict[str, int]:
    """The weights that were decided and written down."""
    return {
        entry.revision: entry.desired_percent for entry in status.traffic if entry.desired_percent
    }
