"""What a model takes and gives, and whether a request fits it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_server.datatypes import Datatype

# A size, the name of a size that is the same wherever the name stands, or an unknown size.
Dim = int | str | None


class InvalidRequestError(Exception):
    """A request that this model cannot take; the message says which part and what is expected."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph.

    An empty shape says nothing about the rank: ONNX Runtime describes a scalar and a tensor of
    unknown rank alike.
    """

    name: str
    datatype: Datatype
    shape: tuple[Dim, ...]

    @property
    def protocol_shape(self) -> list[int]:
        """The shape as the protocol writes it: -1 for a size that may vary."""
        return [dim if isinstance(dim, int) else -1 for dim in self.shape]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named value; the array's dtype is that of `datatype`."""

    name: str
    datatype: Datatype
    array: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a graph, in its order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def bind(self, tensors: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
        """Return the feed of a run with `tensors`.

        Raises:
            InvalidRequestError: An input is unknown, missing or given twice, or its datatype or
                shape is not the graph's.
        """
        given: dict[str, Tensor] = {}
        known = {spec.name for spec in self.inputs}
        for tensor in tensors:
            if tensor.name not in known:
                raise InvalidRequestError(
                    f"unknown input {tensor.name!r}; the model's inputs are {_names(self.inputs)}"
                )
            if tensor.name in given:
                raise InvalidRequestError(f"input {tensor.name!r} is given more than once")
            given[tensor.name] = tensor
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            if spec.name not in given:
                raise InvalidRequestError(f"input {spec.name!r} is missing")
            _check(spec, given[spec.name], sizes)
        return {name: tensor.array for name, tensor in given.items()}

    def select(self, names: Sequence[str]) -> tuple[TensorSpec, ...]:
        """Return the outputs called `names`, or all of them where there is none.

        Raises:
            InvalidRequestError: An output is unknown or asked for twice.
        """
        if not names:
            return self.outputs
        known = {spec.name: spec for spec in self.outputs}
        for name in names:
            if name not in known:
                raise InvalidRequestError(
                    f"unknown output {name!r}; the model's outputs are {_names(self.outputs)}"
                )
        if len(set(names)) != len(names):
            raise InvalidRequestError("an output is asked for more than once")
        return tuple(known[name] for name in names)

    def synthetic_feed(self, fill: int) -> dict[str, NDArray[Any]]:
        """Return inputs of the smallest valid shape, every value `fill` (or its decimal text)."""
        feed = {}
        for spec in self.inputs:
            shape = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape)
            value: object = str(fill) if spec.datatype is Datatype.BYTES else fill
            feed[spec.name] = np.full(shape, value, dtype=spec.datatype.numpy)
        return feed


def _check(spec: TensorSpec, tensor: Tensor, sizes: dict[str, tuple[int, str]]) -> None:
    """Compare one input with the graph; `sizes` remembers what each named size turned out to be."""
    if tensor.datatype is not spec.datatype:
        raise InvalidRequestError(
            f"input {spec.name!r} has datatype {tensor.datatype}, the model expects {spec.datatype}"
        )
    shape = tensor.array.shape
    if not spec.shape:
        return
    if len(shape) != len(spec.shape):
        raise InvalidRequestError(
            f"input {spec.name!r} has shape {list(shape)} of rank {len(shape)}, "
            f"the model expects rank {len(spec.shape)}: {spec.protocol_shape}"
        )
    for axis, (expected, actual) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(expected, int):
            if actual != expected:
                raise InvalidRequestError(
                    f"input {spec.name!r} has shape {list(shape)}, "
                    f"the model expects {spec.protocol_shape}: "
                    f"dimension {axis} must be {expected}, not {actual}"
                )
        elif expected is not None:
            size, other = sizes.setdefault(expected, (actual, spec.name))
            if size != actual:
                raise InvalidRequestError(
                    f"dimension {axis} of input {spec.name!r} is {actual}, but {expected!r} "
                    f"is {size} in input {other!r}: the model expects them to be equal"
                )


def element_count(shape: Sequence[int]) -> int:
    """Return how many values a tensor of `shape` has."""
    return math.prod(shape)


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)
