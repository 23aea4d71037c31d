"""Reports for each scenario its tiers, its tests and their last result: `make scenarios-report`.

A test is found by its name: `test_s04_s33_...` is one of S04 and of S33. Results are read from what
pytest left (`--junit-xml`); a scenario without a test is listed as missing.
"""

import argparse
import ast
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
REPORT: Final = Path("docs/scenarios.md")
LIST: Final = Path("tests/scenarios.toml")
RESULTS: Final = Path("build/tests.xml")
NUMBERED: Final = re.compile(r"test((?:_s\d\d)+)_")
MISSING: Final = "**missing**"
LINK: Final = re.compile(r"\[(\w+)\]\(\.\./([^)]+)\)")
NOT_RUN: Final = "not run"

TIERS: Final = {
    "unit": "unit",
    "scenarios": "virtual time",
    "metrics": "real Prometheus",
    "apiserver": "real API server",
    "chart": "chart",
    "e2e": "real cluster",
}
"""By the folder below `tests/`, in the order in which they get closer to reality."""

HEAD: Final = """# Scenarios

What users and operators live through, where it is tested, and how that went the last time.
Written by `make scenarios-report`; the tests of a scenario have its number in their name.

| | Scenario | Tier | Tests | Last result |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Test:
    """A test function with a scenario's number in its name.

    Attributes:
        scenarios: The numbers, such as S04.
        path: Its file, from the root.
        name: Its name, without parameters.
        full: Whether it only runs in `make test-full`.
    """

    scenarios: tuple[str, ...]
    path: Path
    name: str
    full: bool

    @property
    def tier(self) -> str:
        """Where it runs, in words."""
        return TIERS[self.path.parts[1]]

    @property
    def module(self) -> str:
        """Its module, as pytest writes it into results."""
        return ".".join(self.path.with_suffix("").parts)


def find_tests(root: Path) -> list[Test]:
    """All numbered tests below `tests/`, by file and line."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        whole_module = any(
            _names_mark(node.value, "full")
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)
        )
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            numbers = NUMBERED.match(node.name)
            if numbers is None:
                continue
            scenarios = tuple(number.upper() for number in numbers.group(1)[1:].split("_"))
            full = whole_module or any(_names_mark(d, "full") for d in node.decorator_list)
            found.append(Test(scenarios, path.relative_to(root), node.name, full))
    return found


def _names_mark(expression: ast.expr, mark: str) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == mark for node in ast.walk(expression)
    )


def read_results(paths: Sequence[Path]) -> dict[tuple[str, str], Counter[str]]:
    """How often each test, by module and name, passed, failed or was skipped in all its forms."""
    results: dict[tuple[str, str], Counter[str]] = {}
    for path in paths:
        if not path.exists():
            continue
        for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - pytest's own file
            # parameters, and the group that pytest-xdist appends, are not part of the name
            name = re.split(r"[\[@]", case.get("name", ""), maxsplit=1)[0]
            outcome = "passed"
            for child in case:
                if child.tag in {"failure", "error"}:
                    outcome = "failed"
                elif child.tag == "skipped" and outcome == "passed":
                    outcome = "skipped"
            results.setdefault((case.get("classname", ""), name), Counter())[outcome] += 1
    return results


def result_of(tests: Sequence[Test], results: Mapping[tuple[str, str], Mapping[str, int]]) -> str:
    """The last results of a scenario's tests, in words."""
    if not tests:
        return MISSING
    counts: Counter[str] = Counter()
    for test in tests:
        found = results.get((test.module, test.name))
        counts.update(found or {f"{NOT_RUN} (make test-full)" if test.full else NOT_RUN: 1})
    ranked = sorted(counts, key=lambda word: (word != "failed", word != "passed", word))
    return ", ".join(f"{counts[word]} {word}" for word in ranked)


def rows(
    titles: Mapping[str, str],
    tests: Sequence[Test],
    results: Mapping[tuple[str, str], Mapping[str, int]],
) -> Iterator[tuple[str, str, str, str, str]]:
    """Number, title, tiers, tests and result of each scenario, in the list's order."""
    for number, title in titles.items():
        own = [test for test in tests if number in test.scenarios]
        tiers = [tier for tier in TIERS.values() if any(test.tier == tier for test in own)]
        links = [f"[{test.name}](../{test.path})" for test in own]
        yield number, title, ", ".join(tiers), "<br>".join(links), result_of(own, results)


def unknown_numbers(titles: Mapping[str, str], tests: Sequence[Test]) -> list[str]:
    """Numbers in tests' names that the list does not have."""
    return sorted({number for test in tests for number in test.scenarios} - titles.keys())


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Print and write the report; 1 with `--check` if its tests are not the present ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on differences")
    parser.add_argument("--results", type=Path, action="append", help=f"default: {RESULTS}")
    options = parser.parse_args(arguments)
    titles: dict[str, str] = tomllib.loads((root / LIST).read_text())
    tests = find_tests(root)
    unknown = unknown_numbers(titles, tests)
    if unknown:
        print(f"{LIST} does not have {', '.join(unknown)}, which tests name")
        return 1
    report = root / REPORT
    given = [path if path.is_absolute() else root / path for path in options.results or [RESULTS]]
    results = read_results(given)
    table = list(rows(titles, tests, results))
    if not results and report.exists():
        table = _with_results_of(report.read_text(), table)
    text = HEAD + "".join("| " + " | ".join(row) + " |\n" for row in table)
    if options.check:
        written = report.read_text() if report.exists() else ""
        if _without_results(written) != _without_results(text):
            print(f"{REPORT} does not have the present tests: run `make scenarios-report`")
            return 1
        return 0
    report.write_text(text)
    for number, title, tiers, named, result in table:
        print(f"{number}  {title:<66} {tiers:<48} {result}")
        for name, path in LINK.findall(named):
            print(f"       {path}::{name}")
    missing = [number for number, *_, result in table if result == MISSING]
    print(f"{len(table)} scenarios, {len(missing)} without a test: {', '.join(missing) or 'none'}")
    print(f"wrote {REPORT}")
    return 0


def _with_results_of(
    written: str, table: Sequence[tuple[str, str, str, str, str]]
) -> list[tuple[str, str, str, str, str]]:
    """The table with the results that were written before, where the tests are still the same."""
    known = {}
    for line in written.splitlines():
        if line.startswith("| S"):
            number, _, _, tests, result = line.strip("| ").split(" | ")
            known[number, tests.strip()] = result
    return [(*row[:4], known.get((row[0], row[3]), row[4])) for row in table]


def _without_results(text: str) -> list[str]:
    return [line.rpartition(" | ")[0] if line.startswith("| S") else line for line in
            text.splitlines()]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
