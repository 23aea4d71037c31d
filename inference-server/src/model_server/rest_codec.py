"""The JSON of the Open Inference Protocol, and the requests and responses that it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from model_server.dataplane import InferenceRequest, InferenceResponse
from model_server.datatypes import Datatype
from model_server.header import Header
from model_server.signature import InvalidRequestError, Signature, Tensor, TensorSpec, element_count

_DATATYPES = {str(datatype): datatype for datatype in Datatype}
_DATATYPE_NAMES = ", ".join(_DATATYPES)
# Parameters that change how tensors travel. Ignoring one would answer something else.
_UNSUPPORTED_PARAMETERS = (
    "binary_data",
    "binary_data_size",
    "binary_data_output",
    "classification",
    "shared_memory_region",
)
_MICROSECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A request body.

    Attributes:
        inference: What to compute.
        timeout_s: How long the caller waits for it at most, where it says so.
    """

    inference: InferenceRequest
    timeout_s: float | None = None


def decode_request(body: bytes) -> DecodedRequest:
    """Parse the body of an inference request. It is compared with no model here.

    Floating point tensors take `null` for NaN, which JSON cannot spell otherwise.

    Raises:
        InvalidRequestError: It is not what the protocol describes; the message has the JSON path.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from error
    fields = _object(document, "the body")
    request_id = fields.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidRequestError("id must be a string")
    parameters = _parameters(fields, "")
    outputs = _array(fields.get("outputs", []), "outputs")
    return DecodedRequest(
        inference=InferenceRequest(
            inputs=decode_tensors(fields.get("inputs"), "inputs"),
            outputs=tuple(_output(item, f"outputs[{i}]") for i, item in enumerate(outputs)),
            id=request_id,
        ),
        timeout_s=_timeout_s(parameters),
    )


def decode_tensors(value: object, path: str) -> tuple[Tensor, ...]:
    """Parse a list of tensors as in `inputs` of a request.

    Raises:
        InvalidRequestError: As for `decode_request`; `path` is where the list stands.
    """
    items = _array(value, path)
    return tuple(_tensor(item, f"{path}[{i}]") for i, item in enumerate(items))


def encode_response(response: InferenceResponse, model: str, revision: str) -> bytes:
    """Return the body of an answer. Values that are not finite become `null`."""
    document: dict[str, Any] = {"model_name": model, "model_version": revision}
    if response.id is not None:
        document["id"] = response.id
    document["outputs"] = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.array.shape,
            "data": _values(tensor),
        }
        for tensor in response.outputs
    ]
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_metadata(signature: Signature, header: Header, model: str, revision: str) -> bytes:
    """Return the body of a model's metadata.

    The protocol has no place for opsets; `parameters` is where MLServer has what goes beyond it.
    """
    parameters: dict[str, int | str] = {
        f"opset.{opset.domain}": opset.version for opset in header.opset_imports
    }
    parameters |= {"ir_version": header.ir_version, "producer": header.producer}
    return orjson.dumps(
        {
            "name": model,
            "versions": [revision],
            "platform": "onnx_onnxv1",
            "inputs": [_describe(spec) for spec in signature.inputs],
            "outputs": [_describe(spec) for spec in signature.outputs],
            "parameters": parameters,
        }
    )


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.protocol_shape}


def _values(tensor: Tensor) -> Any:
    flat = np.ascontiguousarray(tensor.array).reshape(-1)
    return flat.tolist() if tensor.datatype is Datatype.BYTES else flat


def _tensor(item: object, path: str) -> Tensor:
    fields = _object(item, path)
    name = _name(fields, path)
    _parameters(fields, path)
    datatype = _DATATYPES.get(str(fields.get("datatype")))
    if datatype is None:
        raise InvalidRequestError(f"{path}.datatype must be one of {_DATATYPE_NAMES}")
    shape = _array(fields.get("shape"), f"{path}.shape")
    for axis, size in enumerate(shape):
        if type(size) is not int or size < 0:
            raise InvalidRequestError(f"{path}.shape[{axis}] must be a whole number, 0 or more")
    if "data" not in fields:
        raise InvalidRequestError(f"{path}.data is missing")
    data = _array(fields["data"], f"{path}.data")
    return Tensor(name, datatype, _to_array(data, datatype, shape, f"{path}.data"))


def _output(item: object, path: str) -> str:
    fields = _object(item, path)
    _parameters(fields, path)
    return _name(fields, path)


def _to_array(data: list[Any], datatype: Datatype, shape: Sequence[int], path: str) -> Any:
    """Build an array of `shape` from values in row-major order, flat or nested."""
    flat = _flatten(data, shape, path)
    if len(flat) != element_count(shape):
        raise InvalidRequestError(
            f"{path} has {len(flat)} values, shape {list(shape)} needs {element_count(shape)}"
        )
    _check_types(flat, datatype, path)
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype=datatype.numpy).reshape(shape)
    except (OverflowError, FloatingPointError) as error:
        raise InvalidRequestError(f"{path} has a value outside the range of {datatype}") from error
    except ValueError as error:
        raise InvalidRequestError(f"{path} cannot have shape {list(shape)}: {error}") from error


def _flatten(data: list[Any], shape: Sequence[int], path: str) -> list[Any]:
    """Return the values of `data`, after comparing its nesting with `shape` where it is nested."""
    if not data or type(data[0]) is not list:
        return data
    level = [data]
    for axis, size in enumerate(shape):
        for node in level:
            if type(node) is not list or len(node) != size:
                raise InvalidRequestError(
                    f"{path} is nested, but not as shape {list(shape)} says: "
                    f"dimension {axis} must be lists of {size}"
                )
        level = list(chain.from_iterable(level))
    return level


def _check_types(flat: list[Any], datatype: Datatype, path: str) -> None:
    """Refuse what numpy would convert in silence: text, fractions, booleans as numbers."""
    if datatype.is_float:
        allowed, wanted = {float, int, type(None)}, "numbers"
    elif datatype.is_integer:
        allowed, wanted = {int}, "whole numbers"
    elif datatype is Datatype.BOOL:
        allowed, wanted = {bool}, "true or false"
    else:
        allowed, wanted = {str}, "strings"
    if set(map(type, flat)) <= allowed:
        return
    index = next(i for i, value in enumerate(flat) if type(value) not in allowed)
    raise InvalidRequestError(
        f"{path} must be {wanted} for {datatype}, "
        f"but value {index} is {orjson.dumps(flat[index]).decode()[:40]}"
    )


def _parameters(fields: dict[str, Any], path: str) -> dict[str, Any]:
    prefix = f"{path}.parameters" if path else "parameters"
    parameters = fields.get("parameters")
    if parameters is None:
        return {}
    parameters = _object(parameters, prefix)
    for key in _UNSUPPORTED_PARAMETERS:
        if parameters.get(key):
            raise InvalidRequestError(
                f"{prefix}.{key} is not supported by this server; send and accept tensors as JSON"
            )
    return parameters


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    """Return the standard `timeout` parameter, which is in microseconds; 0 means none."""
    timeout_us = parameters.get("timeout")
    if timeout_us is None:
        return None
    if type(timeout_us) is not int or timeout_us < 0:
        raise InvalidRequestError("parameters.timeout must be a whole number of microseconds")
    return timeout_us * _MICROSECONDS or None


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{path} must be a JSON object")
    return value


def _array(value: object, path: str) -> list[Any]:
    if value is None:
        raise InvalidRequestError(f"{path} is missing")
    if not isinstance(value, list):
        raise InvalidRequestError(f"{path} must be a JSON array")
    return value


def _name(fields: dict[str, Any], path: str) -> str:
    name = fields.get("name")
    if not isinstance(name, str):
        raise InvalidRequestError(f"{path}.name must be a string")
    return name
