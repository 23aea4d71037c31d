"""Makes an ONNX model slow without changing an answer: a loop of matrix products beside it.

The loop starts from the request's own pixels times 0, so that ONNX Runtime cannot compute it before
there is a request, and its result, which is 0, is added to the answer, so that it cannot leave it
out.
"""

import time
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PIXELS: Final = 64
TRIAL_TURNS: Final = 100
TRIALS: Final = 100
"""Short and many, so that some of them share their processor with nobody."""


def add_useless_work(path: Path, input_name: str, output_name: str, seconds: float) -> None:
    """Has the model at `path` compute for `seconds` more before each answer, on this machine."""
    plain = onnx.load(path)
    trial = _with_loop(plain, input_name, output_name, TRIAL_TURNS)
    turns = round(TRIAL_TURNS * seconds / _run_s(trial, input_name))
    onnx.save(_with_loop(plain, input_name, output_name, turns), path)


def _run_s(model: onnx.ModelProto, input_name: str) -> float:
    """Seconds of a run in one thread; the shortest of some, since other work only adds to it."""
    import onnxruntime as ort  # noqa: PLC0415 - slow to import, and the demo's models are cached

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = np.ones((1, PIXELS), np.float32)
    taken = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        session.run(None, {input_name: image})
        taken.append(time.perf_counter() - began)
    return min(taken)


def _with_loop(
    plain: onnx.ModelProto, input_name: str, output_name: str, turns: int
) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["useful_answer" if name == output_name else name for name in node.output]
    constants = {
        "useless_turns": np.array(turns, np.int64),
        "useless_yes": np.array(1, np.bool_),
        "useless_zero": np.array(0, np.float32),
        "useless_mixing": np.eye(PIXELS, dtype=np.float32),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [input_name], ["useless_pixel"], keepdims=0),
            helper.make_node("Mul", ["useless_pixel", "useless_zero"], ["useless_nothing"]),
            helper.make_node("Add", ["useless_mixing", "useless_nothing"], ["useless_begin"]),
            helper.make_node(
                "Loop",
                ["useless_turns", "useless_yes", "useless_begin"],
                ["useless_end"],
                body=_body(),
            ),
            helper.make_node("Sub", ["useless_end", "useless_mixing"], ["useless_rest"]),
            helper.make_node("ReduceMax", ["useless_rest"], ["useless_result"], keepdims=0),
            helper.make_node("Add", ["useful_answer", "useless_result"], [output_name]),
        ]
    )
    onnx.checker.check_model(model)
    return model


def _body() -> onnx.GraphProto:
    """One turn: a product with the identity, which changes nothing."""
    square = [PIXELS, PIXELS]
    return helper.make_graph(
        [
            helper.make_node("Identity", ["keep_going"], ["go_on"]),
            helper.make_node("MatMul", ["state", "useless_mixing"], ["next_state"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, square),
        ],
    )
