"""Inputs and outputs of revisions, and whether one can take another's place unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from model_operator.api.types import Signature, Tensor

ANY_SIZE = -1


@dataclass(frozen=True, slots=True)
class Signatures:
    """What is known of the signatures of a ModelDeployment's revisions.

    Attributes:
        known: By revision.
        awaited: Revisions whose ready pods are being asked. One that is neither known nor awaited
            could not be read.
    """

    known: Mapping[str, Signature] = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()


def difference(candidate: Signature, stable: Signature) -> str | None:
    """What would break a client of `stable` that reaches `candidate`; None when nothing would.

    - Every input of stable's, and no other: a client sends all of them, and the server refuses
      those that it does not know. All inputs of a graph are required.
    - An input may take more: a dimension of a fixed size may become one of any size.
    - Every output of stable's; there may be more, as clients find outputs by name.
    - An output's dimension may be of any size in one of the two: it follows from the input's.
      Two fixed sizes must be equal.
    """
    return _of_inputs(candidate, stable) or _of_outputs(candidate, stable)


def _of_inputs(candidate: Signature, stable: Signature) -> str | None:
    mine = {tensor.name: tensor for tensor in candidate.inputs}
    theirs = {tensor.name: tensor for tensor in stable.inputs}
    for name, tensor in theirs.items():
        if name not in mine:
            return f"input {name!r} ({_type(tensor)}) is missing; it has {_names(mine)}"
        if not _takes(mine[name], tensor):
            return f"input {name!r} is {_type(mine[name])}, stable's is {_type(tensor)}"
    for name, tensor in mine.items():
        if name not in theirs:
            return f"input {name!r} ({_type(tensor)}) is required; stable has {_names(theirs)}"
    return None


def _of_outputs(candidate: Signature, stable: Signature) -> str | None:
    mine = {tensor.name: tensor for tensor in candidate.outputs}
    for tensor in stable.outputs:
        if tensor.name not in mine:
            return f"output {tensor.name!r} ({_type(tensor)}) is missing; it has {_names(mine)}"
        found = mine[tensor.name]
        if not _looks_like(found, tensor):
            return f"output {tensor.name!r} is {_type(found)}, stable's is {_type(tensor)}"
    return None


def _takes(mine: Tensor, theirs: Tensor) -> bool:
    """Whether an input takes all that another one takes."""
    if mine.datatype != theirs.datatype:
        return False
    # NB: no shape is an unknown one or a scalar's: ONNX Runtime describes both alike
    return not mine.shape or all(
        size in (ANY_SIZE, other) for size, other in zip_longest(mine.shape, theirs.shape)
    )


def _looks_like(mine: Tensor, theirs: Tensor) -> bool:
    """Whether an output can be what a client of another one expects."""
    if mine.datatype != theirs.datatype:
        return False
    if not mine.shape or not theirs.shape:
        return True
    return len(mine.shape) == len(theirs.shape) and all(
        size == other or ANY_SIZE in (size, other)
        for size, other in zip(mine.shape, theirs.shape, strict=True)
    )


def _type(tensor: Tensor) -> str:
    return f"{tensor.datatype} {list(tensor.shape)}"


def _names(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(repr(name) for name in tensors) or "none"
