"""From a torch module to an ONNX file that gives the same answers. Needs the extra `export`."""

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from model_server.digest import digest_of
from model_server.failures import StartupError
from model_server.model import ExecutionError, Model, Run, SessionSettings, load_model
from model_server.signature import InvalidRequestError, Signature, Tensor

DEFAULT_OPSET = 20
DEFAULT_RTOL = 1e-3
DEFAULT_ATOL = 1e-5

Arrays = Mapping[str, NDArray[Any]]


class ExportError(Exception):
    """The module cannot be exported, or what was exported answers something else."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What came of an export.

    Attributes:
        path: The ONNX file.
        digest: Its `sha256:<hex>`, as a ModelDeployment names it.
        max_abs_difference: Largest difference between an answer of torch and of ONNX Runtime.
        compared_values: How many values were compared.
        signature: The inputs and outputs of the graph.
    """

    path: Path
    digest: str
    max_abs_difference: float
    compared_values: int
    signature: Signature


def export_module(
    module: torch.nn.Module,
    example_inputs: Arrays,
    path: Path,
    *,
    output_names: Sequence[str] = (),
    opset: int = DEFAULT_OPSET,
    dynamic_batch: bool = True,
    parity_inputs: Arrays | None = None,
    rtol: float = DEFAULT_RTOL,
    atol: float = DEFAULT_ATOL,
) -> ExportResult:
    """Write `module` as an ONNX file whose answers were compared with torch's.

    The file does not depend on where or when it is made: the same module gives the same digest.

    Args:
        module: Is set to evaluation mode.
        example_inputs: One array for each argument of `forward`, in its order; the keys become the
            names of the graph's inputs.
        path: Where the file goes. It appears only after the comparison succeeded.
        output_names: Names of the graph's outputs; torch's own where there are none.
        opset: Version of the ONNX operators.
        dynamic_batch: Leaves dimension 0 of all inputs open, under one name.
        parity_inputs: What the answers are compared on; the example inputs where there are none.
        rtol: Allowed difference relative to torch's value, of floating point numbers; all else has
            to be equal.
        atol: Allowed absolute difference, of the same.

    Raises:
        ExportError: torch cannot export the module, it answers something else than tensors, or an
            answer differs by more than allowed.
    """
    module.eval()
    example = {name: np.asarray(array) for name, array in example_inputs.items()}
    if dynamic_batch:
        example = {name: _at_least_two_rows(array) for name, array in example.items()}
    checked = example if parity_inputs is None else _in_order(parity_inputs, list(example))
    # first, since torch itself has no clear words for an output that is no tensor
    expected = _torch_outputs(module, checked)
    with _unfinished(path) as partial:
        _export(module, example, partial, output_names, opset, dynamic_batch=dynamic_batch)
        try:
            model = load_model(partial, SessionSettings())
        except StartupError as error:
            raise ExportError(f"the server could not load the export: {error.message}") from error
        difference, count = _compare(model, checked, expected, rtol=rtol, atol=atol)
        partial.replace(path)
    return ExportResult(
        path=path,
        digest=digest_of(path),
        max_abs_difference=difference,
        compared_values=count,
        signature=model.signature,
    )


def _in_order(inputs: Arrays, names: Sequence[str]) -> Arrays:
    if sorted(inputs) != sorted(names):
        raise ExportError(f"parity inputs are {sorted(inputs)}, the module's are {sorted(names)}")
    return {name: inputs[name] for name in names}


def _at_least_two_rows(array: NDArray[Any]) -> NDArray[Any]:
    # torch.export takes a size of 1 for a constant
    return np.concatenate([array, array]) if array.shape[0] == 1 else array


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, of which nothing stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _export(
    module: torch.nn.Module,
    example: Arrays,
    path: Path,
    output_names: Sequence[str],
    opset: int,
    *,
    dynamic_batch: bool,
) -> None:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example) if dynamic_batch else None
    try:
        torch.onnx.export(
            module,
            _tensors(example),
            path,
            input_names=list(example),
            output_names=list(output_names) or None,
            opset_version=opset,
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # torch's own errors have no common base
        raise ExportError(f"torch cannot export the module: {error}") from error
    _strip_provenance(path)


def _strip_provenance(path: Path) -> None:
    """Remove the stack traces and paths that torch leaves, which differ between machines."""
    model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        graph.ClearField("metadata_props")
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        for value in graph.value_info:
            value.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    path.write_bytes(model.SerializeToString(deterministic=True))


def _compare(
    model: Model, inputs: Arrays, expected: Sequence[NDArray[Any]], *, rtol: float, atol: float
) -> tuple[float, int]:
    """Return the largest difference and the number of values that were compared."""
    actual = _onnx_outputs(model, inputs)
    if len(expected) != len(actual):
        raise ExportError(f"torch gives {len(expected)} outputs, the export {len(actual)}")
    worst, count = 0.0, 0
    for spec, ours, theirs in zip(model.signature.outputs, actual, expected, strict=True):
        if ours.shape != theirs.shape:
            raise ExportError(
                f"output {spec.name!r} has shape {ours.shape}, torch's has {theirs.shape}"
            )
        wide, reference = ours.astype(np.float64), theirs.astype(np.float64)
        finite = np.isfinite(reference)
        difference = np.abs(wide - reference, where=finite, out=np.zeros_like(reference))
        worst = max(worst, float(difference.max(initial=0.0)))
        count += reference.size
        if theirs.dtype.kind == "f":
            agree = np.isclose(wide, reference, rtol=rtol, atol=atol, equal_nan=True)
            allowed = f"rtol {rtol:g}, atol {atol:g}"
        else:
            # a label beside the right one is as wrong as any
            agree, allowed = ours == theirs, f"{theirs.dtype} has to be equal"
        if not agree.all():
            index = tuple(int(i) for i in np.argwhere(~agree)[0])
            raise ExportError(
                f"output {spec.name!r} differs from torch's in {int((~agree).sum())} of "
                f"{agree.size} values; first at {index}: {ours[index]}, torch {theirs[index]} "
                f"({allowed})"
            )
    return worst, count


def _torch_outputs(module: torch.nn.Module, inputs: Arrays) -> list[NDArray[Any]]:
    try:
        with torch.no_grad():
            result = module(*_tensors(inputs))
    except Exception as error:  # whatever the user's module raises
        raise ExportError(f"torch does not run on the parity inputs: {error}") from error
    leaves, _ = torch.utils._pytree.tree_flatten(result)  # noqa: SLF001 - the order torch exports in
    return [
        _array(leaf, index)
        for index, leaf in enumerate(leaves)
        # torch leaves them out of the graph
        if leaf is not None
    ]


def _array(leaf: object, index: int) -> NDArray[Any]:
    if not isinstance(leaf, torch.Tensor):
        raise ExportError(
            f"output {index} of the module is {leaf!r}, of type {type(leaf).__name__}; "
            "a graph answers tensors only: leave it out, or make it a tensor"
        )
    try:
        return np.asarray(leaf.detach().cpu())
    except TypeError as error:
        raise ExportError(
            f"output {index} of the module is of type {leaf.dtype}, which numpy does not have; "
            "convert it in the module"
        ) from error


def _onnx_outputs(model: Model, inputs: Arrays) -> list[NDArray[Any]]:
    datatypes = {spec.name: spec.datatype for spec in model.signature.inputs}
    try:
        feed = model.signature.bind(
            [
                Tensor(name, datatypes[name], np.ascontiguousarray(array))
                for name, array in inputs.items()
                # torch drops an input that nothing depends on
                if name in datatypes
            ]
        )
        return model.run(model.signature.outputs, feed, Run())
    except (InvalidRequestError, ExecutionError) as error:
        raise ExportError(f"the export does not run on the parity inputs: {error}") from error


def _tensors(inputs: Arrays) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.array(array)) for array in inputs.values())


def main(args: Sequence[str]) -> int:
    """Run `model-server export`; returns its exit code."""
    values = _parse(args)
    # it warns of extensions that are not installed
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        module = load_module(values.module, values.checkpoint)
        example = _random_inputs(values.input, values.seed)
        result = export_module(
            module,
            example,
            values.output,
            opset=values.opset,
            dynamic_batch=values.dynamic_batch,
            parity_inputs=_read_npz(values.parity_inputs),
            rtol=values.rtol,
            atol=values.atol,
        )
    except ExportError as error:
        print(f"model-server export: {error}", file=sys.stderr)  # noqa: T201 - a command line speaks to a terminal
        return 1
    print(  # noqa: T201 - the command's result
        f"{result.digest}  {result.path}\n"
        f"largest difference to torch {result.max_abs_difference:.3g} "
        f"in {result.compared_values} values"
    )
    return 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="model-server export",
        description="Export a torch module to ONNX, compare the answers, print the digest.",
    )
    parser.add_argument(
        "--module",
        required=True,
        metavar="PACKAGE.MODULE:NAME",
        help="a torch module, or a function without arguments that makes one",
    )
    parser.add_argument("--checkpoint", type=Path, help="state dict to load into the module")
    parser.add_argument(
        "--input",
        required=True,
        action="append",
        type=parse_input,
        metavar="NAME=DTYPE[DIMS]",
        help="an argument of forward, such as image=float32[1,3,224,224]; repeat in its order",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    parser.add_argument("--opset", type=int, default=DEFAULT_OPSET)
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="leave dimension 0 of all inputs open"
    )
    parser.add_argument(
        "--parity-inputs", type=Path, metavar="NPZ", help="arrays to compare on, by input name"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs where none are given")
    parser.add_argument("--rtol", type=float, default=DEFAULT_RTOL)
    parser.add_argument("--atol", type=float, default=DEFAULT_ATOL)
    return parser.parse_args(args)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One `--input`: a name, a numpy type and a shape."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def parse_input(text: str) -> InputSpec:
    """Parse `NAME=DTYPE[DIM,...]`, for instance `pixels=float32[1,64]`.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    found = re.fullmatch(r"([^=]+)=(\w+)\[([\d, ]*)\]", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not like pixels=float32[1,64]")
    try:
        dtype = np.dtype(found[2])
    except TypeError as error:
        raise argparse.ArgumentTypeError(f"numpy has no type {found[2]!r}") from error
    shape = tuple(int(size) for size in found[3].split(",") if size.strip())
    return InputSpec(found[1], dtype, shape)


def load_module(spec: str, checkpoint: Path | None) -> torch.nn.Module:
    """Import `package.module:name`, call it where it is a factory, load the state dict.

    Raises:
        ExportError: There is no such module, or the checkpoint does not fit it.
    """
    package, _, attribute = spec.partition(":")
    # what the user has at hand, as `python -m` does
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path wants text
    try:
        found = getattr(importlib.import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ExportError(f"{spec!r} cannot be imported: {error}") from error
    finally:
        sys.path.pop(0)
    factory = not isinstance(found, torch.nn.Module) and callable(found)
    module = found() if factory else found
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{spec!r} is a {type(module).__name__}, not a torch module")
    if checkpoint is not None:
        try:
            # a checkpoint is data: it must not run code
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            module.load_state_dict(state.get("state_dict", state))
        except Exception as error:  # torch raises anything from KeyError to UnpicklingError here
            raise ExportError(f"checkpoint {checkpoint} cannot be loaded: {error}") from error
    return module


def _random_inputs(specs: Sequence[InputSpec], seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    inputs: dict[str, NDArray[Any]] = {}
    for spec in specs:
        if spec.dtype.kind == "f":
            inputs[spec.name] = rng.standard_normal(spec.shape).astype(spec.dtype)
        else:
            # 0 and 1 are valid for flags, masks and nearly every index
            inputs[spec.name] = rng.integers(0, 2, spec.shape).astype(spec.dtype)
    return inputs


def _read_npz(path: Path | None) -> Arrays | None:
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(cast("Arrays", archive))
    except (OSError, ValueError) as error:
        raise ExportError(f"parity inputs {path} cannot be used: {error}") from error
