"""What a recorded history says, in the words in which the invariants ask."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hack.demo.cluster import kubectl
from hack.demo.history import History, Span, StatusSeen
from hack.demo.loadgen.answers import GATEWAY, Cell
from model_operator.api.times import parse_time
from model_operator.api.types import ModelDeploymentStatus

WATCH_LAG_S: Final = 0.5
"""Watches of different kinds come over different connections, on a busy machine late by this."""

GATEWAY_LAG_S: Final = 2.0
"""A gateway takes a dead pod, and a route that others changed, with some delay."""

Interval = tuple[float, float]
"""Begin and end, seconds since the epoch."""

Weights = Mapping[str, int]
"""Percent by revision, none of them 0."""


@dataclass(frozen=True, slots=True)
class Told:
    """A Kubernetes event about the ModelDeployment."""

    reason: str
    message: str


def events_of(namespace: str) -> tuple[Told, ...]:
    """The events that the operator posted in a namespace."""
    listed = json.loads(kubectl("-n", namespace, "get", "events", "-o", "json"))
    return tuple(
        Told(event["reason"], event.get("message", ""))
        for event in listed["items"]
        if event["involvedObject"]["kind"] == "ModelDeployment"
    )


@dataclass(frozen=True, slots=True)
class Rise:
    """The operator gave a candidate more weight, perhaps all of it."""

    at: float
    revision: str
    digest: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.revision} went from {self.before} to {self.after} %"


@dataclass(frozen=True, slots=True)
class Witness:
    """A history, the events, and when the scene itself kept things from working or had its rest."""

    history: History
    told: Sequence[Told] | None
    disturbed: tuple[Interval, ...] = ()
    drained: tuple[Interval, ...] = ()
    rested: tuple[Interval, ...] = ()

    def quiet_s(self, begin: float, end: float) -> float:
        """Seconds of an interval in which nothing was disturbed."""
        covered, reached = 0.0, begin
        for start, stop in sorted(self.disturbed):
            covered += max(0.0, min(stop, end) - max(start, reached))
            reached = max(reached, stop)
        return max(0.0, end - begin - covered)

    def is_disturbed(self, at: float, before_s: float = WATCH_LAG_S) -> bool:
        """Whether something was disturbed at a time, or at most `before_s` later."""
        return any(begin - before_s <= at <= end + WATCH_LAG_S for begin, end in self.disturbed)

    def is_drained(self, at: float) -> bool:
        """Whether pods were taken off a node at a time, or shortly before."""
        return any(begin <= at <= end + GATEWAY_LAG_S for begin, end in self.drained)

    def clock(self, at: float) -> str:
        """A time for a message."""
        return f"at {at - self.history.start:.1f} s"

    def announced(self, reason: str, revision: str) -> bool:
        """Whether an event told of a revision; true when events are not looked at."""
        return self.told is None or any(
            event.reason == reason and revision in event.message for event in self.told
        )

    def changes(self) -> Iterator[tuple[StatusSeen, StatusSeen]]:
        """Each status with the one after it."""
        return pairwise(self.history.statuses)

    def around(self, at: float) -> list[ModelDeploymentStatus]:
        """The statuses that may have been in force at a time."""
        begin, end = at - WATCH_LAG_S, at + WATCH_LAG_S
        before = [seen for seen in self.history.statuses if seen.at <= begin][-1:]
        near = [seen for seen in self.history.statuses if begin < seen.at <= end]
        return [seen.status for seen in (*before, *near)]

    def intended(self, revision: str) -> list[Span]:
        """The weights of a revision over time without those that somebody else wrote."""
        spans: list[Span] = []
        for span in self.history.spans(revision):
            wanted = {desired(status).get(revision, 0) for status in self.around(span.start)}
            if spans and (span.percent not in wanted or span.percent == spans[-1].percent):
                spans[-1] = Span(spans[-1].start, span.end, spans[-1].percent)
            elif span.percent in wanted:
                spans.append(span)
        return spans

    def rises(self) -> Iterator[Rise]:
        """Rises of candidates beside a stable revision, the last one to everything among them.

        A revision that was stable before and is still warm needs no steps and no verdict.
        """
        trials = [
            (seen.at, seen.status.candidate)
            for seen in self.history.statuses
            if seen.status.candidate is not None and seen.status.stable is not None
        ]
        for revision in dict.fromkeys(candidate.revision for _, candidate in trials):
            digest = next(c.digest for _, c in trials if c.revision == revision)
            for before, span in pairwise(self.intended(revision)):
                # NB: a promotion is in status before it is on the route
                last = [seen for seen in self.history.statuses if seen.at <= span.start][-2:]
                roles = [seen.status.candidate for seen in last]
                on_trial = any(
                    role and role.revision == revision and not role.warm for role in roles
                )
                if before.percent < span.percent and on_trial:
                    yield Rise(span.start, revision, digest, before.percent, span.percent)

    def plans(self, digest: str, until: float) -> set[tuple[int, ...]]:
        """The weights planned for a model, each time that it was applied."""
        until += WATCH_LAG_S
        return {a.steps for a in self.history.applied if a.digest == digest and a.at <= until}

    def passed(self, rise: Rise) -> bool:
        """Whether the last evidence at the weight before is there and passes for every metric."""
        since = [s.start for s in self.intended(rise.revision) if s.start < rise.at][-1]
        latest: dict[str, tuple[float, str]] = {}
        for seen in self.history.revisions:
            for entry in seen.status.evidence if seen.name == rise.revision else ():
                at = parse_time(entry.time)
                in_time = since - WATCH_LAG_S <= at <= rise.at + WATCH_LAG_S
                if entry.percent == rise.before and in_time:
                    found = latest.get(entry.metric, (0.0, ""))
                    latest[entry.metric] = max(found, (at, entry.verdict))
        return bool(latest) and all(verdict == "pass" for _, verdict in latest.values())

    def open_for(self, revision: str) -> list[Interval]:
        """When requests may reach a revision: from a weight to its confirmed 0."""
        intervals = []
        for span in self.history.spans(revision):
            if span.percent == 0:
                continue
            wanted = any(desired(s).get(revision, 0) > 0 for s in self.around(span.start))
            end: float | None = span.end + GATEWAY_LAG_S
            if wanted:
                end = self.history.zero_confirmed_at(revision, span.end)
            intervals.append((span.start - WATCH_LAG_S, self.history.end if end is None else end))
        return intervals

    def is_by_candidate(self, cell: Cell) -> bool:
        """Whether a revision on trial gave a bad answer, or none because its pod died."""
        sent = [s for at in (cell.first_sent, cell.last_sent) for s in self.around(at)]
        if cell.revision != GATEWAY:
            return any(cell.revision in on_trial(status) for status in sent)
        died = {
            before.status.candidate.revision
            for before, seen in self.changes()
            if before.status.candidate is not None
            and abs(seen.at - cell.last_sent) <= GATEWAY_LAG_S
            and _ready(seen.status, before.status.candidate.revision)
            < before.status.candidate.ready_replicas
        }
        return any(died & on_trial(status) for status in sent)


def desired(status: ModelDeploymentStatus) -> Weights:
    """The weights above 0 that a status asks for."""
    return {s.revision: s.desired_percent for s in status.traffic if s.desired_percent > 0}


def last_write(history: History) -> float:
    """When the ModelDeployment, its route or a record was last written; 0 if none ever was."""
    kinds = (history.statuses, history.routes, history.revisions)
    return max((kind[-1].at for kind in kinds if kind), default=0.0)


def on_trial(status: ModelDeploymentStatus) -> set[str]:
    """Revisions that have users' requests and are still judged, or are on their way off."""
    leaving = {s.revision for s in status.traffic if s.confirmed_percent != 0}
    found = {entry.revision for entry in status.rolled_back} & leaving
    if status.candidate is not None and status.candidate.percent > 0:
        found.add(status.candidate.revision)
    if status.former is not None and status.stable is not None:
        found.add(status.stable.revision)
    return found


def _ready(status: ModelDeploymentStatus, revision: str) -> int:
    """Ready pods of a candidate; none once it is neither candidate nor stable."""
    for role in (status.candidate, status.stable):
        if role is not None and role.revision == revision:
            return role.ready_replicas
    return 0
