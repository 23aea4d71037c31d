"""Small ONNX graphs, each with one property that a test is about."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, save

Shape = Sequence[int | str | None] | None


def identity(element_type: int = TensorProto.FLOAT, shape: Shape = ("N", 2)) -> ModelProto:
    """`y` is `x`."""
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        inputs=[("x", element_type, shape)],
        outputs=[("y", element_type, shape)],
    )


def add() -> ModelProto:
    """`sum` and `difference` of `a` and `b`, which have the same number of rows."""
    return _model(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        inputs=[("a", TensorProto.FLOAT, ("N", 2)), ("b", TensorProto.FLOAT, ("N", 2))],
        outputs=[("sum", TensorProto.FLOAT, ("N", 2)), ("difference", TensorProto.FLOAT, ("N", 2))],
    )


def lookup(table: Sequence[float] = (10.0, 20.0)) -> ModelProto:
    """`y` is the entry of a table at each index `i`: fails at run time for indices beyond it."""
    values = np.array(table, dtype=np.float32)
    return _model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        inputs=[("i", TensorProto.INT64, ("N",))],
        outputs=[("y", TensorProto.FLOAT, ("N",))],
        constants={"table": values},
    )


def loop() -> ModelProto:
    """Multiplies a matrix with itself `n` times: takes as long as one asks for."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "unit"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [64, 64]),
        ],
    )
    return _model(
        [
            helper.make_node("Squeeze", ["n"], ["count"]),
            helper.make_node("Loop", ["count", "", "unit"], ["y"], body=body),
        ],
        inputs=[("n", TensorProto.INT64, (1,))],
        outputs=[("y", TensorProto.FLOAT, (64, 64))],
        constants={"unit": np.eye(64, dtype=np.float32)},
    )


def unknown_operator() -> ModelProto:
    return _model(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        inputs=[("x", TensorProto.FLOAT, (1,))],
        outputs=[("y", TensorProto.FLOAT, (1,))],
    )


def custom_operator() -> ModelProto:
    model = _model(
        [helper.make_node("Foo", ["x"], ["y"], domain="com.acme")],
        inputs=[("x", TensorProto.FLOAT, (1,))],
        outputs=[("y", TensorProto.FLOAT, (1,))],
    )
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    return model


def unimplemented_kernel() -> ModelProto:
    return _model(
        [helper.make_node("Relu", ["x"], ["y"])],
        inputs=[("x", TensorProto.BFLOAT16, (1,))],
        outputs=[("y", TensorProto.BFLOAT16, (1,))],
    )


def invalid_graph() -> ModelProto:
    """Relu of whole numbers, which opset 13 does not have."""
    model = _model(
        [helper.make_node("Relu", ["x"], ["y"])],
        inputs=[("x", TensorProto.INT64, (1,))],
        outputs=[("y", TensorProto.INT64, (1,))],
    )
    model.opset_import[0].version = 13
    return model


def sequence_output() -> ModelProto:
    """Like the class probabilities of a converted scikit-learn classifier."""
    sequence = helper.make_sequence_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_value_info("y", sequence)],
    )
    return _finish(graph)


def large_when_run() -> ModelProto:
    """A small file that fills 16 GiB as soon as it runs."""
    return _model(
        [
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        inputs=[("x", TensorProto.FLOAT, (1,))],
        outputs=[("y", TensorProto.FLOAT, (1,))],
        constants={"size": np.array([1 << 32], dtype=np.int64)},
    )


def with_opset(model: ModelProto, opset: int) -> ModelProto:
    model.opset_import[0].version = opset
    return model


def with_ir_version(model: ModelProto, version: int) -> ModelProto:
    model.ir_version = version
    return model


def write(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def write_with_external_data(model: ModelProto, path: Path) -> Path:
    """Put the constants into `<path>.data` beside the graph."""
    save(
        model,
        path,
        save_as_external_data=True,
        location=path.name + ".data",
        size_threshold=0,
    )
    return path


def _model(
    nodes: Sequence[NodeProto],
    *,
    inputs: Sequence[tuple[str, int, Shape]],
    outputs: Sequence[tuple[str, int, Shape]],
    constants: dict[str, np.ndarray] | None = None,
) -> ModelProto:
    initializers = [
        helper.make_tensor(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            array.shape,
            array.tobytes(),
            raw=True,
        )
        for name, array in (constants or {}).items()
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        initializers,
    )
    return _finish(graph)


def _finish(graph: GraphProto) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
