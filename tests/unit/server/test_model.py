from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from model_server.datatypes import Datatype
from model_server.failures import Reason, StartupError
from model_server.model import ExecutionError, Run, SessionSettings, load_model, warm_up
from model_server.signature import TensorSpec
from tests.unit.server import onnx_models
from tests.unit.server.serving import loaded


def test_the_signature_is_that_of_the_graph(tmp_path: Path) -> None:
    signature = loaded(onnx_models.add(), tmp_path).signature

    assert signature.inputs == (
        TensorSpec("a", Datatype.FP32, ("N", 2)),
        TensorSpec("b", Datatype.FP32, ("N", 2)),
    )
    assert [spec.name for spec in signature.outputs] == ["sum", "difference"]


def test_outputs_come_in_the_order_asked_for(tmp_path: Path) -> None:
    model = loaded(onnx_models.add(), tmp_path)
    feed = {"a": np.array([[3, 5]], np.float32), "b": np.array([[1, 2]], np.float32)}

    outputs = model.run(model.signature.select(["difference", "sum"]), feed, Run())

    assert [array.tolist() for array in outputs] == [[[2.0, 3.0]], [[4.0, 7.0]]]


def test_a_failure_inside_the_graph_says_what_failed(tmp_path: Path) -> None:
    model = loaded(onnx_models.lookup(), tmp_path)

    with pytest.raises(ExecutionError, match=r"Gather.*out of data bounds") as failure:
        model.run(model.signature.outputs, {"i": np.array([7])}, Run())

    assert "ONNXRuntimeError" not in str(failure.value)


def test_a_stopped_run_ends(tmp_path: Path) -> None:
    model = loaded(onnx_models.loop(), tmp_path)
    run = Run()
    run.stop()

    with pytest.raises(ExecutionError, match="terminate"):
        model.run(model.signature.outputs, {"n": np.array([10**9])}, run)


@pytest.mark.parametrize(
    ("make", "reason", "message"),
    [
        (onnx_models.unknown_operator, Reason.UNSUPPORTED_MODEL, "NoSuchOperator"),
        (onnx_models.custom_operator, Reason.UNSUPPORTED_MODEL, "standard ONNX operators"),
        (onnx_models.unimplemented_kernel, Reason.UNSUPPORTED_MODEL, "operator Relu"),
        (onnx_models.invalid_graph, Reason.INVALID_MODEL, "Relu"),
        (onnx_models.sequence_output, Reason.UNSUPPORTED_MODEL, "output 'y' is of type seq"),
        (
            lambda: onnx_models.identity(TensorProto.BFLOAT16),
            Reason.UNSUPPORTED_MODEL,
            r"input 'x' is of type tensor\(bfloat16\)",
        ),
        (
            lambda: onnx_models.with_opset(onnx_models.identity(), 999),
            Reason.UNSUPPORTED_MODEL,
            r"opset 999 is newer .* export it with opset \d+ or lower",
        ),
        (
            lambda: onnx_models.with_ir_version(onnx_models.identity(), 999),
            Reason.UNSUPPORTED_MODEL,
            r"IR version 999 is newer .* export it with IR version \d+ or lower",
        ),
    ],
)
def test_a_model_that_cannot_run_says_why(
    tmp_path: Path, make: Callable[[], ModelProto], reason: Reason, message: str
) -> None:
    with pytest.raises(StartupError, match=message) as failure:
        loaded(make(), tmp_path)

    assert failure.value.reason is reason
    assert failure.value.exit_code == 3


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-20], id="cut off"),
        pytest.param(lambda _: b"<html>not found</html>" * 50, id="a web page"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
def test_a_corrupt_file_is_told_apart(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = onnx_models.write(onnx_models.lookup(), tmp_path / "model.onnx")
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(StartupError, match="not an ONNX model, or it is cut off") as failure:
        load_model(path, SessionSettings())

    assert failure.value.reason is Reason.INVALID_MODEL


def test_a_folder_with_its_weights_loads(tmp_path: Path) -> None:
    onnx_models.write_with_external_data(onnx_models.lookup(), tmp_path / "model.onnx")

    model = load_model(tmp_path, SessionSettings())

    assert model.run(model.signature.outputs, {"i": np.array([1])}, Run())[0].tolist() == [20.0]


def test_missing_weights_are_told_apart(tmp_path: Path) -> None:
    path = onnx_models.write_with_external_data(onnx_models.lookup(), tmp_path / "model.onnx")
    (tmp_path / "model.onnx.data").unlink()

    with pytest.raises(StartupError, match="weights are in files of their own") as failure:
        load_model(path, SessionSettings())

    assert failure.value.reason is Reason.INVALID_MODEL


def test_a_folder_with_one_graph_needs_no_particular_name(tmp_path: Path) -> None:
    onnx_models.write(onnx_models.identity(), tmp_path / "whatever.onnx")

    assert load_model(tmp_path, SessionSettings()).signature.inputs[0].name == "x"


@pytest.mark.parametrize("names", [(), ("a.onnx", "b.onnx")])
def test_a_folder_must_say_which_graph_is_meant(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        onnx_models.write(onnx_models.identity(), tmp_path / name)

    with pytest.raises(StartupError, match=rf"has {len(names)} files called \*\.onnx"):
        load_model(tmp_path, SessionSettings())


def test_an_execution_provider_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    path = onnx_models.write(onnx_models.identity(), tmp_path / "model.onnx")

    with pytest.raises(StartupError, match="'NoSuchProvider' is not in this image") as failure:
        load_model(path, SessionSettings(execution_providers=("NoSuchProvider",)))

    assert failure.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize(
    "make",
    [
        onnx_models.identity,
        lambda: onnx_models.identity(TensorProto.STRING, ("N",)),
        lambda: onnx_models.identity(TensorProto.BOOL, (None, 3)),
        lambda: onnx_models.identity(TensorProto.FLOAT16, None),
        onnx_models.add,
        onnx_models.lookup,
    ],
)
def test_the_warm_up_makes_inputs_of_its_own(
    tmp_path: Path, make: Callable[[], ModelProto]
) -> None:
    assert warm_up(loaded(make(), tmp_path)) is not None


def test_a_model_that_refuses_made_up_inputs_is_served_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(onnx_models.lookup(table=()), tmp_path)

    assert warm_up(model) is None
    assert "warm-up with synthetic inputs failed" in caplog.text
