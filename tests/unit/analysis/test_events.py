"""Events through the analysis: what passes, what waits, what fails and with which words."""

from __future__ import annotations

import pytest

from model_operator.api.samples import Failure, FailureKind, Samples, Series
from model_operator.core.verdict import Outcome
from tests.unit.analysis.looks import IN_A_BAKE, Pod, Trial, events, pods

UNAVAILABLE = Failure(FailureKind.UNAVAILABLE, "connection refused")


def trial(step: int = 0) -> Trial:
    return Trial((events(),), step=step)


def test_enough_healthy_events_of_this_step_are_a_pass() -> None:
    pod = Pod(trial())
    pod.serves(1, bad=0, total=0)
    assert pod.serves(4, bad=0, total=10).outcome is Outcome.INSUFFICIENT
    verdict = pod.serves(1, bad=0, total=10)
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason == "Healthy"


def test_what_was_served_before_the_rollout_counts_for_nothing() -> None:
    verdict = Pod(trial()).serves(1, bad=900, total=1000)
    assert verdict.outcome is Outcome.INSUFFICIENT
    assert verdict.findings[0].samples == 0


def test_events_of_the_step_before_are_no_evidence_of_this_one() -> None:
    pod = Pod(trial())
    assert pod.serves(20, bad=0, total=10).outcome is Outcome.PASS
    pod.trial.step = 1
    verdict = pod.serves(1, bad=0, total=1000)
    assert (verdict.outcome, verdict.findings[0].samples) == (Outcome.INSUFFICIENT, 0)
    assert pod.serves(5, bad=0, total=10).outcome is Outcome.PASS


def test_too_few_events_say_how_many_are_needed_and_that_they_are_coming() -> None:
    pod = Pod(trial())
    verdict = pod.serves(3, bad=0, total=4)
    assert (verdict.reason, verdict.collecting) == ("InsufficientData", True)
    assert verdict.message == (
        "errors: 0 of 8 events are bad (0 %), limit 1 %; 50 events of this step are needed"
    )


def test_no_traffic_is_insufficient_and_nothing_is_coming() -> None:
    pod = Pod(trial())
    verdict = pod.serves(120, bad=0, total=0)
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")
    assert not verdict.collecting


def test_traffic_that_stops_in_the_middle_of_a_step_is_insufficient_again() -> None:
    pod = Pod(trial())
    assert pod.serves(20, bad=0, total=10).outcome is Outcome.PASS
    assert pod.serves(4, bad=0, total=0).outcome is Outcome.PASS, "that may be chance"
    verdict = pod.serves(1, bad=0, total=0)
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")
    assert not verdict.collecting
    assert "no event for 25 s" in verdict.message
    assert pod.serves(1, bad=0, total=10).outcome is Outcome.PASS


def test_a_source_that_has_news_at_every_third_look_is_not_taken_for_silence() -> None:
    pod = Pod(trial())
    verdicts = [pod.one_look(0, 0 if look % 3 else 300) for look in range(60)]
    assert {verdict.outcome for verdict in verdicts[4:]} == {Outcome.PASS}


def test_it_goes_on_by_itself_when_traffic_comes() -> None:
    pod = Pod(trial())
    pod.serves(120, bad=0, total=0)
    assert pod.serves(5, bad=0, total=10).outcome is Outcome.PASS


@pytest.mark.parametrize("answer", [Samples(), pods(a=float("nan"))], ids=["empty", "NaN"])
def test_counters_that_vanish_are_insufficient_whatever_was_counted_before(answer: Samples) -> None:
    pod = Pod(trial())
    assert pod.serves(20, bad=0, total=10).outcome is Outcome.PASS
    verdict = pod.trial.look({"errors_bad": answer, "errors_total": answer})
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")


def test_a_failure_names_metric_value_limit_and_sample_count() -> None:
    pod = Pod(trial())
    pod.serves(100, bad=0, total=25)
    verdict = pod.serves(2, bad=13, total=25)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason == "AnalysisFailed"
    assert verdict.message.startswith("errors: 26 of 50 events are bad (52 %), limit 1 %")
    finding = verdict.findings[0]
    assert (finding.metric, finding.samples, finding.threshold) == ("errors", 50, 0.01)
    assert finding.value == pytest.approx(0.52)


@pytest.mark.parametrize("step", [0, 1, 7])
def test_it_fails_at_any_step_with_what_was_counted_at_all_of_them(step: int) -> None:
    pod = Pod(trial())
    pod.serves(3, bad=0, total=25)
    pod.trial.step = step
    assert pod.serves(3, bad=12, total=25).outcome is Outcome.FAIL


def test_a_failure_stays_one() -> None:
    pod = Pod(trial())
    pod.serves(5, bad=20, total=25)
    pod.trial.step = 3
    assert pod.serves(200, bad=0, total=1000).outcome is Outcome.FAIL


def test_a_failure_outlives_a_source_that_fails_afterwards() -> None:
    pod = Pod(trial())
    pod.serves(5, bad=20, total=25)
    verdict = pod.trial.look({"errors_bad": UNAVAILABLE, "errors_total": UNAVAILABLE})
    assert verdict.outcome is Outcome.FAIL


def test_strong_evidence_against_a_revision_keeps_it_from_passing() -> None:
    pod = Pod(trial())
    assert pod.serves(60, bad=0, total=25).outcome is Outcome.PASS
    pod.serves(1, bad=10, total=25)
    verdict = pod.serves(1, bad=3, total=25)
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "BreachUnconfirmed")
    assert pod.serves(60, bad=0, total=25).outcome is Outcome.PASS


@pytest.mark.parametrize("query", ["errors_bad", "errors_total"])
def test_a_source_that_fails_is_an_error_and_loses_no_event(query: str) -> None:
    pod = Pod(trial())
    pod.serves(2, bad=0, total=10)
    for _ in range(120):
        answers = {"errors_bad": pods(a=0.0), "errors_total": pods(a=20.0)}
        verdict = pod.trial.look({**answers, query: UNAVAILABLE})
        assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "MetricsUnavailable")
        assert "connection refused" in verdict.message
    assert pod.serves(1, bad=0, total=40).findings[0].samples == 50


def test_two_series_of_one_pod_are_a_configuration_error_at_once() -> None:
    twice = Samples((Series((("pod", "a"),), 1.0), Series((("code", "500"), ("pod", "a")), 2.0)))
    verdict = trial().look({"errors_bad": twice, "errors_total": pods(a=10.0)})
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "ConfigurationError")
    assert "sum by (pod)" in verdict.message


def test_the_test_goes_on_in_the_bake() -> None:
    pod = Pod(trial())
    pod.serves(360, bad=0, total=25)
    pod.trial.subject, pod.trial.step = IN_A_BAKE, 99
    looks = 0
    while pod.one_look(12, 25).outcome is not Outcome.FAIL:
        looks += 1
    assert looks <= 2


def test_after_a_healthy_half_hour_a_regression_is_found_as_fast_as_at_the_start() -> None:
    def looks_until_failed(healthy: int) -> int:
        pod = Pod(trial())
        pod.serves(1 + healthy, bad=0, total=25)
        looks = 1
        while pod.one_look(12, 25).outcome is not Outcome.FAIL:
            looks += 1
        return looks

    assert looks_until_failed(360) <= looks_until_failed(0) + 1 <= 3
