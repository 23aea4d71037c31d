"""Waiting with the screen alive: nothing in the demo takes long without showing what happens."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hack.demo.history import History
from hack.demo.recorder import Recorder
from hack.demo.screen import Screen

T = TypeVar("T")
LOOK_S = 1.0


def follow(
    recorder: Recorder, screen: Screen, condition: Callable[[History], bool], timeout_s: float
) -> bool:
    """Shows what happens until a condition holds; False when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        history = recorder.history()
        screen.update(history)
        if condition(history):
            return True
        recorder.wait_for_change(LOOK_S)
    return False


def dwell(recorder: Recorder, screen: Screen, dwell_s: float) -> None:
    """Shows what happens for a while."""
    until_s = time.monotonic() + dwell_s
    while (remaining_s := until_s - time.monotonic()) > 0:
        screen.update(recorder.history())
        recorder.wait_for_change(min(LOOK_S, remaining_s))


def meanwhile(recorder: Recorder, screen: Screen, work: Callable[[], T]) -> T:
    """Shows what happens while something is done; its result. What it raises is raised here."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        done = pool.submit(work)
        while not done.done():
            screen.update(recorder.history())
            recorder.wait_for_change(LOOK_S)
        return done.result()
