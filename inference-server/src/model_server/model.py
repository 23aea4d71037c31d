"""A verified ONNX file as something that can run."""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from model_server.datatypes import FROM_ONNX
from model_server.failures import Reason, StartupError
from model_server.header import Header, read_header
from model_server.signature import InvalidRequestError, Signature, TensorSpec

_log = logging.getLogger(__name__)

_FATAL_ONLY = 4


class ExecutionError(Exception):
    """The model failed on inputs that fit its signature, or its run was stopped."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How ONNX Runtime executes a model."""

    # Threads inside one operator, the calling one included.
    threads: int = 1
    # In order of preference.
    execution_providers: tuple[str, ...] = ("CPUExecutionProvider",)


class Run:
    """One execution; another thread may `stop` it."""

    __slots__ = ("_options",)

    def __init__(self) -> None:
        self._options = ort.RunOptions()
        # every failure is raised as well, and a broken model must not write a line for each
        self._options.log_severity_level = _FATAL_ONLY

    def stop(self) -> None:
        """End the execution after the operator that is running now."""
        self._options.terminate = True

    @property
    def options(self) -> Any:
        """What ONNX Runtime takes."""
        return self._options


class Model:
    """A loaded model. `run` may be called from several threads at once."""

    def __init__(self, session: Any, signature: Signature, header: Header | None = None) -> None:
        self._session = session
        self.signature = signature
        self.header = header or Header()

    def run(
        self, outputs: Sequence[TensorSpec], feed: Mapping[str, NDArray[Any]], run: Run
    ) -> list[NDArray[Any]]:
        """Compute `outputs`, in their order. `feed` fits the signature (`Signature.bind`).

        Raises:
            InvalidRequestError: ONNX Runtime refuses an input before it computes anything.
            ExecutionError: The graph fails on these inputs.
        """
        try:
            results: list[NDArray[Any]] = self._session.run(
                [spec.name for spec in outputs], feed, run.options
            )
        except Exception as error:  # onnxruntime's exceptions have no common base
            text = _plain(str(error))
            if text.startswith(("Got invalid dimensions for input", "Invalid rank for input")):
                raise InvalidRequestError(text) from error
            raise ExecutionError(f"the model failed on these inputs: {text}") from error
        return results


def load_model(path: Path, settings: SessionSettings) -> Model:
    """Load the ONNX file at `path`, or the one in the folder at `path`.

    Raises:
        StartupError: The file is no ONNX model, or one that this server cannot run.
    """
    file = _model_file(path)
    _check_providers(settings)
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Spinning threads use up a container's CPU quota while they wait, and all are throttled.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL_ONLY
    try:
        session = ort.InferenceSession(
            str(file), options, providers=list(settings.execution_providers)
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise _explain(error) from error
    return Model(session, _signature(session), read_header(file))


def warm_up(model: Model) -> float | None:
    """Run the model once so that the first request does not pay for lazy allocations.

    Zeros are tried first, since they are valid indices, then ones. A model may refuse both (made-up
    inputs need not make sense to it), so failing is logged and no more. Only where the memory is
    too small for the smallest of inputs, it is for every request.

    Returns:
        The seconds of the run, or None when the model refused.

    Raises:
        StartupError: The memory is too small.
    """
    for fill in (0, 1):
        started = time.perf_counter()
        try:
            model.run(model.signature.outputs, model.signature.synthetic_feed(fill), Run())
        except (InvalidRequestError, ExecutionError) as error:
            if _OUT_OF_MEMORY.search(str(error)):
                raise StartupError(Reason.UNSUPPORTED_MODEL, f"{_TOO_LARGE} ({error})") from error
            _log.warning("warm-up with synthetic inputs failed", extra={"reason": str(error)})
        else:
            return time.perf_counter() - started
    return None


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    named = path / "model.onnx"
    if named.is_file():
        return named
    candidates = sorted(path.glob("*.onnx"))
    if len(candidates) != 1:
        raise StartupError(
            Reason.INVALID_MODEL,
            f"the model folder has {len(candidates)} files called *.onnx; "
            "name the one to serve model.onnx",
        )
    return candidates[0]


def _check_providers(settings: SessionSettings) -> None:
    available = ort.get_available_providers()
    for provider in settings.execution_providers:
        if provider not in available:
            raise StartupError(
                Reason.INVALID_CONFIG,
                f"execution provider {provider!r} is not in this image, "
                f"which has {', '.join(available)}",
            )


def _signature(session: Any) -> Signature:
    return Signature(
        inputs=tuple(_spec("input", arg) for arg in session.get_inputs()),
        outputs=tuple(_spec("output", arg) for arg in session.get_outputs()),
    )


def _spec(role: str, arg: Any) -> TensorSpec:
    datatype = FROM_ONNX.get(arg.type)
    if datatype is None:
        hint = (
            "export the classifier with zipmap disabled"
            if "map(" in arg.type
            else "cast it to a plain tensor inside the graph"
        )
        raise StartupError(
            Reason.UNSUPPORTED_MODEL,
            f"{role} {arg.name!r} is of type {arg.type}, which the inference protocol cannot "
            f"carry; {hint}",
        )
    return TensorSpec(name=arg.name, datatype=datatype, shape=tuple(arg.shape))


def _plain(text: str) -> str:
    """Return a message of ONNX Runtime without its error code and C++ source location."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"Load model from \S+ failed:\s*", "", text)
    return re.sub(r"/\S+/onnxruntime/core/\S+:\d+ .*\)( const)? (?=[A-Z])", "", text).strip()


_OUT_OF_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate memory")
_TOO_LARGE = "the model does not fit into the memory of this container; raise its memory limit"

# What ONNX Runtime says, and what that means to whoever published the model.
_EXPLANATIONS: tuple[tuple[re.Pattern[str], Reason, str], ...] = (
    (
        re.compile(r"Protobuf parsing failed|No graph was found in the protobuf"),
        Reason.INVALID_MODEL,
        "the file is not an ONNX model, or it is cut off; export and publish it again",
    ),
    (
        re.compile(r"Unsupported model IR version: (?P<found>\d+), max \D*(?P<limit>\d+)"),
        Reason.UNSUPPORTED_MODEL,
        (
            "the model's IR version {found} is newer than this server knows; "
            "export it with IR version {limit} or lower, or use a newer server image"
        ),
    ),
    (
        re.compile(
            r"Opset (?P<found>\d+) is under development.*till opset (?P<limit>\d+)", re.DOTALL
        ),
        Reason.UNSUPPORTED_MODEL,
        (
            "the model's opset {found} is newer than this server knows; "
            "export it with opset {limit} or lower, or use a newer server image"
        ),
    ),
    (
        re.compile(
            r"No Op registered for (?P<op>\S+) with domain_version of (?P<version>\d+)"
            r"|Fatal error: (?P<custom>\S+?)\(-?\d+\) is not a registered function/op"
        ),
        Reason.UNSUPPORTED_MODEL,
        (
            "the model uses an operator that this server does not have; "
            "export it with standard ONNX operators only"
        ),
    ),
    (
        re.compile(r"Could not find an implementation for (?P<op>\w+)"),
        Reason.UNSUPPORTED_MODEL,
        (
            "no execution provider of this server has operator {op} for the model's data "
            "types; export it with another data type or opset"
        ),
    ),
    (
        re.compile(r"[Ee]xternal data"),
        Reason.INVALID_MODEL,
        (
            "the model's weights are in files of their own that are not beside it; "
            "publish the folder with all of them, or export everything into one file"
        ),
    ),
    (_OUT_OF_MEMORY, Reason.UNSUPPORTED_MODEL, _TOO_LARGE),
)


def _explain(error: Exception) -> StartupError:
    text = _plain(str(error))
    for pattern, reason, advice in _EXPLANATIONS:
        found = pattern.search(text)
        if found:
            return StartupError(reason, f"{advice.format_map(found.groupdict())} ({text})")
    return StartupError(
        Reason.INVALID_MODEL, f"ONNX Runtime cannot load the model; export it again ({text})"
    )
