"""Requests whose answers are known, as a condition of readiness."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_server.failures import Reason, StartupError
from model_server.model import ExecutionError, Model, Run
from model_server.rest_codec import decode_tensors
from model_server.signature import InvalidRequestError, Tensor

_FIELDS = {"name", "inputs", "outputs", "tolerance"}
_TOLERANCE_FIELDS = {"relative", "absolute"}
_RELATIVE = 1e-3
_ABSOLUTE = 1e-5


@dataclass(frozen=True, slots=True)
class Golden:
    """One request and its answer.

    Attributes:
        name: What messages call it.
        inputs: As in a request.
        outputs: As in an answer; the ones that are not named here may be anything. With none at
            all, the model must answer, whatever that is.
        relative: How far a floating point number may be off, as a share of the expected one.
        absolute: The same as a number. What is within the sum of both agrees.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()
    relative: float = _RELATIVE
    absolute: float = _ABSOLUTE


def read_golden(source: str) -> tuple[Golden, ...]:
    """Parse golden requests.

    Args:
        source: A JSON list, or the path of a file with one. Its items have a `name`, `inputs` as
            in the body of a request, `outputs` as in the body of an answer, and a `tolerance` with
            `relative` (default 0.001) and `absolute` (default 0.00001). Empty for none.

    Raises:
        StartupError: They cannot be read; the message says where.
    """
    if not source.strip():
        return ()
    where = "the golden requests"
    try:
        text: str | bytes = source
        if not source.lstrip().startswith("["):
            where = f"the golden requests in {source}"
            text = Path(source).read_bytes()
        return _goldens(orjson.loads(text))
    except (OSError, ValueError, TypeError, InvalidRequestError) as error:
        raise StartupError(Reason.INVALID_CONFIG, f"{where} cannot be used: {error}") from error


def check_golden(model: Model, requests: Sequence[Golden]) -> float:
    """Run golden requests and compare the answers with the expected ones.

    Returns:
        The seconds of the last run; the ones before may pay for lazy allocations.

    Raises:
        StartupError: The model answers one otherwise, or not at all. The message names the
            request, the tensor and the first number that is off.
    """
    duration_s = 0.0
    for golden in requests:
        started = time.perf_counter()
        try:
            feed = model.signature.bind(golden.inputs)
            specs = model.signature.select([tensor.name for tensor in golden.outputs])
            arrays = model.run(specs, feed, Run())
        except (InvalidRequestError, ExecutionError) as error:
            raise _failed(golden, f"cannot be answered: {error}") from error
        duration_s = time.perf_counter() - started
        for tensor, actual in zip(golden.outputs, arrays, strict=False):
            difference = _difference(golden, tensor, actual)
            if difference:
                raise _failed(golden, f"is answered otherwise: {difference}")
    return duration_s


def _goldens(items: Any) -> tuple[Golden, ...]:
    if not isinstance(items, list):
        raise TypeError("they must be a JSON list")
    return tuple(_golden(item, f"[{index}]") for index, item in enumerate(items))


def _golden(item: Any, path: str) -> Golden:
    if not isinstance(item, dict) or not item.keys() <= _FIELDS:
        raise TypeError(f"{path} must be an object with {', '.join(sorted(_FIELDS))}")
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise TypeError(f"{path}.name must be a text")
    tolerance = item.get("tolerance") or {}
    if not isinstance(tolerance, dict) or not tolerance.keys() <= _TOLERANCE_FIELDS:
        raise TypeError(f"{path}.tolerance must be an object with relative and absolute")
    return Golden(
        name=name,
        inputs=decode_tensors(item.get("inputs"), f"{path}.inputs"),
        outputs=decode_tensors(item.get("outputs", []), f"{path}.outputs"),
        relative=_share(tolerance.get("relative", _RELATIVE), f"{path}.tolerance.relative"),
        absolute=_share(tolerance.get("absolute", _ABSOLUTE), f"{path}.tolerance.absolute"),
    )


def _share(value: Any, path: str) -> float:
    """Return a tolerance, which may be a text, as decimals are in Kubernetes."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < np.inf:
        raise ValueError(f"{path} must be a number, 0 or more")
    return number


def _difference(golden: Golden, expected: Tensor, actual: NDArray[Any]) -> str:
    """What is off first, empty when all agrees."""
    wanted = expected.array
    if actual.dtype != wanted.dtype:
        return f"output {expected.name!r} is {actual.dtype}, expected {expected.datatype}"
    if actual.shape != wanted.shape:
        return (
            f"output {expected.name!r} has shape {list(actual.shape)}, "
            f"expected {list(wanted.shape)}"
        )
    if expected.datatype.is_float:
        # in double precision: half precision has no room for the tolerance
        pair = actual.astype(np.float64), wanted.astype(np.float64)
        agree = np.isclose(*pair, rtol=golden.relative, atol=golden.absolute, equal_nan=True)
    else:
        agree = np.asarray(actual == wanted)
    off = np.argwhere(~agree)
    if not len(off):
        return ""
    index = tuple(int(axis) for axis in off[0])
    numbers = f"expected {wanted[index]!s}, got {actual[index]!s}"
    count = f"{len(off)} of {wanted.size} values differ"
    return f"output {expected.name!r} at {list(index)}: {numbers} ({count})"


def _failed(golden: Golden, what: str) -> StartupError:
    return StartupError(
        Reason.GOLDEN_REQUEST_FAILED,
        f"the golden request {golden.name!r} {what}; "
        "publish the model that it belongs to, or renew the request",
    )
