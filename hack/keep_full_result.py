"""Keep the result of `make test-full` as a page of docs/."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path


def page(report: ET.Element) -> str:
    """The page for pytest's JUnit report: totals, then the tests by time."""
    suite = report if report.tag == "testsuite" else next(iter(report))
    cases = sorted(suite.iter("testcase"), key=lambda case: -float(case.get("time", "0")))
    count, seconds = suite.get("tests"), float(suite.get("time", "0"))
    bad = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    lines = [
        "# The last `make test-full`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}: {count} tests, {bad} failed, {seconds / 60:.1f} min.",
        "",
        "The slowest:",
        "",
        "| test | seconds | result |",
        "|---|---|---|",
    ]
    for case in cases[:40]:
        failed = case.find("failure") is not None or case.find("error") is not None
        name = f"{case.get('classname')}::{case.get('name')}"
        lines.append(
            f"| {name} | {float(case.get('time', '0')):.1f} | {'FAIL' if failed else 'ok'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    # S314: the report is pytest's own, written a moment ago
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.write_text(page(ET.parse(source).getroot()))  # noqa: S314 - pytest's own file
