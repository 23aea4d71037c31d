from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hack.demo.history import (
    Applied,
    Fault,
    FaultKind,
    FaultPhase,
    History,
    Journal,
    Load,
    Outcome,
    RouteSeen,
    Span,
    read_history,
)
from tests.unit.demo.histories import (
    SECOND_APPLIED,
    SECOND_CONFIRMED,
    SECOND_PROMOTED,
    THIRD_CONFIRMED,
    THIRD_ZERO,
    digest,
    good_run,
    revision,
)


@pytest.fixture
def history() -> History:
    return good_run().history()


def model_deployment(percent: int) -> dict[str, Any]:
    traffic = [{"revision": "digits-a", "desiredPercent": percent, "confirmedPercent": percent}]
    return {"metadata": {"name": "digits", "generation": 2}, "status": {"traffic": traffic}}


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "history.jsonl")
    journal.applied(Applied(1.0, 1, "a model", digest(1), Outcome.PROMOTED, (5, 50), "errors"))
    journal.model_deployment(2.0, model_deployment(100))
    journal.route(
        3.0, {"spec": {"rules": [{"backendRefs": [{"name": "digits-a", "weight": 100}]}]}}
    )
    journal.model_revision(
        4.0,
        {
            "metadata": {"name": "digits-a"},
            "spec": {"model": {"uri": "file:///m", "digest": digest(1)}},
            "status": {"verdict": "pass"},
        },
    )
    journal.load(5.0, 100)
    journal.fault(Fault(6.0, FaultKind.NODE_STOPPED, FaultPhase.BEGAN, "worker", 0.5))
    for window in good_run().windows[:3]:
        journal.window(window)

    history = journal.history()

    assert read_history(tmp_path / "history.jsonl") == history
    assert history.status.traffic[0].confirmed_percent == 100
    assert history.routes == (RouteSeen(3.0, {"digits-a": 100}),)
    assert history.revision_of(digest(1)) == "digits-a"
    assert history.record_of("digits-a").verdict == "pass"
    assert history.loads == (Load(5.0, 100),)
    assert history.faults == (Fault(6.0, FaultKind.NODE_STOPPED, FaultPhase.BEGAN, "worker", 0.5),)
    assert len(history.windows) == 3


def test_a_cleared_journal_has_nothing_of_the_run_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "history.jsonl")
    journal.load(1.0, 100)
    journal.clear()
    journal.load(2.0, 50)

    assert read_history(tmp_path / "history.jsonl").loads == (Load(2.0, 50),)


def test_records_are_in_order_of_time_whoever_wrote_first() -> None:
    late, early = RouteSeen(2.0, {"a": 100}), RouteSeen(1.0, {"a": 50})

    assert History.of([late, early]).routes == (early, late)


def test_the_weights_of_a_revision_are_spans_that_meet(history: History) -> None:
    spans = history.spans(revision(2))

    assert [span.percent for span in spans] == [0, 5, 25, 50, 100, 95, 100]
    assert spans[1] == Span(SECOND_APPLIED + 2, SECOND_APPLIED + 12, 5)
    assert all(a.end == b.start for a, b in pairwise(spans))
    assert spans[-1].end == history.end


def test_a_zero_is_confirmed_when_status_says_so_or_lists_the_revision_no_more(
    history: History,
) -> None:
    assert history.zero_confirmed_at(revision(3), THIRD_ZERO) == THIRD_CONFIRMED
    assert history.zero_confirmed_at(revision(1), SECOND_PROMOTED) == SECOND_CONFIRMED
    assert history.zero_confirmed_at(revision(9), SECOND_APPLIED) == SECOND_APPLIED + 3
    assert history.zero_confirmed_at(revision(2), SECOND_APPLIED) is None


def test_an_empty_history_has_no_length() -> None:
    assert (History().start, History().end, History().weights) == (0.0, 0.0, {})
