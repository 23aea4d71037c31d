"""Each promise of the documentation names tests, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GUARANTEES = ROOT / "docs" / "guarantees.md"
LINK = re.compile(r"^  - \[(?P<words>[^]]+)\]\((?P<path>[^)]+)\)$", re.MULTILINE)


def promises() -> dict[str, list[tuple[str, str]]]:
    """Each promise with the words and the file of its tests."""
    proven, _, _ = GUARANTEES.read_text().partition("## What is not promised")
    items = re.split(r"^- ", proven, flags=re.MULTILINE)[1:]
    return {
        item.splitlines()[0]: [(m["words"], m["path"]) for m in LINK.finditer(item)]
        for item in items
    }


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("promise", promises())
def test_every_promise_names_tests_that_exist(promise: str) -> None:
    tests = promises()[promise]

    assert tests, "a promise without a test"
    for words, path in tests:
        name = "test_" + words.replace(" ", "_")
        assert name in names_of_tests(GUARANTEES.parent / path), f"{name} is not in {path}"


def test_there_are_promises() -> None:
    assert len(promises()) > 20
