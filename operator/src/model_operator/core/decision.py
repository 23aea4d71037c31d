"""What `decide` answers: the desired state, the status to write, and what changed and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never

from model_operator.api.types import ModelDeploymentStatus
from model_operator.core.mark import Mark


@dataclass(frozen=True, slots=True)
class Plan:
    """What must be true of the objects.

    Attributes:
        replicas: Pods by revision. A revision that has objects and is not named here is drained:
            its Deployment, Service and budget are deleted.
        weights: Percent by revision, adding up to 100; empty while nothing may serve yet, and
            then no route is made or touched.
        tester: Revision that requests with the tester header reach; None for none.
        rolled_back: The route's memory of its last rollback.
    """

    replicas: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    tester: str | None = None
    rolled_back: Mark | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A revision became the candidate.

    Attributes:
        warm: It was stable before and still runs: the user goes back to it, without steps.
    """

    revision: str
    warm: bool = False


@dataclass(frozen=True, slots=True)
class StepEntered:
    """The plan moved to a step."""

    revision: str
    step: int
    percent: int


@dataclass(frozen=True, slots=True)
class PauseEntered:
    """A pause began."""

    revision: str
    step: int


@dataclass(frozen=True, slots=True)
class HoldBegan:
    """The weight is frozen and the clock stopped, for want of evidence."""

    revision: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """Evidence is there again."""

    revision: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """The candidate became stable.

    Attributes:
        former: The revision that was stable; None on the first create.
    """

    revision: str
    former: str | None


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A revision was taken off the traffic, or never got any."""

    revision: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """The spec names another revision than the candidate; not the candidate's fault."""

    revision: str
    by: str


@dataclass(frozen=True, slots=True)
class BakeEnded:
    """The former stable is let go."""

    revision: str


@dataclass(frozen=True, slots=True)
class FirstFailed:
    """The very first revision cannot serve; there is nothing to go back to."""

    revision: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """A person's request was carried out or refused."""

    action: str
    revision: str
    result: str


@dataclass(frozen=True, slots=True)
class NoHealthyTarget:
    """A rollback is due, but no stable pod is ready to take the traffic."""

    revision: str
    message: str


Transition: TypeAlias = (
    Started
    | StepEntered
    | PauseEntered
    | HoldBegan
    | HoldEnded
    | Promoted
    | RolledBack
    | Superseded
    | BakeEnded
    | FirstFailed
    | RequestAnswered
    | NoHealthyTarget
)


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event in the making."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def describe(transition: Transition) -> Event:  # noqa: C901, PLR0911, PLR0912 - a closed union
    """The event that tells people of a transition."""
    match transition:
        case Started(revision, warm):
            how = ": it is still warm, so its steps are skipped" if warm else ""
            return Event("Normal", "RolloutStarted", f"{revision} is the candidate{how}")
        case StepEntered(revision, step, percent):
            return Event("Normal", "StepEntered", f"{revision} gets {percent} % at step {step}")
        case PauseEntered(revision, step):
            return Event("Normal", "Paused", f"{revision} waits at step {step}")
        case HoldBegan(revision, reason, message):
            return Event("Warning", reason, f"{revision} is held: {message}")
        case HoldEnded(revision):
            return Event("Normal", "Resumed", f"{revision} goes on: evidence is there again")
        case Promoted(revision, former):
            instead = f" instead of {former}" if former else ""
            return Event("Normal", "Promoted", f"{revision} is stable{instead}")
        case RolledBack(revision, reason, message):
            return Event("Warning", "RolledBack", f"{revision}: {reason}: {message}")
        case Superseded(revision, by):
            return Event("Normal", "Superseded", f"{revision} gives way to {by}")
        case BakeEnded(revision):
            return Event("Normal", "BakeEnded", f"{revision} is let go")
        case FirstFailed(revision, reason, message):
            return Event("Warning", reason, f"{revision} cannot serve: {message}")
        case RequestAnswered(action, revision, result):
            return Event("Normal", "Request", f"{action} {revision}: {result}")
        case NoHealthyTarget(revision, message):
            return Event("Warning", "NoHealthyTarget", f"{revision} keeps its traffic: {message}")
        case _:
            assert_never(transition)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `decide`.

    Attributes:
        plan: The desired state.
        status: The status to write, whole.
        route_first: The candidate's weight falls: the route is written before anything else and
            nothing that fails on the way delays it. Otherwise workloads come first, then the
            status, then the route.
        transitions: What changed, in order.
        next_s: Seconds until time alone changes the decision; None when only an event can.
    """

    plan: Plan
    status: ModelDeploymentStatus
    route_first: bool = False
    transitions: tuple[Transition, ...] = ()
    next_s: float | None = None
