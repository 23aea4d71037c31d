"""Every exception from a linter's rule says why it is one."""

from pathlib import Path

import pytest

from hack.exceptions import bare_comments, bare_contracts, bare_rules, main


@pytest.mark.parametrize(
    "line",
    [
        "x = 1  # noqa: S101",
        "x = 1  # noqa",
        "x = 1  # noqa - a reason, but for which rule",
        "x = 1  # noqa: S101, S102",
        "x = 1  # noqa: S101 -",
        "x = 1  # type: ignore[misc]",
        "x = 1  # type: ignore",
        "x = 1  # type: ignore # a reason, but for which rule",
        "x = 1  # type: ignore[misc]  # noqa: S101 - a reason for one only",
        "x = 1  # NOQA:S101",
    ],
)
def test_a_bare_exception_is_found(tmp_path: Path, line: str) -> None:
    file = tmp_path / "x.py"
    file.write_text(f"# the first line\n{line}\n")

    assert set(bare_comments(file)) == {2}


@pytest.mark.parametrize(
    "line",
    [
        "x = 1  # noqa: S101 - a reason",
        "x = 1  # noqa: S101 -- a reason",
        "x = 1  # noqa: S101, PLR2004 - a reason",
        "x = 1  # type: ignore[misc] # a reason",
        "x = 1  # type: ignore[no-untyped-call, misc]  # a reason",
        "x = 1  # type: ignore[misc] # a reason # noqa: S101 - another",
        'x = "# noqa"',
        "x = 1  # nothing to do with it",
    ],
)
def test_an_exception_with_a_reason_is_none_and_text_is_no_exception(
    tmp_path: Path, line: str
) -> None:
    file = tmp_path / "x.py"
    file.write_text(line)

    assert list(bare_comments(file)) == []


def test_ignored_rules_have_their_reason_on_their_line() -> None:
    text = """\
[tool.ruff.lint]
select = ["ALL"]
ignore = [
    "D203",     # a reason
    "D213",
]
[tool.ruff.lint.per-file-ignores]
"a/**" = ["T201", "S603"]
"b/**" = [
    "S101",     # a reason
]
"c/**" = ["D"] # a reason
[[tool.mypy.overrides]]
# a reason
module = ["a"]
[[tool.mypy.overrides]]
module = ["b"]
"""

    assert list(bare_rules(text)) == [5, 8, 16]


def test_a_loosened_contract_has_its_reason_above() -> None:
    text = """\
[importlinter:contract:a]
ignore_imports =
    # a reason
    a -> b
    a -> c
[importlinter:contract:b]
ignore_imports =
    b -> c
allow_indirect_imports = True
# a reason
allow_indirect_imports = True
"""

    assert list(bare_contracts(text)) == [8, 9]


def test_this_checkout_has_a_reason_for_each() -> None:
    assert main() == 0
