"""A request whose answer is known, as a condition of readiness."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_server.datatypes import Datatype
from model_server.failures import Reason, StartupError
from model_server.model import ExecutionError, Model, Run
from model_server.rest_codec import decode_request, decode_tensors
from model_server.signature import InvalidRequestError

_RTOL = 1e-3
_ATOL = 1e-5


def check_golden(model: Model, path: Path) -> float:
    """Run the golden request in the file at `path` and compare the answer that it gives.

    The file is a JSON object: `request` is the body of an inference request; `response`, where it
    is there, has `outputs` as in the body of an answer; `rtol` and `atol` (1e-3 and 1e-5) say how
    far a number may be off.

    Returns:
        The seconds of the run.

    Raises:
        StartupError: The file cannot be used, or the model does not answer as it says.
    """
    try:
        golden = orjson.loads(path.read_bytes())
        request = decode_request(orjson.dumps(golden["request"])).inference
        expected = decode_tensors(golden.get("response", {}).get("outputs", []), "response.outputs")
        rtol, atol = float(golden.get("rtol", _RTOL)), float(golden.get("atol", _ATOL))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidRequestError) as error:
        raise StartupError(
            Reason.INVALID_CONFIG, f"the golden request in {path} cannot be used: {error!r}"
        ) from error
    started = time.perf_counter()
    try:
        feed = model.signature.bind(request.inputs)
        names = [tensor.name for tensor in expected] or list(request.outputs)
        outputs = model.signature.select(names)
        arrays = model.run(outputs, feed, Run())
    except (InvalidRequestError, ExecutionError) as error:
        raise StartupError(
            Reason.INVALID_MODEL, f"the model cannot answer the golden request: {error}"
        ) from error
    duration_s = time.perf_counter() - started
    for tensor, actual in zip(expected, arrays, strict=False):
        if not _agree(tensor.array, actual, tensor.datatype, rtol, atol):
            raise StartupError(
                Reason.INVALID_MODEL,
                f"output {tensor.name!r} of the golden request is not the expected one; "
                "publish the model that the golden request belongs to, or renew the request",
            )
    return duration_s


def _agree(
    expected: NDArray[Any], actual: NDArray[Any], datatype: Datatype, rtol: float, atol: float
) -> bool:
    if expected.shape != actual.shape:
        return False
    if datatype.is_float:
        return bool(np.allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True))
    return bool(np.array_equal(actual, expected))
