"""The settings of `model-server serve`, from flags and from `MODEL_SERVER_*` variables."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from model_server.connection import ConnectionSettings
from model_server.cpu import available_cpus, default_threads, share
from model_server.digest import PREFIX
from model_server.failures import Reason, StartupError
from model_server.model import SessionSettings
from model_server.rest import RestSettings
from model_server.storage import Limits

ENV_PREFIX = "MODEL_SERVER_"
DEFAULT_TERMINATION_MESSAGE_PATH = Path("/dev/termination-log")

_DURATION_UNITS_S = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_MAX_PORT = 65535
# So many of a digest's hex digits tell the versions of a model apart, in names as in people's eyes.
_SHORT_DIGEST = 10


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where the model comes from.

    Attributes:
        uri: A `file`, `http` or `https` URI.
        digest: `sha256:<hex>` of what is expected there.
        folder: Where downloads are kept.
        limits: What a download may cost.
        golden: Golden requests as JSON, or the path of a file with them; empty for none. They must
            be answered rightly before the server is ready.
    """

    uri: str
    digest: str
    folder: Path
    limits: Limits
    golden: str


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """The end of a server's life.

    Attributes:
        delay_s: From "not ready" until no more connections are accepted: routers take that long
            to notice.
        timeout_s: From then on, how long accepted requests may take.
    """

    delay_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that `serve` needs.

    Attributes:
        name: The model's name in the protocol and in metrics.
        revision: The model's version in the protocol and in metrics.
        host: Address to listen on.
        http_port: Port of the inference protocol; 0 picks a free one.
        metrics_port: Port of `/metrics`; 0 picks a free one.
        concurrency: Runs of the model at once.
        max_queue: Requests that may wait for a run.
        log_level: Lowest level that is logged.
        termination_message_path: Where Kubernetes reads why the container ended.
    """

    name: str
    revision: str
    host: str
    http_port: int
    metrics_port: int
    concurrency: int
    max_queue: int
    log_level: str
    termination_message_path: Path
    source: SourceSettings
    session: SessionSettings
    rest: RestSettings
    connection: ConnectionSettings
    drain: DrainSettings


def parse_duration_s(text: str) -> float:
    """Return the seconds of `500ms`, `5s`, `2m`, `1h` or a plain number of seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 500ms, 5s or 2m")
    return float(found[1]) * _DURATION_UNITS_S[found[2]]


def parse_size(text: str) -> int:
    """Return the bytes of `64Mi`, `2Gi` or a plain number of bytes."""
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64Mi")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def _digest(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not sha256: and 64 hex digits; `model-server digest PATH` prints it"
        )
    return text


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _providers(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartupError(Reason.INVALID_CONFIG, message)


def add_serve_flags(parser: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
    """Declare the flags of `serve`, with `env` as their fallback."""

    def flag(name: str, parse: Callable[[str], Any], text: str, default: str | None = None) -> None:
        variable = ENV_PREFIX + name.upper().replace("-", "_")
        value = env.get(variable, default)
        suffix = "" if default is None else f" (default: {default})"
        parser.add_argument(
            f"--{name}",
            type=parse,
            default=value,
            help=f"{text}{suffix} [{variable}]",
            metavar=name.rpartition("-")[2].upper(),
        )

    flag("model", str, "file, http or https URI of an ONNX file, or file URI of a folder")
    flag("digest", _digest, "sha256:<hex> of the model, verified before it is loaded")
    flag("name", str, "name of the model in the protocol and in metrics")
    flag("revision", str, "its version there; none: the name, - and 10 hex digits of the digest")
    flag("host", str, "address to listen on", "0.0.0.0")  # noqa: S104 - a pod is reached by its IP
    flag("http-port", _port, "port of the inference protocol", "8080")
    flag("metrics-port", _port, "port of /metrics", "9090")
    flag("model-dir", Path, "folder for downloads", "/models")
    flag("golden", str, "requests to answer rightly before readiness: JSON list or its file", "")
    flag("threads", _positive, "threads inside one run; none: 1, or the CPUs for each of the runs")
    flag(
        "concurrency", _positive, "runs at once; none: the CPUs of the container's limit / threads"
    )
    flag("max-queue", _count, "requests that may wait for a run, others get 503", "256")
    flag("execution-providers", _providers, "in order of preference", "CPUExecutionProvider")
    flag("request-timeout", parse_duration_s, "longest time to an answer", "30s")
    flag("max-request-bytes", parse_size, "largest request body", "16Mi")
    flag("connection-max-age", parse_duration_s, "age at which connections are ended", "30s")
    flag("keep-alive", parse_duration_s, "idle time after which connections are closed", "120s")
    flag("drain-delay", parse_duration_s, "from SIGTERM until nothing new is accepted", "5s")
    flag("drain-timeout", parse_duration_s, "then, for what was accepted to finish", "20s")
    flag("download-timeout", parse_duration_s, "for a download with all its attempts", "15m")
    flag("download-idle-timeout", parse_duration_s, "without a byte, for one attempt", "30s")
    flag("max-model-bytes", parse_size, "largest model", "16Gi")
    flag("log-level", str, "debug, info, warning or error", "info")
    flag(
        "termination-message-path",
        Path,
        "where to leave the reason of a failure",
        str(DEFAULT_TERMINATION_MESSAGE_PATH),
    )


def parse_serve(args: Sequence[str], env: Mapping[str, str]) -> ServerConfig:
    """Return the configuration that flags and environment spell.

    Raises:
        StartupError: Something is missing, unknown or malformed.
    """
    parser = _Parser(prog="model-server serve", exit_on_error=False, allow_abbrev=False)
    add_serve_flags(parser, env)
    try:
        values = parser.parse_args(args)
    except argparse.ArgumentError as error:
        raise StartupError(Reason.INVALID_CONFIG, str(error)) from error
    for name in ("model", "digest", "name"):
        if not getattr(values, name):
            raise StartupError(
                Reason.INVALID_CONFIG, f"--{name} or {ENV_PREFIX}{name.upper()} is needed"
            )
    if values.log_level not in {"debug", "info", "warning", "error"}:
        raise StartupError(Reason.INVALID_CONFIG, f"there is no log level {values.log_level!r}")
    return _config(values)


def _revision(name: str, digest: str) -> str:
    return f"{name}-{digest.removeprefix(PREFIX)[:_SHORT_DIGEST]}"


def _config(values: argparse.Namespace) -> ServerConfig:
    threads, concurrency = share(
        default_threads(available_cpus()), threads=values.threads, concurrency=values.concurrency
    )
    return ServerConfig(
        name=values.name,
        revision=values.revision or _revision(values.name, values.digest),
        host=values.host,
        http_port=values.http_port,
        metrics_port=values.metrics_port,
        concurrency=concurrency,
        max_queue=values.max_queue,
        log_level=values.log_level,
        termination_message_path=values.termination_message_path,
        source=SourceSettings(
            uri=values.model,
            digest=values.digest,
            folder=values.model_dir,
            golden=values.golden,
            limits=Limits(
                total_s=values.download_timeout,
                idle_s=values.download_idle_timeout,
                max_bytes=values.max_model_bytes,
            ),
        ),
        session=SessionSettings(threads=threads, execution_providers=values.execution_providers),
        rest=RestSettings(
            request_timeout_s=values.request_timeout, max_request_bytes=values.max_request_bytes
        ),
        connection=ConnectionSettings(
            max_age_s=values.connection_max_age, keep_alive_s=round(values.keep_alive)
        ),
        drain=DrainSettings(delay_s=values.drain_delay, timeout_s=values.drain_timeout),
    )
