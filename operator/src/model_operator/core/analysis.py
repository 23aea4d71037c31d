"""The analysis of a revision: pure, then I/O, then pure again.

    plan = compile_plan(spec.rollout.analysis, subject)
    answers = await ask(due(plan, state, now))          # the caller's I/O
    state, verdict = assess(plan, state, answers, step=step, now=now)
    queue.add_after(key, next_look(plan, state) - now)

One state belongs to one rollout of one revision. It is kept through all steps and the bake; a
retry or a new rollout begins with ``AnalysisState()``. It survives in
``ModelRevision.status.tests`` as ``state_to_json`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_operator.api.types import Analysis
from model_operator.core.samples import Answer, Query
from model_operator.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is judged.

    Attributes:
        namespace: Namespace of the ModelDeployment.
        name: Name of the ModelDeployment.
        revision: Name of the revision that is judged.
        stable: Name of the revision that serves beside it now; None in a bake and on a first
            create. Comparisons are then made with what was measured of stable before.
    """

    namespace: str
    name: str
    revision: str
    stable: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """An analysis with its queries rendered and its error budget split."""

    interval_s: float


@dataclass(frozen=True, slots=True)
class AnalysisState:
    """What the tests remember from look to look. ``AnalysisState()`` knows nothing yet."""


def compile_plan(analysis: Analysis, subject: Subject) -> Plan:
    """Render every query and split the error budget.

    A template that cannot be rendered is no exception: `assess` reports it as a finding
    ``ConfigurationError`` of its metric, so that one bad query does not blind the others.
    With no metrics in ``analysis`` the default analysis is compiled.
    """
    raise NotImplementedError


def due(plan: Plan, state: AnalysisState, now: float) -> tuple[Query, ...]:
    """Queries to ask now; empty when the next look is not due yet."""
    raise NotImplementedError


def assess(
    plan: Plan,
    state: AnalysisState,
    answers: Mapping[Query, Answer],
    *,
    step: int,
    now: float,
) -> tuple[AnalysisState, Verdict]:
    """Judge the answers.

    Args:
        plan: What is tested.
        state: As the look before left it.
        answers: An answer to each query that was due; a query without one counts as
            ``MetricsUnavailable``. With no answers at all the verdict is the one before.
        step: Index of the rollout's step, any other number for the bake. When it changes, the
            evidence that a pass needs is collected anew; running tests go on.
        now: Seconds since the epoch.

    Returns:
        The state to keep and the verdict. A failure stays one for the life of the state.
    """
    raise NotImplementedError


def next_look(plan: Plan, state: AnalysisState) -> float:
    """When something is due next, seconds since the epoch; 0 when nothing was asked yet."""
    raise NotImplementedError


def state_to_json(state: AnalysisState) -> dict[str, Any]:
    """For ``ModelRevision.status.tests``."""
    raise NotImplementedError


def state_from_json(data: Mapping[str, Any]) -> AnalysisState:
    """Read what `state_to_json` wrote; anything it cannot read starts afresh."""
    raise NotImplementedError
