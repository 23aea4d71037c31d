"""Whether a model with one signature can take the place of one with another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_operator.api.types import OpsetImport, Signature, Tensor
from model_operator.core.signatures import difference


def tensor(name: str, *shape: int, datatype: str = "FP32") -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=shape)


def signature(*inputs: Tensor, outputs: tuple[Tensor, ...] = ()) -> Signature:
    return Signature(inputs=inputs, outputs=outputs)


X, Y = tensor("x", -1, 64), tensor("y", -1, 10)
STABLE = signature(X, outputs=(Y,))


@pytest.mark.parametrize(
    "candidate",
    [
        STABLE,
        signature(X, outputs=(tensor("probabilities", -1, 10), Y)),
        signature(tensor("x", -1, -1), outputs=(Y,)),
        signature(tensor("x"), outputs=(Y,)),
        signature(X, outputs=(tensor("y", -1, -1),)),
        signature(X, outputs=(tensor("y", 1, 10),)),
        signature(X, outputs=(tensor("y"),)),
        Signature(
            inputs=(X,),
            outputs=(Y,),
            opset_imports=(OpsetImport(domain="ai.onnx", version=99),),
            producer="other",
        ),
    ],
    ids=[
        "the same",
        "one output more",
        "a fixed size became any",
        "any shape",
        "an output of any size",
        "an output of a fixed size where it was any",
        "an output without a shape",
        "another opset and producer",
    ],
)
def test_what_no_client_notices_is_no_difference(candidate: Signature) -> None:
    assert difference(candidate, STABLE) is None


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (
            signature(tensor("pixels", -1, 64), outputs=(Y,)),
            "input 'x' (FP32 [-1, 64]) is missing; it has 'pixels'",
        ),
        (signature(outputs=(Y,)), "input 'x' (FP32 [-1, 64]) is missing; it has none"),
        (
            signature(X, tensor("mask", -1), outputs=(Y,)),
            "input 'mask' (FP32 [-1]) is required; stable has 'x'",
        ),
        (
            signature(tensor("x", -1, 64, datatype="FP64"), outputs=(Y,)),
            "input 'x' is FP64 [-1, 64], stable's is FP32 [-1, 64]",
        ),
        (
            signature(tensor("x", -1, 32), outputs=(Y,)),
            "input 'x' is FP32 [-1, 32], stable's is FP32 [-1, 64]",
        ),
        (
            signature(tensor("x", 1, 64), outputs=(Y,)),
            "input 'x' is FP32 [1, 64], stable's is FP32 [-1, 64]",
        ),
        (
            signature(tensor("x", -1, 8, 8), outputs=(Y,)),
            "input 'x' is FP32 [-1, 8, 8], stable's is FP32 [-1, 64]",
        ),
        (
            signature(tensor("x", -1), outputs=(Y,)),
            "input 'x' is FP32 [-1], stable's is FP32 [-1, 64]",
        ),
        (
            signature(X, outputs=(tensor("z", -1, 10),)),
            "output 'y' (FP32 [-1, 10]) is missing; it has 'z'",
        ),
        (
            signature(X, outputs=(tensor("y", -1, 10, datatype="INT64"),)),
            "output 'y' is INT64 [-1, 10], stable's is FP32 [-1, 10]",
        ),
        (
            signature(X, outputs=(tensor("y", -1, 12),)),
            "output 'y' is FP32 [-1, 12], stable's is FP32 [-1, 10]",
        ),
        (
            signature(X, outputs=(tensor("y", -1, 10, 1),)),
            "output 'y' is FP32 [-1, 10, 1], stable's is FP32 [-1, 10]",
        ),
    ],
)
def test_what_breaks_a_client_is_named(candidate: Signature, message: str) -> None:
    assert difference(candidate, STABLE) == message


def test_an_input_of_known_rank_is_narrower_than_one_of_any() -> None:
    assert difference(signature(X), signature(tensor("x"))) is not None


shapes = st.lists(st.sampled_from([-1, 1, 2]), max_size=3).map(tuple)
tensors = st.builds(
    Tensor,
    name=st.sampled_from(["a", "b"]),
    datatype=st.sampled_from(["FP32", "INT64"]),
    shape=shapes,
)
signatures = st.builds(
    Signature,
    inputs=st.lists(tensors, max_size=2, unique_by=lambda one: one.name).map(tuple),
    outputs=st.lists(tensors, max_size=2, unique_by=lambda one: one.name).map(tuple),
)
sizes = st.integers(1, 2)


@given(signatures)
def test_every_model_can_take_its_own_place(one: Signature) -> None:
    assert difference(one, one) is None


@given(signatures, signatures, st.data())
def test_what_is_let_through_takes_every_request_of_stables(
    candidate: Signature, stable: Signature, data: st.DataObject
) -> None:
    if difference(candidate, stable) is not None:
        return
    mine = {one.name: one for one in candidate.inputs}
    assert mine.keys() == {one.name for one in stable.inputs}
    for one in stable.inputs:
        # given a request that fits stable
        if one.shape:
            sent = tuple(size if size > 0 else data.draw(sizes) for size in one.shape)
        else:
            sent = tuple(data.draw(st.lists(sizes, max_size=3)))
        # then it fits the candidate
        taken = mine[one.name]
        assert taken.datatype == one.datatype
        assert not taken.shape or (
            len(taken.shape) == len(sent)
            and all(size in (-1, got) for size, got in zip(taken.shape, sent, strict=True))
        )
