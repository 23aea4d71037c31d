"""The command line: ``python -m hack.cluster VERB``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.cluster.cluster import Cluster
from hack.cluster.layout import DEFAULT_CLUSTER, Layout, cache_root
from hack.cluster.process import ClusterError
from hack.cluster.progress import Progress


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m hack.cluster", description=__doc__)
    top.add_argument("--name", default=DEFAULT_CLUSTER, help="the cluster (default: %(default)s)")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text)

    verb("up", "make the cluster, or mend it")
    down = verb("down", "remove the cluster and what it changed on the machine")
    down.add_argument(
        "--purge",
        action="store_true",
        help="remove its logs and the engine's copy of the node image too",
    )
    verb("verify-down", "list what a cluster that is down left behind; fail if there is anything")
    verb("status", "show how the cluster is; fail if it is not whole")
    verb("kubeconfig", "print the path of the KUBECONFIG")
    verb("build", "build all parts, start nothing")
    verb("tools", "build etcd, the API server, kubectl and Helm; print their folder")
    load = verb("load", "load an image on all nodes")
    load.add_argument("image", help="an archive, an image of `images`, or one that Docker has")
    images = verb("images", "build the project's images, and load them if the cluster is up")
    images.add_argument("names", nargs="*", metavar="NAME", help="only these, such as model-server")
    node = verb("node", "stop or start a worker")
    node.add_argument("action", choices=["stop", "start"])
    node.add_argument("number", type=int, help="1 or 2")
    logs = verb("logs", "collect the logs of nodes and pods; print the folder")
    logs.add_argument("folder", nargs="?", type=Path)
    verb("shell", "run a shell inside the cluster's network")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    options = parser().parse_args(arguments)
    progress = Progress()
    cluster = Cluster(Layout(cache_root(), options.name), progress)
    try:
        return _run(cluster, options, progress)
    except (ClusterError, ValueError) as error:
        progress.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        progress.say("interrupted: the next run goes on from here")
        return 130
    finally:
        progress.close()


def _run(cluster: Cluster, options: argparse.Namespace, progress: Progress) -> int:
    """Run a verb. What it was asked for goes to standard output, all else to standard error."""
    match options.verb:
        case "up":
            cluster.up()
        case "down":
            cluster.down(purge=options.purge)
        case "build":
            cluster.build()
        case "load":
            cluster.load(options.image)
        case "images":
            cluster.images(options.names)
        case "node":
            cluster.node(options.action, options.number)
        case _:
            return _answer(cluster, options, progress)
    return 0


def _answer(cluster: Cluster, options: argparse.Namespace, progress: Progress) -> int:
    """Run a verb that is a question."""
    match options.verb:
        case "verify-down":
            left = cluster.leftovers()
            progress.say("\n".join(left) or "Nothing is left behind.")
            return int(bool(left))
        case "status":
            return int(not cluster.status())
        case "shell":
            return cluster.shell()
        case "kubeconfig":
            print(cluster.layout.kubeconfig)
        case "tools":
            print(cluster.tools())
        case "logs":
            print(cluster.logs(options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
