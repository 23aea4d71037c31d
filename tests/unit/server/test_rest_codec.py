import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_server.dataplane import InferenceResponse
from model_server.datatypes import Datatype
from model_server.rest_codec import decode_request, encode_response
from model_server.signature import InvalidRequestError, Tensor


def body(**tensor: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **tensor}
    return orjson.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not ...}]})


def decoded(**tensor: Any) -> np.ndarray[Any, Any]:
    return decode_request(body(**tensor)).inference.inputs[0].array


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 65535]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP16", [0.5, -65504]),
        ("FP32", [0.1, 3e38]),
        ("FP64", [0.1, 1e308]),
        ("BYTES", ["", "größer\u0000"]),
    ],
)
def test_each_datatype_takes_its_whole_range(datatype: str, data: list[Any]) -> None:
    array = decoded(datatype=datatype, data=data)

    assert array.dtype == Datatype(datatype).numpy
    assert array.tolist() == np.array(data, dtype=array.dtype).tolist()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"datatype": "UINT8", "data": [1, 256]}, "outside the range of UINT8"),
        ({"datatype": "INT8", "data": [1, -129]}, "outside the range of INT8"),
        ({"datatype": "UINT64", "data": [1, -1]}, "outside the range of UINT64"),
        ({"datatype": "INT64", "data": [1, 2**63]}, "outside the range of INT64"),
        ({"datatype": "FP16", "data": [1, 65536]}, "outside the range of FP16"),
        ({"datatype": "FP32", "data": [1, 1e39]}, "outside the range of FP32"),
        ({"datatype": "INT64", "data": [1, 1.5]}, "whole numbers for INT64, but value 1 is 1.5"),
        ({"datatype": "INT64", "data": [1, True]}, "value 1 is true"),
        ({"data": [1, "2"]}, 'numbers for FP32, but value 1 is "2"'),
        ({"data": [True, 1]}, "value 0 is true"),
        ({"data": [1, {}]}, "value 1 is {}"),
        ({"datatype": "BOOL", "data": [True, 1]}, "true or false for BOOL, but value 1 is 1"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "strings for BYTES, but value 1 is 1"),
        ({"datatype": "INT64", "data": [1, None]}, "value 1 is null"),
        ({"datatype": "FP99"}, r"inputs\[0\].datatype must be one of BOOL"),
        ({"datatype": ...}, "datatype must be one of"),
        ({"datatype": ["FP32"]}, "datatype must be one of"),
        ({"shape": ...}, r"inputs\[0\].shape is missing"),
        ({"shape": [-1]}, r"shape\[0\] must be a whole number"),
        ({"shape": [2.0]}, r"shape\[0\] must be a whole number"),
        ({"shape": [True, 2]}, r"shape\[0\] must be a whole number"),
        ({"shape": "2"}, "shape must be a JSON array"),
        ({"shape": [3]}, r"has 2 values, shape \[3\] needs 3"),
        ({"shape": [2**62]}, "has 2 values, shape"),
        ({"shape": [0, 2**63], "data": []}, "cannot have shape"),
        ({"shape": [1] * 65, "data": [1]}, "cannot have shape"),
        ({"data": ...}, "data is missing"),
        ({"data": 1}, "data must be a JSON array"),
        ({"shape": [2, 2], "data": [[1, 2], [3]]}, "dimension 1 must be lists of 2"),
        ({"shape": [2, 2], "data": [[1, 2], 3]}, "dimension 1 must be lists of 2"),
        ({"shape": [4], "data": [[1, 2], [3, 4]]}, "dimension 0 must be lists of 4"),
        ({"name": ...}, r"inputs\[0\].name must be a string"),
        ({"parameters": 5}, r"inputs\[0\].parameters must be a JSON object"),
        ({"parameters": {"binary_data_size": 8}}, "binary_data_size is not supported"),
    ],
)
def test_a_malformed_tensor_is_named_by_its_path(tensor: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        decoded(**tensor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "the body must be a JSON object"),
        (b"{}", "inputs is missing"),
        (b'{"inputs": {}}', "inputs must be a JSON array"),
        (b'{"inputs": [1]}', r"inputs\[0\] must be a JSON object"),
        (b'{"inputs": [], "id": 7}', "id must be a string"),
        (b'{"inputs": [], "outputs": [{}]}', r"outputs\[0\].name must be a string"),
        (b'{"inputs": [], "parameters": []}', "parameters must be a JSON object"),
        (
            b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}',
            r"outputs\[0\].parameters.binary_data is not supported",
        ),
        (
            b'{"inputs": [], "parameters": {"binary_data_output": true}}',
            r"parameters\.binary_data_output is not supported",
        ),
        (b'{"inputs": [], "parameters": {"timeout": -1}}', "whole number of microseconds"),
    ],
)
def test_a_malformed_body_is_named_by_its_path(text: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        decode_request(text)


def test_parameters_that_change_nothing_are_accepted() -> None:
    text = (
        b'{"id": "7", "inputs": [], "parameters": {"timeout": 1500, "binary_data_output": false},'
        b' "outputs": [{"name": "y", "parameters": {"binary_data": false}}]}'
    )

    request = decode_request(text)

    assert request.timeout_s == pytest.approx(0.0015)
    assert request.inference.id == "7"
    assert request.inference.outputs == ("y",)


def test_nested_and_flat_data_are_the_same() -> None:
    nested = decoded(shape=[2, 1, 2], data=[[[1, 2]], [[3, 4]]])
    flat = decoded(shape=[2, 1, 2], data=[1, 2, 3, 4])

    assert nested.tolist() == flat.tolist() == [[[1.0, 2.0]], [[3.0, 4.0]]]


def test_a_scalar_is_one_value_without_a_shape() -> None:
    assert decoded(shape=[], data=[7]).shape == ()


def test_null_is_a_number_that_is_none_and_back() -> None:
    array = decoded(data=[1, None])
    assert math.isnan(array[1])

    response = InferenceResponse(outputs=(Tensor("x", Datatype.FP32, array),))
    assert orjson.loads(encode_response(response, "m", "r"))["outputs"][0]["data"] == [1.0, None]


def test_an_answer_names_model_revision_and_request() -> None:
    response = InferenceResponse(
        outputs=(Tensor("y", Datatype.BYTES, np.array([["a"], ["b"]], dtype=object)),), id="7"
    )

    assert orjson.loads(encode_response(response, "digits", "digits-1")) == {
        "model_name": "digits",
        "model_version": "digits-1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}],
    }


def test_arrays_in_any_memory_order_are_written_row_by_row() -> None:
    array = np.array([[1, 2], [3, 4]], np.int32).T

    response = InferenceResponse(outputs=(Tensor("y", Datatype.INT32, array),))

    assert orjson.loads(encode_response(response, "m", "r"))["outputs"][0]["data"] == [1, 3, 2, 4]


NUMERIC = [datatype for datatype in Datatype if datatype is not Datatype.BYTES]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(NUMERIC), st.data())
def test_a_tensor_survives_the_way_out_and_back(datatype: Datatype, data: st.DataObject) -> None:
    array = data.draw(
        arrays.arrays(
            datatype.numpy,
            arrays.array_shapes(min_dims=0, min_side=0, max_side=4),
            elements={"allow_infinity": False} if datatype.is_float else None,
        )
    )
    response = InferenceResponse(outputs=(Tensor("x", datatype, array),))

    document = orjson.loads(encode_response(response, "m", "r"))
    back = decode_request(orjson.dumps({"inputs": document["outputs"]})).inference.inputs[0]

    assert back.datatype is datatype
    np.testing.assert_array_equal(back.array, array)
