"""Command line: `python -m hack.demo`. Needs a cluster in KUBECONFIG (`make cluster-up images`)."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from hack.demo.cluster import ClusterError
from hack.demo.run import CHAPTERS, Options, report_again, run

FAST_STEP_S = 10
LOG_WIDTH = 150


def main() -> int:
    """Runs the demo; 0 only if every outcome was the expected one."""
    arguments = _arguments()
    # Where there is no terminal there is no width either, and rich takes 80.
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    options = Options(
        namespace=arguments.namespace,
        hostname=arguments.hostname,
        rate=arguments.rate,
        step_s=FAST_STEP_S if arguments.fast else arguments.step_seconds,
        output=arguments.output,
        keep_load=arguments.keep_load,
        install=not arguments.no_install,
        disable_rollback=arguments.disable_rollback,
        chapters=tuple(c for c in arguments.only if not (arguments.fast and c == "subtle")),
    )
    try:
        if arguments.report:
            return 0 if report_again(options.output, console) else 1
        return 0 if run(options, console) else 1
    except ClusterError as error:
        console.print(f"[bold red]demo:[/bold red] {error}", highlight=False, soft_wrap=True)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.demo", description=__doc__)
    parser.add_argument("--namespace", default="demo", help="removed and made anew; default: demo")
    parser.add_argument("--hostname", default="digits.example.com", help="of the route")
    parser.add_argument("--rate", type=float, default=100, help="requests per second; default: 100")
    parser.add_argument(
        "--step-seconds", type=int, default=25, help="how long each weight is held; default: 25"
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help=f"steps of {FAST_STEP_S} s: too short to be sure of version 6, which is left out",
    )
    parser.add_argument(
        "--only",
        type=_chapters,
        default=CHAPTERS,
        metavar="CHAPTER,...",
        help=f"some of {','.join(CHAPTERS)}; default: all of them, in this order",
    )
    parser.add_argument(
        "--keep-load", action="store_true", help="go on sending at the end, to look around"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/demo"), help="report; default: build/demo"
    )
    parser.add_argument(
        "--report", action="store_true", help="only judge and draw the history in the output folder"
    )
    parser.add_argument(
        "--no-install", action="store_true", help="the operator is installed already"
    )
    parser.add_argument(
        "--disable-rollback",
        action="store_true",
        help="test switch: the operator never rolls back, so the demo must fail",
    )
    return parser.parse_args()


def _chapters(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = sorted(set(chosen) - set(CHAPTERS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no chapters: {', '.join(unknown)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
