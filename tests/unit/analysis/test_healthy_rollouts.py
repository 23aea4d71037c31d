"""Healthy revisions stay: whole rollouts at one request a second, all metrics together (S51)."""

from __future__ import annotations

import numpy as np
import pytest

from model_operator.api.types import Analysis, Comparison, Decimal, Events, Metric, Value
from model_operator.core import limits
from tests.unit.analysis.healthy import CANDIDATE, STABLE, Errors, HealthyRollout, Revision

_REQUESTS = 'model_server_requests_total{revision="{{ revision }}"'
_P99 = (
    "histogram_quantile(0.99, sum by (le) (rate(model_server_request_duration_seconds_bucket"
    '{revision="{{ revision }}"}[{{ window }}])))'
)
EXAMPLE = Analysis(
    metrics=(
        Metric(
            name="errors",
            type="Events",
            events=Events(
                bad=f'sum by (pod) ({_REQUESTS},code=~"5.."}})',
                total=f"sum by (pod) ({_REQUESTS}}})",
                max_rate=Decimal("0.01"),
            ),
        ),
        Metric(name="latency", type="Value", value=Value(query=_P99, max=Decimal("0.250"))),
        Metric(
            name="latency-vs-stable",
            type="Comparison",
            comparison=Comparison(query=_P99, max_increase_percent=20),
        ),
    )
)
LONG_STEPS = ((5, 120.0), (25, 300.0), (50, 300.0))
ERRORS = {
    "half of the limit": Errors(0.005),
    "exactly the limit": Errors(0.01),
    "none": Errors(0.0),
}


def rolled_back(errors: Errors, seeds: range, *, example: bool = False) -> list[str]:
    """What became of the rollouts that were not promoted."""
    outcomes = []
    for seed in seeds:
        revisions = (Revision(CANDIDATE, errors), Revision(STABLE, errors))
        rng = np.random.default_rng(seed)
        rollout = HealthyRollout(Analysis(), rng, *revisions)
        if example:
            rollout = HealthyRollout(EXAMPLE, rng, *revisions, steps=LONG_STEPS, bake_s=1800.0)
        outcomes.append(rollout.outcome())
    return [outcome for outcome in outcomes if outcome != "promoted"]


@pytest.mark.parametrize("errors", ERRORS.values(), ids=ERRORS)
def test_s51_the_default_analysis_promotes_healthy_revisions(errors: Errors) -> None:
    assert rolled_back(errors, range(3)) == []


def test_s51_the_analysis_of_the_example_promotes_healthy_revisions() -> None:
    assert rolled_back(Errors(0.005), range(2), example=True) == []


def test_s51_bursts_of_failures_within_the_limit_are_no_regression() -> None:
    assert rolled_back(Errors(0.005, burst=2), range(3)) == []


def test_judging_latency_by_single_looks_would_roll_healthy_revisions_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.0)
    monkeypatch.setattr(limits, "PATIENCE_EVENTS", 0.0)
    assert len(rolled_back(Errors(0.0), range(3))) >= 2


def test_a_revision_above_the_limit_is_not_promoted() -> None:
    outcomes = rolled_back(Errors(0.06), range(3))
    assert len(outcomes) == 3
    assert all("errors" in outcome for outcome in outcomes)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("example", [False, True], ids=["default", "example"])
@pytest.mark.parametrize(
    "errors", [*ERRORS.values(), Errors(0.005, burst=2)], ids=[*ERRORS, "bursts"]
)
def test_s51_of_200_healthy_rollouts_at_most_2_percent_are_rolled_back(
    errors: Errors,
    example: bool,  # noqa: FBT001 - parametrised
) -> None:
    outcomes = rolled_back(errors, range(200), example=example)
    assert len(outcomes) <= 4, outcomes
