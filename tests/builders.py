"""Builders that let a test say only what it is about."""

from __future__ import annotations

from typing import Any

from model_operator.api.types import (
    Analysis,
    Bake,
    Duration,
    Model,
    ModelDeploymentSpec,
    OnInsufficient,
    ParentReference,
    Pause,
    Rollout,
    Route,
    SetWeight,
    Step,
)
from model_operator.core.observed import Judgement, Trial
from model_operator.core.verdict import Outcome, Verdict

NOW = 1_800_000_000.0
"""A moment for tests that need one, seconds since the epoch."""


def weight(percent: int, duration: str = "10s") -> Step:
    return Step(set_weight=SetWeight(percent=percent, duration=Duration(duration)))


def pause(duration: str | None = None) -> Step:
    return Step(pause=Pause(duration=Duration(duration) if duration else None))


def digest(seed: int) -> str:
    return f"sha256:{seed:064x}"


def spec(
    *steps: Step,
    replicas: int = 2,
    bake: str = "30s",
    bake_replicas: int | None = None,
    hold: str = "60s",
    then: str = "Rollback",
    deadline: str = "10m",
    suspend: bool = False,
    analysis: Analysis | None = None,
) -> ModelDeploymentSpec:
    analysis = analysis or Analysis(
        interval=Duration("1s"),
        on_insufficient=OnInsufficient(hold=Duration(hold), then=then),  # type: ignore[arg-type] # tests spell it as text
    )
    return ModelDeploymentSpec(
        model=Model(uri="https://models.example/digits/1/model.onnx", digest=digest(1)),
        replicas=replicas,
        route=Route(parent_refs=(ParentReference(name="main"),)),
        suspend=suspend,
        rollout=Rollout(
            steps=steps or (weight(5), weight(25), weight(50)),
            progress_deadline=Duration(deadline),
            bake=Bake(duration=Duration(bake), replicas=bake_replicas),
            analysis=analysis,
        ),
    )


REASONS = {
    Outcome.PASS: "Healthy",
    Outcome.FAIL: "AnalysisFailed",
    Outcome.INSUFFICIENT: "InsufficientData",
    Outcome.ERROR: "MetricsUnavailable",
}


def verdict(outcome: Outcome, reason: str | None = None) -> Verdict:
    reason = reason or REASONS[outcome]
    return Verdict(outcome, reason, f"the verdict is {outcome}", ())


def judgement(trial: Trial, outcome: Outcome, reason: str | None = None) -> Judgement:
    return Judgement(trial, verdict(outcome, reason))


def manifest(name: str = "digits", namespace: str = "vision", **spec_fields: Any) -> dict[str, Any]:
    """A ModelDeployment as a user writes it."""
    fields: dict[str, Any] = {
        "model": {"uri": "https://models.example/digits/1/model.onnx", "digest": digest(1)},
        "route": {"parentRefs": [{"name": "main", "namespace": "gateway"}]},
    }
    return {
        "apiVersion": "modeldeployment.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": fields | spec_fields,
    }
