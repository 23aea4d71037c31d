"""A stage for one scenario: a namespace with a file server, a load generator and a recorder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from hack.demo import manifests
from hack.demo.cluster import LoadGenerator, kubectl
from hack.demo.faults import IN_FLIGHT_S, may_be_lost
from hack.demo.history import Applied, History, Journal, Outcome
from hack.demo.recorder import Recorder
from hack.demo.train import Models, TrainedModel
from tests.e2e import nodes
from tests.e2e.backstage import Backstage
from tests.e2e.history_invariants import check
from tests.e2e.witness import Interval, events_of, last_write

NAME = manifests.MODEL_DEPLOYMENT
READY_S = 120.0
STILL_S = 2.0
"""Between two writes of the operator it is never this long while something is left to be done."""

RESTED_S = 4.0


@dataclass(slots=True)
class Scene:
    """One ModelDeployment under load on a real cluster.

    Attributes:
        namespace: Its namespace.
        models: What the file server has.
        recorder: Follows statuses, routes and answers.
        step_s: How long each weight is held, seconds.
        disturbed: When the test kept the operator, the API server or the gateway from working,
            seconds since the epoch.
        drained: When the test took pods off a node, by and by.
        rested: When the test saw to it that nothing was left to be done.
        lost: Requests that the test itself broke, and that may fail beside the candidate's.
    """

    namespace: str
    models: Models
    recorder: Recorder
    step_s: int
    folder: Path
    disturbed: list[Interval] = field(default_factory=list)
    drained: list[Interval] = field(default_factory=list)
    rested: list[Interval] = field(default_factory=list)
    lost: int = 0

    @property
    def place(self) -> manifests.Place:
        return manifests.Place(self.namespace, f"{self.namespace}.example.com", self.step_s)

    @property
    def history(self) -> History:
        return self.recorder.history()

    def model(self, version: int) -> TrainedModel:
        return next(model for model in self.models.versions if model.version == version)

    def manifest(self, version: int) -> dict[str, Any]:
        return manifests.model_deployment(self.place, self.model(version))

    def apply(
        self,
        version: int,
        *,
        expected: Outcome = Outcome.PROMOTED,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> Applied:
        """Apply a version, as `kubectl apply` does it, perhaps with a changed manifest."""
        manifest = self.manifest(version)
        if change is not None:
            change(manifest)
        first = not self.history.applied
        applied = Applied(
            at=time.time(),
            version=version,
            title=self.model(version).title,
            digest=manifest["spec"]["model"]["digest"],
            expected=expected,
            steps=() if first else manifests.weights(manifest),
            hold_s=manifests.hold_s(manifest),
        )
        self.recorder.applied(applied)
        path = self.folder / f"{NAME}-{version}.yaml"
        path.write_text(yaml.safe_dump(manifest))
        kubectl("apply", "-f", str(path))
        return applied

    def wait(self, what: str, condition: Callable[[History], bool], timeout_s: float) -> History:
        """Wait until the history shows something; fail with the last status otherwise."""
        if not self.recorder.wait_for(condition, timeout_s):
            status = self.history.status
            raise AssertionError(
                f"{what}: not within {timeout_s:g} s\nrollout {status.rollout}\n"
                f"candidate {status.candidate}\ntraffic {status.traffic}\n"
                f"conditions {status.conditions}\nroute {dict(self.history.weights)}"
            )
        return self.history

    def serving(self, version: int = 1, rate: float = 100.0) -> Scene:
        """A first version that serves, under load."""
        applied = self.apply(version)
        self.wait("first version ready", lambda h: is_ready(h, applied.digest), READY_S)
        self.recorder.start_load(rate)
        return self

    def wait_for_weight(self, digest: str, percent: int, timeout_s: float = 90.0) -> str:
        """Wait until the gateway was told a weight for a model; its revision."""

        def there(history: History) -> bool:
            revision = history.revision_of(digest)
            return revision is not None and history.weights.get(revision, 0) == percent

        history = self.wait(f"{percent} % for {digest[:14]}", there, timeout_s)
        revision = history.revision_of(digest)
        assert revision is not None
        return revision

    def wait_for_rollback(self, timeout_s: float = 90.0) -> str:
        """Wait until the newest applied version is rolled back and off; its reason and message."""
        digest = self.history.applied[-1].digest

        def gone(history: History) -> bool:
            revision = history.revision_of(digest)
            listed = [e for e in history.status.rolled_back if e.revision == revision]
            return bool(listed) and history.weights.get(revision or "", 0) == 0

        status = self.wait("rollback", gone, timeout_s).status
        return f"{status.rollout.reason}: {status.rollout.message}"

    def wait_for_promotion(self, timeout_s: float = 180.0) -> History:
        """Wait until the newest applied version has everything and its bake is over."""
        digest = self.history.applied[-1].digest

        def settled(history: History) -> bool:
            stable = history.status.stable
            revision = history.revision_of(digest)
            return (
                stable is not None
                and stable.revision == revision
                and history.status.former is None
                and history.status.candidate is None
            )

        return self.wait("promotion", settled, timeout_s)

    @contextmanager
    def disturbance(self) -> Iterator[None]:
        """A time in which something that the operator needs does not work."""
        begin = time.time()
        try:
            yield
        finally:
            self.disturbed.append((begin, time.time()))

    @contextmanager
    def draining(self, node: str) -> Iterator[None]:
        """A time in which a node has none of the model's pods, and takes nothing new."""
        begin = time.time()
        try:
            with nodes.drained(node, NAME):
                yield
        finally:
            self.drained.append((begin, time.time()))

    def rest(self) -> None:
        """Wait until the operator has done all there is to do, then watch that it leaves it so."""
        self.wait(
            "at rest",
            lambda h: is_settled(h) and time.time() - last_write(h) > STILL_S,
            timeout_s=30,
        )
        begin = time.time()
        time.sleep(RESTED_S)
        self.rested.append((begin, time.time()))

    def may_lose(self, share: float, exposed_s: float) -> None:
        """Allow for a share of the requests, 0 to 1, that had nowhere to go for a while."""
        rate = self.history.loads[-1].rate
        self.lost += may_be_lost(rate, share, exposed_s + IN_FLIGHT_S)

    def check(self) -> None:
        """Hold the whole history against the invariants."""
        check(
            self.stop(),
            told=events_of(self.namespace),
            disturbed=self.disturbed,
            drained=self.drained,
            rested=self.rested,
            lost=self.lost,
        )

    def stop(self) -> History:
        """Stop the load; the whole history."""
        if self.history.loads:
            self.recorder.stop_load()
        return self.history


def is_settled(history: History) -> bool:
    """Whether no rollout is under way, and the gateway does what it was told."""
    status = history.status
    confirmed = all(share.confirmed_percent == share.desired_percent for share in status.traffic)
    return confirmed and status.candidate is None and status.former is None


def is_ready(history: History, digest: str) -> bool:
    status = history.status
    return any(c.type == "Ready" and c.status == "True" for c in status.conditions) and (
        status.stable is not None and status.stable.digest == digest
    )


def failed(history: History, *, but: str = "") -> int:
    """Requests without a good answer, but for those that one revision answered."""
    return sum(c.count for c in history.cells() if not c.ok and c.revision != but)


def weights_of(history: History, revision: str) -> list[int]:
    """The revision's weights above 0 in the order in which the gateway was told them."""
    return [span.percent for span in history.spans(revision) if span.percent > 0]


@contextmanager
def scene(
    api: client.ApiClient, namespace: str, backstage: Backstage, folder: Path, step_s: int
) -> Iterator[Scene]:
    """Take a namespace, hold the history against the invariants, and remove it.

    A test that failed itself is not hidden by its invariants.
    """
    backstage.take(namespace)
    journal = Journal(folder / "history.jsonl")
    load = LoadGenerator(api, namespace)
    try:
        with Recorder(api, namespace=namespace, name=NAME, journal=journal, load=load) as recorder:
            the_scene = Scene(namespace, backstage.models, recorder, step_s, folder)
            yield the_scene
            the_scene.check()
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
