"""From a spec to a plan: the budget, the queries, and mistakes that are said at once."""

from __future__ import annotations

import pytest

from model_operator.api.types import Analysis, Decimal, Events, Metric
from model_operator.core.analysis import (
    AnalysisState,
    Subject,
    assess,
    compile_plan,
    due,
    next_look,
    state_from_json,
)
from model_operator.core.events import EventsTest
from model_operator.core.verdict import Outcome
from model_operator.core.versus import VersusTest
from tests.unit.analysis.looks import (
    IN_A_BAKE,
    SUBJECT,
    Pod,
    Trial,
    comparison,
    events,
    number,
    pods,
    value,
)

NOW = 1_800_000_000.0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_counting_metrics_together_spend_the_budget_once(count: int) -> None:
    metrics = (*(events(f"errors-{i}") for i in range(count)), value(highest="1"))
    plan = compile_plan(Analysis(metrics=metrics, confidence=Decimal("0.98")), SUBJECT)
    alphas = [test.alpha for test in plan.tests if isinstance(test, EventsTest)]
    assert len(alphas) == count
    assert sum(alphas) == pytest.approx(0.02)


def test_the_default_analysis_spends_the_budget_once_too() -> None:
    plan = compile_plan(Analysis(), SUBJECT)
    assert [test.name for test in plan.tests] == ["errors", "client-errors", "latency"]
    spent = sum(test.alpha for test in plan.tests if isinstance(test, EventsTest | VersusTest))
    assert spent == pytest.approx(0.01)


def test_the_default_analysis_asks_the_pods_about_both_revisions() -> None:
    queries = due(compile_plan(Analysis(), SUBJECT), AnalysisState(), NOW)
    assert {query.source for query in queries} == {"pods"}
    assert {query.revision for query in queries} == {"digits-new", "digits-old"}
    for query in queries:
        assert f'revision="{query.revision}"' in query.text
        assert 'namespace="vision"' in query.text


def test_without_stable_beside_it_nothing_is_asked_about_it() -> None:
    queries = due(compile_plan(Analysis(), IN_A_BAKE), AnalysisState(), NOW)
    assert {query.revision for query in queries} == {"digits-new"}


def test_a_metric_asks_its_own_source_before_the_analysis() -> None:
    own = Metric(
        name="own",
        type="Events",
        metric_source="team-b",
        events=Events(bad="b", total="t", max_rate=Decimal("0.1")),
    )
    plan = compile_plan(Analysis(metric_source="main", metrics=(own, events())), SUBJECT)
    assert {query.source for query in due(plan, AnalysisState(), NOW)} == {"team-b", "main"}


def test_an_unknown_variable_is_a_configuration_error_that_blinds_no_other_metric() -> None:
    typo = Metric(
        name="typo",
        type="Events",
        events=Events(bad="x{r='{{ revison }}'}", total="t", max_rate=Decimal("0.1")),
    )
    trial = Trial((typo, events()))
    trial.look({"errors_bad": pods(a=0.0), "errors_total": pods(a=0.0)})
    verdict = trial.look({"errors_bad": pods(a=0.0), "errors_total": pods(a=100.0)})
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "ConfigurationError")
    assert "'revison'" in verdict.message
    assert "window" not in verdict.message, "raw counters have no window"
    for reading in (100.0, 200.0, 300.0):
        verdict = trial.look({"errors_bad": pods(a=reading), "errors_total": pods(a=reading)})
    assert verdict.outcome is Outcome.FAIL, "the other metric still rolls back"


def test_nothing_is_due_between_two_looks() -> None:
    plan = compile_plan(Analysis(), SUBJECT)
    state, _ = assess(plan, AnalysisState(), {}, step=0, now=NOW)
    assert next_look(plan, state) == 0
    queries = due(plan, state, NOW)
    state, _ = assess(plan, state, dict.fromkeys(queries, number()), step=0, now=NOW)
    assert due(plan, state, NOW + 4.9) == ()
    assert next_look(plan, state) == NOW + 5
    assert due(plan, state, NOW + 5) == queries


def test_a_clock_that_was_set_back_does_not_stop_the_analysis() -> None:
    plan = compile_plan(Analysis(), SUBJECT)
    state, _ = assess(plan, AnalysisState(look=NOW), {}, step=0, now=NOW)
    assert due(plan, state, NOW - 3600) != ()


def test_without_a_new_look_the_verdict_is_the_one_before() -> None:
    pod = Pod(Trial((events(),)))
    verdict = pod.serves(20, bad=0, total=10)
    plan = compile_plan(pod.trial.analysis, SUBJECT)
    again = assess(plan, pod.trial.state, {}, step=0, now=pod.trial.now)[1]
    assert again == verdict
    assert again.outcome is Outcome.PASS


def test_the_verdict_of_another_step_is_no_verdict_of_this_one() -> None:
    pod = Pod(Trial((events(),)))
    assert pod.serves(20, bad=0, total=10).outcome is Outcome.PASS
    plan = compile_plan(pod.trial.analysis, SUBJECT)
    verdict = assess(plan, pod.trial.state, {}, step=1, now=pod.trial.now)[1]
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")


def test_before_the_first_sample_nothing_passes() -> None:
    plan = compile_plan(Analysis(), SUBJECT)
    verdict = assess(plan, AnalysisState(), {}, step=0, now=NOW)[1]
    assert (verdict.outcome, verdict.reason) == (Outcome.INSUFFICIENT, "InsufficientData")


def test_an_edited_metric_begins_anew_and_the_others_go_on() -> None:
    trial = Trial((events(), value(highest="1")))
    answers = {"errors_bad": pods(a=0.0), "latency": number(0.5)}
    for reading in range(0, 200, 20):
        trial.look({**answers, "errors_total": pods(a=float(reading))})
    trial.metrics = (events(), value(highest="2"))
    trial.look({**answers, "errors_total": pods(a=200.0)})
    assert trial.state.tests["errors"].finding.samples == 200
    assert trial.state.tests["latency"].finding.samples == 1


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("fail error insufficient pass", Outcome.FAIL),
        ("error insufficient pass", Outcome.ERROR),
        ("insufficient pass", Outcome.INSUFFICIENT),
        ("pass", Outcome.PASS),
    ],
)
def test_the_worst_finding_decides(outcomes: str, expected: Outcome) -> None:
    readings = {"fail": 9.0, "pass": 0.1}
    trial = Trial(tuple(value(one, highest="1") for one in outcomes.split()))
    answers = {
        one: number(readings[one]) if one in readings else number() for one in outcomes.split()
    }
    if "error" in answers:
        answers["error"] = number(1, 2)
    for _ in range(14):
        verdict = trial.look(answers)
    assert verdict.outcome is expected
    assert [finding.metric for finding in verdict.findings] == outcomes.split()


@pytest.mark.parametrize(
    "data",
    [{}, {"version": 99, "look": 1.0}, {"version": 1, "tests": 7}, {"tests": {"a": {"b": 1}}}],
)
def test_a_state_that_cannot_be_read_starts_afresh(data: dict[str, object]) -> None:
    assert state_from_json(data) == AnalysisState()


def test_a_comparison_names_the_revision_by_either_variable() -> None:
    subject = Subject("vision", "digits", "new", "old")
    queries = due(compile_plan(Analysis(metrics=(comparison(),)), subject), AnalysisState(), NOW)
    assert [query.text for query in queries] == ['versus{r="new"}', 'versus{r="old"}']
