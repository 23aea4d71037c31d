"""What all tests share."""

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest

# ONNX Runtime's wheels report usage over the network unless told not to before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# NB: pytest-asyncio asks for the current loop before it installs its own. Python 3.11 makes one
# that nobody closes, whose ResourceWarning fails whatever test runs when it is collected. Once the
# loop was set, even to none, asyncio makes no other.
asyncio.set_event_loop(None)

# Tests of one group share a worker, and what is slow to start there.
GROUPS: Final = {"e2e": "cluster", "apiserver": "apiserver", "chart": "apiserver"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (`-n 2 --dist loadgroup`) the cluster's tests come first, and one by one.

    They take longest and wait most of the time, so that all others run beside them.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    order = [*GROUPS, ""]
    items.sort(key=lambda item: order.index(_tier(item)))
    for item in items:
        if tier := _tier(item):
            item.add_marker(pytest.mark.xdist_group(GROUPS[tier]))


def _tier(item: pytest.Item) -> str:
    """The folder of tests that an item is from, empty where it needs no group."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return folder if folder in GROUPS else ""
