"""A verdict counts for the questions that are asked, and as long as it is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from model_operator.api.parse import parse_spec
from model_operator.api.samples import POD_LABEL, Query, Samples, Series
from model_operator.api.types import Analysis
from model_operator.core.observed import Trial
from model_operator.core.verdict import Outcome, Verdict
from model_operator.engine import analyst as analyst_module
from model_operator.engine.analyst import ANALYSIS_BROKEN, Analyst
from model_operator.engine.store import Key
from tests.builders import NOW, manifest
from tests.unit.engine.played_engine import ERRORS

pytestmark = pytest.mark.looptime
KEY = Key("vision", "digits")
TRIAL = Trial("digits-2", "2026-01-01T00:00:00Z", 0, 10, "digits-1")


def analysis(interval: str = "5s", min_events: int = 10) -> Analysis:
    metric = {**ERRORS, "events": {**ERRORS["events"], "minEvents": min_events}}  # type: ignore[dict-item] # ERRORS is JSON
    rollout = {"analysis": {"interval": interval, "metricSource": "fake", "metrics": [metric]}}
    return parse_spec(manifest(rollout=rollout)).rollout.analysis


class Metrics:
    """A source of ten requests a second."""

    def __init__(self) -> None:
        self.bad_share = 0.0
        self.answers_in_s = 0.0
        self.changes: list[Outcome] = []
        self.analyst = Analyst(lambda _: self, self._changed, self.now)

    @staticmethod
    def now() -> float:
        return NOW + asyncio.get_running_loop().time()

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        del timeout_s
        await asyncio.sleep(self.answers_in_s)
        total = 10 * asyncio.get_running_loop().time()
        value = total if query.text == "total" else total * self.bad_share
        return Samples((Series(((POD_LABEL, "a"),), round(value)),))

    def outcome(self) -> Outcome | None:
        judgement = self.analyst.judgement(KEY)
        return judgement.verdict.outcome if judgement else None

    def _changed(self, _key: Key, verdict: Verdict) -> None:
        self.changes.append(verdict.outcome)


@asynccontextmanager
async def passed() -> AsyncIterator[Metrics]:
    """Given a candidate that has passed."""
    played = Metrics()
    played.analyst.follow(KEY, TRIAL, analysis(), {})
    await asyncio.sleep(16)
    assert played.outcome() is Outcome.PASS
    yield played
    played.analyst.close()


async def test_an_analysis_that_cannot_be_asked_is_looked_at_once_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, look = [], Analyst._look

    async def counted(self: Analyst, *rest: Any) -> None:
        looks.append(rest)
        assert len(looks) < 100, "it looks again and again"
        await look(self, *rest)

    monkeypatch.setattr(Analyst, "_look", counted)
    comparison = {"query": "histogram_quantile(0.99, x)", "maxIncreasePercent": 20}
    metric = {"name": "latency", "type": "Comparison", "comparison": comparison}
    rollout = {"analysis": {"metricSource": "fake", "metrics": [metric]}}
    metrics = Metrics()
    metrics.analyst.follow(KEY, TRIAL, parse_spec(manifest(rollout=rollout)).rollout.analysis, {})
    await asyncio.sleep(62)
    assert metrics.outcome() is Outcome.ERROR
    assert 12 <= len(looks) <= 14, "every five seconds"
    metrics.analyst.close()


async def test_a_pass_is_none_any_more_once_the_next_look_is_late() -> None:
    async with passed() as metrics:
        # when the source hangs at the next look
        metrics.answers_in_s = 60.0
        await asyncio.sleep(4.5)
        assert metrics.outcome() is Outcome.PASS
        await asyncio.sleep(1.0)
        # then the pass of before counts no more, long before the source's deadline
        assert metrics.outcome() is Outcome.INSUFFICIENT
        # and when it answers again, whoever asked in between is told
        metrics.answers_in_s = 0.0
        metrics.changes.clear()
        await asyncio.sleep(12)
        assert metrics.outcome() is Outcome.PASS
        assert Outcome.PASS in metrics.changes


async def test_an_analysis_that_breaks_is_an_error_and_not_the_verdict_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with passed() as metrics:

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(analyst_module, "assess", broken)
            await asyncio.sleep(10)
            judgement = metrics.analyst.judgement(KEY)
            assert judgement is not None
            assert judgement.verdict.outcome is Outcome.ERROR
            assert judgement.verdict.reason == ANALYSIS_BROKEN
            assert "ZeroDivisionError" in judgement.verdict.message
        # and it recovers by itself
        await asyncio.sleep(10)
        assert metrics.outcome() is Outcome.PASS


async def test_a_failure_stays_one_although_the_analysis_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with passed() as metrics:
        metrics.bad_share = 0.5
        await asyncio.sleep(20)
        assert metrics.outcome() is Outcome.FAIL
        monkeypatch.setattr(analyst_module, "assess", None)
        await asyncio.sleep(20)
        assert metrics.outcome() is Outcome.FAIL


async def test_a_verdict_is_not_one_on_an_analysis_that_was_edited() -> None:
    async with passed() as metrics:
        # when nothing but the analysis changes, while its source is slow
        metrics.answers_in_s = 3.0
        await asyncio.sleep(5)
        metrics.analyst.follow(KEY, TRIAL, analysis(min_events=1000), {})
        # then the verdict of before is none, also when the answer to the old questions comes
        assert metrics.outcome() is None
        await asyncio.sleep(4)
        assert metrics.outcome() is not Outcome.PASS
        await asyncio.sleep(20)
        assert metrics.outcome() is Outcome.INSUFFICIENT


async def test_i12_a_source_that_hangs_does_not_delay_the_failure_that_another_one_shows() -> None:
    well, hanging = Metrics(), Metrics()
    hanging.answers_in_s = 60.0
    other = {**ERRORS, "name": "other", "metricSource": "hanging"}
    metrics = [{**ERRORS, "events": {**ERRORS["events"], "minEvents": 10}}, other]  # type: ignore[dict-item] # ERRORS is JSON
    rollout = {"analysis": {"interval": "5s", "metricSource": "fake", "metrics": metrics}}
    wanted = parse_spec(manifest(rollout=rollout)).rollout.analysis
    told: list[tuple[float, Outcome]] = []
    loop = asyncio.get_running_loop()
    analyst = Analyst(
        lambda query: hanging if query.source == "hanging" else well,
        lambda _, verdict: told.append((loop.time(), verdict.outcome)),
        Metrics.now,
    )
    well.bad_share = 0.5
    analyst.follow(KEY, TRIAL, wanted, {})
    # the second look begins at the latest 10 s after the first and shows the failure; the query
    # that hangs is given up 5 s later
    while not told or told[-1][1] is not Outcome.FAIL:
        await asyncio.sleep(0.1)
        assert loop.time() < 60
    began_s = told[-1][0] - 0.5
    assert any(abs(began_s - look_s) < 0.1 for look_s in (10.0, 15.0, 20.0)), told
    analyst.close()
