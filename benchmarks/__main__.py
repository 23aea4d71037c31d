"""Benchmarks on the cluster of KUBECONFIG: `python -m benchmarks [NAME ...]`, default all."""

from __future__ import annotations

import argparse
import sys

from benchmarks import rollouts
from hack.demo.cluster import ClusterError

BENCHMARKS = {
    "fault-prometheus": lambda runs: rollouts.fault_to_zero(runs, source="prometheus"),
    "fault-pods": lambda runs: rollouts.fault_to_zero(runs, source="pods"),
    "fault-late-prometheus": lambda runs: rollouts.fault_to_zero(
        runs, source="prometheus", healthy_s=600
    ),
    "fault-late-pods": lambda runs: rollouts.fault_to_zero(runs, source="pods", healthy_s=600),
    "collapse": rollouts.collapse_to_zero,
    "api-calls": rollouts.api_calls,
}


def main() -> int:
    """Run what was asked for; 2 if there is no cluster."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=5, help="default: 5")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    try:
        for name in arguments.names or BENCHMARKS:
            BENCHMARKS[name](arguments.runs)
    except ClusterError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
