"""The invariants of design.md that one decision can be held against.

Each function takes what `decide` was given and what it answered, and asserts. They know the
rules from the design's words and share no code with the rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus
from model_operator.core.decision import Decision, RolledBack
from model_operator.core.observed import Judgement, Observed
from model_operator.core.verdict import Outcome

COUNTS_WITHOUT_METRICS = {
    "ReadinessCollapsed",
    "CrashLooping",
    "Aborted",
    "ProgressDeadlineExceeded",
    "Recovered",
    "DigestMismatch",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One call of `decide`."""

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    observed: Observed
    judgement: Judgement | None
    now: float
    decision: Decision


@dataclass(slots=True)
class Ledger:
    """What the checks remember from moment to moment."""

    dead: set[str] = field(default_factory=set)
    insufficient_s: float = 0.0
    last: Moment | None = None


def planned_percent(spec: ModelDeploymentSpec, step: int) -> int:
    weights = [s.set_weight.percent if s.set_weight else None for s in spec.rollout.steps]
    reached = [percent for percent in weights[: step + 1] if percent is not None]
    return reached[-1] if reached else 0


def outcome_for_candidate(moment: Moment) -> Outcome | None:
    """What the judgement says of the present candidate at its present weight."""
    candidate, judgement = moment.status.candidate, moment.judgement
    if candidate is None or judgement is None:
        return None
    trial = judgement.trial
    if (trial.revision, trial.rollout) != (candidate.revision, candidate.start_time):
        return None
    if judgement.verdict.outcome is not Outcome.FAIL and trial.percent != candidate.percent:
        return None
    return judgement.verdict.outcome


def rolled_back(moment: Moment) -> RolledBack | None:
    found = [t for t in moment.decision.transitions if isinstance(t, RolledBack)]
    return found[0] if found else None


def i1_weights_add_up(moment: Moment) -> None:
    weights = moment.decision.plan.weights
    assert not weights or sum(weights.values()) == 100
    candidate = moment.decision.status.candidate
    if candidate is None or moment.decision.status.stable is None:
        return
    if not candidate.warm:
        planned = planned_percent(moment.spec, candidate.step)
        assert weights.get(candidate.revision, 0) <= planned


def i2_rises_only_after_a_pass(moment: Moment) -> None:
    before, after = moment.status, moment.decision.status
    if before.candidate is None or before.stable is None or before.candidate.warm:
        return  # going back to a warm former revision is the recorded exception
    revision = before.candidate.revision
    was = before.candidate.percent
    now = moment.decision.plan.weights.get(revision, 0)
    promoted = after.stable is not None and after.stable.revision == revision
    if now > was > 0 or promoted:
        if promoted and was == 0:
            assert not any(s.set_weight for s in moment.spec.rollout.steps)
            return
        assert outcome_for_candidate(moment) is Outcome.PASS


def i3_weight_has_capacity(moment: Moment) -> None:
    before, after = moment.status.candidate, moment.decision.status.candidate
    if before is None or moment.status.stable is None:
        return
    revision, ready = before.revision, moment.observed.ready(before.revision)
    stable = moment.decision.status.stable
    if stable is not None and stable.revision == revision:
        assert ready >= max(1, moment.spec.replicas)
    elif after is not None and after.revision == revision and after.percent > before.percent:
        assert ready >= max(1, math.ceil(moment.spec.replicas * after.percent / 100))


def must_roll_back(moment: Moment) -> bool:
    """Bad news about a candidate that is on the traffic, and somewhere to go."""
    candidate, stable = moment.status.candidate, moment.status.stable
    if candidate is None or stable is None or moment.observed.ready(stable.revision) == 0:
        return False
    workload = moment.observed.workloads.get(candidate.revision)
    collapsed = candidate.percent > 0 and (workload is None or workload.ready == 0)
    definite = workload is not None and workload.failure is not None and workload.failure.definite
    return collapsed or definite or outcome_for_candidate(moment) is Outcome.FAIL


def i4_failure_takes_the_weight(moment: Moment, ledger: Ledger) -> None:
    weights, candidate = moment.decision.plan.weights, moment.status.candidate
    if must_roll_back(moment) and candidate is not None:
        assert weights.get(candidate.revision, 0) == 0
    ledger.dead &= {moment.observed.target.revision}  # others may be named again
    revived = moment.status.last_request != moment.decision.status.last_request
    request = moment.observed.request
    if revived and request is not None and request.action == "retry":
        ledger.dead.discard(request.revision)
    if (back := rolled_back(moment)) is not None:
        ledger.dead.add(back.revision)
    for revision in ledger.dead:
        assert weights.get(revision, 0) == 0, f"{revision} came back"


def i4_keeps_the_only_one_that_serves(moment: Moment) -> None:
    candidate, stable = moment.status.candidate, moment.status.stable
    if candidate is None or stable is None or candidate.percent == 0:
        return
    serves = moment.observed.ready(candidate.revision) > 0
    if serves and moment.observed.ready(stable.revision) == 0:
        kept = moment.decision.plan.weights.get(candidate.revision, 0)
        assert kept >= candidate.percent or moment.decision.status.stable != stable


def i11_missing_evidence_is_neither(moment: Moment, ledger: Ledger) -> None:
    outcome = outcome_for_candidate(moment)
    candidate = moment.status.candidate
    before = ledger.last
    elapsed = moment.now - before.now if before is not None else 0.0
    held = outcome is Outcome.INSUFFICIENT and candidate is not None and candidate.percent > 0
    ledger.insufficient_s = ledger.insufficient_s + elapsed if held else 0.0
    ledger.last = moment
    back = rolled_back(moment)
    if back is None or candidate is None or back.revision != candidate.revision:
        return
    if outcome is Outcome.ERROR:
        assert back.reason in COUNTS_WITHOUT_METRICS
    if back.reason == "InsufficientData":
        assert outcome is Outcome.INSUFFICIENT
        assert ledger.insufficient_s >= moment.spec.rollout.analysis.on_insufficient.hold.seconds


def i12_nothing_delays_a_rollback(moment: Moment) -> None:
    """A rollback that is due comes in this very decision, whatever else is broken."""
    if must_roll_back(moment):
        assert rolled_back(moment) is not None


def i8_rests_when_nothing_changed(moment: Moment) -> None:
    """A decision that changes nothing never asks to be made again at once."""
    next_s = moment.decision.next_s
    assert moment.decision.transitions or next_s is None or next_s > 0


def check(moment: Moment, ledger: Ledger) -> None:
    """All of them."""
    i8_rests_when_nothing_changed(moment)
    i1_weights_add_up(moment)
    i2_rises_only_after_a_pass(moment)
    i3_weight_has_capacity(moment)
    i4_failure_takes_the_weight(moment, ledger)
    i4_keeps_the_only_one_that_serves(moment)
    i11_missing_evidence_is_neither(moment, ledger)
    i12_nothing_delays_a_rollback(moment)
