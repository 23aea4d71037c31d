"""Scenarios about what the analysis sees: bad numbers, missing numbers, no answers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from model_operator.api.samples import Answer, Query, Samples, Series
from model_operator.api.types import (
    Analysis,
    Comparison,
    Decimal,
    Duration,
    Metric,
    OnInsufficient,
    Value,
)
from tests.builders import spec, weight
from tests.scenarios.staged import ERRORS
from tests.scenarios.world import Model, World, unavailable

LATENCY = Metric(
    name="latency",
    type="Value",
    value=Value(query="latency {{ revision }}", max=Decimal("0.1"), window=Duration("10s")),
)
AGAINST_STABLE = Metric(
    name="latency-vs-stable",
    type="Comparison",
    comparison=Comparison(
        query="latency {{ revision }}", max_increase_percent=50, window=Duration("10s")
    ),
)


def world(*metrics: Metric, candidate: Model | None = None, then: Any = "Rollback") -> World:
    analysis = Analysis(
        interval=Duration("1s"),
        metric_source="prometheus",
        metrics=metrics or (ERRORS,),
        on_insufficient=OnInsufficient(hold=Duration("10m"), then=then),
    )
    models = {"one": Model(), "two": candidate or Model()}
    steps = (weight(25, "30s"), weight(50, "30s"))
    return World(spec(*steps, analysis=analysis), models).serving()


@pytest.mark.parametrize("metric", [LATENCY, AGAINST_STABLE], ids=lambda m: m.type)
def test_s05_a_candidate_three_times_slower_is_rolled_back(metric: Metric) -> None:
    w = world(metric, candidate=Model(latency_s=0.16)).release("two")
    w.run_until(lambda w: w.state() == "RolledBack", within_s=60)
    assert w.weights_seen("two") == [0, 25, 0]
    assert "0.16" in w.status.rollout.message


def test_s14_without_traffic_the_rollout_is_held_and_goes_on_by_itself() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.run(10)
    w.rate = 0.0
    w.run(60)
    assert (w.state(), w.status.rollout.reason) == ("Held", "InsufficientData")
    assert w.weight("two") == 25
    assert w.status.rollout.since_time is not None
    w.rate = 100.0
    w.run(2)
    assert w.state() == "Progressing"
    w.run_until(lambda w: w.weight("two") == 100)
    held = w.entered("two", 50) - w.entered("two", 25)
    assert held >= 30 + 50, "the step's clock stood still"


@pytest.mark.parametrize("then", ["Rollback", "Keep"])
def test_s14_after_its_hold_on_insufficient_decides(then: str) -> None:
    w = world(then=then).release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.rate = 0.0
    w.run(590)
    assert w.weight("two") == 25
    w.run(30)
    assert w.weight("two") == (0 if then == "Rollback" else 25)
    assert w.status.rollout.reason == "InsufficientData"


@pytest.mark.parametrize("answer", [Samples(), Samples((Series((), math.nan),))])
def test_s14_nan_and_empty_answers_hold(answer: Answer) -> None:
    w = world(LATENCY).release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.metrics = lambda _: answer
    w.run(120)
    assert (w.state(), w.status.rollout.reason) == ("Held", "InsufficientData")


def test_s15_two_series_are_a_configuration_error_at_once() -> None:
    w = world(LATENCY).release("two")
    w.metrics = lambda _: Samples((Series((("a", "1"),), 0.01), Series((("a", "2"),), 9.0)))
    w.run_until(lambda w: w.weight("two") == 25)
    w.run(3)
    assert (w.state(), w.status.rollout.reason) == ("Held", "ConfigurationError")
    w.run(1200)
    assert w.weight("two") == 25, "neither series was chosen"


@pytest.mark.parametrize("outage_s", [30, 120, 1200])
def test_s17_an_outage_of_prometheus_is_neither_a_failure_nor_a_pass(outage_s: int) -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.run(10)
    w.metrics = lambda _: unavailable()
    w.run(outage_s)
    assert (w.state(), w.status.rollout.reason) == ("Held", "MetricsUnavailable")
    assert w.weights_seen("two") == [0, 25]
    w.metrics = None
    w.run_until(lambda w: w.weight("two") == 50, within_s=25)
    held = w.entered("two", 50) - w.entered("two", 25)
    assert held >= 30 + outage_s - 2, "the step's clock stood still"


def test_s19_without_one_sample_nothing_is_promoted() -> None:
    def nothing(query: Query) -> Answer:
        del query
        return Samples()

    w = world(then="Keep")
    w.metrics = nothing
    w.release("two").run(7200)
    assert w.weights_seen("two") == [0, 25]


def test_s57_a_regression_after_a_long_healthy_time_is_found_as_fast_as_at_the_start() -> None:
    def delay(healthy_s: float) -> float:
        w = world()
        w.spec = spec(weight(50, "3h"), analysis=w.spec.rollout.analysis)
        w.rate = 10.0
        w.release("two")
        w.run_until(lambda w: w.weight("two") == 50)
        w.run(healthy_s)
        w.models["two"].error_rate = 0.5
        return w.run_until(lambda w: w.state() == "RolledBack", within_s=120)

    assert delay(1800) <= delay(10) + 3
