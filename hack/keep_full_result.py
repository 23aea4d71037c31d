"""Keep the result of `make test-full` as a page of docs/."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

SLOWEST = 40


def page(reports: Sequence[ET.Element]) -> str:
    """The page for pytest's JUnit reports: totals, then the slowest tests with their figures."""
    suites = [suite for report in reports for suite in report.iter("testsuite")]
    cases = [case for suite in suites for case in suite.iter("testcase")]
    cases.sort(key=lambda case: -float(case.get("time", "0")))
    bad = sum(_is_bad(case) for case in cases)
    seconds = sum(float(suite.get("time", "0")) for suite in suites)
    lines = [
        "# The last `make test-full`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}: {len(cases)} tests, {bad} failed, {seconds / 60:.0f} min.",
        "",
        "The slowest, those that failed, and those that measured something:",
        "",
        "| test | seconds | result | measured |",
        "|---|---|---|---|",
    ]
    for rank, case in enumerate(cases):
        measured = ", ".join(f"{p.get('name')} {p.get('value')}" for p in case.iter("property"))
        if rank < SLOWEST or measured or _is_bad(case):
            name = f"{case.get('classname')}::{case.get('name')}"
            result = "FAIL" if _is_bad(case) else "ok"
            seconds = float(case.get("time", "0"))
            lines.append(f"| {name} | {seconds:.1f} | {result} | {measured} |")
    return "\n".join(lines) + "\n"


def _is_bad(case: ET.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


if __name__ == "__main__":
    target, *sources = (Path(argument) for argument in sys.argv[1:])
    # S314: the reports are pytest's own, written a moment ago
    target.write_text(page([ET.parse(source).getroot() for source in sources]))  # noqa: S314 - see above
