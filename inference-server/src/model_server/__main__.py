"""The command line: `model-server serve | digest | export`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from model_server import __version__
from model_server.config import (
    DEFAULT_TERMINATION_MESSAGE_PATH,
    ENV_PREFIX,
    add_serve_flags,
    parse_serve,
)
from model_server.digest import digest_of
from model_server.failures import Reason, StartupError, write_termination_message
from model_server.lifecycle import run
from model_server.logs import configure_logging

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    match args[:1]:
        case ["serve"] if not {"-h", "--help"} & set(args):
            return _serve(args[1:])
        case ["export"]:
            return _export(args[1:])
        case _:
            return _others(args)


def _serve(args: list[str]) -> int:
    configure_logging("info")
    message_path = Path(
        os.environ.get(
            f"{ENV_PREFIX}TERMINATION_MESSAGE_PATH", str(DEFAULT_TERMINATION_MESSAGE_PATH)
        )
    )
    try:
        config = parse_serve(args, os.environ)
        message_path = config.termination_message_path
        configure_logging(config.log_level)
        stuck = run(config, uvloop.new_event_loop)
    except StartupError as error:
        return _failed(error, message_path)
    except Exception as error:  # noqa: BLE001 - whoever looks at the pod must see this one too
        text = f"the server met a bug of its own, see its log: {type(error).__name__}: {error}"
        return _failed(StartupError(Reason.INTERNAL_ERROR, text), message_path, error)
    return _exit(0, stuck)


def _failed(failure: StartupError, message_path: Path, bug: Exception | None = None) -> int:
    _log.error(failure.message, extra={"reason": failure.reason}, exc_info=bug)
    write_termination_message(message_path, failure)
    return failure.exit_code


def _exit(code: int, stuck_threads: int = 0) -> int:
    """Return `code`, or end the process with it at once where threads are still busy.

    Native code that comes back while Python shuts down aborts the process.
    """
    if stuck_threads:
        logging.shutdown()
        os._exit(code)
    return code


def _export(args: list[str]) -> int:
    try:
        from model_server.export import main as export_main  # noqa: PLC0415 - torch is optional
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - a command line speaks to a terminal
            f"model-server export needs the extra `export` ({error.name} is not installed)",
            file=sys.stderr,
        )
        return 2
    return export_main(args)


def _others(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="model-server", description="Serves one ONNX model.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve a model")
    add_serve_flags(serve, os.environ)
    commands.add_parser("export", help="export a torch module to ONNX")
    digest = commands.add_parser("digest", help="print the digest of a model file or folder")
    digest.add_argument("path", type=Path)
    values = parser.parse_args(args)
    try:
        print(digest_of(values.path))  # noqa: T201 - the command's result
    except OSError as error:
        print(f"model-server digest: {error}", file=sys.stderr)  # noqa: T201 - to a terminal
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
