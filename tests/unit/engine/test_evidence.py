"""The record of a revision: what became of it follows from the ModelDeployment's status."""

from __future__ import annotations

import pytest

from model_operator.api.times import format_time
from model_operator.api.types import (
    CandidateStatus,
    ModelDeploymentStatus,
    ModelRevisionStatus,
    Preflight,
    RolledBackStatus,
    RolloutStatus,
    StableStatus,
)
from model_operator.engine.evidence import with_outcome
from tests.builders import NOW

TIME = format_time(NOW)
PASSED = Preflight(passed=True, time=TIME)
WRONG = ("DigestMismatch", "expected sha256:1, got sha256:2")
REFUSED = Preflight(passed=False, reason=WRONG[0], message=WRONG[1], time=TIME)


@pytest.mark.parametrize(
    ("status", "preflight"),
    [
        pytest.param(
            ModelDeploymentStatus(candidate=CandidateStatus(revision="new", step=-1)),
            None,
            id="still being loaded",
        ),
        pytest.param(
            ModelDeploymentStatus(candidate=CandidateStatus(revision="new", step=0)),
            PASSED,
            id="at its first step",
        ),
        pytest.param(
            ModelDeploymentStatus(stable=StableStatus(revision="new")), PASSED, id="first of all"
        ),
        pytest.param(
            ModelDeploymentStatus(
                rolled_back=(
                    RolledBackStatus(revision="new", reason=WRONG[0], message=WRONG[1], time=TIME),
                )
            ),
            REFUSED,
            id="rolled back before its first step",
        ),
        pytest.param(
            ModelDeploymentStatus(
                candidate=CandidateStatus(revision="new", step=-1),
                rollout=RolloutStatus(state="Failed", reason=WRONG[0], message=WRONG[1]),
            ),
            REFUSED,
            id="first of all, and it cannot be loaded",
        ),
    ],
)
def test_the_record_says_what_the_preflight_found(
    status: ModelDeploymentStatus, preflight: Preflight | None
) -> None:
    assert with_outcome(ModelRevisionStatus(), "new", status, NOW).preflight == preflight


def test_a_late_rollback_does_not_change_what_the_preflight_found() -> None:
    status = ModelDeploymentStatus(
        rolled_back=(RolledBackStatus(revision="new", reason="AnalysisFailed", time=TIME),)
    )
    record = with_outcome(ModelRevisionStatus(preflight=PASSED), "new", status, NOW)
    assert record.preflight == PASSED
    assert record.rolled_back_reason == "AnalysisFailed"
