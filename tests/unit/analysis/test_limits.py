"""Value and Comparison: one noisy look decides nothing, a breach that lasts does."""

from __future__ import annotations

import pytest

from model_operator.api.samples import Failure, FailureKind, Samples
from model_operator.api.types import Comparison, Metric, Value
from model_operator.core.verdict import Outcome, Verdict
from tests.unit.analysis.looks import IN_A_BAKE, Trial, comparison, events, number, pods, value

UNAVAILABLE = Failure(FailureKind.UNAVAILABLE, "answers 500")


def looks(trial: Trial, count: int, *, candidate: float, stable: float | None = None) -> Verdict:
    answers = {
        "latency": number(candidate),
        "versus@digits-new": number(candidate),
        "versus@digits-old": number(stable) if stable is not None else Samples(),
    }
    return [trial.look(answers) for _ in range(count)][-1]


def seconds_until_failed(trial: Trial, *, candidate: float, stable: float | None = None) -> float:
    began = trial.now
    while looks(trial, 1, candidate=candidate, stable=stable).outcome is not Outcome.FAIL:
        assert trial.now - began < 3600, "never failed"
    return trial.now - trial.analysis.interval.seconds - began


def test_a_number_within_its_limits_is_a_pass() -> None:
    verdict = looks(Trial((value(highest="0.25", lowest="0.01"),)), 1, candidate=0.2)
    assert (verdict.outcome, verdict.message) == (Outcome.PASS, "latency: 0.2, upper limit 0.25")


def test_one_breach_holds_the_weight_but_rolls_nothing_back() -> None:
    trial = Trial((value(highest="0.25"),))
    verdict = looks(trial, 1, candidate=0.9)
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "BreachUnconfirmed")
    assert looks(trial, 1, candidate=0.2).outcome is Outcome.PASS


def test_a_breach_that_lasts_a_window_fails() -> None:
    trial = Trial((value(highest="0.25"),))
    looks(trial, 10, candidate=0.2)
    assert seconds_until_failed(trial, candidate=0.3) == 60


def test_the_failure_names_metric_value_limit_and_looks() -> None:
    verdict = looks(Trial((value(highest="0.25"),)), 13, candidate=0.3)
    assert verdict.message == (
        "latency: 0.3, upper limit 0.25, breached at each of 13 looks in 60 s"
    )
    assert (verdict.findings[0].value, verdict.findings[0].threshold) == (0.3, 0.25)
    assert verdict.findings[0].samples == 13


def test_a_breach_below_the_lower_limit_fails_too() -> None:
    trial = Trial((value("accuracy_proxy", lowest="0.9"),))
    for _ in range(13):
        verdict = trial.look({"accuracy_proxy": number(0.5)})
    assert verdict.outcome is Outcome.FAIL
    assert "lower limit 0.9" in verdict.message


def test_a_single_good_look_ends_a_breach() -> None:
    trial = Trial((value(highest="0.25"),))
    for _ in range(30):
        assert looks(trial, 11, candidate=0.3).outcome is Outcome.INSUFFICIENT
        assert looks(trial, 1, candidate=0.2).outcome is Outcome.PASS


def test_with_looks_further_apart_than_the_window_three_of_them_are_needed() -> None:
    trial = Trial((value(highest="0.25", window="10s"),), interval="60s")
    assert looks(trial, 2, candidate=0.3).outcome is Outcome.INSUFFICIENT
    assert looks(trial, 1, candidate=0.3).outcome is Outcome.FAIL


def test_a_breach_before_a_long_outage_of_the_source_does_not_count_after_it() -> None:
    trial = Trial((value(highest="0.25"),))
    looks(trial, 12, candidate=0.3)
    for _ in range(60):
        assert trial.look({"latency": UNAVAILABLE}).outcome is Outcome.ERROR
    assert looks(trial, 1, candidate=0.3).outcome is Outcome.INSUFFICIENT


@pytest.mark.parametrize("answer", [Samples(), number(float("nan"))], ids=["empty", "NaN"])
def test_no_number_is_insufficient_for_however_long(answer: Samples) -> None:
    trial = Trial((value(highest="0.25"),))
    for _ in range(120):
        verdict = trial.look({"latency": answer})
        assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")
        assert not verdict.collecting
    assert looks(trial, 1, candidate=0.2).outcome is Outcome.PASS


def test_two_series_are_a_configuration_error_and_neither_is_chosen() -> None:
    verdict = Trial((value(highest="0.25"),)).look({"latency": number(0.1, 0.9)})
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "ConfigurationError")
    assert verdict.findings[0].value is None
    assert "2 series" in verdict.message


def test_a_source_that_fails_never_turns_into_a_failure() -> None:
    trial = Trial((value(highest="0.25"),))
    for _ in range(240):
        verdict = trial.look({"latency": UNAVAILABLE})
        assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "MetricsUnavailable")


def test_an_infinite_number_is_a_breach() -> None:
    verdict = looks(Trial((value(highest="0.25"),)), 13, candidate=float("inf"))
    assert verdict.outcome is Outcome.FAIL


def test_three_times_slower_than_stable_is_found_within_two_windows() -> None:
    trial = Trial((comparison(),))
    looks(trial, 10, candidate=0.02, stable=0.02)
    assert seconds_until_failed(trial, candidate=0.06, stable=0.02) <= 120


def test_a_little_slower_than_the_limit_is_found_when_it_lasts() -> None:
    trial = Trial((comparison(),))
    assert seconds_until_failed(trial, candidate=0.03, stable=0.02) == 360


def test_until_then_the_weight_does_not_rise() -> None:
    verdict = looks(Trial((comparison(),)), 30, candidate=0.03, stable=0.02)
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "BreachUnconfirmed")


def test_within_the_increase_is_a_pass_that_names_both() -> None:
    verdict = looks(Trial((comparison(increase=50),)), 3, candidate=0.028, stable=0.02)
    assert verdict.outcome is Outcome.PASS
    assert verdict.message == "versus: 0.028, stable 0.02, limit 0.03"


def test_a_comparison_with_something_that_was_never_measured_is_insufficient() -> None:
    verdict = looks(Trial((comparison(),)), 3, candidate=0.02)
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")
    assert "no number of stable" in verdict.message


def test_in_a_bake_the_highest_of_what_stable_had_takes_its_place() -> None:
    trial = Trial((comparison(),))
    looks(trial, 30, candidate=0.02, stable=0.02)
    looks(trial, 13, candidate=0.02, stable=0.03)
    trial.subject, trial.step = IN_A_BAKE, 99
    verdict = looks(trial, 3, candidate=0.034)
    assert verdict.outcome is Outcome.PASS
    assert verdict.findings[0].threshold == pytest.approx(0.036)
    looks(trial, 200, candidate=0.04)
    assert looks(trial, 1, candidate=0.04).outcome is Outcome.INSUFFICIENT, "times change"
    assert seconds_until_failed(trial, candidate=0.09) <= 120


def test_one_slow_request_is_not_a_regression_however_long_it_stays_in_the_window() -> None:
    trial = Trial((events(), replace_query(value(highest="0.25"))))
    served = 0.0
    for _ in range(200):
        verdict = one_slow_look(trial, served)
        assert verdict.findings[1].outcome is not Outcome.FAIL
    for _ in range(30):
        served += 5
        verdict = one_slow_look(trial, served)
    assert verdict.outcome is Outcome.FAIL
    assert "latency" in verdict.message


def one_slow_look(trial: Trial, served: float) -> Verdict:
    return trial.look(
        {"errors_bad": pods(a=0.0), "errors_total": pods(a=served), "rate(latency": number(0.9)}
    )


def replace_query(metric: Metric) -> Metric:
    """The same of a rate over a window: a number that is made of events."""
    assert metric.value is not None
    query = 'rate(latency{r="{{ revision }}"}[{{ window }}])'
    return Metric(
        name=metric.name,
        type="Value",
        value=Value(query=query, max=metric.value.max, window=metric.value.window),
    )


def test_a_query_that_names_no_revision_would_compare_a_number_with_itself() -> None:
    metric = Metric(
        name="same",
        type="Comparison",
        comparison=Comparison(query="up", max_increase_percent=10),
    )
    verdict = Trial((metric,)).look({})
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "ConfigurationError")
    assert "{{ revision }}" in verdict.message


def test_stable_at_zero_is_no_reason_to_fail_at_once() -> None:
    trial = Trial((comparison(),))
    assert looks(trial, 3, candidate=0.0, stable=0.0).outcome is Outcome.PASS
    assert seconds_until_failed(trial, candidate=0.001, stable=0.0) == 360
