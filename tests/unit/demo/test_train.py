"""The models that the demo stands on. Trained once; the cache is keyed by what they are made of."""

import time

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from hack.demo.train import (
    INPUT_NAME,
    Models,
    TrainedModel,
    load_data,
    trained_models,
)
from model_server.digest import digest_of

BROKEN = 5

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def models() -> Models:
    return trained_models()


def test_the_second_version_is_clearly_better_than_the_first(models: Models) -> None:
    first, second = models.versions[:2]

    assert second.accuracy > first.accuracy + 0.03
    assert (first.failing_share, second.failing_share) == (0, 0)


def test_the_third_version_fails_for_a_part_of_the_images_only(models: Models) -> None:
    third = models.versions[2]

    assert 0.2 < third.failing_share < 0.45
    assert third.accuracy > 0.9
    assert third.flaw


def test_the_third_version_passes_a_warm_up(models: Models) -> None:
    session = ort.InferenceSession(models.versions[2].path, providers=["CPUExecutionProvider"])
    for fill in (0.0, 1.0):
        session.run(None, {INPUT_NAME: np.full((1, 64), fill, np.float32)})


def test_the_fourth_version_answers_as_the_second_but_takes_ten_times_as_long(
    models: Models,
) -> None:
    data = load_data()
    images = [image[np.newaxis] for image in data.test_pixels[:8]]
    second, fourth = (
        ort.InferenceSession(models.versions[index].path, providers=["CPUExecutionProvider"])
        for index in (1, 3)
    )

    def run(session: ort.InferenceSession) -> tuple[list[npt.NDArray[np.float32]], float]:
        began = time.perf_counter()
        answers = [session.run(None, {INPUT_NAME: image})[0] for image in images]
        return answers, time.perf_counter() - began

    right, quick_s = run(second)
    answers, slow_s = run(fourth)

    assert all(np.array_equal(a, b) for a, b in zip(answers, right, strict=True))
    assert slow_s > 10 * quick_s


def test_the_fifth_version_is_not_the_file_that_its_digest_names(models: Models) -> None:
    fifth = models.versions[4]

    assert digest_of(fifth.path) != fifth.digest
    assert fifth.digest not in {model.digest for model in models.versions if model is not fifth}


def test_the_sixth_version_is_wrong_for_a_share_and_fails_for_three_in_a_hundred(
    models: Models,
) -> None:
    sixth = models.versions[5]

    assert 0.025 < sixth.failing_share < 0.035
    assert 0.7 < sixth.accuracy < 0.85


def test_the_seventh_version_is_sound(models: Models) -> None:
    seventh = models.versions[6]

    assert seventh.accuracy > 0.97
    assert (seventh.failing_share, seventh.flaw) == (0, "")


def test_every_version_has_the_same_signature(models: Models) -> None:
    def signature(model: TrainedModel) -> list[tuple[str, str, int]]:
        session = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        return [(tensor.name, tensor.type, tensor.shape[-1]) for tensor in tensors]

    signatures = [signature(model) for model in models.versions if model.version != BROKEN]

    assert signatures == [signatures[0]] * len(signatures)


def test_the_digest_is_that_of_the_file(models: Models) -> None:
    whole = [model for model in models.versions if model.version != BROKEN]

    assert [model.digest for model in whole] == [digest_of(model.path) for model in whole]


def test_training_again_gives_the_same_weights() -> None:
    from hack.demo import networks  # noqa: PLC0415 - torch takes seconds to import

    data = load_data()
    first, second = (
        networks.fit(networks.InkAware, data.train_pixels, data.train_labels, epochs=1, seed=7)
        for _ in range(2)
    )

    weights = [tensor.numpy() for tensor in first.state_dict().values()]
    again = [tensor.numpy() for tensor in second.state_dict().values()]
    assert all(np.array_equal(a, b) for a, b in zip(weights, again, strict=True))


def test_no_test_image_is_among_the_training_images() -> None:
    data = load_data()

    trained = {image.tobytes() for image in data.train_pixels}

    assert not [image for image in data.test_pixels if image.tobytes() in trained]
