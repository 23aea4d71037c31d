"""The models that the demo stands on. Trained once; the cache is keyed by what they are made of."""

import numpy as np
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

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def models() -> Models:
    return trained_models()


def test_the_second_version_is_clearly_better_than_the_first(models: Models) -> None:
    first, second, _ = models.versions

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


def test_every_version_has_the_same_signature(models: Models) -> None:
    def signature(model: TrainedModel) -> list[tuple[str, str, int]]:
        session = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        return [(tensor.name, tensor.type, tensor.shape[-1]) for tensor in tensors]

    signatures = [signature(model) for model in models.versions]

    assert signatures == [signatures[0]] * len(signatures)


def test_the_digest_is_that_of_the_file(models: Models) -> None:
    assert [model.digest for model in models.versions] == [
        digest_of(model.path) for model in models.versions
    ]


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
