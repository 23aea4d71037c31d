"""What most scenarios begin with: one revision that serves, and others that may be released."""

from __future__ import annotations

from typing import Any

from model_operator.api.types import Analysis, Decimal, Duration, Events, Metric
from tests.builders import spec
from tests.scenarios.world import Model, World

ERRORS = Metric(
    name="errors",
    type="Events",
    events=Events(bad="bad", total="total", max_rate=Decimal("0.01"), min_events=50),
)
ANALYSIS = Analysis(interval=Duration("1s"), metric_source="prometheus", metrics=(ERRORS,))


def world(*steps: Any, candidate: Model | None = None, **fields: Any) -> World:
    """The revision `one` serves, `two` and `three` are there to be released.

    Args:
        steps: Of the rollout; by default 5, 25 and 50 percent.
        candidate: How `two` behaves; by default well.
        fields: Further ones of `tests.builders.spec`.
    """
    models = {"one": Model(), "two": candidate or Model(), "three": Model()}
    return World(spec(*steps, analysis=ANALYSIS, **fields), models).serving()


def at_weight(w: World, revision: str, percent: int) -> World:
    """Release a revision and wait until it has a weight."""
    w.release(revision).run_until(lambda w: w.weight(revision) == percent)
    return w
