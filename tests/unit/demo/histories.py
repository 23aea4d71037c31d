"""A made run of the demo at 100 requests/s: version 1 serves, 2 is promoted, 3 is rolled back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from hack.demo.history import (
    Applied,
    History,
    Load,
    Outcome,
    Record,
    RevisionSeen,
    RouteSeen,
    StatusSeen,
)
from hack.demo.loadgen.answers import Cell, Window
from model_operator.api.types import (
    CandidateStatus,
    ModelDeploymentStatus,
    ModelRevisionStatus,
    RolledBackStatus,
    RolloutStatus,
    StableStatus,
    TrafficStatus,
)

START = 1000.0
LOAD_START, LOAD_STOP = 1004.0, 1070.0
SECOND_APPLIED, SECOND_PROMOTED, SECOND_CONFIRMED = 1010.0, 1042.0, 1043.0
THIRD_APPLIED, THIRD_WEIGHT, THIRD_ZERO, THIRD_CONFIRMED = 1050.0, 1052.0, 1057.0, 1058.0
END = 1070.0
STEPS = (5, 25, 50)
RATE = 100


def digest(version: int) -> str:
    return f"sha256:{version:064x}"


def revision(version: int) -> str:
    return f"digits-{version:010x}"


def applied(version: int, at: float, expected: Outcome) -> Applied:
    steps = () if version == 1 else STEPS
    return Applied(at, version, f"model {version}", digest(version), expected, steps)


def status(
    stable: int,
    traffic: Mapping[int, tuple[int, int | None]],
    *,
    candidate: CandidateStatus | None = None,
    rolled_back: int | None = None,
    state: RolloutStatus | None = None,
) -> ModelDeploymentStatus:
    """A status; `traffic` has the desired and the confirmed percent by version."""
    gone = RolledBackStatus(
        revision=revision(rolled_back or 0),
        reason="MetricFailed",
        message="errors is 0.31, at most 0.01 is healthy (16 of 52)",
        time="1970-01-01T00:17:37.000Z",
    )
    return ModelDeploymentStatus(
        stable=StableStatus(
            revision=revision(stable), digest=digest(stable), replicas=2, ready_replicas=2
        ),
        candidate=candidate,
        rollout=state or RolloutStatus(),
        traffic=tuple(
            TrafficStatus(revision=revision(v), desired_percent=d, confirmed_percent=c)
            for v, (d, c) in traffic.items()
        ),
        rolled_back=(gone,) if rolled_back else (),
    )


def candidate(version: int, percent: int, *, ready: int = 1, replicas: int = 1) -> CandidateStatus:
    return CandidateStatus(
        revision=revision(version),
        digest=digest(version),
        replicas=replicas,
        ready_replicas=ready,
        percent=percent,
    )


ROUTES = (
    RouteSeen(START + 2, {revision(1): 100}),
    RouteSeen(SECOND_APPLIED + 2, {revision(1): 95, revision(2): 5}),
    RouteSeen(SECOND_APPLIED + 12, {revision(1): 75, revision(2): 25}),
    RouteSeen(SECOND_APPLIED + 22, {revision(1): 50, revision(2): 50}),
    RouteSeen(SECOND_PROMOTED, {revision(2): 100}),
    RouteSeen(THIRD_WEIGHT, {revision(2): 95, revision(3): 5}),
    RouteSeen(THIRD_ZERO, {revision(2): 100, revision(3): 0}),
)

STATUSES = (
    StatusSeen(START + 3, 1, status(1, {1: (100, 100)})),
    StatusSeen(SECOND_APPLIED + 3, 2, status(1, {1: (95, 95), 2: (5, 5)})),
    StatusSeen(SECOND_PROMOTED + 0.1, 2, status(2, {2: (100, 100), 1: (0, 50)})),
    StatusSeen(SECOND_CONFIRMED, 2, status(2, {2: (100, 100), 1: (0, 0)})),
    StatusSeen(
        THIRD_WEIGHT + 0.5,
        3,
        status(2, {2: (95, 95), 3: (5, 5)}, candidate=candidate(3, 5)),
    ),
    StatusSeen(THIRD_ZERO + 0.1, 3, status(2, {2: (100, 100), 3: (0, 5)}, rolled_back=3)),
    StatusSeen(THIRD_CONFIRMED, 3, status(2, {2: (100, 100), 3: (0, 0)}, rolled_back=3)),
)


@dataclass(slots=True)
class Run:
    """The records of a run, which a test may spoil.

    Attributes:
        records: Everything but the windows.
        windows: 100 ms of answers each.
    """

    records: list[Record]
    windows: list[Window] = field(default_factory=list)

    def history(self) -> History:
        return History.of([*self.records, *self.windows])

    def answer(
        self, at: float, version_or_name: int | str, code: str = "200", *, sent: float | None = None
    ) -> None:
        """Adds an answer that came at `at`."""
        name = revision(version_or_name) if isinstance(version_or_name, int) else version_or_name
        index = next(i for i, w in enumerate(self.windows) if w.start_time + w.length_s > at)
        window = self.windows[index]
        when = at if sent is None else sent
        cell = Cell(name, code, 1, 0, when, when, (5.0,))
        self.windows[index] = replace(window, sent=window.sent + 1, cells=(*window.cells, cell))

    def replace_records(self, old: Iterable[Record], new: Iterable[Record]) -> None:
        gone = list(old)
        self.records = [record for record in self.records if record not in gone] + list(new)


def good_run() -> Run:
    records: list[Record] = [
        applied(1, START, Outcome.PROMOTED),
        applied(2, SECOND_APPLIED, Outcome.PROMOTED),
        applied(3, THIRD_APPLIED, Outcome.ROLLED_BACK),
        *(
            RevisionSeen(START + n, revision(n), digest(n), ModelRevisionStatus())
            for n in (1, 2, 3)
        ),
        *ROUTES,
        *STATUSES,
        Load(LOAD_START, RATE),
        Load(LOAD_STOP, 0),
    ]
    return Run(records=records, windows=list(_windows(ROUTES)))


def _windows(routes: Iterable[RouteSeen]) -> Iterable[Window]:
    """Answers in exact proportion to the weights; version 3 fails every third request."""
    owed: dict[str, float] = {}
    answered_by_third = count(1)
    for number in range(round((LOAD_STOP - LOAD_START) * 10)):
        start = LOAD_START + number / 10
        weights = [route.weights for route in routes if route.at <= start][-1]
        cells: dict[tuple[str, str], Cell] = {}
        for _ in range(RATE // 10):
            for name, percent in weights.items():
                owed[name] = owed.get(name, 0.0) + percent / 100
            name = max(weights, key=lambda name: owed[name])
            owed[name] -= 1
            bad = name == revision(3) and next(answered_by_third) % 3 == 0
            code = "500" if bad else "200"
            cell = cells.get((name, code), Cell(name, code, 0, 0, start, start, ()))
            cells[name, code] = replace(
                cell,
                count=cell.count + 1,
                correct=cell.correct + (not bad),
                latencies_ms=(*cell.latencies_ms, 5.0),
            )
        yield Window(number, start, start, 0.1, RATE // 10, 0, tuple(cells.values()))
