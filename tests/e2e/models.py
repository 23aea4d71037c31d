"""Models that fail in ways that the demo's do not: made with ONNX's own helpers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from hack.demo.train import INPUT_NAME, OUTPUT_NAME, TrainedModel

Tensor = npt.NDArray[Any]

PIXELS, DIGITS, TWELVE = 64, 10, 12
OPSET = 17
SLOW_LOOPS = 50_000
INK_OF_A_DIGIT = 100
HUNGRY_FLOATS = 20_000_000


def slow_model(path: Path, version: int, loops: int = SLOW_LOOPS) -> TrainedModel:
    """Right, but with a long loop before it answers: by default tens of milliseconds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep_going"], ["go_on"]),
            helper.make_node("MatMul", ["state", "mixing"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, PIXELS]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, [1, PIXELS]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "yes", "pixels_of_one"], ["mixed"], body=body),
        helper.make_node("MatMul", ["mixed", "weights"], ["nothing"]),
        helper.make_node("MatMul", [INPUT_NAME, "weights"], ["scores"]),
        helper.make_node("Add", ["scores", "nothing"], [OUTPUT_NAME]),
    ]
    constants: dict[str, Tensor] = {
        "turns": np.array(loops, dtype=np.int64),
        "yes": np.array(1, dtype=bool),
        "mixing": np.eye(PIXELS, dtype=np.float32),
        "weights": _weights(),
        "zero": np.array(0, dtype=np.float32),
    }
    # the loop starts from the request, or ONNX Runtime would fold it away
    nodes.insert(0, helper.make_node("Mul", [INPUT_NAME, "zero"], ["pixels_of_one"]))
    return _save(path, version, "right, but slow", nodes, constants)


def hungry_model(path: Path, version: int) -> TrainedModel:
    """Asks for memory in proportion to the ink of an image: killed at the limit by real ones."""
    nodes = [
        helper.make_node("ReduceSum", [INPUT_NAME], ["ink"], keepdims=0),
        helper.make_node("Sub", ["ink", "little"], ["much"]),
        helper.make_node("Relu", ["much"], ["excess"]),
        helper.make_node("Mul", ["excess", "floats"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one_dimension"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["waste"]),
        helper.make_node("ReduceSum", ["waste"], ["nothing"], keepdims=0),
        helper.make_node("MatMul", [INPUT_NAME, "weights"], ["scores"]),
        helper.make_node("Add", ["scores", "nothing"], [OUTPUT_NAME]),
    ]
    constants: dict[str, Tensor] = {
        "little": np.array(INK_OF_A_DIGIT, dtype=np.float32),
        "floats": np.array(HUNGRY_FLOATS, dtype=np.float32),
        "one_dimension": np.array([1], dtype=np.int64),
        "weights": _weights(),
    }
    return _save(path, version, "right, but hungry", nodes, constants)


def corrupt_model(path: Path, version: int) -> TrainedModel:
    """A file that is what its digest says, but no model."""
    path.write_bytes(b"this is not a model" * 100)
    return _described(path, version, "no model at all")


def modern_model(path: Path, version: int) -> TrainedModel:
    """Written for an opset that no server knows yet."""
    return _save(
        path, version, "of an opset to come", [_scores()], {"weights": _weights()}, opset=99
    )


def foreign_model(path: Path, version: int) -> TrainedModel:
    """Uses an operator that only its makers have."""
    nodes = [
        helper.make_node("Enhance", [INPUT_NAME], ["enhanced"], domain="com.acme"),
        helper.make_node("MatMul", ["enhanced", "weights"], [OUTPUT_NAME]),
    ]
    return _save(path, version, "with an operator of its own", nodes, {"weights": _weights()})


def huge_model(path: Path, version: int) -> TrainedModel:
    """A small file that fills 16 GiB before it answers anything."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["waste"]),
        helper.make_node("ReduceSum", ["waste"], ["nothing"], keepdims=0),
        _scores("scores"),
        helper.make_node("Add", ["scores", "nothing"], [OUTPUT_NAME]),
    ]
    constants = {"size": np.array([1 << 32], dtype=np.int64), "weights": _weights()}
    return _save(path, version, "too large", nodes, constants)


def twelve_classes_model(path: Path, version: int) -> TrainedModel:
    """Knows two classes more than there are digits."""
    constants = {"weights": _weights(TWELVE)}
    return _save(path, version, "twelve classes", [_scores()], constants, classes=TWELVE)


def _scores(output: str = OUTPUT_NAME) -> onnx.NodeProto:
    return helper.make_node("MatMul", [INPUT_NAME, "weights"], [output])


def _weights(classes: int = DIGITS) -> Tensor:
    random = np.random.default_rng(0)
    return random.normal(size=(PIXELS, classes)).astype(np.float32)


def _save(
    path: Path,
    version: int,
    title: str,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Tensor],
    *,
    opset: int = OPSET,
    classes: int = DIGITS,
) -> TrainedModel:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [None, PIXELS])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [None, classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.acme", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if opset == OPSET:
        onnx.checker.check_model(model)
    onnx.save(model, path)
    return _described(path, version, title)


def _described(path: Path, version: int, title: str) -> TrainedModel:
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return TrainedModel(version, title, "", path, digest, accuracy=0.1, failing_share=0.0)
