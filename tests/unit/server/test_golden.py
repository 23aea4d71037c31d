from pathlib import Path
from typing import Any

import orjson
import pytest

from model_server.failures import Reason, StartupError
from model_server.golden import check_golden
from tests.unit.server import onnx_models
from tests.unit.server.serving import loaded

REQUEST = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [2], "data": [0, 1]}]}


def write(folder: Path, document: Any) -> Path:
    path = folder / "golden.json"
    path.write_bytes(orjson.dumps(document))
    return path


def answer(*values: float) -> dict[str, Any]:
    tensor = {"name": "y", "datatype": "FP32", "shape": [len(values)], "data": list(values)}
    return {"outputs": [tensor]}


@pytest.mark.parametrize(
    "golden",
    [
        {"request": REQUEST},
        {"request": REQUEST, "response": answer(10.0, 20.0)},
        {"request": REQUEST, "response": answer(10.0, 20.001)},
        {"request": REQUEST, "response": answer(9.0, 21.0), "atol": 1},
    ],
)
def test_the_expected_answer_passes(tmp_path: Path, golden: Any) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    assert check_golden(model, write(tmp_path, golden)) > 0


@pytest.mark.parametrize(
    ("golden", "message"),
    [
        ({"request": REQUEST, "response": answer(10.0, 21.0)}, "output 'y'.* not the expected"),
        ({"request": REQUEST, "response": answer(10.0)}, "output 'y'.* not the expected"),
        ({"request": {"inputs": []}}, "cannot answer the golden request: input 'i' is missing"),
    ],
)
def test_another_answer_is_a_wrong_model(tmp_path: Path, golden: Any, message: str) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    with pytest.raises(StartupError, match=message) as failure:
        check_golden(model, write(tmp_path, golden))

    assert failure.value.reason is Reason.INVALID_MODEL


def test_a_model_that_fails_on_it_is_a_wrong_model(tmp_path: Path) -> None:
    model = loaded(onnx_models.lookup(table=[1.0]), tmp_path)

    with pytest.raises(StartupError, match="out of data bounds") as failure:
        check_golden(model, write(tmp_path, {"request": REQUEST}))

    assert failure.value.reason is Reason.INVALID_MODEL


@pytest.mark.parametrize(
    "document", [[], {}, {"request": 5}, {"request": {}}, {"request": REQUEST, "rtol": "x"}]
)
def test_a_file_that_is_no_golden_request_is_a_configuration_error(
    tmp_path: Path, document: Any
) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    with pytest.raises(StartupError, match="cannot be used") as failure:
        check_golden(model, write(tmp_path, document))

    assert failure.value.reason is Reason.INVALID_CONFIG


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    with pytest.raises(StartupError, match="cannot be used"):
        check_golden(model, tmp_path / "absent.json")
