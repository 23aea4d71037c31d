"""The part of PromQL that the source `pods` understands means what it means in Prometheus."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_operator.adapters.evaluate import PodHistory, Scrape, SeriesKey, evaluate
from model_operator.adapters.promql import PromqlError, longest_range_s, metric_names, parse

NOW = 1_800_000_000.0


def close(value: float) -> Any:
    """Equal but for rounding; `approx` in a dict has no type that mypy lets us compare."""
    return pytest.approx(value)


def key(name: str, **labels: str) -> SeriesKey:
    return name, tuple(sorted(labels.items()))


def pod(*scrapes: tuple[float, dict[SeriesKey, float]], answered: bool = True) -> PodHistory:
    """Scrapes by their age in seconds; all read the same metrics."""
    names = frozenset(name for _, values in scrapes for name, _ in values)
    history = tuple(Scrape(NOW - age, values, names) for age, values in scrapes)
    return PodHistory(history, answered)


def ask(text: str, *pods: PodHistory) -> dict[tuple[tuple[str, str], ...], float] | float:
    return evaluate(parse(text), pods, NOW)


REQUESTS = {
    key("requests_total", pod="a", code="200"): 90.0,
    key("requests_total", pod="a", code="500"): 7.0,
    key("requests_total", pod="a", code="503"): 3.0,
    key("other", pod="a"): 1.0,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sum(requests_total)", 100.0),
        ('sum(requests_total{code=~"5.."})', 10.0),
        ('sum(requests_total{code!~"5.."})', 90.0),
        ('sum(requests_total{code!="500"})', 93.0),
        ('sum(requests_total{code="500",pod="a"})', 7.0),
        ('sum(requests_total{code=~"5"})', None),
        ('sum(requests_total{zone=""})', 100.0),
        ("max(requests_total)", 90.0),
        ("min(requests_total)", 3.0),
        ("avg(requests_total)", 100 / 3),
        ("count(requests_total)", 3.0),
        ("sum(requests_total) * 2 - 50 / (3 + 2)", 190.0),
        ("-sum(requests_total)", -100.0),
        ("sum(requests_total) / sum(other) # a remark", 100.0),
        ("sum(missing)", None),
    ],
)
def test_an_expression_has_one_value_or_none(text: str, value: float | None) -> None:
    assert ask(text, pod((0, REQUESTS))) == ({} if value is None else {(): close(value)})


def test_sums_can_keep_or_drop_labels_on_either_side() -> None:
    by_pod = {(("pod", "a"),): 100.0}
    assert ask("sum by (pod) (requests_total)", pod((0, REQUESTS))) == by_pod
    assert ask("sum (requests_total) by (pod)", pod((0, REQUESTS))) == by_pod
    assert ask("sum without (code) (requests_total)", pod((0, REQUESTS))) == by_pod


def test_shares_are_divided_label_by_label() -> None:
    text = 'sum by (pod) (requests_total{code=~"5.."}) / sum by (pod) (requests_total)'
    assert ask(text, pod((0, REQUESTS))) == {(("pod", "a"),): close(0.1)}


def test_nothing_divided_by_nothing_is_no_number() -> None:
    value = ask("0 * sum(other) / (sum(other) - 1)", pod((0, REQUESTS)))
    assert isinstance(value, dict)
    assert math.isnan(value[()])


def test_a_pod_that_did_not_answer_has_no_present() -> None:
    old = pod((5, REQUESTS), answered=False)
    assert ask("sum(requests_total)", old) == {}
    assert ask("rate(requests_total[1m])", pod((9, REQUESTS), (5, REQUESTS), answered=False)) == {}


def test_a_rate_is_the_increase_over_the_time_it_was_seen() -> None:
    total = key("x_total", pod="a")
    history = pod((40, {total: 10.0}), (20, {total: 30.0}), (0, {total: 50.0}))
    assert ask("rate(x_total[1m])", history) == {(("pod", "a"),): 1.0}


def test_a_rate_leaves_out_what_is_older_than_its_range() -> None:
    total = key("x_total", pod="a")
    history = pod((90, {total: 0.0}), (40, {total: 1000.0}), (0, {total: 1040.0}))
    assert ask("rate(x_total[1m])", history) == {(("pod", "a"),): 1.0}


def test_a_rate_survives_a_restart() -> None:
    total = key("x_total", pod="a")
    history = pod((20, {total: 100.0}), (10, {total: 110.0}), (0, {total: 10.0}))
    assert ask("rate(x_total[1m])", history) == {(("pod", "a"),): 1.0}


def test_a_rate_sees_the_first_error_of_a_pod() -> None:
    history = pod((10, {}), (0, {key("x_total", pod="a"): 5.0}))
    assert ask("rate(x_total[1m])", history) == {(("pod", "a"),): 0.5}


def test_one_scrape_is_no_rate() -> None:
    assert ask("rate(x_total[1m])", pod((0, {key("x_total", pod="a"): 5.0}))) == {}


def histogram(counts: dict[str, float], **labels: str) -> dict[SeriesKey, float]:
    return {key("b", le=le, **labels): count for le, count in counts.items()}


BUCKETS = histogram({"0.1": 50.0, "0.2": 90.0, "0.4": 100.0, "+Inf": 100.0}, pod="a")


@pytest.mark.parametrize(
    ("quantile", "value"),
    [(0.5, 0.1), (0.25, 0.05), (0.7, 0.15), (0.95, 0.3), (1, 0.4), (0, 0.0)],
)
def test_a_quantile_is_linear_within_its_bucket(quantile: float, value: float) -> None:
    answer = ask(f"histogram_quantile({quantile}, sum by (le) (b))", pod((0, BUCKETS)))
    assert answer == {(): close(value)}


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    slow = histogram({"0.1": 1.0, "0.2": 2.0, "+Inf": 100.0}, pod="a")
    assert ask("histogram_quantile(0.99, sum by (le) (b))", pod((0, slow))) == {(): 0.2}


@pytest.mark.parametrize(
    "counts", [{"0.1": 0.0, "+Inf": 0.0}, {"0.1": 5.0, "0.2": 9.0}, {"+Inf": 3.0}]
)
def test_a_histogram_without_events_or_bounds_has_no_quantile(counts: dict[str, float]) -> None:
    answer = ask("histogram_quantile(0.99, b)", pod((0, histogram(counts))))
    assert isinstance(answer, dict)
    assert [math.isnan(value) for value in answer.values()] == [True]


def test_histograms_of_several_pods_add_up_bucket_by_bucket() -> None:
    other = histogram({"0.1": 0.0, "0.2": 0.0, "0.4": 100.0, "+Inf": 100.0}, pod="b")
    answer = ask("histogram_quantile(0.5, sum by (le) (b))", pod((0, BUCKETS)), pod((0, other)))
    assert answer == {(): close(0.2 + 0.2 * 10 / 110)}


@given(
    st.lists(st.floats(0.001, 50), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99, 1.0])
)
def test_a_quantile_lies_in_the_bucket_that_holds_it(samples: list[float], q: float) -> None:
    bounds = [0.01, 0.1, 1.0, 10.0, 100.0]
    counts = {f"{bound:g}": float(sum(x <= bound for x in samples)) for bound in bounds}
    counts["+Inf"] = float(len(samples))
    answer = ask(f"histogram_quantile({q}, b)", pod((0, histogram(counts))))
    assert isinstance(answer, dict)
    exact = sorted(samples)[math.ceil(q * len(samples)) - 1]
    upper = next(bound for bound in bounds if exact <= bound)
    assert upper / 10 * (1 - 1e-9) <= answer[()] <= upper or upper == bounds[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("increase(x[1m])", "increase\\(\\) is unknown to the source 'pods'"),
        ("x[1m]", "range"),
        ("rate(x)", "'\\)' at position 6"),
        ("sum(x", "ends too early"),
        ("x or y", "'or' at position 2"),
        ('x{a~"b"}', "'~' at position 3"),
        ('x{a=~"("}', "no regular expression"),
        ("", "ends too early"),
        ("x }", "'}' at position 2"),
        ('x{a="b" offset 5m', "'offset' at position 8"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(PromqlError, match=complaint):
        parse(text)


def test_a_number_where_series_are_needed_is_refused() -> None:
    with pytest.raises(PromqlError, match="series are needed"):
        ask("sum(1)")


def test_strings_are_unescaped() -> None:
    weird = {key("x", path='a"b\\c'): 1.0}
    assert ask(r'sum(x{path="a\"b\\c"})', pod((0, weird))) == {(): 1.0}
    assert ask(r"sum(x{path='a" + '"' + r"b\\c'})", pod((0, weird))) == {(): 1.0}


def test_names_and_the_longest_range_are_found_anywhere() -> None:
    expression = parse("sum(rate(a_total[1m30s])) / (b + avg(rate(c_total[250ms])))")
    assert metric_names(expression) == {"a_total", "b", "c_total"}
    assert longest_range_s(expression) == 90


@given(st.text(alphabet="ab(){}[]=~!\"'1m,+-*/ \\sumrate", max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(PromqlError):
        parse(text)
