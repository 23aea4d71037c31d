"""S38: an operator process that is killed at each boundary of a rollout, and started again.

A boundary is the first write of each status and of each set of weights that the rollout goes
through. The process dies right before the API server gets it; the next one dies at the same write,
right after it was carried out and before anybody knows.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from model_operator.adapters.kube import EVENT
from model_operator.api.labels import ROLLED_BACK
from model_operator.core.httproute import read_weights
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import Behaviour, World, digest, model_deployment, world
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.pass_through import Call, DroppedError, PassThrough, pass_through

pytestmark = pytest.mark.timeout(180)

Manifest = dict[str, Any]
Boundary: TypeAlias = tuple[str, ...]
STEP_S: Final = 0.6
END_S: Final = 90.0


class Moment(enum.Enum):
    """When the process dies."""

    BEFORE = "before the write"
    AFTER = "after the write"


@dataclass(slots=True)
class Killer:
    """Kills a process at both moments of each boundary, and starts it again.

    Attributes:
        struck: Where it was killed, in order.
    """

    process: OperatorProcess
    struck: list[tuple[Moment, Boundary]] = field(default_factory=list)

    @property
    def boundaries(self) -> list[Boundary]:
        """Boundaries at which it was killed at both moments."""
        return [boundary for moment, boundary in self.struck if moment is Moment.AFTER]

    async def before(self, call: Call) -> None:
        self._strike(call, Moment.BEFORE)

    async def after(self, call: Call) -> None:
        if call.code < 300:
            self._strike(call, Moment.AFTER)

    def _strike(self, call: Call, moment: Moment) -> None:
        boundary = boundary_of(call)
        if boundary is None or (moment, boundary) in self.struck:
            return
        self.struck.append((moment, boundary))
        self.process.kill()
        self.process.start()
        raise DroppedError


def boundary_of(call: Call) -> Boundary | None:
    """What begins with a write, None when nothing does."""
    if sets_weights(call):
        weights = sorted(read_weights(call.body).items())
        marked = "marked" if ROLLED_BACK in (call.body["metadata"].get("annotations") or {}) else ""
        return ("route", marked, *(f"{revision}={weight}" for revision, weight in weights))
    if call.resource == "modeldeployments/status" and call.writes:
        status = call.body["status"]
        candidate = status.get("candidate") or {}
        return ("status", status["rollout"]["state"], *roles(status), str(candidate.get("step")))
    return None


def sets_weights(call: Call) -> bool:
    """Whether it applies a route; a new leader also marks it."""
    return call.resource == "httproutes" and call.writes and "spec" in call.body


def roles(status: Manifest) -> tuple[str, str]:
    """Stable and candidate."""
    stable, candidate = status.get("stable") or {}, status.get("candidate") or {}
    return stable.get("revision", ""), candidate.get("revision", "")


@asynccontextmanager
async def killed(
    played: World, control_plane: ControlPlane, folder: Path
) -> AsyncIterator[tuple[PassThrough, Killer]]:
    """An operator that is killed at each boundary from now on."""
    async with pass_through(control_plane.kubeconfig, folder / "operator.yaml") as way:
        process = OperatorProcess("operator", way.kubeconfig, played.namespace)
        killer = Killer(process)
        way.before, way.after = killer.before, killer.after
        try:
            process.start()
            yield way, killer
        finally:
            process.close()


@pytest.fixture
async def played(controllers: ControlPlane, namespace: str) -> AsyncIterator[World]:
    async with world(controllers.kubeconfig, namespace) as around:
        around.requests_per_s = 100.0
        yield around


async def alone(played: World, revision: str, state: str) -> Manifest:
    """Wait until the rollout is over and one revision is left; the status then."""

    async def over() -> bool:
        status = await played.status()
        return status["rollout"]["state"] == state and await played.deployments() == [revision]

    await played.until(f"{state}, with {revision} alone", over, END_S)
    return await played.status()


async def test_s38_a_good_rollout_ends_the_same_and_skips_and_repeats_nothing(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with killed(played, controllers, tmp_path) as (way, killer):
        await played.create(model_deployment(played.namespace))
        old = await played.until_ready()
        # when a good new model comes
        await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
        new = (await played.until_state("Baking", END_S))["stable"]["revision"]
        status = await alone(played, new, "Idle")
        # then it was killed at each of: introduced, two steps, promoted, the end of the bake
        states = Counter(boundary[1] for boundary in killer.boundaries if boundary[0] == "status")
        assert states >= Counter({"Progressing": 3, "Baking": 1, "Idle": 2})
        # and the end is the same
        assert roles(status) == (new, "")
        assert played.weights_seen == [
            {old: 100},
            {old: 90, new: 10},
            {old: 50, new: 50},
            {new: 100},
        ]
        # and every step was held as long as it says
        steps = [(weights, held_s) for weights, held_s in held(way) if len(weights) > 1]
        assert all(held_s >= STEP_S for _, held_s in steps), steps
        # and roles changed once each
        assert changes_of_roles(way) == [(old, ""), (old, new), (new, "")]
        await nothing_is_told_twice(played)
        assert len(written(way, new, "promotedTime")) == 1


async def test_s38_a_rollback_ends_the_same_and_its_weight_never_comes_back(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    played.behaviours[digest(2)] = Behaviour(error_share=0.5)
    async with killed(played, controllers, tmp_path) as (way, killer):
        await played.create(model_deployment(played.namespace))
        old = await played.until_ready()
        # when a bad model comes
        await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
        await played.until_state("RolledBack", END_S)
        status = await alone(played, old, "RolledBack")
        # then it was killed between the route's write and the status's, among others
        (rolled_back,) = status["rolledBack"]
        bad = rolled_back["revision"]
        assert any(kind == "route" and marked for kind, marked, *_ in killer.boundaries)
        assert any(boundary[:2] == ("status", "RolledBack") for boundary in killer.boundaries)
        # and the end is the same, reason and numbers too: the route remembers them
        assert rolled_back["reason"] == "AnalysisFailed"
        assert "errors" in rolled_back["message"]
        assert played.weights_seen == [{old: 100}, {old: 90, bad: 10}, {old: 100}]
        assert changes_of_roles(way) == [(old, ""), (old, bad), (old, "")]
        await nothing_is_told_twice(played)
        assert len(written(way, bad, "rolledBackTime")) == 1
        # and it is not tried again
        assert roles(await played.status()) == (old, "")


# ---------------------------------------------------------------------------------- what is used


def carried_out(way: PassThrough, resource: str) -> list[Call]:
    """Writes to a resource that were carried out, in order."""
    return [call for call in way.writes if call.resource == resource and call.code < 300]


def changes_of_roles(way: PassThrough) -> list[tuple[str, str]]:
    """Stable and candidate, each time that they changed, from the first stable on."""
    statuses = [call.body["status"] for call in carried_out(way, "modeldeployments/status")]
    found = [pair for pair, _ in groupby(map(roles, statuses))]
    return [pair for pair in found if pair[0]]


def held(way: PassThrough) -> list[tuple[dict[str, int], float]]:
    """Weights, and how long each of them lasted, seconds; without the last."""
    writes = [call for call in carried_out(way, "httproutes") if sets_weights(call)]
    first = [next(same) for _, same in groupby(writes, lambda call: read_weights(call.body))]
    return [(read_weights(one.body), next_.time_s - one.time_s) for one, next_ in pairwise(first)]


def written(way: PassThrough, revision: str, name: str) -> set[str]:
    """Values that a field of a ModelRevision's status has ever had."""
    statuses = [
        call.body["status"]
        for call in carried_out(way, "modelrevisions/status")
        if call.body["metadata"]["name"] == revision
    ]
    return {status[name] for status in statuses if status.get(name)}


async def nothing_is_told_twice(played: World) -> None:
    listing = await played.kube.list(EVENT, namespace=played.namespace)
    told = Counter(
        (item["reason"], item["message"])
        for item in listing.items
        if item.get("reportingComponent") == "model-operator"
    )
    assert set(told.values()) <= {1}
