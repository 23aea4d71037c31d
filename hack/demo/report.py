"""The report at the end: a table in the terminal, a picture, and one self-contained HTML page."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from hack.demo.faults import FaultRow
from hack.demo.history import History
from hack.demo.judge import Judgement, Row
from hack.demo.picture import draw

COLUMNS = (
    "version",
    "time at each weight",
    "requests",
    "errors",
    "accuracy",
    "p99",
    "outcome",
    "first bad answer to weight 0",
    "reason",
)

FAULT_COLUMNS = (
    "what was broken",
    "for",
    "requests meanwhile",
    "lost",
    "may be lost",
    "what happened",
)

WIDE = 120
"""Characters that a terminal needs for the reasons to be in the table too."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { border-bottom: 1px solid #ddd; padding: .4rem .7rem; text-align: left;
         vertical-align: top }
th { font-weight: 600; color: #555 }
.ok { color: #2b7a2b } .bad { color: #b3261e } svg { width: 100%; height: auto }
code { font-size: .9em }
"""


def write_report(history: History, judgement: Judgement, output: Path, console: Console) -> None:
    """Prints the table, and writes `rollout.png` and `rollout.html` into `output`."""
    picture, page = output / "rollout.png", output / "rollout.html"
    picture.write_bytes(draw(history, "png"))
    page.write_text(html_page(judgement, draw(history, "svg").decode()))
    wide = console.width >= WIDE
    console.print(_table(judgement, COLUMNS if wide else COLUMNS[:-1]))
    for row in judgement.rows if not wide else ():
        if row.reason:
            console.print(f"version {row.version}: {row.reason}", highlight=False, markup=False)
    if judgement.faults:
        console.print(_fault_table(judgement))
    for failure in judgement.failures:
        console.print(
            f"[bold red]not as expected:[/bold red] {failure}", highlight=False, soft_wrap=True
        )
    if judgement.ok:
        console.print("[bold green]every outcome was the expected one[/bold green]")
    files = f"picture {picture}, page {page}, history {output / 'history.jsonl'}"
    console.print(files, highlight=False, soft_wrap=True)


def html_page(judgement: Judgement, svg: str) -> str:
    """The report as one HTML page that loads nothing."""
    verdict = (
        '<p class="ok">Every outcome was the expected one.</p>'
        if judgement.ok
        else "".join(
            f'<p class="bad">Not as expected: {html.escape(failure)}</p>'
            for failure in judgement.failures
        )
    )
    tables = _html_table(COLUMNS, [cells(row) for row in judgement.rows])
    if judgement.faults:
        tables += "\n" + _html_table(FAULT_COLUMNS, [fault_cells(row) for row in judgement.faults])
    # NB: what comes before the svg element is an XML declaration, which HTML does not know.
    drawing = svg[svg.index("<svg") :]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Model rollouts by their health</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Model rollouts by their health</h1>\n{verdict}\n"
        f"{tables}\n{drawing}\n</body>\n</html>\n"
    )


def _html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_lines(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table>"


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def cells(row: Row) -> Sequence[str]:
    """A row of the table as text, in the order of `COLUMNS`."""
    outcome = str(row.outcome)
    if row.outcome is not row.expected:
        outcome += f" (expected {row.expected})"
    return (
        "\n".join(filter(None, (f"{row.version}: {row.title}", row.revision))),
        "\n".join(f"{percent} %: {seconds:.0f} s" for percent, seconds in row.weights) or "-",
        f"{row.requests}",
        f"{row.errors}",
        "-" if row.accuracy is None else f"{row.accuracy:.1%}",
        "-" if row.p99_ms is None else f"{row.p99_ms:.0f} ms",
        outcome,
        "-" if row.first_bad_to_zero_s is None else f"{row.first_bad_to_zero_s:.1f} s",
        row.reason or "-",
    )


def fault_cells(row: FaultRow) -> Sequence[str]:
    """A fault as text, in the order of `FAULT_COLUMNS`."""
    return (
        f"{row.kind}: {row.detail}",
        "for ever" if row.lasted_s is None else f"{row.lasted_s:.0f} s",
        f"{row.requests}",
        f"{row.lost}",
        f"{row.bound}",
        row.remark,
    )


def _fault_table(judgement: Judgement) -> Table:
    table = Table(
        title="What was broken meanwhile", title_justify="left", show_lines=True,
        box=box.HORIZONTALS, padding=0,
    )  # fmt: skip
    for column in FAULT_COLUMNS:
        table.add_column(column, overflow="fold")
    for row in judgement.faults:
        good = row.lost <= row.bound and row.lasted_s is not None
        table.add_row(*fault_cells(row), style=None if good else "bold red")
    return table


def _table(judgement: Judgement, columns: Sequence[str]) -> Table:
    title = "What became of each version"
    table = Table(
        title=title, title_justify="left", show_lines=True, box=box.HORIZONTALS, padding=0
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in judgement.rows:
        good = row.outcome is row.expected
        table.add_row(*cells(row)[: len(columns)], style=None if good else "bold red")
    return table
