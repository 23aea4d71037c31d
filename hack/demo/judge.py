"""Whether a run of the demo shows what it promises: a pure function of its history."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from hack.demo.faults import FaultRow, fault_failures, fault_rows, is_lost_with_node
from hack.demo.history import FULL_PERCENT, Applied, History, Outcome, Span
from hack.demo.loadgen.answers import GATEWAY, Cell, quantile

WATCH_LAG_S = 0.5
"""A watch delivers a write late by some milliseconds, on a busy machine by more."""

GATEWAY_LAG_S = 2.0
"""A gateway takes a changed route, and a dead pod, with some delay."""

LATENCY = "latency"
ERRORS = "errors"
"""Metrics of the demo's analysis, as reasons name them."""

LATE_CODES = frozenset({"503", "504"})
"""Of a server whose queue is full, or that found no time for an answer: where the machine is busy,
a slow version is found out by these before it is by its latency."""

RATE_TOLERANCE = 0.05
SHARE_STANDARD_ERRORS = 4.0
SHARE_SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one version, for the table at the end.

    Attributes:
        version: Number of the version.
        title: What it is.
        revision: Its revision's name; empty if the operator made none.
        weights: Seconds at each weight above 0, percent first, in the order of their appearance.
        requests: Requests that it answered.
        errors: Those that it did not answer with 200.
        accuracy: Share of right digits among its 200s, 0 to 1; None without any.
        p99_ms: 99th percentile of its answers' latencies while it was on trial; None without any.
        outcome: What became of it.
        expected: What should have.
        reason: The operator's reason and message, of a rollback.
        first_bad_to_zero_s: Seconds from when the first request that failed was sent to the route's
            weight 0; None if none failed or it was not taken off.
    """

    version: int
    title: str
    revision: str
    weights: tuple[tuple[int, float], ...]
    requests: int
    errors: int
    accuracy: float | None
    p99_ms: float | None
    outcome: Outcome
    expected: Outcome
    reason: str
    first_bad_to_zero_s: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a run.

    Attributes:
        rows: The versions, in the order in which they were applied.
        failures: What is not as promised, in words; empty for a good run.
        faults: What was broken meanwhile, in the order in which it was.
    """

    rows: tuple[Row, ...]
    failures: tuple[str, ...]
    faults: tuple[FaultRow, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all is as promised."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Phase:
    """The time of one version, from when it was applied to when the next one was.

    Attributes:
        applied: The version.
        until: End of the phase, seconds since the epoch.
        revision: Its revision; None if the operator made none.
        outcome: What became of it by then.
    """

    applied: Applied
    until: float
    revision: str | None
    outcome: Outcome


def judge(history: History) -> Judgement:
    """Compares what happened with what each applied version expects.

    A run is good when each outcome is the expected one, for the expected reason; every planned
    weight was seen in order; no request failed but those that a version which was to be rolled back
    answered within its weight, and a bounded number that were lost with a machine; none reached a
    revision after its weight 0 was confirmed; a storm had all of its blows; what was broken was
    mended; and the load was steady.
    """
    if not history.applied:
        return Judgement(rows=(), failures=("no version was applied",))
    seen = phases(history)
    failures = [
        *_outcomes(history, seen),
        *_weights(history, seen),
        *_failed_requests(history, seen),
        *_dead_candidates(history, seen),
        *_late_requests(history, seen),
        *_shares(history, seen),
        *fault_failures(history),
        *_load(history),
    ]
    rows = tuple(_row(history, phase) for phase in seen)
    return Judgement(rows=rows, failures=tuple(failures), faults=fault_rows(history))


def phases(history: History) -> list[Phase]:
    """The versions with what became of each."""
    ends = [*(following.at for following in history.applied[1:]), history.end]
    return [
        Phase(
            applied=applied,
            until=until,
            revision=history.revision_of(applied.digest),
            outcome=outcome(history, applied, until),
        )
        for applied, until in zip(history.applied, ends, strict=False)
    ]


def outcome(history: History, applied: Applied, until: float) -> Outcome:
    """What became of a version by `until`: the last status before then decides."""
    revision = history.revision_of(applied.digest)
    statuses = [seen.status for seen in history.statuses if applied.at <= seen.at <= until]
    if revision is None or not statuses:
        return Outcome.UNFINISHED
    status = statuses[-1]
    if any(entry.revision == revision for entry in status.rolled_back):
        return Outcome.ROLLED_BACK
    confirmed = {share.revision: share.confirmed_percent for share in status.traffic}
    is_stable = status.stable is not None and status.stable.revision == revision
    if is_stable and confirmed.get(revision) == FULL_PERCENT:
        return Outcome.PROMOTED
    return Outcome.UNFINISHED


def _outcomes(history: History, seen: list[Phase]) -> Iterator[str]:
    for phase in seen:
        version, expected = phase.applied.version, phase.applied.expected
        if phase.outcome != expected:
            yield f"version {version} is {phase.outcome}, expected {expected}"
        elif expected is Outcome.ROLLED_BACK:
            reason, because = _reason(history, phase.revision or ""), phase.applied.because
            if because not in reason and not (because == LATENCY and _was_late(history, phase)):
                yield f"version {version} was rolled back for {reason!r}, expected was {because}"


def _was_late(history: History, phase: Phase) -> bool:
    """Whether a version failed by its errors, and all of them were answers that took too long."""
    revision = phase.revision or ""
    codes = {cell.code for cell in history.cells(revision) if not cell.ok}
    return ERRORS in _reason(history, revision) and bool(codes) and codes <= LATE_CODES


def _weights(history: History, seen: list[Phase]) -> Iterator[str]:
    """Every planned weight in order, none above the plan, and none after a rollback."""
    for phase in seen:
        if phase.revision is None:
            continue
        version, steps = phase.applied.version, phase.applied.steps
        spans = _within(history.spans(phase.revision), phase.applied.at, phase.until)
        percents = [span.percent for span in spans if span.percent > 0]
        if phase.applied.expected is Outcome.PROMOTED:
            planned = [*steps, FULL_PERCENT]
            if percents != planned:
                yield f"version {version} had the weights {percents}, planned were {planned}"
        elif phase.applied.expected is Outcome.ROLLED_BACK:
            if percents != list(steps[: len(percents)]):
                yield f"version {version} had the weights {percents}, planned were {list(steps)}"
            if spans and spans[-1].percent > 0:
                yield f"version {version} still has {spans[-1].percent} % of the traffic"


def _failed_requests(history: History, seen: list[Phase]) -> Iterator[str]:
    """Requests that failed although no version that was to be rolled back had to do with them."""
    failed: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], float] = {}
    for cell in history.cells():
        if cell.ok or any(_excused(history, phase, cell) for phase in seen):
            continue
        if is_lost_with_node(history, cell):
            continue  # their number has a bound of its own
        key = (cell.revision, cell.code)
        failed[key] += cell.count
        first[key] = min(first.get(key, cell.first_sent), cell.first_sent)
    for (revision, code), count in sorted(failed.items()):
        after_s = first[revision, code] - history.start
        yield (
            f"{count} requests failed with {code} from {revision}, "
            f"the first {after_s:.1f} s after the start"
        )


def _excused(history: History, phase: Phase, cell: Cell) -> bool:
    """Whether a failed request is one of a bad candidate's within its weight."""
    if phase.applied.expected is not Outcome.ROLLED_BACK or phase.revision is None:
        return False
    if cell.revision not in {phase.revision, GATEWAY}:
        return False
    spans = [s for s in history.spans(phase.revision) if s.percent > 0 and s.start < phase.until]
    for span in spans:
        confirmed_at = history.zero_confirmed_at(phase.revision, span.end)
        until = confirmed_at if confirmed_at is not None else history.end
        if cell.revision == GATEWAY:
            until = min(until, span.end + GATEWAY_LAG_S)
        if not span.start - WATCH_LAG_S <= cell.first_sent <= cell.last_sent <= until:
            continue
        if cell.revision == phase.revision or _was_dead(history, phase.revision, span, cell):
            return True
    return False


def _was_dead(history: History, revision: str, span: Span, cell: Cell) -> bool:
    """Whether a pod of the candidate was not ready when a request could have been sent to it."""
    following = [seen.at for seen in history.statuses[1:]] + [history.end]
    for seen, until in zip(history.statuses, following, strict=True):
        candidate = seen.status.candidate
        if candidate is None or candidate.revision != revision:
            continue
        lags = max(span.start, seen.at) - GATEWAY_LAG_S, until + GATEWAY_LAG_S
        unready = candidate.ready_replicas < candidate.replicas
        if unready and lags[0] <= cell.first_sent <= cell.last_sent <= lags[1]:
            return True
    return False


def _dead_candidates(history: History, seen: list[Phase]) -> Iterator[str]:
    """Errors of the gateway for a dead candidate that are more than its weight explains."""
    for phase in seen:
        if phase.revision is None:
            continue
        spans = _within(history.spans(phase.revision), phase.applied.at, phase.until)
        for span in [span for span in spans if span.percent > 0]:
            cells = [
                cell
                for cell in history.cells()
                if span.start <= cell.first_sent <= span.end + GATEWAY_LAG_S
            ]
            failed = sum(
                cell.count
                for cell in cells
                if cell.revision == GATEWAY and not cell.ok and _excused(history, phase, cell)
            )
            if failed > _largest_share(sum(cell.count for cell in cells), span.percent):
                yield (
                    f"{failed} requests failed at the gateway while version "
                    f"{phase.applied.version} had {span.percent} %: more than its share"
                )


def _largest_share(total: int, percent: int) -> float:
    """Requests that a weight explains at most, of `total`: four standard errors above its mean."""
    weight = percent / 100
    spread = math.sqrt(total * weight * (1 - weight))
    return total * weight + SHARE_STANDARD_ERRORS * spread + 1


def _late_requests(history: History, seen: list[Phase]) -> Iterator[str]:
    """Requests that reached a revision after its weight 0 was confirmed."""
    for phase in seen:
        if phase.revision is None:
            continue
        spans = history.spans(phase.revision)
        for before, zero in pairwise(spans):
            if before.percent == 0 or zero.percent > 0:
                continue
            confirmed_at = history.zero_confirmed_at(phase.revision, zero.start)
            if confirmed_at is None or confirmed_at > zero.end:
                yield f"weight 0 of version {phase.applied.version} was never confirmed"
                continue
            late = [
                cell
                for cell in history.cells(phase.revision)
                if confirmed_at < cell.last_sent <= zero.end
            ]
            if late:
                after_s = max(cell.last_sent for cell in late) - confirmed_at
                yield (
                    f"requests reached version {phase.applied.version} up to {after_s:.2f} s "
                    "after its weight 0 was confirmed"
                )


def _shares(history: History, seen: list[Phase]) -> Iterator[str]:
    """Candidates that got more of the requests than their weight."""
    for phase in seen:
        if phase.revision is None:
            continue
        spans = _within(history.spans(phase.revision), phase.applied.at, phase.until)
        for span in spans:
            if not 0 < span.percent < FULL_PERCENT:
                continue
            reached, total = _counts(history, phase.revision, span)
            if reached > _largest_share(total, span.percent):
                yield (
                    f"version {phase.applied.version} got {reached} of {total} requests "
                    f"at weight {span.percent} %"
                )


def _counts(history: History, revision: str, span: Span) -> tuple[int, int]:
    """Requests to `revision`, and all, in windows that lie within the settled part of `span`."""
    reached = total = 0
    for window in history.windows:
        if window.start_time < span.start + SHARE_SETTLE_S:
            continue
        if window.start_time + window.length_s > span.end:
            break
        total += sum(cell.count for cell in window.cells)
        reached += sum(cell.count for cell in window.cells if cell.revision == revision)
    return reached, total


def _load(history: History) -> Iterator[str]:
    """Holes in the load: without steady traffic nothing is proven."""
    if not history.windows:
        yield "no traffic was sent"
        return
    for before, after in pairwise(history.windows):
        if after.seq != before.seq + 1:
            yield f"the answers of {after.seq - before.seq - 1} windows are lost"
    sent = sum(window.sent for window in history.windows)
    answered = sum(cell.count for cell in history.cells())
    if answered < sent:
        yield f"{sent - answered} of {sent} requests have no answer"
    due = 0.0
    for load, following in pairwise(history.loads):
        due += load.rate * (following.at - load.at)
    if sent < due * (1 - RATE_TOLERANCE):
        yield f"only {sent} of {due:.0f} requests were sent"


def _row(history: History, phase: Phase) -> Row:
    revision = phase.revision or ""
    cells = list(history.cells(revision))
    served = sum(cell.count for cell in cells if cell.ok)
    correct = sum(cell.correct for cell in cells if cell.ok)
    requests = sum(cell.count for cell in cells)
    return Row(
        version=phase.applied.version,
        title=phase.applied.title,
        revision=revision,
        weights=seconds_at_weights(history, revision),
        requests=requests,
        errors=requests - served,
        accuracy=correct / served if served else None,
        p99_ms=_p99_ms(history, phase),
        outcome=phase.outcome,
        expected=phase.applied.expected,
        reason=_reason(history, revision),
        first_bad_to_zero_s=first_bad_to_zero_s(history, revision),
    )


def _p99_ms(history: History, phase: Phase) -> float | None:
    """Of the answers that came in the version's own phase: later ones tell of others' faults."""
    latencies = sorted(
        latency
        for window in history.windows
        if phase.applied.at <= window.start_time <= phase.until
        for cell in window.cells
        if cell.revision == phase.revision
        for latency in cell.latencies_ms
    )
    return quantile(latencies, 0.99)


def seconds_at_weights(history: History, revision: str) -> tuple[tuple[int, float], ...]:
    """Seconds at each weight above 0, in the order of their appearance."""
    seconds: dict[int, float] = {}
    for span in history.spans(revision):
        if span.percent > 0:
            seconds[span.percent] = seconds.get(span.percent, 0.0) + span.seconds
    return tuple(seconds.items())


def first_bad_to_zero_s(history: History, revision: str) -> float | None:
    """Seconds from the first failed request that a revision answered to its weight 0."""
    first_bad = min((c.first_sent for c in history.cells(revision) if not c.ok), default=None)
    if first_bad is None:
        return None
    for span in history.spans(revision):
        if span.percent == 0 and span.start >= first_bad:
            return span.start - first_bad
    return None


def _reason(history: History, revision: str) -> str:
    for entry in reversed(history.status.rolled_back):
        if entry.revision == revision:
            return f"{entry.reason}: {entry.message}" if entry.message else entry.reason
    return ""


def _within(spans: list[Span], start: float, end: float) -> list[Span]:
    """The parts of `spans` that lie between `start` and `end`."""
    return [
        Span(max(span.start, start), min(span.end, end), span.percent)
        for span in spans
        if span.end > start and span.start < end
    ]
