from pathlib import Path

import pytest

from hack.demo.history import History, Outcome, StatusSeen
from hack.demo.manifests import Place, model_deployment, weights
from hack.demo.run import (
    CHAPTERS,
    READY_TIMEOUT_S,
    STAGES,
    Options,
    Stage,
    has_begun,
    is_settled,
)
from hack.demo.train import MODELS, TrainedModel
from model_operator.api.types import FormerStatus, replace
from tests.unit.demo.histories import (
    ROUTES,
    SECOND_APPLIED,
    SECOND_CONFIRMED,
    SECOND_PROMOTED,
    THIRD_APPLIED,
    THIRD_CONFIRMED,
    THIRD_WEIGHT,
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


def options(*chapters: str) -> Options:
    return Options(
        namespace="demo",
        hostname="digits.example.com",
        rate=100,
        step_s=25,
        output=Path("build"),
        keep_load=False,
        install=False,
        disable_rollback=False,
        chapters=chapters,
    )


def test_every_chapter_begins_with_the_first_version() -> None:
    assert [stage.version for stage in options(*CHAPTERS).stages] == [1, 2, 3, 4, 5, 6, 7]
    assert [stage.version for stage in options("storm", "bad").stages] == [1, 3, 7]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"version {stage.version}")
def test_no_stage_takes_longer_than_it_may(stage: Stage) -> None:
    model = TrainedModel(1, "", "", Path("model"), "sha256:" + "0" * 64, 1.0, 0.0)
    steps = weights(model_deployment(Place("demo", "digits.example.com", 25), model))

    assert stage.about_s(steps, 25) < READY_TIMEOUT_S + stage.timeout_s(steps, 25)


def test_a_bad_version_that_stays_is_waited_for_no_longer_than_a_step_and_its_grace() -> None:
    bad = next(stage for stage in STAGES if stage.chapter == "bad")

    assert bad.timeout_s((5, 25, 50), step_s=10) == 30


def test_a_version_has_begun_with_its_first_weight() -> None:
    third = applied(3, THIRD_APPLIED, Outcome.ROLLED_BACK)

    assert not has_begun(until(good_run(), THIRD_WEIGHT - 0.1), third)
    assert has_begun(until(good_run(), THIRD_WEIGHT), third)


def test_a_version_that_never_had_a_weight_has_begun_when_it_is_rolled_back() -> None:
    run = good_run()
    run.replace_records([ROUTES[-2]], [])
    third = applied(3, THIRD_APPLIED, Outcome.ROLLED_BACK)

    assert not has_begun(until(run, THIRD_ZERO - 0.1), third)
    assert has_begun(until(run, THIRD_CONFIRMED), third)


def test_every_bad_version_has_a_reason_to_be_rolled_back_for() -> None:
    for stage in STAGES:
        assert bool(stage.because) == (stage.expected is Outcome.ROLLED_BACK)
