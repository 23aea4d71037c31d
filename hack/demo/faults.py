"""What was broken during a run, and what users saw of it: a pure function of the history."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hack.demo.history import Fault, FaultKind, FaultPhase, History
from hack.demo.loadgen.answers import CONNECT, RESET, TIMEOUT, Cell

LOST_CODES: Final = frozenset({"502", "503", "504", CONNECT, RESET, TIMEOUT})
"""What a client gets whose request was with a machine that is no more."""

IN_FLIGHT_S: Final = 5.0
"""Beyond the time until Kubernetes takes a node for dead: what was in flight, and the gateway's."""

MARGIN: Final = 1.2
"""Requests are not spread that evenly over pods."""

STORM: Final = (
    frozenset({FaultKind.PROMETHEUS_STOPPED}),
    frozenset({FaultKind.OPERATOR_KILLED}),
    frozenset({FaultKind.NODE_STOPPED, FaultKind.NODE_DRAINED}),
)
"""The blows of a storm. Only the project's own cluster has nodes that can be switched off: those of
others are drained."""

HELD_WITHIN_S: Final = 20.0
"""A rollout is held after two looks without an answer; a query may take some seconds to fail."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault from its begin to its end.

    Attributes:
        kind: What was done.
        detail: To what, in words.
        share: Share of the requests that pods on a lost node had, 0 to 1.
        began: When.
        noticed: When Kubernetes took the node for dead; None if it did not, or of other faults.
        mended: When it was whole again; None if it never was.
    """

    kind: FaultKind
    detail: str
    share: float
    began: float
    noticed: float | None
    mended: float | None


@dataclass(frozen=True, slots=True)
class FaultRow:
    """What one fault did, for the table at the end.

    Attributes:
        kind: What was done.
        detail: To what, in words.
        lasted_s: How long it lasted, seconds; None if it was never mended.
        requests: Requests sent meanwhile.
        lost: Those of them that failed, other than by an answer of a bad version.
        bound: How many may have failed at most.
        remark: What the rollout did, or why requests were lost.
    """

    kind: FaultKind
    detail: str
    lasted_s: float | None
    requests: int
    lost: int
    bound: int
    remark: str


def blows(history: History) -> list[Blow]:
    """The faults in the order in which they began."""
    return [
        Blow(
            kind=fault.kind,
            detail=fault.detail,
            share=fault.share,
            began=fault.at,
            noticed=_later(history, fault, FaultPhase.NOTICED),
            mended=_later(history, fault, FaultPhase.MENDED),
        )
        for fault in history.faults
        if fault.phase is FaultPhase.BEGAN
    ]


def is_lost_with_node(history: History, cell: Cell) -> bool:
    """Whether a failed request may have been with a machine that was stopped.

    Neither the operator nor the server can save it: its pods are on the gateway's list until
    Kubernetes takes the node for dead.
    """
    return any(
        blow.kind is FaultKind.NODE_STOPPED
        and cell.code in LOST_CODES
        and blow.began - IN_FLIGHT_S <= cell.first_sent
        and cell.last_sent <= _felt_until(history, blow)
        for blow in blows(history)
    )


def bound(history: History, blow: Blow) -> int:
    """How many requests a fault may cost: none, but for those of a lost node's pods.

    Their share of the requests from the stop until Kubernetes takes the node for dead.
    """
    if blow.kind is not FaultKind.NODE_STOPPED:
        return 0
    rate = max((load.rate for load in history.loads if load.at <= blow.began), default=0.0)
    return may_be_lost(rate, blow.share, _felt_until(history, blow) - blow.began)


def may_be_lost(rate: float, share: float, exposed_s: float) -> int:
    """How many requests are lost at most where a share of them has nowhere to go for a while.

    Args:
        rate: Requests per second.
        share: Of them, 0 to 1.
        exposed_s: From the blow until users feel nothing of it any more, seconds.
    """
    return math.ceil(rate * share * MARGIN * exposed_s)


def fault_failures(history: History) -> Iterator[str]:
    """What is not as promised."""
    yield from _calms(history)
    for blow in blows(history):
        if blow.mended is None:
            yield f"{blow.kind}, {blow.detail}: it was not mended"
            continue
        lost = sum(cell.count for cell in _lost(history, blow))
        if lost > bound(history, blow):
            yield f"{blow.kind}: {lost} requests were lost, at most {bound(history, blow)} may be"
        if blow.kind is FaultKind.PROMETHEUS_STOPPED:
            yield from _not_held(history, blow.began, blow.mended)


def fault_rows(history: History) -> tuple[FaultRow, ...]:
    """What each fault did."""
    return tuple(
        FaultRow(
            kind=blow.kind,
            detail=blow.detail,
            lasted_s=None if blow.mended is None else blow.mended - blow.began,
            requests=sum(
                window.sent
                for window in history.windows
                if blow.began <= window.start_time < (blow.mended or history.end)
            ),
            lost=sum(cell.count for cell in _lost(history, blow)),
            bound=bound(history, blow),
            remark=_remark(history, blow),
        )
        for blow in blows(history)
    )


def _calms(history: History) -> Iterator[str]:
    """Storms that lacked a blow: a version that came through one of these proves little."""
    ends = [*(following.at for following in history.applied[1:]), history.end]
    for applied, until in zip(history.applied, ends, strict=False):
        if not applied.stormy:
            continue
        struck = {blow.kind for blow in blows(history) if applied.at <= blow.began <= until}
        for kinds in STORM:
            if not kinds & struck:
                missing = " or ".join(sorted(kinds))
                yield f"the storm of version {applied.version} lacked: {missing}"


def _later(history: History, fault: Fault, phase: FaultPhase) -> float | None:
    times = (f.at for f in history.faults if f.kind is fault.kind and f.phase is phase)
    return next((at for at in times if at >= fault.at), None)


def _felt_until(history: History, blow: Blow) -> float:
    """When users feel nothing of a fault any more."""
    if blow.kind is FaultKind.NODE_STOPPED and blow.noticed is not None:
        return blow.noticed + IN_FLIGHT_S
    return history.end if blow.mended is None else blow.mended + IN_FLIGHT_S


def _lost(history: History, blow: Blow) -> list[Cell]:
    """Failed requests that were sent meanwhile, but for those that a bad version answered."""
    bad = {history.revision_of(applied.digest) for applied in history.applied if applied.because}
    return [
        cell
        for cell in history.cells()
        if not cell.ok
        and cell.revision not in bad
        and blow.began - IN_FLIGHT_S <= cell.first_sent
        and cell.last_sent <= _felt_until(history, blow)
    ]


def _not_held(history: History, began: float, mended: float) -> Iterator[str]:
    held_at = _held_at(history, began, mended)
    if held_at is None:
        yield "the rollout was not held while Prometheus was away"
        return
    if held_at - began > HELD_WITHIN_S:
        yield f"the rollout was held {held_at - began:.0f} s after Prometheus was stopped"
    weights = [dict(route.weights) for route in history.routes if held_at <= route.at < mended]
    before = [dict(route.weights) for route in history.routes if route.at < held_at][-1:]
    if any(weight != now for weight in before for now in weights):
        yield f"the weights changed to {weights[-1]} while the rollout was held"


def _held_at(history: History, began: float, mended: float) -> float | None:
    held = (seen.at for seen in history.statuses if seen.status.rollout.state == "Held")
    return next((at for at in held if began <= at <= mended), None)


def _remark(history: History, blow: Blow) -> str:
    match blow.kind:
        case FaultKind.PROMETHEUS_STOPPED:
            held_at = _held_at(history, blow.began, blow.mended or history.end)
            if held_at is None:
                return "not held"
            return f"held after {held_at - blow.began:.0f} s at {_weights(history, held_at)}"
        case FaultKind.OPERATOR_KILLED:
            return f"served on at {_weights(history, blow.began)}"
        case FaultKind.NODE_DRAINED:
            return "its pods were drained before they ended"
        case FaultKind.NODE_STOPPED:
            if blow.noticed is None:
                return "Kubernetes did not take it for dead"
            return (
                f"its pods had {blow.share:.0%} of the requests until Kubernetes took it for dead, "
                f"after {blow.noticed - blow.began:.0f} s"
            )


def _weights(history: History, at: float) -> str:
    routes = [route for route in history.routes if route.at <= at]
    weights = [weight for weight in routes[-1].weights.values() if weight] if routes else []
    return "/".join(f"{weight}" for weight in sorted(weights)) + " %"
