"""What happened: statuses, routes, revisions and answers over time, as JSON lines and in memory.

All times are seconds since the epoch. Of what the API server tells, it is the time when the watch
delivered it: some milliseconds late, never early.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from hack.demo.loadgen.answers import Cell, Window
from model_operator.api.parse import parse_status
from model_operator.api.types import ModelDeploymentStatus, ModelRevisionStatus
from model_operator.core.httproute import read_weights

FULL_PERCENT = 100


class Outcome(StrEnum):
    """What became of a version."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    UNFINISHED = "Unfinished"


class FaultKind(StrEnum):
    """What was done to the cluster."""

    OPERATOR_KILLED = "operator killed"
    PROMETHEUS_STOPPED = "Prometheus stopped"
    NODE_STOPPED = "node stopped"
    NODE_DRAINED = "node drained"


class FaultPhase(StrEnum):
    """A moment of a fault."""

    BEGAN = "began"
    NOTICED = "noticed"
    MENDED = "mended"


@dataclass(frozen=True, slots=True)
class Applied:
    """A version was applied.

    Attributes:
        at: When.
        version: Number of the version.
        title: What it is.
        digest: Digest of its model.
        expected: What should become of it.
        steps: Weights on its way, percent; none for the first version, and for one that is never
            to have any.
        because: What the operator's reason of a rollback has to name; empty for anything.
        stormy: Whether the cluster is to be hurt meanwhile.
        hold_s: How long evidence may be missing until it is rolled back for that, seconds; infinite
            where it is kept.
    """

    at: float
    version: int
    title: str
    digest: str
    expected: Outcome
    steps: tuple[int, ...] = ()
    because: str = ""
    stormy: bool = False
    hold_s: float = math.inf


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """The ModelDeployment changed.

    Attributes:
        at: When it was seen.
        generation: `metadata.generation`.
        status: Its status.
    """

    at: float
    generation: int
    status: ModelDeploymentStatus


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """The HTTPRoute changed.

    Attributes:
        at: When it was seen.
        weights: Percent by revision, as the gateway is told.
    """

    at: float
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RevisionSeen:
    """A ModelRevision changed.

    Attributes:
        at: When it was seen.
        name: Its name.
        digest: Digest of its model.
        status: Its status, with the evidence.
    """

    at: float
    name: str
    digest: str
    status: ModelRevisionStatus


@dataclass(frozen=True, slots=True)
class Load:
    """The load generator was told to send.

    Attributes:
        at: When.
        rate: Requests per second; 0 for stop.
    """

    at: float
    rate: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was broken, or mended again.

    Attributes:
        at: When.
        kind: What.
        phase: Broken, noticed by Kubernetes, or mended.
        detail: What it was, in words.
        share: Share of the requests that pods on a lost node had, 0 to 1.
    """

    at: float
    kind: FaultKind
    phase: FaultPhase
    detail: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """A time during which a revision had one weight.

    Attributes:
        start: Begin.
        end: End.
        percent: The weight.
    """

    start: float
    end: float
    percent: int

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.start


Record: TypeAlias = Applied | StatusSeen | RouteSeen | RevisionSeen | Load | Fault | Window


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was recorded, in order of time within each kind."""

    applied: tuple[Applied, ...] = ()
    statuses: tuple[StatusSeen, ...] = ()
    routes: tuple[RouteSeen, ...] = ()
    revisions: tuple[RevisionSeen, ...] = ()
    loads: tuple[Load, ...] = ()
    faults: tuple[Fault, ...] = ()
    windows: tuple[Window, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> "History":
        """The history of `records`."""
        kinds: dict[type, list[Any]] = {}
        for record in records:
            kinds.setdefault(type(record), []).append(record)

        def by_time(kind: type) -> tuple[Any, ...]:
            return tuple(sorted(kinds.get(kind, ()), key=lambda record: record.at))

        return cls(
            applied=by_time(Applied),
            statuses=by_time(StatusSeen),
            routes=by_time(RouteSeen),
            revisions=by_time(RevisionSeen),
            loads=by_time(Load),
            faults=by_time(Fault),
            windows=tuple(sorted(kinds.get(Window, ()), key=lambda window: window.seq)),
        )

    @property
    def status(self) -> ModelDeploymentStatus:
        """The latest status; an empty one before the first."""
        return self.statuses[-1].status if self.statuses else ModelDeploymentStatus()

    @property
    def weights(self) -> Mapping[str, int]:
        """The latest weights of the route, percent by revision."""
        return self.routes[-1].weights if self.routes else {}

    @property
    def start(self) -> float:
        """Time of the first record; 0 of none."""
        return min(self._times(), default=0.0)

    @property
    def end(self) -> float:
        """Time of the last record; 0 of none."""
        return max(self._times(), default=0.0)

    def _times(self) -> Iterator[float]:
        kinds = (self.applied, self.statuses, self.routes, self.revisions, self.loads, self.faults)
        for kind in kinds:
            if kind:
                yield kind[0].at
                yield kind[-1].at
        if self.windows:
            yield self.windows[0].start_time
            yield self.windows[-1].start_time + self.windows[-1].length_s

    def revision_of(self, digest: str) -> str | None:
        """Name of the revision that serves `digest`, once the operator has made one."""
        names = (seen.name for seen in self.revisions if seen.digest == digest)
        return next(names, None)

    def record_of(self, revision: str) -> ModelRevisionStatus:
        """The latest status of a ModelRevision; an empty one if there is none."""
        statuses = (seen.status for seen in reversed(self.revisions) if seen.name == revision)
        return next(statuses, ModelRevisionStatus())

    def spans(self, revision: str) -> list[Span]:
        """The weights of `revision` over time, from the first route on, neighbours distinct."""
        spans: list[Span] = []
        for index, route in enumerate(self.routes):
            last = index == len(self.routes) - 1
            end = self.end if last else self.routes[index + 1].at
            percent = route.weights.get(revision, 0)
            if spans and spans[-1].percent == percent:
                spans[-1] = Span(spans[-1].start, end, percent)
            else:
                spans.append(Span(route.at, end, percent))
        return spans

    def zero_confirmed_at(self, revision: str, after: float) -> float | None:
        """When status first said, after `after`, that no request reaches `revision` any more."""
        for seen in self.statuses:
            if seen.at < after or not seen.status.traffic:
                continue
            shares = {share.revision: share for share in seen.status.traffic}
            share = shares.get(revision)
            if share is None or (share.desired_percent, share.confirmed_percent) == (0, 0):
                return seen.at
        return None

    def cells(self, revision: str | None = None) -> Iterator[Cell]:
        """The counted answers, of one revision or of all."""
        for window in self.windows:
            for cell in window.cells:
                if revision is None or cell.revision == revision:
                    yield cell


@dataclass(slots=True)
class Journal:
    """Reads what the API server and the load generator say, and writes each record as a line.

    Attributes:
        path: JSON-lines file; None keeps the records in memory only.
        records: All records so far.
    """

    path: Path | None = None
    records: list[Record] = field(default_factory=list)

    def clear(self) -> None:
        """Forgets everything, also what an earlier run left in the file."""
        self.records.clear()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def model_deployment(self, at: float, manifest: Mapping[str, Any]) -> None:
        """A ModelDeployment as the API server has it."""
        generation = manifest["metadata"].get("generation", 0)
        line = {"generation": generation, "status": manifest.get("status") or {}}
        self._add(at, "status", line)

    def route(self, at: float, manifest: Mapping[str, Any]) -> None:
        """An HTTPRoute as the API server has it."""
        self._add(at, "route", {"weights": read_weights(dict(manifest))})

    def model_revision(self, at: float, manifest: Mapping[str, Any]) -> None:
        """A ModelRevision as the API server has it."""
        line = {
            "name": manifest["metadata"]["name"],
            "digest": manifest["spec"]["model"]["digest"],
            "status": manifest.get("status") or {},
        }
        self._add(at, "revision", line)

    def applied(self, applied: Applied) -> None:
        """A version was applied."""
        line = {
            "version": applied.version,
            "title": applied.title,
            "digest": applied.digest,
            "expected": applied.expected.value,
            "steps": list(applied.steps),
            "because": applied.because,
            "stormy": applied.stormy,
            "hold_s": None if math.isinf(applied.hold_s) else applied.hold_s,
        }
        self._add(applied.at, "applied", line)

    def load(self, at: float, rate: float) -> None:
        """The load generator was started, or stopped at rate 0."""
        self._add(at, "load", {"rate": rate})

    def fault(self, fault: Fault) -> None:
        """Something was broken or mended."""
        line = {
            "fault": fault.kind.value,
            "phase": fault.phase.value,
            "detail": fault.detail,
            "share": fault.share,
        }
        self._add(fault.at, "fault", line)

    def window(self, window: Window) -> None:
        """A window of answers was closed."""
        self._add(window.start_time, "window", {"window": window.to_json()})

    def history(self) -> History:
        """All records so far."""
        return History.of(list(self.records))

    def _add(self, at: float, kind: str, content: Mapping[str, Any]) -> None:
        line = {"at": at, "kind": kind, **content}
        self.records.append(_parse(line))
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")


def read_history(path: Path) -> History:
    """The history of a file that a `Journal` wrote."""
    with path.open() as lines:
        return History.of(_parse(json.loads(line)) for line in lines)


def _parse(line: Mapping[str, Any]) -> Record:  # noqa: PLR0911 - one for each kind
    at = line["at"]
    match line["kind"]:
        case "status":
            return StatusSeen(at, line["generation"], parse_status(line))
        case "route":
            return RouteSeen(at, line["weights"])
        case "revision":
            status = msgspec.convert(line["status"], ModelRevisionStatus)
            return RevisionSeen(at, line["name"], line["digest"], status)
        case "applied":
            return Applied(
                at=at,
                version=line["version"],
                title=line["title"],
                digest=line["digest"],
                expected=Outcome(line["expected"]),
                steps=tuple(line["steps"]),
                because=line.get("because", ""),
                stormy=line.get("stormy", False),
                hold_s=math.inf if line.get("hold_s") is None else line["hold_s"],
            )
        case "load":
            return Load(at, line["rate"])
        case "fault":
            return Fault(
                at=at,
                kind=FaultKind(line["fault"]),
                phase=FaultPhase(line["phase"]),
                detail=line["detail"],
                share=line["share"],
            )
        case "window":
            return Window.from_json(line["window"])
        case kind:
            raise ValueError(f"no kind of record: {kind}")
