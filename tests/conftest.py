"""What all tests share."""

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# ONNX Runtime's wheels report usage over the network unless told not to before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# NB: pytest-asyncio asks for the current loop before it installs its own. Python 3.11 makes one
# that nobody closes, whose ResourceWarning fails whatever test runs when it is collected. Once the
# loop was set, even to none, asyncio makes no other.
asyncio.set_event_loop(None)

# Tests of one group run one by one: those of the cluster disturb each other, and the API server of
# the others is slow to start.
GROUPS: Final = {"e2e": "cluster", "apiserver": "apiserver", "chart": "apiserver"}
LOW_PRIORITY: Final = 10


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a worker the groups come first, in their order: they take longest, `full` ones most."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = [*GROUPS]

        def rank(item: pytest.Item) -> tuple[int, bool]:
            tier = _folder(item.nodeid)
            place = order.index(tier) if tier in GROUPS else len(order)
            return place, item.get_closest_marker("full") is not None

        items.sort(key=rank)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What runs beside the tests of the cluster gives way to them: they look at times."""
    if "PYTEST_XDIST_WORKER" in os.environ and _folder(item.nodeid) != "e2e":
        os.setpriority(os.PRIO_PROCESS, 0, LOW_PRIORITY)


def _folder(nodeid: str) -> str:
    return Path(nodeid.partition("::")[0]).parts[1]


class ByTier(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Side by side: the groups begin, each on a worker, then one file after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return GROUPS.get(_folder(nodeid), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByTier:
    """With `-n 2` the tests of the cluster, which wait most of the time, run beside all others."""
    return ByTier(config, log)
