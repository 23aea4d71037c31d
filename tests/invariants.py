"""The invariants of design.md that one decision can be held against.

Each function takes what `decide` was given and what it answered, and asserts. They know the
rules from the design's words and share no code with the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus
from model_operator.core.decision import (
    Decision,
    FirstFailed,
    Promoted,
    RolledBack,
    Superseded,
    describe,
)
from model_operator.core.observed import Judgement, Observed
from model_operator.core.verdict import Outcome

COUNTS_WITHOUT_METRICS = {
    "ReadinessCollapsed",
    "CrashLooping",
    "Aborted",
    "ProgressDeadlineExceeded",
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


def i1_weights_add_up(moment: Moment, _: Ledger) -> None:
    weights = moment.decision.plan.weights
    assert not weights or sum(weights.values()) == 100
    candidate = moment.decision.status.candidate
    if candidate is None or moment.decision.status.stable is None:
        return
    waits = moment.decision.status.rollout.reason == "NoHealthyTarget"
    if not candidate.warm and not waits:
        planned = planned_percent(moment.spec, candidate.step)
        before = moment.status.candidate
        if moment.spec.suspend or moment.decision.transitions:
            # steps that were edited a moment ago, or while nothing may change
            same = before is not None and before.revision == candidate.revision
            planned = max(planned, before.percent if same and before is not None else 0)
        assert weights.get(candidate.revision, 0) <= planned


def i2_rises_only_after_a_pass(moment: Moment, _: Ledger) -> None:
    before, after = moment.status, moment.decision.status
    if before.candidate is None or before.stable is None or before.candidate.warm:
        return  # going back to a warm former revision is the recorded exception
    revision = before.candidate.revision
    was = before.candidate.percent
    now = moment.decision.plan.weights.get(revision, 0)
    promoted = after.stable is not None and after.stable.revision == revision
    if now > was > 0 or promoted:
        assert outcome_for_candidate(moment) is Outcome.PASS


def i3_weight_has_capacity(moment: Moment, _: Ledger) -> None:
    before, after = moment.status.candidate, moment.decision.status.candidate
    if before is None or moment.status.stable is None:
        return
    revision, ready = before.revision, moment.observed.ready(before.revision)
    begun = [role.floor_replicas for role in (before, moment.status.former) if role is not None]
    pods = max([moment.spec.replicas, *begun])
    stable = moment.decision.status.stable
    if stable is not None and stable.revision == revision:
        assert ready >= max(1, pods)
    elif after is not None and after.revision == revision and after.percent > before.percent:
        assert ready >= max(1, math.ceil(pods * after.percent / 100))
    elif runs(moment):
        assert after is not None
        assert ready >= max(1, math.ceil(pods * after.percent / 100))


def runs(moment: Moment) -> bool:
    """Whether time counts for the candidate's weight, and nothing but time changed."""
    candidate, steps = moment.decision.status.candidate, moment.spec.rollout.steps
    if candidate is None or candidate.warm or not 0 <= candidate.step < len(steps):
        return False
    counts = candidate.step_clock_time is not None and steps[candidate.step].pause is None
    return counts and not moment.decision.transitions


def must_go_back(moment: Moment) -> bool:
    """Bad news about the revision that bakes, and the former one is there."""
    former, stable = moment.status.former, moment.status.stable
    if former is None or stable is None or moment.observed.ready(former.revision) == 0:
        return False
    if must_roll_back(moment):
        return False  # one thing after the other
    workload = moment.observed.workloads.get(stable.revision)
    collapsed = workload is None or (workload.replicas > 0 and workload.ready == 0)
    definite = workload is not None and workload.failure is not None and workload.failure.definite
    judgement = moment.judgement
    failed = (
        judgement is not None
        and judgement.verdict.outcome is Outcome.FAIL
        and judgement.trial.revision == stable.revision
        and judgement.trial.rollout == former.rollout_start_time
    )
    return collapsed or definite or failed


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


def i4_keeps_the_only_one_that_serves(moment: Moment, _: Ledger) -> None:
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
    route = moment.observed.route
    if route is not None and route.rolled_back is not None:
        mark = route.rolled_back
        if (mark.revision, mark.rollout) == (back.revision, candidate.start_time):
            return  # decided before, and told again by whoever came after a crash
    if outcome is Outcome.ERROR:
        assert back.reason in COUNTS_WITHOUT_METRICS
    if back.reason == "InsufficientData":
        assert outcome is Outcome.INSUFFICIENT
        assert ledger.insufficient_s >= moment.spec.rollout.analysis.on_insufficient.hold.seconds


def i12_nothing_delays_a_rollback(moment: Moment, _: Ledger) -> None:
    """A rollback that is due comes in this very decision, whatever else is broken."""
    if must_roll_back(moment):
        assert rolled_back(moment) is not None
    if must_go_back(moment) and moment.status.former is not None:
        assert rolled_back(moment) is not None
        assert moment.decision.plan.weights == {moment.status.former.revision: 100}


def i8_rests_when_nothing_changed(moment: Moment, _: Ledger) -> None:
    """A decision that changes nothing never asks to be made again at once."""
    next_s = moment.decision.next_s
    assert moment.decision.transitions or next_s is None or next_s > 0


def floor(moment: Moment) -> int:
    """Pods below which no revision that serves or is warm goes, until the bake's end."""
    status = moment.decision.status
    begun = [role.floor_replicas for role in (status.candidate, status.former) if role is not None]
    return max([moment.spec.replicas, *begun])


def i5_no_pod_goes_too_early(moment: Moment, _: Ledger) -> None:
    """Stable keeps its floor, and what is on the live route keeps its pods."""
    status, replicas = moment.decision.status, moment.decision.plan.replicas
    if status.stable is None:
        return
    assert replicas.get(status.stable.revision, 0) >= floor(moment)
    if status.former is not None and moment.spec.rollout.bake.replicas is None:
        assert replicas.get(status.former.revision, 0) >= floor(moment)
    route = moment.observed.route
    if moment.spec.replicas == 0:
        return  # nobody is to serve
    for revision, percent in (route.weights if route is not None else {}).items():
        workload = moment.observed.workloads.get(revision)
        if percent > 0 and workload is not None and workload.replicas > 0:
            assert replicas.get(revision, 0) > 0, f"{revision} is on the route"


def i6_one_candidate(moment: Moment, _: Ledger) -> None:
    """Weight for stable and one candidate only, and none for it before others have left."""
    before, status = moment.status, moment.decision.status
    roles = {role.revision for role in (status.stable, status.candidate) if role is not None}
    weighted = {name for name, percent in moment.decision.plan.weights.items() if percent > 0}
    assert weighted <= roles
    candidate = status.candidate
    if candidate is None or candidate.percent == 0 or before.stable is None:
        return
    assert status.former is None, "the first weight ends the bake"
    was = before.candidate
    rises = was is None or was.revision != candidate.revision or was.percent < candidate.percent
    live = moment.observed.route.weights if moment.observed.route is not None else {}
    strangers = {name for name, percent in live.items() if percent > 0} - roles
    assert not (rises and strangers), f"{strangers} are still on the route"


def role_weights(status: ModelDeploymentStatus) -> Mapping[str, int]:
    """The weights that follow from the roles alone."""
    if status.stable is None:
        return {}
    percent = status.candidate.percent if status.candidate is not None else 0
    weights = {status.stable.revision: 100 - percent}
    if status.candidate is not None:
        weights[status.candidate.revision] = percent
    return {name: weight for name, weight in weights.items() if weight > 0}


def i9_the_route_follows_the_roles(moment: Moment, _: Ledger) -> None:
    """Whatever others made of the route, the plan restores what was decided, and status says it."""
    weights, status = moment.decision.plan.weights, moment.decision.status
    assert weights == role_weights(status)
    told = {share.revision: share.desired_percent for share in status.traffic}
    assert {name: percent for name, percent in told.items() if percent > 0} == weights
    if not moment.decision.transitions:
        assert weights == role_weights(moment.status)


def i10_every_end_is_told(moment: Moment, _: Ledger) -> None:
    """No role ends without a transition, and that has words for the event and the record."""
    before, after = moment.status, moment.decision.status
    ends = [
        transition
        for transition in moment.decision.transitions
        if isinstance(transition, RolledBack | Promoted | Superseded | FirstFailed)
    ]
    for end in ends:
        event = describe(end)
        assert end.revision in event.message
        assert event.reason
    ended = {end.revision for end in ends}
    left = before.candidate.revision if before.candidate is not None else None
    stays = after.candidate.revision if after.candidate is not None else None
    assert left == stays or left is None or left in ended
    if before.stable is not None and after.stable is not None:
        changed = before.stable.revision != after.stable.revision
        assert not changed or {before.stable.revision, after.stable.revision} & ended
    if (back := rolled_back(moment)) is not None:
        assert back.reason
        assert back.message
        entry = after.rolled_back[-1]
        assert (entry.revision, entry.reason, entry.message) == (
            back.revision,
            back.reason,
            back.message,
        )


INVARIANTS: Mapping[str, tuple[Callable[[Moment, Ledger], None], ...]] = {
    "I1": (i1_weights_add_up,),
    "I2": (i2_rises_only_after_a_pass,),
    "I3": (i3_weight_has_capacity,),
    "I4": (i4_failure_takes_the_weight, i4_keeps_the_only_one_that_serves),
    "I5": (i5_no_pod_goes_too_early,),
    "I6": (i6_one_candidate,),
    "I8": (i8_rests_when_nothing_changed,),
    "I9": (i9_the_route_follows_the_roles,),
    "I10": (i10_every_end_is_told,),
    "I11": (i11_missing_evidence_is_neither,),
    "I12": (i12_nothing_delays_a_rollback,),
}
"""By number. I7 is about what an operator that died left behind: see `test_invariants.py`."""


def check(moment: Moment, ledger: Ledger, which: Collection[str] = tuple(INVARIANTS)) -> None:
    """Hold one decision against the invariants, all of them or some."""
    for name in which:
        for holds in INVARIANTS[name]:
            holds(moment, ledger)
