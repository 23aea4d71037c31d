"""Evaluates the expressions of `promql` over scrapes, as Prometheus would over its own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TypeAlias, assert_never

from model_operator.adapters.promql import (
    Aggregation,
    Arithmetic,
    Expression,
    Number,
    PromqlError,
    Quantile,
    Rate,
    Selector,
)

Labels: TypeAlias = tuple[tuple[str, str], ...]
SeriesKey: TypeAlias = tuple[str, Labels]
"""Name and sorted labels of a series."""

Vector: TypeAlias = dict[Labels, float]
Result: TypeAlias = Vector | float


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one pod said at one time.

    Attributes:
        time: When it answered, seconds since the epoch.
        values: By series.
        names: Metrics that were read from its answer; of others, the scrape says nothing.
    """

    time: float
    values: Mapping[SeriesKey, float]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class PodHistory:
    """What is known of one pod.

    Attributes:
        scrapes: Oldest first.
        answered: Whether the last scrape is of now; else the pod has no present.
    """

    scrapes: Sequence[Scrape]
    answered: bool


def evaluate(expression: Expression, pods: Sequence[PodHistory], now: float) -> Result:
    """Value of an expression: a number, or numbers by labels.

    Args:
        expression: What to evaluate.
        pods: The scrapes to evaluate it over.
        now: The present, seconds since the epoch.

    Raises:
        PromqlError: The expression is of a kind that does not belong where it is.
    """
    match expression:
        case Number(value=value):
            return value
        case Selector():
            return _present(expression, pods)
        case Rate(of=selector, range_s=range_s):
            return _rate(selector, pods, now - range_s)
        case Quantile(quantile=quantile, of=inner):
            return _histogram_quantile(quantile, _vector(evaluate(inner, pods, now)))
        case Aggregation():
            return _aggregate(expression, _vector(evaluate(expression.of, pods, now)))
        case Arithmetic(operator=operator, left=left, right=right):
            return _calculate(operator, evaluate(left, pods, now), evaluate(right, pods, now))
        case _:
            assert_never(expression)


def _vector(result: Result) -> Vector:
    if isinstance(result, float):
        raise PromqlError("a number stands where series are needed")
    return result


def _selected(selector: Selector, scrape: Scrape) -> list[SeriesKey]:
    return [
        (name, labels)
        for name, labels in scrape.values
        if name == selector.name
        and all(
            matcher.matches(dict(labels).get(matcher.label, "")) for matcher in selector.matchers
        )
    ]


def _present(selector: Selector, pods: Sequence[PodHistory]) -> Vector:
    return {
        key[1]: pod.scrapes[-1].values[key]
        for pod in pods
        if pod.answered
        for key in _selected(selector, pod.scrapes[-1])
    }


def _rate(selector: Selector, pods: Sequence[PodHistory], after: float) -> Vector:
    """Increase per second over the time that the scrapes in the range cover; two are needed.

    NB: unlike Prometheus, a counter that was missing from its pod's earlier scrapes was at zero
    there, so that the first error of a pod is seen.
    """
    rates: Vector = {}
    for pod in pods:
        scrapes = [one for one in pod.scrapes if one.time > after and selector.name in one.names]
        if not pod.answered or not scrapes or scrapes[-1].time <= scrapes[0].time:
            continue
        for key in _selected(selector, scrapes[-1]):
            readings = [one.values.get(key, 0.0) for one in scrapes]
            rates[key[1]] = _increase(readings) / (scrapes[-1].time - scrapes[0].time)
    return rates


def _increase(readings: Sequence[float]) -> float:
    """Of a counter that starts again from 0 when its process does."""
    increase = 0.0
    for before, after in pairwise(readings):
        increase += after if after < before else after - before
    return increase


_AGGREGATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "min": min,
    "max": max,
    "avg": fmean,
    "count": lambda values: float(len(values)),
}


def _aggregate(aggregation: Aggregation, vector: Vector) -> Vector:
    groups: defaultdict[Labels, list[float]] = defaultdict(list)
    for labels, value in vector.items():
        kept = tuple(
            label for label in labels if (label[0] in aggregation.labels) != aggregation.without
        )
        groups[kept].append(value)
    function = _AGGREGATIONS[aggregation.function]
    return {labels: function(values) for labels, values in groups.items()}


def _calculate(operator: str, left: Result, right: Result) -> Result:
    if isinstance(left, float) and isinstance(right, float):
        return _apply(operator, left, right)
    if isinstance(left, float):
        return {labels: _apply(operator, left, value) for labels, value in _vector(right).items()}
    if isinstance(right, float):
        return {labels: _apply(operator, value, right) for labels, value in left.items()}
    return {
        labels: _apply(operator, value, right[labels])
        for labels, value in left.items()
        if labels in right
    }


def _apply(operator: str, left: float, right: float) -> float:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            if right == 0:
                return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
            return left / right


def _histogram_quantile(quantile: float, vector: Vector) -> Vector:
    histograms: defaultdict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in vector.items():
        bound = dict(labels).get("le")
        if bound is not None:
            others = tuple(label for label in labels if label[0] != "le")
            histograms[others].append((float(bound), count))
    return {
        labels: _bucket_quantile(quantile, sorted(buckets))
        for labels, buckets in histograms.items()
    }


def _bucket_quantile(quantile: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Quantile of a histogram, linear within a bucket.

    Args:
        quantile: 0 to 1; beyond, the answer is infinite.
        buckets: Upper bound and cumulative count, sorted.

    Returns:
        NaN for an empty histogram or one without the bucket +Inf. In that bucket, the bound below.
    """
    if not 0 <= quantile <= 1:
        return math.copysign(math.inf, quantile)
    if not buckets[:-1] or buckets[-1][0] != math.inf or not buckets[-1][1] > 0:
        return math.nan
    rank = quantile * buckets[-1][1]
    index = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    bound, count = buckets[index]
    if bound == math.inf:
        return buckets[-2][0]
    if index == 0 and bound <= 0:
        return bound
    lower, below = buckets[index - 1] if index else (0.0, 0.0)
    if count <= below:
        return bound
    return lower + (bound - lower) * (rank - below) / (count - below)
