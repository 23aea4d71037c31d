import numpy as np
import pytest

from model_server.datatypes import Datatype
from model_server.signature import InvalidRequestError, Signature, Tensor, TensorSpec

SIGNATURE = Signature(
    inputs=(
        TensorSpec("pixels", Datatype.FP32, ("N", 4)),
        TensorSpec("age", Datatype.INT64, ("N",)),
        TensorSpec("any", Datatype.BOOL, ()),
    ),
    outputs=(
        TensorSpec("label", Datatype.INT64, ("N",)),
        TensorSpec("score", Datatype.FP32, ("N", 10)),
    ),
)


def pixels(*shape: int) -> Tensor:
    return Tensor("pixels", Datatype.FP32, np.zeros(shape, np.float32))


def age(*shape: int) -> Tensor:
    return Tensor("age", Datatype.INT64, np.zeros(shape, np.int64))


ANY = Tensor("any", Datatype.BOOL, np.zeros((1, 2, 3), np.bool_))


def test_what_fits_is_fed_under_its_names() -> None:
    feed = SIGNATURE.bind([ANY, age(3), pixels(3, 4)])

    assert {name: array.shape for name, array in feed.items()} == {
        "pixels": (3, 4),
        "age": (3,),
        "any": (1, 2, 3),
    }


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([pixels(1, 4), age(1)], "input 'any' is missing"),
        ([pixels(1, 4), age(1), ANY, ANY], "input 'any' is given more than once"),
        (
            [Tensor("x", Datatype.BOOL, np.zeros(1, np.bool_))],
            "unknown input 'x'; the model's inputs are 'pixels', 'age', 'any'",
        ),
        (
            [Tensor("pixels", Datatype.FP64, np.zeros((1, 4))), age(1), ANY],
            "input 'pixels' has datatype FP64, the model expects FP32",
        ),
        ([pixels(4), age(1), ANY], r"rank 1, the model expects rank 2: \[-1, 4\]"),
        ([pixels(1, 5), age(1), ANY], "dimension 1 must be 4, not 5"),
        ([pixels(2, 4), age(3), ANY], "'N' is 2 in input 'pixels'"),
    ],
)
def test_what_does_not_fit_is_named(tensors: list[Tensor], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        SIGNATURE.bind(tensors)


def test_an_empty_batch_is_a_batch() -> None:
    feed = SIGNATURE.bind([pixels(0, 4), age(0), ANY])

    assert feed["pixels"].shape == (0, 4)


def test_all_outputs_are_meant_where_none_is_named() -> None:
    assert SIGNATURE.select([]) == SIGNATURE.outputs


def test_outputs_keep_the_order_asked_for() -> None:
    assert [spec.name for spec in SIGNATURE.select(["score", "label"])] == ["score", "label"]


@pytest.mark.parametrize(
    ("names", "message"),
    [(["nope"], "unknown output 'nope'.*'label', 'score'"), (["label", "label"], "more than once")],
)
def test_an_output_that_cannot_be_given_is_named(names: list[str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        SIGNATURE.select(names)


def test_the_protocol_writes_open_sizes_as_minus_one() -> None:
    assert SIGNATURE.inputs[0].protocol_shape == [-1, 4]
