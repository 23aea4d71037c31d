"""Many short rollouts at the same time, one operator behind a proxy that fails calls.

Each lane is a namespace with one ModelDeployment, in which one rollout follows the other; a fault
hits the k-th call that the operator makes for that namespace since the rollout began.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from model_operator.adapters.kube import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    EVENT,
    MODEL_DEPLOYMENT,
    MODEL_REVISION,
    SERVICE,
    ConflictError,
    KubeClient,
    load_configuration,
)
from model_operator.adapters.lease import LEASE, LeaseLostError
from model_operator.api.labels import REVISION
from model_operator.engine.reconcile import Case, Reconciler
from model_operator.engine.run import run
from model_operator.engine.snapshot import Subject, Wanted
from model_operator.settings import LeaseSettings, Settings
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import Feeds, World, condition, end, settings
from tests.apiserver.fault_proxy import Call, Fault, FaultProxy
from tests.apiserver.informer import Informer
from tests.apiserver.manifests import digest, model_deployment
from tests.apiserver.played_kubelet import Behaviour
from tests.invariants import Ledger, Moment, check

Manifest = dict[str, Any]

CLIENT_TIMEOUT_S: Final = 2.0
NO_LEASE: Final = LeaseSettings(enabled=False)
_ROLLOUT_TIMEOUT_S: Final = 45.0
_CREATE_TIMEOUT_S: Final = 120.0
_REST_S: Final = 0.6
_POLL_S: Final = 0.05
_OF_REVISION: Final = {DEPLOYMENT.kind, DISRUPTION_BUDGET.kind, SERVICE.kind}
_ROLES: Final = ("stable", "candidate", "former")
_ROLE_CHANGES: Final = frozenset(
    {"RolloutStarted", "StepEntered", "Promoted", "RolledBack", "Superseded", "BakeEnded"}
)


@dataclass(frozen=True, slots=True)
class Failing:
    """Which calls fail, and how.

    Attributes:
        first: Number of the first that does, from 1.
        spacing: So many calls after it the next does: far enough for the one to be over.
        takeover: Whether the lease is taken away in mid-canary: the first call is then the one by
            which the leader finds that out.
        kind: What the calls are about that count, in the plural; empty for all.
    """

    fault: Fault
    first: int
    spacing: int = 1_000_000
    takeover: bool = False
    kind: str = ""

    def includes(self, number: int) -> bool:
        return number >= self.first and (number - self.first) % self.spacing == 0


@dataclass(slots=True)
class Rollout:
    """One rollout of a lane, and what happened in it.

    Attributes:
        good: Whether the new model answers well.
        calls: The operator's calls for the lane's namespace.
        decided_at: How many calls there were when the rollback was decided first.
        taken: Whether the lease was taken away.
        lost_at: How many calls there were before the leader found that out.
    """

    good: bool
    failing: Failing | None = None
    old: str = ""
    new: str = ""
    calls: list[Call] = field(default_factory=list)
    decided_at: int | None = None
    taken: bool = False
    lost_at: int | None = None
    last_call: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> dict[int, Call]:
        """The calls that failed, by their number."""
        return {n: call for n, call in enumerate(self.calls, start=1) if self.fails(n)}

    def fails(self, number: int) -> bool:
        """Whether the call with this number, from 1, fails."""
        if self.failing is None:
            return False
        begun = self.lost_at if self.failing.takeover else 0
        if begun is None or number <= begun or not self._counts(number):
            return False
        return self.failing.includes(sum(map(self._counts, range(begun + 1, number + 1))))

    def _counts(self, number: int) -> bool:
        kind = self.failing.kind if self.failing is not None else ""
        return kind in {"", self.calls[number - 1].kind}

    def __str__(self) -> str:
        kind = "promotion" if self.good else "rollback"
        return f"{kind} {self.old} -> {self.new}, {self.failing}: {self.failed}"


class Lane:
    """A namespace in which one rollout follows the other."""

    def __init__(self, world: World, views: Views) -> None:
        self.world = world
        self.views = views
        self.rollout = Rollout(good=True)
        self.statuses: list[Manifest] = []
        self.moments: list[tuple[Reconciler, Moment]] = []
        self.timeout_s = _ROLLOUT_TIMEOUT_S
        self._seeds = itertools.count(1)

    # --------------------------------------------------------------------------- what is arranged

    async def create(self) -> None:
        manifest = model_deployment(self.world.namespace, next(self._seeds), replicas=1)
        rollout = manifest["spec"]["rollout"]
        rollout["steps"] = [{"setWeight": {"percent": 50, "duration": "300ms"}}]
        rollout["bake"] = {"duration": "1s"}
        self.world.requests_per_s = 200.0
        await self.world.create(manifest)
        self.timeout_s = _CREATE_TIMEOUT_S
        await self._until("it serves", self._serves)

    async def play(
        self,
        *,
        good: bool,
        failing: Failing | None = None,
        timeout_s: float = _ROLLOUT_TIMEOUT_S,
    ) -> Rollout:
        """Roll a new model out to the end, and hold the end against what it must be."""
        self.timeout_s = timeout_s
        seed = next(self._seeds)
        self.world.behaviours[digest(seed)] = Behaviour(error_share=0.0 if good else 0.5)
        old = self.status["stable"]["revision"]
        del self.world.weights_seen[:-1], self.statuses[:-1], self.moments[:]
        self.rollout = Rollout(good=good, failing=failing, old=old)
        await self.world.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(seed)))
        try:
            await self._until("it started", self._started)
            self.rollout.new = self._candidate()
            if failing is not None and failing.takeover:
                await self.until_weight()
                await self._take_lease_away()
            await self._until("it ended", self._ended)
            await self._until("it rests", self._rests)
            self._check_path()
            await self._check_end()
            await self._check_events()
            self._check_invariants()
        except AssertionError as error:
            found = json.dumps(self.status, indent=1)
            raise AssertionError(f"{self.rollout}\n{error}\n{found}") from error
        return self.rollout

    def fault(self, call: Call) -> Fault | None:
        """What becomes of a call of the operator's own client."""
        rollout = self.rollout
        found_out = rollout.taken and (call.method, call.kind) == ("GET", LEASE.plural)
        if found_out and rollout.lost_at is None:
            rollout.lost_at = len(rollout.calls)
        rollout.calls.append(call)
        if call.kind != LEASE.plural:  # it is renewed for ever
            rollout.last_call = time.monotonic()
        fails = rollout.failing is not None and rollout.fails(len(rollout.calls))
        return rollout.failing.fault if rollout.failing is not None and fails else None

    def decided(self, operator: Reconciler, moment: Moment) -> None:
        self.moments.append((operator, moment))
        if moment.decision.route_first and self.rollout.decided_at is None:
            self.rollout.decided_at = len(self.rollout.calls)

    def saw(self, mdep: Manifest, gone: bool) -> None:  # noqa: FBT001 - a callback
        if not gone and mdep["metadata"]["namespace"] == self.world.namespace:
            self.statuses.append(mdep.get("status") or {})

    # ----------------------------------------------------------------------------- what is awaited

    @property
    def status(self) -> Manifest:
        return self.statuses[-1] if self.statuses else {}

    def _serves(self) -> bool:
        return bool(condition(self.status, "Ready")["status"] == "True")

    def _candidate(self) -> str:
        for status in self.statuses:
            if "candidate" in status:
                found: str = status["candidate"]["revision"]
                return found
        return ""

    def _started(self) -> bool:
        return bool(self._candidate())

    def _ended(self) -> bool:
        rollout = self.rollout
        left = rollout.new if rollout.good else rollout.old
        deployments = {
            found["metadata"]["name"] for found in self.views.deployments.of(self.world.namespace)
        }
        state = "Idle" if rollout.good else "RolledBack"
        settled = self.status.get("traffic") == [_all_traffic(left)]
        return self.status["rollout"]["state"] == state and deployments == {left} and settled

    def _rests(self) -> bool:
        return time.monotonic() - self.rollout.last_call > _REST_S

    async def until_weight(self) -> None:
        """Wait until the present rollout's candidate is on the traffic."""
        await self._until("it has weight", lambda: len(self.world.weights_seen) > 1)

    async def _take_lease_away(self) -> None:
        """Write another leader's name into it, who is gone at once."""
        path = LEASE.path(self.world.namespace, LeaseSettings().name)
        while True:
            lease = await self.world.kube._call("GET", path)
            lease["spec"]["holderIdentity"] = "somebody else"
            del lease["spec"]["leaseDurationSeconds"]
            with suppress(ConflictError):
                await self.world.kube._call("PUT", path, body=lease)
                self.rollout.taken = True
                return

    async def _until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {self.timeout_s} s: {what}"
            await asyncio.sleep(_POLL_S)

    # ------------------------------------------------------------------------------- what must be

    def _check_path(self) -> None:
        """Every change of roles and weights was there, in order, and once."""
        old, new = self.rollout.old, self.rollout.new
        weights = [{old: 100}, {old: 50, new: 50}, {new if self.rollout.good else old: 100}]
        assert self.world.weights_seen == weights
        roles = [(old, "", ""), (old, new, "")]
        roles += [(new, "", old), (new, "", "")] if self.rollout.good else [(old, "", "")]
        assert [key for key, _ in itertools.groupby(map(_roles, self.statuses))] == roles

    async def _check_end(self) -> None:
        rollout, status = self.rollout, self.status
        stable = rollout.new if rollout.good else rollout.old
        state = {"Idle": "Promoted"} if rollout.good else {"RolledBack": "AnalysisFailed"}
        assert {status["rollout"]["state"]: status["rollout"]["reason"]} == state
        assert condition(status, "Ready")["status"] == "True"
        assert condition(status, "Stalled")["status"] == str(not rollout.good)
        rolled_back = [entry["revision"] for entry in status.get("rolledBack", ())]
        assert rolled_back.count(rollout.new) == (not rollout.good)
        await self.world.until("nothing else is left", lambda: self._has_children(stable))
        service = await self.world.get(SERVICE, "digits")
        assert service["spec"]["selector"][REVISION] == stable
        record = (await self.world.get(MODEL_REVISION, rollout.new))["status"]
        judged = {entry["verdict"] for entry in record.get("evidence", ())}
        # one that ended right after its decision may not have recorded what it turned on
        assert ("pass" if rollout.good else "fail") in judged or self._operators() > 1
        if not rollout.good:
            assert "errors: " in status["rolledBack"][-1]["message"]
        assert record.get("rolledBackReason") == (None if rollout.good else "AnalysisFailed")
        assert ("promotedTime" in record) == rollout.good

    async def _has_children(self, stable: str) -> bool:
        """Whether the objects of the stable revision are there and no others."""
        names = {stable: _OF_REVISION, "digits": {SERVICE.kind}}
        found: dict[str, set[str]] = {}
        for kind in (DEPLOYMENT, DISRUPTION_BUDGET, SERVICE):
            for item in (await self.world.kube.list(kind, namespace=self.world.namespace)).items:
                found.setdefault(item["metadata"]["name"], set()).add(kind.kind)
        return found == names

    async def _check_events(self) -> None:
        """Changes of roles were told, and told once; and no drift that was none."""
        listing = await self.world.kube.list(EVENT, namespace=self.world.namespace)
        new = self.rollout.new
        told = [item for item in listing.items if new in item["message"]]
        ended = [i for i in listing.items if i["reason"] == "BakeEnded"]
        ended = [i for i in ended if i["message"].startswith(self.rollout.old)]
        reasons = Counter(i["reason"] for i in (*told, *ended) if i["reason"] in _ROLE_CHANGES)
        end = ["Promoted", "BakeEnded"] if self.rollout.good else ["RolledBack"]
        expected = Counter(["RolloutStarted", "StepEntered", *end])
        assert reasons <= expected
        # one that ended in between may have said nothing of a step, but the end is always told
        assert reasons == expected or (self._operators() > 1 and reasons[end[0]] == 1)
        assert not [i for i in listing.items if i["reason"] == "RouteDrift"]

    def _operators(self) -> int:
        """How many operators decided in this rollout, one after the other."""
        return len({id(operator) for operator, _ in self.moments})

    def _check_invariants(self) -> None:
        """Of each operator by itself: one that could write nothing leaves no trace of what it
        decided, and what was written is in the path."""
        for _, decided in itertools.groupby(self.moments, key=lambda pair: id(pair[0])):
            ledger = Ledger()
            for _, moment in decided:
                check(moment, ledger)


@dataclass(frozen=True, slots=True)
class Views:
    """What the lanes look at, beside what the played parts see."""

    mdeps: Informer
    deployments: Informer

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.mdeps.run())
            group.create_task(self.deployments.run())


def _all_traffic(revision: str) -> Manifest:
    return {"revision": revision, "desiredPercent": 100, "confirmedPercent": 100}


def _roles(status: Manifest) -> tuple[str, str, str]:
    found = [(status.get(role) or {}).get("revision", "") for role in _ROLES]
    return found[0], found[1], found[2]


@contextmanager
def _recorded(lanes: dict[str, Lane]) -> Iterator[None]:
    """Every decision of the operator goes to its lane."""
    decide = Reconciler._decide

    def recording(self: Reconciler, subject: Subject, wanted: Wanted) -> Case:
        case = decide(self, subject, wanted)
        moment = Moment(
            wanted.spec,
            subject.status,
            case.observed,
            case.judgement,
            self.clock(),
            case.decision,
        )
        if subject.key.namespace in lanes:
            lanes[subject.key.namespace].decided(self, moment)
        return case

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reconciler, "_decide", recording)
        yield


@asynccontextmanager
async def _kept_running(configured: Settings) -> AsyncIterator[None]:
    """The operator in a pod: when it has lost its lease, the kubelet starts it again."""
    stop = asyncio.Event()

    async def keep() -> None:
        while not stop.is_set():
            with suppress(LeaseLostError):
                await run(configured, stop)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        stop.set()
        await keeping
        # NB: what it left undone is told here, not in the middle of whatever runs next
        gc.collect()


@asynccontextmanager
async def lanes_behind(
    plane: ControlPlane,
    namespaces: list[str],
    folder: Path,
    *,
    lease: LeaseSettings = NO_LEASE,
    **engine: Any,
) -> AsyncIterator[tuple[list[Lane], FaultProxy]]:
    """Lanes that serve, and the proxy before their operator.

    Args:
        plane: A control plane with its controllers.
        namespaces: One for each lane.
        folder: For files.
        lease: Whether the operator leads by a lease, as it does in a cluster; it is in the first
            namespace, and calls for it are of that lane.
        engine: Its `EngineSettings`.
    """
    configuration = await load_configuration(str(plane.kubeconfig))
    kube = KubeClient(configuration)
    feeds = Feeds(configuration)
    views = Views(Informer(configuration, MODEL_DEPLOYMENT), Informer(configuration, DEPLOYMENT))
    lanes = {name: Lane(World(kube, name, feeds), views) for name in namespaces}
    views.mdeps.seen.extend(lane.saw for lane in lanes.values())
    playing = [asyncio.create_task(lane.world.play()) for lane in lanes.values()]
    playing += [asyncio.create_task(feeds.run()), asyncio.create_task(views.run())]
    proxy = FaultProxy(configuration.host, configuration.ssl_ca_cert)
    proxy.fault = lambda call: (
        lanes[call.namespace].fault(call) if call.namespace in lanes and not call.watcher else None
    )
    try:
        async with proxy.serve():
            through = proxy.kubeconfig(plane.kubeconfig, folder)
            configured = settings(through, "", workers=len(lanes), **engine)
            cluster = replace(
                configured.cluster,
                namespaces=tuple(lanes),
                own_namespace=namespaces[0],
                timeout_s=CLIENT_TIMEOUT_S,
            )
            with _recorded(lanes):
                async with _kept_running(replace(configured, cluster=cluster, lease=lease)):
                    await asyncio.gather(*(lane.create() for lane in lanes.values()))
                    yield list(lanes.values()), proxy
    finally:
        for task in playing:
            await end(task)
        for lane in lanes.values():
            await lane.world.close()
        await kube.close()
