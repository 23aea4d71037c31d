"""Runs the analyses beside the reconciles, so that a slow source delays nothing but its verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from model_operator.adapters.sources import Source, ask
from model_operator.api.samples import Failure, Query
from model_operator.api.types import Analysis
from model_operator.core.analysis import (
    AnalysisState,
    Plan,
    Subject,
    assess,
    compile_plan,
    due,
    next_look,
    state_from_json,
    state_to_json,
)
from model_operator.core.observed import Judgement, Trial
from model_operator.core.verdict import INSUFFICIENT_DATA, Outcome, Verdict
from model_operator.engine.store import Key

logger = logging.getLogger(__name__)

Find: TypeAlias = Callable[[Query], Source | Failure]
ANALYSIS_BROKEN: Final = "AnalysisBroken"
_RETRY_S: Final = 1.0
_MESSAGE_LIMIT: Final = 1024
_LATE_S: Final = 1.0
"""A pass counts until the next look is late by this, seconds: a source that hangs is no evidence,
and its deadline is longer than a step may be."""


@dataclass(slots=True)
class _Session:
    """The analysis of one rollout of one revision.

    Attributes:
        judgement: Of the newest look; None before the first.
        withheld: Whether somebody asked for the judgement when it was out of date.
        changed: Set when the trial is another one than before, so that it is looked at at once.
    """

    trial: Trial
    analysis: Analysis
    plan: Plan
    state: AnalysisState
    judgement: Judgement | None = None
    withheld: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Analyst:
    """Keeps one analysis going for each ModelDeployment that has a revision on trial.

    Attributes:
        find: The source of a query.
        changed: Told when a verdict changed.
        clock: Seconds since the epoch.
    """

    find: Find
    changed: Callable[[Key, Verdict], None]
    clock: Callable[[], float]
    _sessions: dict[Key, _Session] = field(default_factory=dict)

    def judgement(self, key: Key) -> Judgement | None:
        """What the newest samples say, a pass as long as it is new; None before the first."""
        session = self._sessions.get(key)
        if session is None or session.judgement is None:
            return None
        late_s = self.clock() - next_look(session.plan, session.state)
        if session.judgement.verdict.outcome is not Outcome.PASS or late_s <= _LATE_S:
            return session.judgement
        session.withheld = True
        return replace(session.judgement, verdict=_waiting(late_s))

    def state(self, key: Key) -> dict[str, Any] | None:
        """State of the running tests, for the record; None when none run."""
        session = self._sessions.get(key)
        if session is None:
            return None
        return {"rollout": session.trial.rollout, "analysis": state_to_json(session.state)}

    def follow(
        self, key: Key, trial: Trial | None, analysis: Analysis, tests: Mapping[str, Any]
    ) -> None:
        """Analyse this trial from now on, none for None.

        A test goes on through all steps of one rollout and its bake.

        Args:
            key: The ModelDeployment.
            trial: Who is on trial.
            analysis: How.
            tests: State that was recorded by an operator before this one.
        """
        session = self._sessions.get(key)
        if trial is None:
            self.forget(key)
            return
        if session is not None and (session.trial, session.analysis) == (trial, analysis):
            return
        plan = compile_plan(
            analysis, Subject(key.namespace, key.name, trial.revision, trial.stable)
        )
        if session is not None and _same_rollout(session.trial, trial):
            if session.analysis != analysis and not _failed(session.judgement):
                session.judgement = None  # it answers questions that nobody asks any more
            session.trial, session.analysis, session.plan = trial, analysis, plan
            session.changed.set()
            return
        self.forget(key)
        session = _Session(trial, analysis, plan, _recorded(tests, trial))
        self._sessions[key] = session
        session.task = asyncio.get_running_loop().create_task(self._run(key, session))

    def forget(self, key: Key) -> None:
        """End the analysis of a ModelDeployment."""
        session = self._sessions.pop(key, None)
        if session is not None and session.task is not None:
            session.task.cancel()

    def close(self) -> None:
        """End all analyses."""
        for key in list(self._sessions):
            self.forget(key)

    async def _run(self, key: Key, session: _Session) -> None:
        while True:
            session.changed.clear()
            try:
                await self._look(key, session)
            except Exception as error:
                # a defect in one metric's arithmetic must not end the analysis in silence
                logger.exception("the analysis of %s failed", key)
                self._settle(key, session, Judgement(session.trial, _broken(error)))
                wait_s = _RETRY_S
            else:
                wait_s = max(0.0, next_look(session.plan, session.state) - self.clock())
            try:
                async with asyncio.timeout(wait_s):
                    await session.changed.wait()
            except TimeoutError:
                continue

    async def _look(self, key: Key, session: _Session) -> None:
        trial, plan = session.trial, session.plan
        queries = due(plan, session.state, self.clock())
        state, verdict = session.state, None
        async with aclosing(ask(queries, self.find)) as coming:
            async for answers in coming:
                if session.plan is not plan:
                    return  # the answers are to questions of before
                now = self.clock()
                step = trial.weight_id
                state, verdict = assess(plan, session.state, answers, step=step, now=now)
                if verdict.outcome is Outcome.FAIL:
                    break  # what other sources have to say cannot change that
        if verdict is not None:
            session.state = state
            self._settle(key, session, Judgement(trial, verdict))

    def _settle(self, key: Key, session: _Session, judgement: Judgement) -> None:
        """Take a judgement over, and tell of it when a decision could turn on the difference."""
        before, withheld = session.judgement, session.withheld
        if _failed(before) and judgement.verdict.outcome is Outcome.ERROR:
            return  # a failure stays one for the life of the rollout
        session.judgement, session.withheld = judgement, False
        if (
            withheld
            or before is None
            or before.trial != judgement.trial
            or _gist(before.verdict) != _gist(judgement.verdict)
        ):
            self.changed(key, judgement.verdict)


def _failed(judgement: Judgement | None) -> bool:
    return judgement is not None and judgement.verdict.outcome is Outcome.FAIL


def _waiting(late_s: float) -> Verdict:
    """Instead of a pass that is out of date: neither for the revision nor against it."""
    message = f"the metrics are awaited for {late_s:.1f} s"
    return Verdict(Outcome.INSUFFICIENT, INSUFFICIENT_DATA, message, (), collecting=True)


def _broken(error: Exception) -> Verdict:
    message = f"the analysis itself fails: {type(error).__name__}: {error}"
    return Verdict(Outcome.ERROR, ANALYSIS_BROKEN, message[:_MESSAGE_LIMIT], ())


def _gist(verdict: Verdict) -> tuple[Outcome, str, bool]:
    """What a decision can turn on."""
    return verdict.outcome, verdict.reason, verdict.collecting


def _same_rollout(one: Trial, other: Trial) -> bool:
    return (one.revision, one.rollout) == (other.revision, other.rollout)


def _recorded(tests: Mapping[str, Any], trial: Trial) -> AnalysisState:
    if tests.get("rollout") != trial.rollout:
        return AnalysisState()
    return state_from_json(tests.get("analysis") or {})
