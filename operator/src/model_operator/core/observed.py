"""What `decide` sees: the world of one ModelDeployment at one moment, in counts and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_operator.core.mark import Mark
from model_operator.core.signatures import Signatures
from model_operator.core.verdict import Verdict

NO_ROOM = "InsufficientCapacity"
"""Reason of a failure, and of a rollout, when the cluster has no room for the pods."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a revision's pods cannot serve.

    Attributes:
        reason: CamelCase, from the server's termination message or the container's state.
        message: The loader's own words.
        definite: Waiting cannot mend it (wrong digest, unsupported model, out of memory while
            loading); a source that does not answer may come back.
    """

    reason: str
    message: str
    definite: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods of one revision.

    Attributes:
        replicas: What its Deployment asks for.
        ready: Pods that are ready and not terminating. Ready implies loaded and warmed up.
        failure: The worst failure among its pods, none when all is well.
        crash_looping: A container of it is restarted again and again.
    """

    replicas: int
    ready: int
    failure: Failure | None = None
    crash_looping: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """The live route.

    Attributes:
        weights: Percent by revision as the route has it now.
        accepted: Every parent accepted it and resolved its references at this generation.
        drained: Revisions without weight that have had no new request for the settling time, or
            have no pod left.
        rolled_back: The last rollback. It survives an operator that dies between the route's
            write and the status's.
        message: What a parent says when it did not accept.
        refused: It did say no; otherwise it has not answered yet.
    """

    weights: Mapping[str, int]
    accepted: bool
    drained: frozenset[str] = frozenset()
    rolled_back: Mark | None = None
    message: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The revision that the spec names."""

    revision: str
    digest: str


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for by annotation.

    Attributes:
        action: ``promote`` (end the present pause), ``abort``, or ``retry``.
        revision: Whom it is about; refused when it is about another than the present one.
    """

    id: str
    action: str
    revision: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What is analysed: a revision at one weight of one rollout, or in its bake.

    Attributes:
        rollout: Start time of the rollout; a retry is another rollout of the same revision.
        level: Index of the step that set the weight; `BAKE_LEVEL` in the bake.
        percent: The revision's weight, percent.
        stable: The revision to compare it with; None in the bake, when nothing else is on
            the traffic.
    """

    revision: str
    rollout: str
    level: int
    percent: int
    stable: str | None

    @property
    def weight_id(self) -> int:
        """A number of its own for each step and weight: evidence is gathered for both together.

        The weight of a step can be edited while it is held.
        """
        return self.level * (_ALL + 1) + self.percent


_ALL = 100
BAKE_LEVEL = 1_000
"""Level of a `Trial` in its bake: after every step."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the analysis makes of the present samples, and of whom and when it speaks.

    Attributes:
        trial: It is ignored when another revision, rollout or step is the present one; only a
            failure at an earlier step of the same rollout still counts.
    """

    trial: Trial
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Observed:
    """The world of one ModelDeployment.

    Attributes:
        name: Of the ModelDeployment.
        generation: Of the spec that is looked at.
        target: The revision that the spec names.
        workloads: By revision; a revision without a Deployment is absent.
        route: None when there is none yet.
        request: A person's request, if any; it may be an old one.
        signatures: What its revisions take and give.
        rollback_enabled: False only under a test switch, to show that tests notice.
    """

    name: str
    generation: int
    target: Target
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    route: Route | None = None
    request: Request | None = None
    signatures: Signatures = field(default_factory=Signatures)
    rollback_enabled: bool = True

    def ready(self, revision: str | None) -> int:
        """Ready pods of a revision; 0 for one that has no Deployment."""
        workload = self.workloads.get(revision or "")
        return workload.ready if workload else 0

    def replicas(self, revision: str | None) -> int:
        """Pods that a revision's Deployment asks for; 0 when there is none."""
        workload = self.workloads.get(revision or "")
        return workload.replicas if workload else 0

    def weight(self, revision: str) -> int:
        """Percent that the live route gives to a revision."""
        return self.route.weights.get(revision, 0) if self.route else 0
