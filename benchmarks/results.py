"""How a benchmark tells its result: a line for people and a line of JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median


def tell(name: str, values: Sequence[float], unit: str, **facts: object) -> None:
    """Print minimum, median and maximum of the runs.

    Args:
        name: What was measured.
        values: One for each run.
        unit: Of the values.
        facts: What else a reader needs to judge them.
    """
    low, middle, high = min(values), median(values), max(values)
    more = "".join(f", {key} {value}" for key, value in facts.items())
    print(
        f"{name}: min {low:.3g}, median {middle:.3g}, max {high:.3g} {unit} "
        f"({len(values)} runs{more})"
    )
    result = {
        "benchmark": name,
        "unit": unit,
        "min": low,
        "median": middle,
        "max": high,
        "runs": list(values),
        **facts,
    }
    print(json.dumps(result), flush=True)
