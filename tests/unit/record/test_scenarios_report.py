"""The record of scenarios: which tests prove them, and how they went."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hack.scenarios_report import REPORT, ROOT, find_tests, main, read_results

TESTS = """
import pytest

def test_s04_s33_errors_are_rolled_back(): ...

@pytest.mark.parametrize("fault", ["digest", "corrupt"])
def test_s29_a_broken_model_is_refused(fault):
    assert fault == "digest"

@pytest.mark.full
async def test_s36_a_lost_node(): ...

def test_nothing_numbered(): ...
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    folder = tmp_path / "tests" / "e2e"
    folder.mkdir(parents=True)
    (folder / "test_rollouts.py").write_text(TESTS)
    titles = [f'{number} = "scenario {number}"' for number in ("S04", "S08", "S29", "S33", "S36")]
    (tmp_path / "tests" / "scenarios.toml").write_text("\n".join(titles))
    return tmp_path


def run_tests(root: Path) -> None:
    """A real run of pytest, for the file of results as it really looks."""
    options = ["-q", "--import-mode=importlib", "-W", "ignore", "-k", "not lost_node"]
    command = [sys.executable, "-m", "pytest", *options, "--junit-xml=build/tests.xml", "tests"]
    subprocess.run(command, cwd=root, capture_output=True, check=False)


def line(root: Path, number: str) -> str:
    report = (root / REPORT).read_text().splitlines()
    return next(line for line in report if line.startswith(f"| {number} |"))


def test_a_test_is_found_by_the_numbers_in_its_name(root: Path) -> None:
    found = {test.name: (test.scenarios, test.tier, test.full) for test in find_tests(root)}

    assert found == {
        "test_s04_s33_errors_are_rolled_back": (("S04", "S33"), "real cluster", False),
        "test_s29_a_broken_model_is_refused": (("S29",), "real cluster", False),
        "test_s36_a_lost_node": (("S36",), "real cluster", True),
    }


def test_the_report_has_tier_tests_and_last_result_of_each_scenario(root: Path) -> None:
    run_tests(root)

    assert main([], root) == 0

    link = "[test_s04_s33_errors_are_rolled_back](../tests/e2e/test_rollouts.py)"
    assert line(root, "S04") == f"| S04 | scenario S04 | real cluster | {link} | 1 passed |"
    assert line(root, "S33").endswith("| 1 passed |")
    assert line(root, "S29").endswith("| 1 failed, 1 passed |")
    assert line(root, "S36").endswith("| 1 not run (make test-full) |")


def test_a_scenario_without_a_test_is_missing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], root) == 0

    assert line(root, "S08") == "| S08 | scenario S08 |  |  | **missing** |"
    assert "1 without a test: S08" in capsys.readouterr().out


def test_results_of_tests_that_ran_side_by_side_are_read_too(root: Path) -> None:
    (root / "build").mkdir()
    names = ("test_s29_a_broken_model_is_refused[digest]@cluster", "test_s04_s33_x@cluster")
    cases = "".join(f'<testcase classname="tests.e2e.test_rollouts" name="{n}"/>' for n in names)
    (root / "build" / "tests.xml").write_text(f"<testsuites>{cases}</testsuites>")

    results = read_results([root / "build" / "tests.xml"])

    assert {name for _, name in results} == {"test_s29_a_broken_model_is_refused", "test_s04_s33_x"}


def test_without_results_nothing_was_run(root: Path) -> None:
    assert read_results([root / "build" / "tests.xml"]) == {}
    assert main([], root) == 0
    assert line(root, "S04").endswith("| 1 not run |")


def test_results_stay_written_when_there_are_no_newer_ones(root: Path) -> None:
    run_tests(root)
    assert main([], root) == 0
    (root / "build" / "tests.xml").unlink()
    (root / "tests" / "e2e" / "test_more.py").write_text("def test_s33_nobody_notices(): ...")

    assert main([], root) == 0

    assert line(root, "S04").endswith("| 1 passed |")
    assert line(root, "S33").endswith("| 2 not run |")


def test_a_check_looks_at_tests_and_not_at_results(root: Path) -> None:
    assert main([], root) == 0
    run_tests(root)
    assert main(["--check"], root) == 0

    (root / "tests" / "e2e" / "test_more.py").write_text("def test_s08_promoted_at_once(): ...")
    assert main(["--check"], root) == 1


def test_a_number_that_nobody_knows_is_refused(root: Path) -> None:
    (root / "tests" / "e2e" / "test_more.py").write_text("def test_s99_the_moon_falls(): ...")

    assert main([], root) == 1


def test_every_number_in_this_repository_is_in_the_list(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "tests").symlink_to(ROOT / "tests")

    assert main([], tmp_path) == 0
