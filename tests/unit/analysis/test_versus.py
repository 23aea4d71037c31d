"""Refused requests against stable's: what both suffer is nobody's fault."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from model_operator.api.samples import Answer, Failure, FailureKind, Query
from model_operator.core.verdict import Finding, Outcome
from model_operator.core.versus import VersusState, VersusTest, assess_versus
from tests.unit.analysis.looks import pods

ALPHA = 0.005


def query(text: str) -> Query:
    return Query("refused", text, "pods", "vision", text)


BAD, TOTAL, STABLE_BAD, STABLE_TOTAL = map(query, ("bad", "total", "stable-bad", "stable-total"))
TEST = VersusTest("refused", BAD, TOTAL, (STABLE_BAD, STABLE_TOTAL), 2.0, 50, ALPHA)


@dataclass
class Both:
    """A candidate and stable beside each other, counted from the start."""

    test: VersusTest = TEST
    state: VersusState = field(default_factory=VersusState)
    readings: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    now: float = 1_800_000_000.0

    def look(self, bad: float, total: float, stable_bad: float, stable_total: float) -> Finding:
        new = (bad, total, stable_bad, stable_total)
        self.readings = tuple(a + b for a, b in zip(self.readings, new, strict=True))  # type: ignore[assignment] # four of four
        names = (BAD, TOTAL, STABLE_BAD, STABLE_TOTAL)
        answers: dict[Query, Answer] = {
            name: pods(a=reading) for name, reading in zip(names, self.readings, strict=True)
        }
        self.state, finding = assess_versus(self.test, self.state, answers, step=0, now=self.now)
        self.now += 5
        return finding

    def looks(self, count: int, *each: float) -> Finding:
        return [self.look(*each) for _ in range(count)][-1]

    def stable_leaves(self) -> None:
        self.test = replace(self.test, stable=None)


def started() -> Both:
    both = Both()
    both.look(0, 0, 0, 0)
    return both


def test_equal_shares_are_a_pass_that_names_both() -> None:
    finding = started().looks(20, 1, 25, 19, 475)
    assert finding.outcome is Outcome.PASS
    assert finding.message == (
        "refused: 20 of 500 events are bad (4 %), limit 2 times stable's 4 % (380 of 9500)"
    )


def test_a_client_that_sends_nonsense_to_both_rolls_nothing_back() -> None:
    both = started()
    both.looks(60, 0, 25, 0, 475)
    assert both.looks(60, 20, 25, 380, 475).outcome is not Outcome.FAIL


def test_a_candidate_that_refuses_what_stable_takes_is_found_within_seconds() -> None:
    both = started()
    both.looks(120, 0, 25, 1, 475)
    looks = 1
    while both.look(25, 25, 1, 475).outcome is not Outcome.FAIL:
        looks += 1
    assert looks <= 2


def test_at_half_of_the_traffic_it_is_found_too() -> None:
    both = started()
    both.looks(120, 0, 25, 0, 25)
    looks = 1
    while both.look(13, 25, 0, 25).outcome is not Outcome.FAIL:
        looks += 1
    assert looks <= 10


def test_in_a_bake_it_is_held_against_what_stable_had() -> None:
    both = started()
    both.looks(120, 1, 25, 19, 475)
    both.stable_leaves()
    assert both.looks(60, 20, 500, 0, 0).outcome is Outcome.PASS
    looks = 1
    while both.look(250, 500, 0, 0).outcome is not Outcome.FAIL:
        looks += 1
    assert looks <= 2


def test_with_nothing_to_compare_with_the_evidence_is_missing() -> None:
    finding = started().looks(20, 5, 25, 0, 0)
    assert (finding.outcome, finding.reason) == (Outcome.INSUFFICIENT, "InsufficientData")


def test_a_source_that_fails_is_an_error() -> None:
    failure = Failure(FailureKind.UNAVAILABLE, "refused")
    answers = dict.fromkeys((BAD, TOTAL, STABLE_BAD, STABLE_TOTAL), failure)
    finding = assess_versus(TEST, VersusState(), answers, step=0, now=0.0)[1]
    assert (finding.outcome, finding.reason) == (Outcome.ERROR, "MetricsUnavailable")


def test_candidates_that_equal_stable_stay_within_the_budget() -> None:
    rng = np.random.default_rng(21)
    failed = 0
    for _ in range(25):
        both = started()
        for share in (0.05, 0.25, 0.5):
            for _ in range(24):
                events = int(rng.binomial(50, share))
                bad = int(rng.binomial(events, 0.04))
                stable_bad = int(rng.binomial(50 - events, 0.04))
                finding = both.look(bad, events, stable_bad, 50 - events)
        both.stable_leaves()
        for _ in range(60):
            finding = both.look(int(rng.binomial(50, 0.04)), 50, 0, 0)
        failed += finding.outcome is Outcome.FAIL
    assert failed == 0
