"""From a status to the objects: replicas and weights."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus
from model_operator.core.decision import Plan
from model_operator.core.mark import Mark
from model_operator.core.observed import Observed, Route
from model_operator.core.steps import capacity
from model_operator.core.view import floor, next_percent

REDUNDANT = 2
"""Pods with which the loss of one is no outage."""


def make_plan(
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    observed: Observed,
    *,
    mark: Mark | None = None,
) -> Plan:
    """The objects that a status asks for.

    Args:
        spec: What the user asks for.
        status: The status after the decision.
        observed: The world: what is still on the route or still answers is not taken down.
        mark: A rollback that is carried out now; the route's own mark stays otherwise.
    """
    kept = observed.route.rolled_back if observed.route else None
    return Plan(
        replicas=_replicas(spec, status, observed),
        weights=_weights(status),
        tester=status.candidate.revision if status.candidate and status.stable else None,
        rolled_back=mark if mark is not None else kept,
    )


def foreign_weight(observed: Observed, allowed: AbstractSet[str]) -> bool:
    """Whether the live route gives weight to a revision that is not allowed any."""
    live = observed.route.weights if observed.route else {}
    return any(weight > 0 and revision not in allowed for revision, weight in live.items())


def _weights(status: ModelDeploymentStatus) -> dict[str, int]:
    if status.stable is None:
        return {}
    candidate = status.candidate
    if candidate is None or candidate.percent == 0:
        return {status.stable.revision: 100}
    weights = {
        status.stable.revision: 100 - candidate.percent,
        candidate.revision: candidate.percent,
    }
    return {revision: weight for revision, weight in weights.items() if weight > 0}


def _replicas(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, observed: Observed
) -> dict[str, int]:
    least = floor(spec, status)
    wanted: dict[str, int] = {}
    if status.former is not None:
        bake = spec.rollout.bake.replicas
        wanted[status.former.revision] = least if bake is None else min(bake, least)
    if status.candidate is not None:
        wanted[status.candidate.revision] = _candidate_replicas(spec, status, least)
    if status.stable is not None:
        wanted[status.stable.revision] = least
    leaving = _leaving(wanted, status, observed)
    if leaving and status.stable is not None:
        # it takes over what others had: fewer pods may do when all has come to rest
        stable = status.stable.revision
        wanted[stable] = max(least, observed.replicas(stable))
    return wanted | leaving


def _candidate_replicas(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, least: int
) -> int:
    """One weight ahead, so that no step waits for pods when its time is over.

    Two at least where stable has two: a candidate on a single pod would be taken for a bad one
    whenever a node is drained.
    """
    candidate = status.candidate
    if candidate is None or status.stable is None or candidate.warm:
        return max(1, least)
    ahead = capacity(least, max(candidate.percent, next_percent(spec, candidate.step)))
    return max(ahead, min(REDUNDANT, least))


def _leaving(
    wanted: dict[str, int], status: ModelDeploymentStatus, observed: Observed
) -> dict[str, int]:
    """Revisions that are in no role any more keep their pods until nothing reaches them."""
    if observed.route is None and not status.traffic:
        return {}  # nothing ever reached them
    return {
        revision: workload.replicas
        for revision, workload in observed.workloads.items()
        if revision not in wanted and not _is_drained(revision, observed.route)
    }


def _is_drained(revision: str, route: Route | None) -> bool:
    """Whether nothing reaches a revision: the gateway may still send by a route of before."""
    if route is None or not route.accepted:
        return False
    return route.weights.get(revision, 0) == 0 and revision in route.drained
