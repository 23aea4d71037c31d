"""New events between looks: none counted twice, none negative, none lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_operator.api.samples import Samples, Series
from model_operator.core.counters import AmbiguousSeriesError, Counters, advance, by_pod

STARTED = Counters(started=True)


def looks(*readings: tuple[dict[str, float], dict[str, float]]) -> list[tuple[float, float]]:
    counters, events = Counters(), []
    for bad, total in readings:
        counters, new_bad, new_total = advance(counters, bad, total)
        events.append((new_bad, new_total))
    return events


def test_the_first_look_is_the_baseline() -> None:
    assert looks(({"a": 5}, {"a": 100}), ({"a": 7}, {"a": 130})) == [(0, 0), (2, 30)]


def test_after_a_first_look_at_nothing_all_events_count() -> None:
    assert looks(({}, {}), ({}, {"a": 8}), ({"a": 1}, {"a": 9})) == [(0, 0), (0, 8), (1, 1)]


def test_a_counter_that_appears_with_its_first_event_counts_from_zero() -> None:
    assert looks(({}, {"a": 10}), ({"a": 1}, {"a": 12}))[1] == (1, 2)


def test_a_new_pod_counts_from_zero() -> None:
    assert looks(({}, {"a": 10}), ({"b": 2}, {"a": 10, "b": 3}))[1] == (2, 3)


def test_a_restarted_process_counts_from_zero() -> None:
    assert looks(({"a": 9}, {"a": 100}), ({"a": 1}, {"a": 4}))[1] == (1, 4)


def test_a_pod_that_was_away_is_not_counted_anew() -> None:
    away = looks(({}, {"a": 100, "b": 5}), ({}, {"b": 6}), ({}, {"a": 103, "b": 6}))
    assert away == [(0, 0), (0, 1), (0, 3)]


def test_bad_events_that_were_read_before_their_total_wait_for_it() -> None:
    events = looks(
        ({"a": 0}, {"a": 10}), ({"a": 5}, {"a": 12}), ({"a": 5}, {"a": 20}), ({"a": 5}, {"a": 30})
    )
    assert events == [(0, 0), (2, 2), (3, 8), (0, 10)]


def test_a_bad_reading_from_before_the_restart_is_left_out() -> None:
    events = looks(({"a": 50}, {"a": 100}), ({"a": 50}, {"a": 5}), ({"a": 1}, {"a": 6}))
    assert events == [(0, 0), (0, 5), (1, 1)]


def test_a_total_that_is_missing_leaves_the_bad_events_waiting() -> None:
    events = looks(({"a": 0}, {"a": 10}), ({"a": 3}, {}), ({"a": 3}, {"a": 15}))
    assert events == [(0, 0), (0, 0), (3, 5)]


def test_two_series_of_one_pod_are_an_error() -> None:
    samples = Samples((Series((("pod", "a"),), 1.0), Series((("pod", "a"), ("x", "y")), 2.0)))
    with pytest.raises(AmbiguousSeriesError, match="pod a"):
        by_pod(samples)


def test_readings_that_are_no_numbers_are_left_out() -> None:
    samples = Samples((Series((("pod", "a"),), float("nan")), Series((("pod", "b"),), 2.0)))
    assert by_pod(samples) == {"b": 2.0}


@dataclass
class Pod:
    bad: int = 0
    total: int = 0


@dataclass
class Fleet:
    """Pods that serve, restart, come and go; and what truly happened."""

    pods: dict[str, Pod] = field(default_factory=dict)
    bad: int = 0
    total: int = 0


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("serve"), st.integers(0, 3), st.integers(0, 6), st.integers(0, 6)),
        st.tuples(st.just("restart"), st.integers(0, 3), st.just(0), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("look without"), st.integers(0, 3), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(ACTIONS)
def test_every_event_is_counted_at_most_once_whatever_happens(
    actions: list[tuple[str, int, int, int]],
) -> None:
    fleet, counters = Fleet(), STARTED
    seen_bad = seen_total = 0.0
    for action, number, bad, good in [*actions, ("look", 0, 0, 0)]:
        name = f"pod-{number}"
        if action == "serve":
            pod = fleet.pods.setdefault(name, Pod())
            pod.bad += bad
            pod.total += bad + good
            fleet.bad += bad
            fleet.total += bad + good
        elif action == "restart":
            fleet.pods[name] = Pod()
        else:
            visible = {
                pod_name: pod
                for pod_name, pod in fleet.pods.items()
                if action == "look" or pod_name != name
            }
            counters, new_bad, new_total = advance(
                counters,
                {pod_name: float(pod.bad) for pod_name, pod in visible.items()},
                {pod_name: float(pod.total) for pod_name, pod in visible.items()},
            )
            assert 0 <= new_bad <= new_total
            seen_bad += new_bad
            seen_total += new_total
    assert seen_bad <= fleet.bad
    assert seen_total <= fleet.total


@given(ACTIONS)
def test_without_restarts_and_gaps_every_event_is_counted(
    actions: list[tuple[str, int, int, int]],
) -> None:
    pods: dict[str, Pod] = {}
    counters, seen = STARTED, [0.0, 0.0]
    for action, number, bad, good in [*actions, ("look", 0, 0, 0)]:
        if action == "serve":
            pod = pods.setdefault(f"pod-{number}", Pod())
            pod.bad += bad
            pod.total += bad + good
        elif action == "look":
            counters, new_bad, new_total = advance(
                counters,
                {name: float(pod.bad) for name, pod in pods.items()},
                {name: float(pod.total) for name, pod in pods.items()},
            )
            seen[0] += new_bad
            seen[1] += new_total
    assert seen[0] == sum(pod.bad for pod in pods.values())
    assert seen[1] == sum(pod.total for pod in pods.values())
