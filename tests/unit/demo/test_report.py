import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from hack.demo.history import Fault, FaultKind, FaultPhase, History, RouteSeen
from hack.demo.judge import judge
from hack.demo.picture import draw
from hack.demo.report import write_report
from tests.unit.demo.histories import ROUTES, SECOND_APPLIED, STATUSES, good_run


def report(history: History, output: Path, width: int = 200) -> str:
    text = StringIO()
    write_report(history, judge(history), output, Console(file=text, width=width))
    return text.getvalue()


class References(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in {"src", "href", "xlink:href", "data"} and value is not None
            if loads and not str(value).startswith(("#", "data:")):
                self.found.append(f"<{tag} {name}={value}>")


def test_the_table_tells_what_became_of_each_version(tmp_path: Path) -> None:
    text = report(good_run().history(), tmp_path)

    assert re.search(r"3: model 3.*RolledBack.*MetricFailed", text)
    assert "every outcome was the expected one" in text


def test_a_narrow_terminal_has_everything_too(tmp_path: Path) -> None:
    text = report(good_run().history(), tmp_path, width=90)

    assert "version 3: MetricFailed: errors is 0.31" in text
    table, _, _ = text.partition("version 3: ")
    assert max(len(line) for line in table.splitlines()) <= 90
    for word in ("requests", "errors", "accuracy", "outcome", "RolledBack", "Promoted"):
        assert word in text


def test_what_is_not_as_expected_is_said_in_the_terminal_and_on_the_page(tmp_path: Path) -> None:
    run = good_run()
    run.replace_records([*STATUSES[-2:], ROUTES[-1]], [])

    text = report(run.history(), tmp_path)

    assert "version 3 is Unfinished, expected RolledBack" in text
    assert "every outcome" not in text
    assert "version 3 is Unfinished" in (tmp_path / "rollout.html").read_text()


def test_what_was_broken_is_in_the_terminal_and_on_the_page(tmp_path: Path) -> None:
    run = good_run()
    kind, began = FaultKind.NODE_DRAINED, SECOND_APPLIED + 5
    run.records += [
        Fault(began, kind, FaultPhase.BEGAN, "worker-2", 0.5),
        Fault(began + 4, kind, FaultPhase.MENDED),
    ]

    text = report(run.history(), tmp_path)

    assert re.search(r"node drained: worker-2 +4 s +4\d\d +0 +0 +its pods were drained", text)
    page = (tmp_path / "rollout.html").read_text()
    assert "<td>node drained: worker-2</td><td>4 s</td>" in page


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    report(good_run().history(), tmp_path)
    page = (tmp_path / "rollout.html").read_text()

    references = References()
    references.feed(page)

    assert references.found == []
    assert "<?xml" not in page
    for words in ("traffic weight, %", "errors/s", "version 2: model 2", "promoted", "rolled back"):
        assert words in page


def test_the_picture_is_a_png_that_can_be_read(tmp_path: Path) -> None:
    report(good_run().history(), tmp_path)

    with Image.open(tmp_path / "rollout.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20) or ()) > 50


def test_the_same_history_gives_the_same_picture() -> None:
    history = good_run().history()

    assert draw(history, "svg") == draw(history, "svg")


@pytest.mark.parametrize("records", [[], [RouteSeen(1.0, {"digits-a": 100})]])
def test_a_run_that_broke_off_early_still_has_a_report(
    tmp_path: Path, records: list[RouteSeen]
) -> None:
    text = report(History.of(records), tmp_path)

    assert "no version was applied" in text
    assert (tmp_path / "rollout.png").exists()
