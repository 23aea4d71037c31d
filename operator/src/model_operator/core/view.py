"""One reconcile's inputs with the questions that the rules ask of them."""

from __future__ import annotations

from dataclasses import dataclass

from model_operator.api.times import format_time
from model_operator.api.types import (
    CandidateStatus,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RolloutState,
    RolloutStatus,
    replace,
)
from model_operator.core.decision import Transition
from model_operator.core.mark import Mark
from model_operator.core.observed import BAKE_LEVEL, Judgement, Observed, Trial
from model_operator.core.steps import PREFLIGHT, capacity, level, percent_at
from model_operator.core.verdict import Outcome, Verdict

ALL = 100
"""All of the traffic, percent."""


@dataclass(frozen=True, slots=True)
class Change:
    """A new status and what changed on the way to it; the plan follows from the status."""

    status: ModelDeploymentStatus
    transitions: tuple[Transition, ...] = ()
    mark: Mark | None = None
    """The rollback that this change is."""


@dataclass(frozen=True, slots=True)
class View:
    """Inputs of `decide`.

    Attributes:
        now: Seconds since the epoch.
    """

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    observed: Observed
    judgement: Judgement | None
    now: float

    @property
    def time(self) -> str:
        """Now, as it is written into status."""
        return format_time(self.now)

    @property
    def stable(self) -> str | None:
        """Name of the stable revision."""
        return self.status.stable.revision if self.status.stable else None

    @property
    def floor(self) -> int:
        """Pods that no serving or warm revision goes below: spec's, or more during a rollout."""
        return floor(self.spec, self.status)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the present trial, if there is one."""
        present = trial(self.spec, self.status)
        if self.judgement is None or self.judgement.trial != present:
            return None
        return self.judgement.verdict

    def failed(self, revision: str, rollout: str | None) -> Verdict | None:
        """The failing verdict on a revision in a rollout; from whatever step, a failure counts."""
        judgement = self.judgement
        if (
            judgement is None
            or judgement.verdict.outcome is not Outcome.FAIL
            or judgement.trial.revision != revision
            or judgement.trial.rollout != rollout
        ):
            return None
        return judgement.verdict

    def needed(self, percent: int) -> int:
        """Ready pods that a revision needs before it gets a weight."""
        return capacity(self.floor, percent)

    def state(self, state: RolloutState, reason: str = "", message: str = "") -> RolloutStatus:
        """The rollout's state; its time stays when nothing but the message changed."""
        before = self.status.rollout
        same = (before.state, before.reason) == (state, reason) and before.since_time is not None
        since = before.since_time if same else self.time
        return RolloutStatus(state=state, reason=reason, message=message, since_time=since)

    def with_candidate(
        self,
        candidate: CandidateStatus,
        rollout: RolloutStatus,
        *transitions: Transition,
    ) -> Change:
        """A change of the candidate and the rollout's state."""
        status = replace(self.status, candidate=candidate, rollout=rollout)
        return Change(status, transitions)


def floor(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> int:
    """Pods that no serving or warm revision goes below.

    The larger of ``spec.replicas`` and the count when the rollout began, until its bake ends.
    """
    counts = [spec.replicas]
    if status.candidate is not None:
        counts.append(status.candidate.floor_replicas)
    if status.former is not None:
        counts.append(status.former.floor_replicas)
    return max(counts)


def trial(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> Trial | None:
    """What is to be analysed now; None while no revision is on trial under traffic."""
    candidate, stable, former = status.candidate, status.stable, status.former
    if candidate is not None and stable is not None and candidate.percent > 0:
        return Trial(
            revision=candidate.revision,
            rollout=candidate.start_time or "",
            level=level(spec.rollout.steps, candidate.step),
            percent=candidate.percent,
            stable=stable.revision if candidate.percent < ALL else None,
        )
    if former is not None and stable is not None:
        return Trial(
            revision=stable.revision,
            rollout=former.rollout_start_time or "",
            level=BAKE_LEVEL,
            percent=ALL,
            stable=None,
        )
    return None


def next_percent(spec: ModelDeploymentSpec, step: int) -> int:
    """The next weight above the present one, percent; 100 after the last step."""
    steps = spec.rollout.steps
    for index in range(max(step, PREFLIGHT) + 1, len(steps) + 1):
        percent = percent_at(steps, index)
        if percent > percent_at(steps, step):
            return percent
    return 100
