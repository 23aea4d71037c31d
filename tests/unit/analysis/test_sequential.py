"""The sequential test: how often it is wrong about a healthy share, how fast about a bad one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_operator.core import sequential
from model_operator.core.sequential import Mixture, alternatives, observe

ALPHA = 0.01
LIMIT = 0.01
Counts = npt.NDArray[np.int64]


def first_alarms(
    bad: Counts, total: Counts, *, alpha: float = ALPHA, limit: float = LIMIT, burst: float
) -> npt.NDArray[np.int64]:
    """The test over many rollouts at once: bad and total are looks x rollouts.

    Returns:
        Index of the look that fails a rollout, -1 where none does.
    """
    shares = np.array(alternatives(limit))
    prior = np.array(sequential.SHARES)[:, None]
    evidence = np.zeros((len(shares), bad.shape[1]))
    alarms = np.full(bad.shape[1], -1)
    on_bad = np.log(shares / limit)[:, None] / burst
    on_good = np.log((1 - shares) / (1 - limit))[:, None] / burst
    for k in range(bad.shape[0]):
        weight = sequential.HORIZON / ((sequential.HORIZON + k) * (sequential.HORIZON + k + 1))
        growth = bad[k] * on_bad + (total[k] - bad[k]) * on_good
        evidence = np.minimum((evidence + prior * weight) * np.exp(np.minimum(growth, 600)), 1e250)
        reserve = sequential.HORIZON / (sequential.HORIZON + k + 1)
        failed = reserve + evidence.sum(axis=0) >= 1 / alpha
        alarms = np.where((alarms < 0) & failed, k, alarms)
    return alarms


def run(batches: Iterable[tuple[float, float]], limit: float = LIMIT) -> list[float]:
    mixture, e_values = Mixture(), []
    for second, (bad, total) in enumerate(batches):
        mixture = observe(mixture, bad=bad, total=total, limit=limit, now=float(second))
        e_values.append(mixture.e_value)
    return e_values


def looks_until(alarm: Callable[[float], bool], e_values: Iterable[float]) -> int:
    return next(index for index, value in enumerate(e_values, 1) if alarm(value))


def test_the_vectorised_copy_is_the_test_itself() -> None:
    rng = np.random.default_rng(7)
    total = rng.integers(1, 9, (300, 1))
    bad = rng.binomial(total, 0.08)
    e_values = run(zip(bad[:, 0].tolist(), total[:, 0].tolist(), strict=True))
    expected = next((i for i, value in enumerate(e_values) if value >= 1 / ALPHA), -1)
    assert first_alarms(bad, total, burst=sequential.BURST)[0] == expected
    assert expected > 0


@pytest.mark.parametrize(("rate", "looks"), [(1, 2000), (25, 600)])
def test_at_exactly_the_limit_no_more_rollouts_fail_than_the_budget_allows(
    rate: int, looks: int
) -> None:
    rng = np.random.default_rng(11)
    bad = rng.binomial(rate, LIMIT, (looks, 4000))
    alarms = first_alarms(bad, np.full((looks, 1), rate), burst=sequential.BURST)
    assert (alarms >= 0).mean() <= ALPHA


def test_the_bound_is_kept_by_the_mathematics_and_not_by_the_allowance_for_bursts() -> None:
    rng = np.random.default_rng(12)
    bad = rng.binomial(5, LIMIT, (1000, 20_000))
    alarms = first_alarms(bad, np.full((1000, 1), 5), alpha=0.05, burst=1.0)
    share = (alarms >= 0).mean()
    assert share <= 0.05
    assert share > 0, "a test that never fails anyone proves nothing"


def test_bursts_of_as_many_as_are_allowed_for_stay_within_the_budget() -> None:
    rng = np.random.default_rng(13)
    groups = rng.binomial(3, LIMIT, (600, 5000))
    burst = int(sequential.BURST)
    alarms = first_alarms(groups * burst, np.full((600, 1), 3 * burst), burst=sequential.BURST)
    assert (alarms >= 0).mean() <= ALPHA


def test_without_allowing_for_bursts_they_would_break_the_budget() -> None:
    rng = np.random.default_rng(13)
    groups = rng.binomial(3, LIMIT, (600, 5000))
    alarms = first_alarms(groups * 4, np.full((600, 1), 12), burst=1.0)
    assert (alarms >= 0).mean() > 10 * ALPHA


def test_reading_a_sliding_window_again_and_again_would_break_the_budget() -> None:
    """The mistake that raw counters avoid: each event counted by twelve looks."""
    rng = np.random.default_rng(14)
    bad = rng.binomial(5, LIMIT, (300, 2000))
    windows = np.apply_along_axis(lambda x: np.convolve(x, np.ones(12, int))[:300], 0, bad)
    alarms = first_alarms(windows, np.full((300, 1), 60), burst=sequential.BURST)
    assert (alarms >= 0).mean() > 4 * ALPHA


@pytest.mark.parametrize("healthy_looks", [0, 120, 360])
def test_half_of_the_answers_failing_is_found_within_seconds_after_any_healthy_time(
    healthy_looks: int,
) -> None:
    rng = np.random.default_rng(15)
    before = rng.binomial(25, 0.002, (healthy_looks, 500))
    after = rng.binomial(5, 0.5, (60, 500))
    totals = np.concatenate([np.full((healthy_looks, 1), 25), np.full((60, 1), 5)])
    alarms = first_alarms(np.concatenate([before, after]), totals, burst=sequential.BURST)
    seconds = alarms - healthy_looks + 1
    assert np.median(seconds) <= 8
    assert np.quantile(seconds, 0.95) <= 12
    assert (seconds > 0).all()


def test_a_test_that_never_begins_anew_would_have_gone_deaf() -> None:
    """The same regression after 30 healthy minutes, with all the weight on the first look."""
    limit, shares = LIMIT, alternatives(LIMIT)
    debt = 360 * 25
    log_evidence = [
        debt * math.log((1 - share) / (1 - limit)) / sequential.BURST for share in shares
    ]
    seconds = 0
    while max(log_evidence) < math.log(1 / ALPHA) and seconds < 60:
        seconds += 1
        log_evidence = [
            value
            + (2.5 * math.log(share / limit) + 2.5 * math.log((1 - share) / (1 - limit)))
            / sequential.BURST
            for value, share in zip(log_evidence, shares, strict=True)
        ]
    assert seconds > 30


def test_a_weak_regression_is_found_too() -> None:
    rng = np.random.default_rng(16)
    bad = rng.binomial(5, 0.05, (900, 300))
    alarms = first_alarms(bad, np.full((900, 1), 5), burst=sequential.BURST)
    assert (alarms >= 0).all()
    assert np.median(alarms) < 240


def test_a_run_of_five_failures_is_no_regression_but_twenty_are() -> None:
    healthy = [(0.0, 5.0)] * 60
    five = [*healthy, (5.0, 5.0), *healthy]
    assert max(run(five)) < 1 / ALPHA
    twenty = [*healthy, *[(5.0, 5.0)] * 4]
    assert run(twenty)[-1] >= 1 / ALPHA


def test_what_the_report_counts_is_the_regression_and_not_the_healthy_time_before() -> None:
    mixture = Mixture()
    for second in range(200):
        mixture = observe(mixture, bad=0, total=5, limit=LIMIT, now=float(second))
    for second in range(200, 206):
        mixture = observe(mixture, bad=3, total=5, limit=LIMIT, now=float(second))
    assert (mixture.strongest.bad, mixture.strongest.total) == (18, 30)
    assert mixture.strongest.since == 200.0


def test_a_look_without_events_changes_nothing() -> None:
    mixture = observe(Mixture(), bad=1, total=5, limit=LIMIT, now=0.0)
    assert observe(mixture, bad=0, total=0, limit=LIMIT, now=5.0) is mixture


def test_a_limit_of_zero_needs_more_than_one_bad_event() -> None:
    e_values = run([(1.0, 1.0)] * 10, limit=0.0)
    assert 1 < looks_until(lambda value: value >= 1 / ALPHA, e_values) <= 10


def test_a_million_failures_at_once_stay_a_number() -> None:
    assert math.isfinite(run([(1e6, 1e6)] * 3)[-1])


@given(st.floats(1e-6, 0.9))
def test_every_alternative_is_worse_than_the_limit(limit: float) -> None:
    shares = alternatives(limit)
    assert list(shares) == sorted(shares)
    assert limit < shares[0]
    assert shares[-1] < 1


@given(
    st.floats(1e-4, 0.5),
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6)), min_size=1, max_size=4),
)
def test_under_the_limit_the_mean_evidence_of_the_next_event_is_at_most_the_present(
    limit: float, history: list[tuple[int, int]]
) -> None:
    mixture = Mixture()
    for bad, total in history:
        mixture = observe(mixture, bad=bad, total=total, limit=limit, now=0.0)
    good = observe(mixture, bad=0, total=1, limit=limit, now=1.0).e_value
    bad_ = observe(mixture, bad=1, total=1, limit=limit, now=1.0).e_value
    assert limit * bad_ + (1 - limit) * good <= mixture.e_value * (1 + 1e-9)


def test_the_weights_of_all_beginnings_add_up_to_at_most_one() -> None:
    mixture = Mixture(beginnings=10_000)
    reserve = mixture.e_value
    spent = sum(
        sequential.HORIZON / ((sequential.HORIZON + k) * (sequential.HORIZON + k + 1))
        for k in range(10_000)
    )
    assert spent + reserve == pytest.approx(1.0)
