from pathlib import Path

import pytest
from onnx import helper

from model_server.header import Header, OpsetImport, read_header
from tests.unit.server import onnx_models


def test_the_header_tells_opsets_and_producer(tmp_path: Path) -> None:
    model = onnx_models.custom_operator()
    model.producer_name, model.producer_version = "pytorch", "2.9.1"
    path = onnx_models.write(model, tmp_path / "model.onnx")

    assert read_header(path) == Header(
        ir_version=8,
        producer="pytorch 2.9.1",
        opset_imports=(OpsetImport("ai.onnx", 17), OpsetImport("com.acme", 1)),
    )


def test_what_follows_a_large_graph_is_read_too(tmp_path: Path) -> None:
    model = onnx_models.lookup(table=[0.5] * 1_000_000)
    assert model.SerializeToString().index(b"table") < 1000, "the graph comes before the opsets"
    path = onnx_models.write(model, tmp_path / "model.onnx")

    assert read_header(path).opset_imports == (OpsetImport("ai.onnx", 17),)


def test_a_model_that_says_nothing_has_an_empty_header(tmp_path: Path) -> None:
    model = onnx_models.lookup()
    model.ClearField("ir_version")
    model.ClearField("opset_import")

    assert read_header(onnx_models.write(model, tmp_path / "model.onnx")) == Header()


def test_the_version_of_an_opset_may_be_any_64_bits(tmp_path: Path) -> None:
    model = onnx_models.lookup()
    model.opset_import[0].CopyFrom(helper.make_opsetid("", -1))

    header = read_header(onnx_models.write(model, tmp_path / "model.onnx"))

    assert header.opset_imports == (OpsetImport("ai.onnx", 2**64 - 1),)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", b"\xff" * 20, b"\x0b\x01", b"\x42\x05\x10", b"\x3a\xff\xff\xff\x7f", b"\x09a"],
)
def test_a_file_that_is_no_model_is_read_to_its_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    assert read_header(path).ir_version == 0


def test_no_prefix_of_a_model_is_trouble(tmp_path: Path) -> None:
    whole = onnx_models.add().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_header(path).ir_version in {0, 8}


def test_an_absent_file_has_no_header(tmp_path: Path) -> None:
    assert read_header(tmp_path / "absent.onnx") == Header()
