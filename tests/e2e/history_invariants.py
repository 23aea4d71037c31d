"""The invariants that can be seen from outside, over the recorded history of a whole scene.

`tests/invariants.py` holds single decisions against them; here it is what a cluster was told, said
and answered. The rules are written from the invariants' words and share no code with the operator.

Not seen from outside are I7 (what an operator that died would have done) and I12 (what else was
broken). Of I8 only writes are seen, and only where a scene has waited until nothing was left to be
done. Ready pods (I5) and what was known of the metrics (I11) are what status said of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hack.demo.history import FULL_PERCENT, History, StatusSeen
from model_operator.api.times import parse_time
from model_operator.api.types import ModelDeploymentStatus
from tests.e2e.evidence_invariants import (
    WRITTEN_S,
    i10_every_other_end_is_told,
    i10_every_rollback_is_told,
    i11_missing_evidence_is_no_failure,
)
from tests.e2e.witness import (
    WATCH_LAG_S,
    Interval,
    Told,
    Weights,
    Witness,
    desired,
)

UNDONE_S: Final = 1.0
"""I9: drift made by others is undone within this."""

SHARED_S: Final = 2.0
"""What a machine that runs all other tests too may take longer; S25 itself has its second."""

OFF_S: Final = 2.0
"""I4: the weight is 0 this long after the failing verdict at the latest."""


def check(
    history: History,
    *,
    told: Sequence[Told] | None = None,
    disturbed: Sequence[Interval] = (),
    drained: Sequence[Interval] = (),
    rested: Sequence[Interval] = (),
    lost: int = 0,
) -> None:
    """Hold a history against the invariants.

    Args:
        history: What was recorded.
        told: The events that were posted (`witness.events_of`); None leaves them unchecked.
        disturbed: When the scene kept the operator, the API server or the gateway from working:
            from the first blow until the scene has seen that it works again. Time limits stand
            still in it, and what is only written afterwards (evidence, events) may be missing.
        drained: When the scene took pods off a node one by one, as a disruption budget lets it.
        rested: When nothing was left to be done, and nothing was asked for.
        lost: Requests that may have failed at most, beside those that a revision on trial answered:
            those that the scene itself broke, in flight to a node that it stopped.

    Raises:
        AssertionError: With every violation, one a line.
    """
    found = violations(
        history, told=told, disturbed=disturbed, drained=drained, rested=rested, lost=lost
    )
    assert not found, "invariants broken:\n" + "\n".join(found)


def violations(
    history: History,
    *,
    told: Sequence[Told] | None = None,
    disturbed: Sequence[Interval] = (),
    drained: Sequence[Interval] = (),
    rested: Sequence[Interval] = (),
    lost: int = 0,
) -> list[str]:
    """What `check` would complain of, each beginning with the invariant's number."""
    seen = Witness(history, told, tuple(disturbed), tuple(drained), tuple(rested))
    return [
        *_i1_weights_add_up(seen),
        *_i2_rises_only_after_a_pass(seen),
        *_i3_weight_has_capacity(seen),
        *_i4_stays_off(seen),
        *_i4_failure_takes_the_weight(seen),
        *_i4_no_request_without_weight(seen),
        *_i5_stable_keeps_its_pods(seen),
        *_i5_stable_stays_ready(seen),
        *_i5_no_request_lost(seen, lost),
        *_i6_one_candidate(seen),
        *_i8_rest_means_no_writes(seen),
        *_i9_route_is_as_desired(seen),
        *i10_every_rollback_is_told(seen),
        *i10_every_other_end_is_told(seen),
        *i11_missing_evidence_is_no_failure(seen),
    ]


def _i1_weights_add_up(witness: Witness) -> Iterator[str]:
    for seen in witness.history.statuses:
        weights, candidate = desired(seen.status), seen.status.candidate
        if weights and sum(weights.values()) != FULL_PERCENT:
            yield f"I1: status wanted {dict(weights)} {witness.clock(seen.at)}"
        if candidate is None or seen.status.stable is None:
            continue
        plans = witness.plans(candidate.digest, seen.at)
        highest = max((max(plan, default=0) for plan in plans), default=FULL_PERCENT)
        if candidate.percent > highest and not candidate.warm:
            yield (
                f"I1: {candidate.revision} was planned at {candidate.percent} % "
                f"{witness.clock(seen.at)}, its steps say at most {highest} %"
            )
        if weights.get(candidate.revision, 0) > candidate.percent:
            yield f"I1: {candidate.revision} was above its step {witness.clock(seen.at)}"


def _i2_rises_only_after_a_pass(witness: Witness) -> Iterator[str]:
    for rise in witness.rises():
        plans = {plan for plan in witness.plans(rise.digest, rise.at) if plan}
        path = [0, *plans.pop(), FULL_PERCENT] if len(plans) == 1 else []
        in_order = not path or rise.after == _next(path, rise.before)
        if not in_order and not witness.is_disturbed(rise.at):
            yield f"I2: {rise} {witness.clock(rise.at)}, planned are {path}"
        unrecorded = rise.before > 0 and not witness.passed(rise)
        if unrecorded and not witness.is_disturbed(rise.at, WRITTEN_S):
            yield f"I2: {rise} {witness.clock(rise.at)} without a recorded pass"


def _next(path: list[int], percent: int) -> int:
    """The next weight above `percent`: steps that repeat a weight or go down do not move it."""
    return next((weight for weight in path if weight > percent), FULL_PERCENT)


def _i3_weight_has_capacity(witness: Witness) -> Iterator[str]:
    for before, seen in witness.changes():
        old, new, stable = before.status.candidate, seen.status.candidate, seen.status.stable
        if old is not None and stable is not None and stable.revision == old.revision:
            need = max(1, old.floor_replicas) if before.status.stable is not None else 1
            if stable.ready_replicas < need:
                yield (
                    f"I3: {old.revision} was promoted with {stable.ready_replicas} of {need} pods "
                    f"{witness.clock(seen.at)}"
                )
        if new is None or stable is None:
            continue
        was = old.percent if old is not None and old.revision == new.revision else 0
        need = max(1, math.ceil(new.floor_replicas * new.percent / FULL_PERCENT))
        if new.percent > was and new.ready_replicas < need:
            yield (
                f"I3: {new.revision} went to {new.percent} % with {new.ready_replicas} of {need} "
                f"pods {witness.clock(seen.at)}"
            )


def _i4_stays_off(witness: Witness) -> Iterator[str]:
    """What was rolled back has no weight while it is listed, and is not forgotten by itself."""
    history = witness.history
    ends = [*(seen.at for seen in history.statuses[1:]), history.end]
    weighted_s: dict[str, float] = {}
    for seen, end in zip(history.statuses, ends, strict=False):
        for revision in {entry.revision for entry in seen.status.rolled_back}:
            for span in history.spans(revision):
                begin, stop = max(span.start, seen.at), min(span.end, end)
                if span.percent > 0 and begin < stop:
                    seconds = weighted_s.get(revision, 0.0) + witness.quiet_s(begin, stop)
                    weighted_s[revision] = seconds
    for revision, seconds in weighted_s.items():
        if seconds > UNDONE_S + WATCH_LAG_S:
            yield f"I4: {revision} had weight for {seconds:.1f} s although it was rolled back"
    for before, seen in witness.changes():
        listed, still = before.status.rolled_back, seen.status.rolled_back
        gone = {entry.revision for entry in listed} - {entry.revision for entry in still}
        asked = before.status.last_request != seen.status.last_request
        if gone and not asked and before.generation == seen.generation and len(still) < len(listed):
            yield f"I4: {sorted(gone)} was forgotten {witness.clock(seen.at)}, and nobody asked"


def _i4_failure_takes_the_weight(witness: Witness) -> Iterator[str]:
    failures = {
        (seen.name, parse_time(entry.time))
        for seen in witness.history.revisions
        for entry in seen.status.evidence
        if entry.verdict == "fail" == seen.status.verdict
    }
    for revision, at in sorted(failures):
        for span in witness.intended(revision):
            if span.percent == 0 or not span.start <= at < span.end:
                continue
            late_s = witness.quiet_s(at, span.end)
            nowhere_to_go = any(
                status.rollout.reason == "NoHealthyTarget" for status in witness.around(at + OFF_S)
            )
            if late_s > OFF_S + WATCH_LAG_S and not nowhere_to_go:
                yield f"I4: {revision} kept {span.percent} % for {late_s:.1f} s after it failed"


def _i4_no_request_without_weight(witness: Witness) -> Iterator[str]:
    history = witness.history
    for revision in dict.fromkeys(seen.name for seen in history.revisions):
        intervals = witness.open_for(revision)
        for cell in history.cells(revision):
            sent = (cell.first_sent, cell.last_sent)
            if not all(any(begin <= at <= end for begin, end in intervals) for at in sent):
                yield (
                    f"I4: requests reached {revision} {witness.clock(cell.last_sent)}, before its "
                    "first weight or after its 0 was confirmed"
                )
                break


def _i5_stable_keeps_its_pods(witness: Witness) -> Iterator[str]:
    for seen in witness.history.statuses:
        candidate, stable = seen.status.candidate, seen.status.stable
        if candidate is None or stable is None or candidate.percent == 0:
            continue
        if stable.replicas < candidate.floor_replicas:
            yield (
                f"I5: {stable.revision} was to have {stable.replicas} pods "
                f"{witness.clock(seen.at)}, the rollout began with {candidate.floor_replicas}"
            )


def _i5_stable_stays_ready(witness: Witness) -> Iterator[str]:
    """No rollout takes a ready pod below the floor.

    A drain takes one at a time, and the scene's own blows leave at least one: what they took may be
    missing until the floor is reached again.
    """
    least: dict[str, int] = {}
    for seen in witness.history.statuses:
        floors = _floors(seen.status)
        least = {revision: ready for revision, ready in least.items() if revision in floors}
        for revision, (ready, floor) in floors.items():
            if ready >= floor:
                least.pop(revision, None)
                continue
            if witness.is_disturbed(seen.at):
                least[revision] = 1
            elif witness.is_drained(seen.at):
                least.setdefault(revision, floor - 1)
            if ready < max(1, least.get(revision, floor)):
                yield (f"I5: {revision} had {ready} ready pods of {floor} {witness.clock(seen.at)}")


def _floors(status: ModelDeploymentStatus) -> Mapping[str, tuple[int, int]]:
    """Ready pods and floor of the stable revision, during a rollout and its bake."""
    candidate, stable, former = status.candidate, status.stable, status.former
    if stable is None:
        return {}
    if candidate is not None and candidate.percent > 0:
        return {stable.revision: (stable.ready_replicas, candidate.floor_replicas)}
    if former is not None:
        return {stable.revision: (stable.ready_replicas, former.floor_replicas)}
    return {}


def _i5_no_request_lost(witness: Witness, lost: int) -> Iterator[str]:
    bad = (cell for cell in witness.history.cells() if not cell.ok)
    failed = [cell for cell in bad if not witness.is_by_candidate(cell)]
    count = sum(cell.count for cell in failed)
    if count > lost:
        words = sorted({f"{cell.code} from {cell.revision}" for cell in failed})
        first = witness.clock(min(cell.first_sent for cell in failed))
        yield (
            f"I5: {count} requests failed that no candidate answered, {lost} were to be expected "
            f"at most: {', '.join(words)}, the first {first}"
        )


def _i6_one_candidate(witness: Witness) -> Iterator[str]:
    for seen in witness.history.statuses:
        roles = (seen.status.stable, seen.status.candidate)
        known = {role.revision for role in roles if role is not None}
        others = set(desired(seen.status)) - known
        if others:
            yield f"I6: {sorted(others)} had weight beside {sorted(known)} {witness.clock(seen.at)}"


def _i8_rest_means_no_writes(witness: Witness) -> Iterator[str]:
    history = witness.history
    written: list[tuple[float, str]] = [
        *(
            (after.at, "the status")
            for before, after in witness.changes()
            if _same_pods(before, after)
        ),
        *((seen.at, "the route") for seen in history.routes),
        *((seen.at, f"the record of {seen.name}") for seen in history.revisions),
    ]
    for at, what in written:
        if any(begin < at <= end for begin, end in witness.rested):
            yield f"I8: {what} was written {witness.clock(at)}, and nothing was left to be done"


def _same_pods(before: StatusSeen, after: StatusSeen) -> bool:
    """Whether no pod came or went: that is something to tell of."""
    one, other = before.status.stable, after.status.stable
    if one is None or other is None:
        return one is other
    return (one.replicas, one.ready_replicas) == (other.replicas, other.ready_replicas)


def _i9_route_is_as_desired(witness: Witness) -> Iterator[str]:
    history = witness.history
    changes: list[tuple[float, Mapping[str, Weights]]] = [
        (seen.at, {"desired": desired(seen.status)}) for seen in history.statuses
    ]
    changes += [
        (r.at, {"route": {n: w for n, w in r.weights.items() if w}}) for r in history.routes
    ]
    changes.sort(key=lambda change: change[0])
    now: dict[str, Weights] = {}
    since: float | None = None
    for at, change in [*changes, (history.end, {})]:
        before, now = now, {**now, **change}
        over = _agree(now) or not change
        if since is not None and over:
            seconds = witness.quiet_s(since, at)
            if seconds > UNDONE_S + SHARED_S + WATCH_LAG_S:
                yield (
                    f"I9: the route had {dict(before['route'])} until {seconds:.1f} s after it "
                    f"differed, desired was {dict(before['desired'])} {witness.clock(since)}"
                )
        since = None if over else (at if since is None else since)


def _agree(now: Mapping[str, Weights]) -> bool:
    """Whether the route has what is desired; before there are both there is nothing to compare."""
    route, wanted = now.get("route"), now.get("desired")
    return route is None or not wanted or route == wanted
