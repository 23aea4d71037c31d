import pytest

from hack.demo.history import History, Outcome, StatusSeen
from hack.demo.run import STAGES, is_settled
from hack.demo.train import MODELS
from model_operator.api.types import FormerStatus, replace
from tests.unit.demo.histories import (
    SECOND_APPLIED,
    SECOND_CONFIRMED,
    SECOND_PROMOTED,
    THIRD_APPLIED,
    THIRD_CONFIRMED,
    THIRD_ZERO,
    Run,
    applied,
    good_run,
    revision,
    status,
)


def until(run: Run, at: float) -> History:
    return History.of(record for record in run.records if getattr(record, "at", 0.0) <= at)


@pytest.mark.parametrize("unconfirmed_at", [SECOND_PROMOTED - 1, SECOND_PROMOTED + 0.5])
def test_a_promotion_has_settled_when_the_former_zero_is_confirmed(unconfirmed_at: float) -> None:
    second = applied(2, SECOND_APPLIED, Outcome.PROMOTED)

    assert not is_settled(until(good_run(), unconfirmed_at), second)
    assert is_settled(until(good_run(), SECOND_CONFIRMED), second)


@pytest.mark.parametrize("unconfirmed_at", [THIRD_ZERO - 1, THIRD_ZERO + 0.5])
def test_a_rollback_has_settled_when_its_zero_is_confirmed(unconfirmed_at: float) -> None:
    third = applied(3, THIRD_APPLIED, Outcome.ROLLED_BACK)

    assert not is_settled(until(good_run(), unconfirmed_at), third)
    assert is_settled(until(good_run(), THIRD_CONFIRMED), third)


def test_a_promotion_has_not_settled_while_it_bakes() -> None:
    run = good_run()
    baking = replace(status(2, {2: (100, 100)}), former=FormerStatus(revision=revision(1)))
    run.records.append(StatusSeen(SECOND_CONFIRMED + 0.1, 2, baking))

    second = applied(2, SECOND_APPLIED, Outcome.PROMOTED)

    assert not is_settled(until(run, SECOND_CONFIRMED + 0.2), second)


def test_every_stage_has_a_model() -> None:
    assert {stage.version for stage in STAGES} <= {model.version for model in MODELS}
