"""The source `pods`: scrapes of real HTTP servers, and what is made of those that do not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from model_operator.adapters.pods import PodsSource, PodTarget, parse_metrics
from model_operator.adapters.sources import QueryFailedError, ask
from model_operator.api.samples import FailureKind, Query, Samples, Series
from tests.unit.metrics.served import MetricsPage, all_answers, serving

TEXT = """\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",revision="digits-a"} 90
requests_total{code="500",revision="digits-a"} 10
# TYPE requests_in_flight gauge
requests_in_flight 3
"""


def query(text: str, revision: str = "digits-a", window_s: float = 0.0) -> Query:
    return Query("m", text, "pods", "vision", revision, window_s)


@dataclass
class Fleet:
    """Pods behind real ports, a clock that a test moves, and the source under test."""

    stack: AsyncExitStack
    pages: dict[str, MetricsPage] = field(default_factory=dict)
    targets: list[PodTarget] = field(default_factory=list)
    now: float = 1_800_000_000.0

    def __post_init__(self) -> None:
        self.source = PodsSource(self.lookup, clock=lambda: self.now)

    def lookup(self, namespace: str, revision: str) -> list[PodTarget]:
        return self.targets if (namespace, revision) == ("vision", "digits-a") else []

    async def pod(self, name: str, text: str = TEXT) -> MetricsPage:
        page = MetricsPage(text)
        port = await self.stack.enter_async_context(serving(page))
        self.pages[name] = page
        self.targets.append(PodTarget(name, "127.0.0.1", port))
        return page

    async def ask(self, text: str, *, timeout_s: float = 5.0) -> Samples:
        return await self.source.query(query(text), timeout_s=timeout_s)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(stack)
        stack.push_async_callback(fleet.source.close)
        yield fleet


async def test_each_pod_is_a_series_with_the_labels_that_prometheus_would_give(
    fleet: Fleet,
) -> None:
    await fleet.pod("a")
    await fleet.pod("b")
    answer = await fleet.ask('sum by (namespace, pod) (requests_total{code="500"})')
    assert answer.series == (
        Series((("namespace", "vision"), ("pod", "a")), 10.0),
        Series((("namespace", "vision"), ("pod", "b")), 10.0),
    )
    assert fleet.pages["a"].paths == ["/metrics"]


async def test_queries_of_one_look_share_a_scrape(fleet: Fleet) -> None:
    page = await fleet.pod("a")
    queries = [query("sum(requests_total)"), query("sum(requests_in_flight)")]
    answers = await all_answers(ask(queries, lambda _: fleet.source))
    assert [answers[one] for one in queries] == [
        Samples((Series((), 100.0),)),
        Samples((Series((), 3.0),)),
    ]
    assert page.scrapes == 1


async def test_the_next_look_scrapes_anew(fleet: Fleet) -> None:
    page = await fleet.pod("a")
    await fleet.ask("sum(requests_total)")
    page.text = TEXT.replace("90", "95")
    fleet.now += 1
    assert (await fleet.ask("sum(requests_total)")).series[0].value == 105


async def test_a_query_for_other_metrics_scrapes_anew_within_the_same_look(fleet: Fleet) -> None:
    await fleet.pod("a")
    await fleet.ask("sum(requests_total)")
    assert (await fleet.ask("sum(requests_in_flight)")).series[0].value == 3


async def test_a_window_is_covered_by_the_scrapes_of_earlier_looks(fleet: Fleet) -> None:
    page = await fleet.pod("a")
    for seconds in range(0, 35, 5):
        page.text = f"requests_total {seconds * 4}\n"
        answer = await fleet.ask("sum(rate(requests_total[20s]))")
        fleet.now += 5
    assert answer.series == (Series((), 4.0),)


async def test_a_metric_that_was_not_asked_for_before_has_no_window_yet(fleet: Fleet) -> None:
    page = await fleet.pod("a")
    for seconds in range(0, 20, 5):
        page.text = f"requests_total {seconds}\nother_total {1000 + seconds}\n"
        await fleet.ask("sum(rate(requests_total[1m]))")
        fleet.now += 5
    assert (await fleet.ask("sum(rate(other_total[1m]))")).series == ()


async def test_before_there_are_two_scrapes_a_window_has_no_data(fleet: Fleet) -> None:
    await fleet.pod("a")
    assert (await fleet.ask("sum(rate(requests_total[1m]))")).series == ()


async def test_a_pod_that_does_not_answer_has_no_series_and_the_others_do(fleet: Fleet) -> None:
    await fleet.pod("a")
    (await fleet.pod("b")).status = 503
    fleet.targets.append(PodTarget("gone", "127.0.0.1", 9))
    answer = await fleet.ask("sum by (pod) (requests_total)")
    assert [series.label("pod") for series in answer.series] == ["a"]


async def test_a_pod_that_hangs_keeps_nobody_waiting_for_long(fleet: Fleet) -> None:
    await fleet.pod("a")
    (await fleet.pod("b")).hang = True
    began = time.monotonic()
    answer = await fleet.ask("sum by (pod) (requests_total)", timeout_s=0.4)
    assert time.monotonic() - began < 30  # and not for the minute that the pod hangs
    assert [series.label("pod") for series in answer.series] == ["a"]


async def test_nothing_of_a_source_runs_on_once_it_is_closed(fleet: Fleet) -> None:
    (await fleet.pod("a")).hang = True
    asking = asyncio.create_task(fleet.ask("sum(requests_total)"))
    await asyncio.sleep(0.05)
    asking.cancel()  # the query is given up, its scrape goes on for others
    before = asyncio.all_tasks()
    await fleet.source.close()
    scrapes = [task for task in before if "_scrape_all" in repr(task)]
    assert scrapes, "there was one to end"
    assert all(task.done() for task in scrapes)


async def test_when_no_pod_answers_the_source_has_failed(fleet: Fleet) -> None:
    (await fleet.pod("a")).status = 503
    with pytest.raises(QueryFailedError, match="none of 1 pods answered; a: answers 503") as error:
        await fleet.ask("sum(requests_total)")
    assert error.value.failure.kind is FailureKind.UNAVAILABLE


async def test_a_revision_without_pods_has_no_data(fleet: Fleet) -> None:
    assert await fleet.ask("sum(requests_total)") == Samples()


async def test_a_page_that_is_no_metrics_text_is_a_pod_that_did_not_answer(fleet: Fleet) -> None:
    await fleet.pod("a", text="requests_total{ nonsense\n")
    with pytest.raises(QueryFailedError, match="no metrics text"):
        await fleet.ask("sum(requests_total)")


async def test_a_query_that_is_not_understood_is_a_configuration_error(fleet: Fleet) -> None:
    await fleet.pod("a")
    with pytest.raises(QueryFailedError, match="quantile_over_time") as error:
        await fleet.ask("quantile_over_time(0.9, x[5m])")
    assert error.value.failure.kind is FailureKind.CONFIGURATION


async def test_a_pod_that_left_is_not_in_the_sum(fleet: Fleet) -> None:
    await fleet.pod("a")
    await fleet.pod("b")
    assert (await fleet.ask("sum(requests_total)")).series[0].value == 200
    del fleet.targets[1]
    fleet.now += 5
    assert (await fleet.ask("sum(requests_total)")).series[0].value == 100


async def test_memory_holds_no_more_than_the_window_and_what_was_asked_for(fleet: Fleet) -> None:
    await fleet.pod("a")
    for _ in range(100):
        await fleet.ask("sum(rate(requests_total[20s]))")
        fleet.now += 5
    revision = fleet.source._revisions["vision", "digits-a"]
    assert len(revision.scrapes["a"]) <= 9
    assert {name for name, _ in revision.scrapes["a"][-1].values} == {"requests_total"}


async def test_what_nobody_asks_for_any_more_is_forgotten(fleet: Fleet) -> None:
    await fleet.pod("a")
    await fleet.ask("sum(requests_total)")
    fleet.now += 3600
    await fleet.source.query(query("sum(x)", revision="digits-b"), timeout_s=1)
    assert list(fleet.source._revisions) == [("vision", "digits-b")]


def test_what_a_pod_says_about_its_own_place_does_not_count() -> None:
    values = parse_metrics('x{pod="liar",a="b"} 1\n', {"x"}, namespace="vision", pod="a")
    assert values == {("x", (("a", "b"), ("namespace", "vision"), ("pod", "a"))): 1.0}


@pytest.mark.parametrize("names", [{"x"}, {"x_total"}])
def test_only_series_of_exactly_that_name_are_read(names: set[str]) -> None:
    values = parse_metrics("x 1\nx_total 2\nx_total_more 3\n", names, namespace="n", pod="p")
    assert {name for name, _ in values} == names
