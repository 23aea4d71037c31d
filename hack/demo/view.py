"""What the terminal shows of a run at one moment: a pure function of its history."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hack.demo.history import History
from hack.demo.loadgen.answers import Cell, quantile
from model_operator.api.times import parse_time
from model_operator.api.types import ModelDeploymentStatus

RECENT_S = 3.0


@dataclass(frozen=True, slots=True)
class RevisionView:
    """One revision as a line of the table.

    Attributes:
        revision: Its name.
        version: The version that it serves; None if the demo did not apply it.
        role: `stable`, `candidate`, `former`, `rolled back`, or empty.
        percent: Weight in the route, percent.
        confirmed: Weight that the operator has confirmed, percent; None if it is not known.
        ready: Ready pods; None once the status does not tell.
        replicas: Pods that it should have; None once the status does not tell.
        rate: Its answers per second lately.
        errors: Requests that it did not answer with 200, in all.
        error_share: Share of those lately, 0 to 1; None without answers.
        accuracy: Share of right digits among its 200s, in all; None without any.
        p99_ms: 99th percentile of its latencies lately; None without answers.
    """

    revision: str
    version: int | None
    role: str
    percent: int
    confirmed: int | None
    ready: int | None
    replicas: int | None
    rate: float
    errors: int
    error_share: float | None
    accuracy: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class View:
    """A moment of a run.

    Attributes:
        revisions: Every revision that there was, oldest first.
        state: The rollout's state with its reason and message.
        verdicts: The latest finding on each metric of the revision on trial, in words.
        next_step_s: Seconds until the next step is due at the earliest; None if none is.
        gateway_errors: Failed requests that no revision answered, in all.
    """

    revisions: tuple[RevisionView, ...]
    state: str
    verdicts: tuple[str, ...]
    next_step_s: float | None
    gateway_errors: int


def view(history: History, now: float) -> View:
    """What there is to show at `now`, seconds since the epoch."""
    status = history.status
    cells = _by_revision(history.cells())
    windows = [window for window in history.windows if window.start_time >= now - RECENT_S]
    recent = _by_revision(cell for window in windows for cell in window.cells)
    recent_s = sum(window.length_s for window in windows)
    names = list(dict.fromkeys(seen.name for seen in history.revisions))
    on_trial = status.candidate.revision if status.candidate else None
    if on_trial is None and status.stable is not None:
        on_trial = status.stable.revision
    return View(
        revisions=tuple(
            _revision(history, name, cells.get(name, []), recent.get(name, []), recent_s)
            for name in names
        ),
        state=_state(status),
        verdicts=_verdicts(history, on_trial) if on_trial else (),
        next_step_s=_next_step_s(status, now),
        gateway_errors=sum(
            cell.count
            for name, group in cells.items()
            if name not in names
            for cell in group
            if not cell.ok
        ),
    )


def _revision(
    history: History, name: str, cells: list[Cell], recent: list[Cell], recent_s: float
) -> RevisionView:
    status = history.status
    versions = {applied.digest: applied.version for applied in history.applied}
    digest = next(seen.digest for seen in history.revisions if seen.name == name)
    confirmed = {share.revision: share.confirmed_percent for share in status.traffic}
    role, ready, replicas = _role(status, name)
    served = sum(cell.count for cell in cells if cell.ok)
    answers = sum(cell.count for cell in recent)
    bad = sum(cell.count for cell in recent if not cell.ok)
    latencies = sorted(latency for cell in recent for latency in cell.latencies_ms)
    return RevisionView(
        revision=name,
        version=versions.get(digest),
        role=role,
        percent=history.weights.get(name, 0),
        confirmed=confirmed.get(name),
        ready=ready,
        replicas=replicas,
        rate=answers / recent_s if recent_s else 0.0,
        errors=sum(cell.count for cell in cells) - served,
        error_share=bad / answers if answers else None,
        accuracy=sum(cell.correct for cell in cells) / served if served else None,
        p99_ms=quantile(latencies, 0.99),
    )


def _role(status: ModelDeploymentStatus, name: str) -> tuple[str, int | None, int | None]:
    members = {
        "stable": status.stable,
        "candidate": status.candidate,
        "former": status.former,
    }
    for role, member in members.items():
        if member is not None and member.revision == name:
            return role, member.ready_replicas, member.replicas
    if any(entry.revision == name for entry in status.rolled_back):
        return "rolled back", None, None
    return "", None, None


def _state(status: ModelDeploymentStatus) -> str:
    rollout = status.rollout
    parts = [rollout.state, rollout.reason, rollout.message]
    return ": ".join(part for part in parts if part)


def _verdicts(history: History, revision: str) -> tuple[str, ...]:
    latest: dict[str, str] = {}
    for evidence in history.record_of(revision).evidence:
        # A finding's own words begin with the metric's name, and have the numbers.
        words = evidence.message.removeprefix(f"{evidence.metric}: ")
        numbers = f"{evidence.value} against {evidence.threshold}" if evidence.value else ""
        latest[evidence.metric] = (
            f"{evidence.metric} at {evidence.percent} %: {evidence.verdict}: {words or numbers}"
        )
    return tuple(latest.values())


def _next_step_s(status: ModelDeploymentStatus, now: float) -> float | None:
    if status.candidate is None or status.candidate.next_action_time is None:
        return None
    return parse_time(status.candidate.next_action_time) - now


def _by_revision(cells: Iterable[Cell]) -> Mapping[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.revision, []).append(cell)
    return groups
