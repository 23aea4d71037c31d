"""Whole rollouts of healthy revisions in virtual time: requests, scrapes, queries, verdicts.

Only `decide` is missing: a step ends when its time is over and the verdict is a pass.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from model_operator.adapters.evaluate import PodHistory, Scrape, SeriesKey, evaluate
from model_operator.adapters.promql import parse
from model_operator.api.samples import Answer, Query, Samples, Series
from model_operator.api.types import Analysis
from model_operator.core.analysis import AnalysisState, Subject, assess, compile_plan, due
from model_operator.core.verdict import Outcome, Verdict

CANDIDATE, STABLE = "digits-new", "digits-old"
HOLD_S = 600.0
_BOUNDS = np.array([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
_LABELS = (("namespace", "vision"), ("pod", "a"))


@dataclass(frozen=True)
class Errors:
    """How requests fail.

    Attributes:
        share: Of all requests.
        burst: Mean number of failures in a row; 1 for independent ones.
    """

    share: float
    burst: float = 1.0

    def draw(self, rng: np.random.Generator, *, failing: bool) -> bool:
        """Whether the next request fails, after one that did or did not."""
        if self.burst <= 1:
            return bool(rng.random() < self.share)
        if failing:
            return bool(rng.random() >= 1 / self.burst)
        return bool(rng.random() < self.share / (1 - self.share) / self.burst)


@dataclass
class Revision:
    """One pod of a revision: counters, and the scrapes of its last two minutes."""

    name: str
    errors: Errors
    median_s: float = 0.02
    spread: float = 0.5
    counts: dict[str, int] = field(default_factory=lambda: {"200": 0, "500": 0})
    buckets: np.ndarray[tuple[int], np.dtype[np.int64]] = field(
        default_factory=lambda: np.zeros(len(_BOUNDS) + 1, np.int64)
    )
    failing: bool = False
    scrapes: deque[Scrape] = field(default_factory=lambda: deque(maxlen=14))

    def serve(self, rng: np.random.Generator, requests: int) -> None:
        for _ in range(requests):
            self.failing = self.errors.draw(rng, failing=self.failing)
            self.counts["500" if self.failing else "200"] += 1
        seconds = self.median_s * np.exp(self.spread * rng.standard_normal(requests))
        np.add.at(self.buckets, np.searchsorted(_BOUNDS, seconds), 1)

    def scrape(self, now: float) -> None:
        own = (*_LABELS, ("revision", self.name))
        values: dict[SeriesKey, float] = {
            ("model_server_requests_total", tuple(sorted((*own, ("code", code))))): float(count)
            for code, count in self.counts.items()
        }
        bounds = [*(f"{bound:g}" for bound in _BOUNDS), "+Inf"]
        for bound, count in zip(bounds, np.cumsum(self.buckets), strict=True):
            labels = tuple(sorted((*own, ("le", bound))))
            values["model_server_request_duration_seconds_bucket", labels] = float(count)
        self.scrapes.append(Scrape(now, values, frozenset(name for name, _ in values)))


@dataclass
class HealthyRollout:
    """One rollout; requests come at an even rate and are split by weight.

    Attributes:
        steps: Percent and seconds of each step.
        bake_s: Length of the bake, seconds.
        per_second: Requests per second of both revisions together.
    """

    analysis: Analysis
    rng: np.random.Generator
    candidate: Revision
    stable: Revision
    steps: tuple[tuple[int, float], ...] = ((5, 120.0), (25, 120.0), (50, 120.0))
    bake_s: float = 600.0
    per_second: float = 1.0
    now: float = 1_800_000_000.0
    state: AnalysisState = field(default_factory=AnalysisState)

    def outcome(self) -> str:
        """What became of it: promoted, or why not."""
        for step, (percent, duration_s) in enumerate(self.steps):
            ended = self._step(step, percent / 100, duration_s)
            if ended is not None:
                return ended
        baked_until = self.now + self.bake_s
        while self.now < baked_until:
            verdict = self._look(len(self.steps), 1.0)
            if verdict.outcome is Outcome.FAIL:
                return f"failed in the bake: {verdict.message}"
        return "promoted"

    def _step(self, step: int, share: float, duration_s: float) -> str | None:
        elapsed_s = missing_s = 0.0
        while True:
            verdict = self._look(step, share)
            if verdict.outcome is Outcome.FAIL:
                return f"failed at step {step}: {verdict.message}"
            if verdict.outcome is Outcome.PASS:
                elapsed_s += self.analysis.interval.seconds
                if elapsed_s >= duration_s:
                    return None
            missing = verdict.outcome is Outcome.INSUFFICIENT and not verdict.collecting
            missing_s = missing_s + self.analysis.interval.seconds if missing else 0.0
            if missing_s > HOLD_S:
                return f"no evidence at step {step}: {verdict.message}"

    def _look(self, step: int, share: float) -> Verdict:
        interval_s = self.analysis.interval.seconds
        self.now += interval_s
        requests = int(self.rng.poisson(self.per_second * interval_s))
        for_candidate = int(self.rng.binomial(requests, share))
        self.candidate.serve(self.rng, for_candidate)
        self.stable.serve(self.rng, requests - for_candidate)
        for revision in (self.candidate, self.stable):
            revision.scrape(self.now)
        beside = STABLE if step < len(self.steps) else None
        plan = compile_plan(self.analysis, Subject("vision", "digits", CANDIDATE, beside))
        answers = {query: self._answer(query) for query in due(plan, self.state, self.now)}
        self.state, verdict = assess(plan, self.state, answers, step=step, now=self.now)
        return verdict

    def _answer(self, query: Query) -> Answer:
        revision = self.candidate if query.revision == CANDIDATE else self.stable
        pods = [PodHistory(tuple(revision.scrapes), answered=True)]
        result = evaluate(parse(query.text), pods, self.now)
        assert isinstance(result, dict)
        return Samples(tuple(Series(labels, value) for labels, value in result.items()))
