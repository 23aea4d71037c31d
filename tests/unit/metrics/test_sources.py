"""Asking all sources at once: every query has an answer, whatever happens to the others."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from model_operator.adapters.sources import QueryFailedError, Source, ask
from model_operator.api.samples import Answer, Failure, FailureKind, Query, Samples, Series
from tests.unit.metrics.served import all_answers

ONE = Samples((Series((), 1.0),))


@dataclass
class FakeSource:
    answer: Answer | None
    asked: int = 0

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        assert query
        assert timeout_s > 0
        self.asked += 1
        if self.answer is None:
            await asyncio.sleep(60)
        if isinstance(self.answer, Samples):
            return self.answer
        assert self.answer is not None
        raise QueryFailedError(self.answer.kind, self.answer.message)


def query(source: str, text: str = "up") -> Query:
    return Query("m", text, source, "vision", "digits-a")


async def test_each_query_gets_its_own_answer() -> None:
    failure = Failure(FailureKind.UNAVAILABLE, "answers 500")
    unknown = Failure(FailureKind.CONFIGURATION, "there is no MetricSource 'nobody'")
    sources: dict[str, Source | Failure] = {
        "good": FakeSource(ONE),
        "bad": FakeSource(failure),
        "hanging": FakeSource(None),
        "nobody": unknown,
    }
    answers = await all_answers(
        ask(map(query, sources), lambda one: sources[one.source], timeout_s=0.05)
    )
    assert answers[query("good")] == ONE
    assert answers[query("bad")] == failure
    assert answers[query("nobody")] == unknown
    hanging = answers[query("hanging")]
    assert isinstance(hanging, Failure)
    assert hanging.kind is FailureKind.UNAVAILABLE
    assert "no answer within 0.05 s" in hanging.message


async def test_the_same_query_is_asked_once() -> None:
    source = FakeSource(ONE)
    answers = await all_answers(
        ask([query("a"), query("a"), query("a", "other")], lambda _: source)
    )
    assert source.asked == 2
    assert len(answers) == 2


async def test_one_that_hangs_keeps_the_answers_of_others_back_for_a_moment_only() -> None:
    sources: dict[str, Source | Failure] = {"good": FakeSource(ONE), "hanging": FakeSource(None)}
    coming = ask(map(query, sources), lambda one: sources[one.source], timeout_s=30)
    async with aclosing(coming):
        assert await anext(coming) == {query("good"): ONE}
