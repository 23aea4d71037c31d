"""The source Prometheus against a real Prometheus, and the source `pods` beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from model_operator.adapters.pods import PodsSource, PodTarget
from model_operator.adapters.prometheus import PrometheusSource
from model_operator.adapters.sources import QueryFailedError, Source
from model_operator.api.samples import FailureKind, Query, Samples, Series
from model_operator.api.types import Analysis, Duration, Prometheus
from model_operator.core.analysis import AnalysisState, Subject, compile_plan, due
from tests.metrics.conftest import SCRAPE_INTERVAL_S, RealPrometheus

pytestmark = pytest.mark.apiserver

PATIENCE_S = 15.0


def query(text: str) -> Query:
    return Query("m", text, "main", "vision", "digits-a")


@pytest.fixture
async def source(prometheus: RealPrometheus) -> AsyncIterator[PrometheusSource]:
    spec = Prometheus(url=prometheus.url, scrape_interval=Duration("500ms"))
    source = PrometheusSource("main", spec)
    yield source
    await source.close()


@pytest.fixture
async def pods(prometheus: RealPrometheus) -> AsyncIterator[PodsSource]:
    targets = [
        PodTarget(name, "127.0.0.1", page.port) for name, page in prometheus.pods.pages.items()
    ]
    source = PodsSource(lambda *_: targets)
    yield source
    await source.close()


async def until(source: Source, text: str, wanted: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = await source.query(query(text), timeout_s=5)
        if wanted(answer):
            return answer
        assert time.monotonic() < deadline, f"{text} still has {answer}"
        await asyncio.sleep(0.1)


def some(answer: Samples) -> bool:
    return bool(answer.series)


def none(answer: Samples) -> bool:
    return not answer.series


async def test_raw_counters_come_with_one_series_for_each_pod(
    prometheus: RealPrometheus, source: PrometheusSource, pods: PodsSource
) -> None:
    for name, count in (("a", 40), ("b", 2)):
        prometheus.pods.pages[
            name
        ].text = f'raw_total{{code="200"}} {count}\nraw_total{{code="500"}} 1\n'
    text = "sum by (pod) (raw_total)"
    answer = await until(source, text, lambda one: len(one.series) == 2)
    expected = {Series((("pod", "a"),), 41.0), Series((("pod", "b"),), 3.0)}
    assert set(answer.series) == expected, "in no particular order"
    assert set((await pods.query(query(text), timeout_s=5)).series) == expected


async def test_s16_a_pod_that_stops_answering_has_no_data_after_two_scrapes(
    prometheus: RealPrometheus, source: PrometheusSource
) -> None:
    page = prometheus.pods.pages["a"]
    page.text = "stopped_total 5\n"
    for text in ("stopped_total", "sum(rate(stopped_total[1m]))"):
        await until(source, text, some)
    try:
        page.up = False
        began = time.monotonic()
        for text in ("stopped_total", "sum(rate(stopped_total[1m]))"):
            await until(source, text, none)
        assert time.monotonic() - began < 2 + 4 * SCRAPE_INTERVAL_S
    finally:
        page.up = True


async def test_s16_old_samples_that_prometheus_itself_still_answers_with_are_no_data(
    prometheus: RealPrometheus, source: PrometheusSource
) -> None:
    """With times of their own, samples get no staleness marker: only their age tells."""
    page = prometheus.pods.pages["a"]

    def frozen(back_s: float) -> str:
        return f"frozen_total {100 - back_s:g} {round((time.time() - back_s) * 1000)}\n"

    page.text = frozen(8)
    await raw(prometheus, "frozen_total", some=True)
    page.text = frozen(3)
    await raw(prometheus, "rate(frozen_total[1m])", some=True)
    for text in ("frozen_total", "rate(frozen_total[1m])"):
        assert await source.query(query(text), timeout_s=5) == Samples(), text
    page.text = frozen(0)
    for text in ("frozen_total", "rate(frozen_total[1m])"):
        page.text = frozen(0)
        await until(source, text, some)


async def raw(prometheus: RealPrometheus, text: str, *, some: bool) -> None:
    """Wait until Prometheus by itself has an answer."""
    async with aiohttp.ClientSession() as session:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            async with session.get(
                f"{prometheus.url}/api/v1/query", params={"query": text}
            ) as response:
                body = await response.json()
            if bool(body["data"]["result"]) is some:
                return
            await asyncio.sleep(0.1)
    raise AssertionError(f"{text}: {body}")


@pytest.mark.parametrize("text", ["sum(", "up + on(pod) group_left(x", "nonsense(up)"])
async def test_a_query_that_is_no_promql_is_a_configuration_error(
    source: PrometheusSource, text: str
) -> None:
    with pytest.raises(QueryFailedError, match=r"answers 400.*parse error") as error:
        await source.query(query(text), timeout_s=5)
    assert error.value.failure.kind is FailureKind.CONFIGURATION


async def test_a_query_that_cannot_be_executed_is_a_configuration_error(
    source: PrometheusSource,
) -> None:
    await until(source, "count(up)", lambda one: some(one) and one.series[0].value == 2)
    with pytest.raises(QueryFailedError, match="answers 422") as error:
        await source.query(query("up * on(job) up"), timeout_s=5)
    assert error.value.failure.kind is FailureKind.CONFIGURATION


async def test_two_series_come_back_as_two(source: PrometheusSource) -> None:
    answer = await until(source, "up", lambda one: len(one.series) == 2)
    assert {series.label("pod") for series in answer.series} == {"a", "b"}


async def test_the_default_analysis_means_the_same_in_both_sources(
    prometheus: RealPrometheus, source: PrometheusSource, pods: PodsSource
) -> None:
    page = prometheus.pods.pages["a"]
    prometheus.pods.pages["b"].text = ""
    plan = compile_plan(Analysis(), Subject("vision", "digits", "digits-a", None))
    queries = due(plan, AnalysisState(), time.time())
    assert queries
    for round_ in range(12):
        page.text = model_server_page(requests=1000 + 50 * round_, failed=10 + round_)
        for one in queries:
            await pods.query(one, timeout_s=5)
        await asyncio.sleep(SCRAPE_INTERVAL_S)
    for one in queries:
        theirs = await until(source, one.text, some)
        ours = await pods.query(one, timeout_s=5)
        assert len(theirs.series) == len(ours.series) == 1, one.text
        assert theirs.series[0].labels == ours.series[0].labels
        assert theirs.series[0].value == pytest.approx(ours.series[0].value, rel=0.02), one.text


def model_server_page(*, requests: int, failed: int) -> str:
    labels = 'model="digits",revision="digits-a"'
    duration = "model_server_request_duration_seconds"
    shares = {"0.005": 0.5, "0.01": 0.9, "0.025": 0.98, "0.05": 1.0, "+Inf": 1.0}
    buckets = "".join(
        f'{duration}_bucket{{{labels},le="{le}"}} {requests * share:.0f}\n'
        for le, share in shares.items()
    )
    counts = {"200": requests - 2 * failed, "400": failed, "500": failed}
    return buckets + "".join(
        f'model_server_requests_total{{{labels},code="{code}"}} {count}\n'
        for code, count in counts.items()
    )
