from pathlib import Path
from typing import Any

import orjson
import pytest
from onnx import TensorProto

from model_server.failures import Reason, StartupError
from model_server.golden import check_golden, read_golden
from tests.unit.server import onnx_models
from tests.unit.server.serving import loaded

INPUT = {"name": "i", "datatype": "INT64", "shape": [2], "data": [0, 1]}


def answer(*values: float, **fields: Any) -> dict[str, Any]:
    return {"name": "y", "datatype": "FP32", "shape": [len(values)], "data": list(values)} | fields


def golden(*outputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "both entries", "inputs": [INPUT], "outputs": list(outputs)} | fields


def text(*documents: Any) -> str:
    return orjson.dumps(list(documents)).decode()


@pytest.mark.parametrize(
    "request_",
    [
        {"name": "any answer", "inputs": [INPUT]},
        golden(answer(10.0, 20.0)),
        golden(answer(10.0, 20.001)),
        golden(answer(9.0, 21.0), tolerance={"absolute": "1"}),
        golden(answer(9.0, 21.0), tolerance={"relative": 0.2}),
    ],
)
def test_the_expected_answer_passes(tmp_path: Path, request_: Any) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    assert check_golden(model, read_golden(text(request_))) > 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            golden(answer(10.0, 21.0)),
            r"'both entries' is answered otherwise: output 'y' at \[1\]: expected 21.0, got 20.0 ",
        ),
        (
            golden(answer(10.0, 20.001), tolerance={"relative": "0", "absolute": "0"}),
            r"at \[1\]: expected 20.001, got 20.0 ",
        ),
        (golden(answer(11.0, 21.0)), r"\(2 of 2 values differ\)"),
        (golden(answer(10.0)), r"output 'y' has shape \[2\], expected \[1\]"),
        (golden(answer(10.0, 20.0, datatype="FP64")), "output 'y' is float32, expected FP64"),
        (golden(answer(1.0, name="z")), "cannot be answered: unknown output 'z'"),
        (golden(inputs=[]), "'both entries' cannot be answered: input 'i' is missing"),
    ],
)
def test_another_answer_is_a_wrong_model(tmp_path: Path, request_: Any, message: str) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    with pytest.raises(StartupError, match=message) as failure:
        check_golden(model, read_golden(text(request_)))

    assert failure.value.reason is Reason.GOLDEN_REQUEST_FAILED
    assert failure.value.exit_code == 3


def test_every_request_is_checked(tmp_path: Path) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)
    requests = [golden(answer(10.0, 20.0), name=name) for name in ("first", "second")]
    requests.append(golden(answer(10.0, 10.0), name="third"))

    with pytest.raises(StartupError, match="'third'"):
        check_golden(model, read_golden(text(*requests)))


def test_a_model_that_fails_on_it_is_a_wrong_model(tmp_path: Path) -> None:
    model = loaded(onnx_models.lookup(table=[1.0]), tmp_path)

    with pytest.raises(StartupError, match="out of data bounds") as failure:
        check_golden(model, read_golden(text(golden())))

    assert failure.value.reason is Reason.GOLDEN_REQUEST_FAILED


@pytest.mark.parametrize(
    ("element_type", "datatype", "data", "other"),
    [
        (TensorProto.STRING, "BYTES", ["a", "$(HOME)"], ["a", "b"]),
        (TensorProto.FLOAT16, "FP16", [1.5, None], [1.5, 2.0]),
        (TensorProto.BOOL, "BOOL", [True, False], [True, True]),
        (TensorProto.UINT64, "UINT64", [0, 2**64 - 1], [0, 2**64 - 2]),
    ],
)
def test_answers_of_any_type_are_compared(
    tmp_path: Path, element_type: int, datatype: str, data: list[Any], other: list[Any]
) -> None:
    model = loaded(onnx_models.identity(element_type, (2,)), tmp_path)
    given = {"name": "x", "datatype": datatype, "shape": [2], "data": data}

    def expecting(data: list[Any]) -> Any:
        expected = given | {"name": "y", "data": data}
        return read_golden(text(golden(expected, inputs=[given])))

    assert check_golden(model, expecting(data)) > 0
    with pytest.raises(StartupError, match=r"output 'y' at \[1\]"):
        check_golden(model, expecting(other))


def test_a_scalar_that_is_off_is_named(tmp_path: Path) -> None:
    model = loaded(onnx_models.identity(shape=()), tmp_path)
    tensor = {"name": "x", "datatype": "FP32", "shape": [], "data": [1.0]}
    expected = tensor | {"name": "y", "data": [2.0]}

    with pytest.raises(StartupError, match=r"output 'y' at \[\]: expected 2.0, got 1.0"):
        check_golden(model, read_golden(text(golden(expected, inputs=[tensor]))))


def test_they_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text(golden()))

    assert [golden.name for golden in read_golden(str(path))] == ["both entries"]
    assert read_golden("") == ()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[5]", r"\[0\] must be an object"),
        ("[{}]", r"\[0\].name must be a text"),
        ('[{"name": "a"}]', r"\[0\].inputs is missing"),
        (text(golden(answer("x"))), r"\[0\].outputs\[0\].data must be numbers"),  # type: ignore[arg-type] # wrong on purpose
        (text(golden(), golden(tolerance={"relative": "x"})), r"\[1\].tolerance.relative"),
        (text(golden(tolerance={"absolute": -1})), r"\[0\].tolerance.absolute"),
        (text(golden(tolerance=[1])), r"\[0\].tolerance must be"),
        (text(golden(rtol=1)), r"\[0\] must be an object with inputs, name"),
        ("[", "unexpected end"),
    ],
)
def test_what_is_no_golden_request_is_a_configuration_error(document: str, message: str) -> None:
    with pytest.raises(StartupError, match=message) as failure:
        read_golden(document)

    assert failure.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "golden.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(StartupError, match=r"golden\.json cannot be used"):
        read_golden(str(path))
