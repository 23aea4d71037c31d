"""Says which exceptions from the linters' rules have no reason beside them; fails if any.

`# noqa: X - reason`, `# type: ignore[x] # reason`; in pyproject.toml a comment on the line of each
ignored rule and under each `[[tool.mypy.overrides]]`; in .importlinter a comment above what loosens
a contract.
"""

from __future__ import annotations

import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("operator", "inference-server", "hack", "tests", "benchmarks")

_RULES = r"[A-Z]+[0-9]+"
_EXCEPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b", re.IGNORECASE)
_WITH_REASON = re.compile(
    rf"#\s*noqa:\s*{_RULES}(?:\s*,\s*{_RULES})*\s+--?\s+\w"
    r"|#\s*type:\s*ignore\[[\w\s,-]+\]\s+#\s*(?!noqa\b|type:)\w"
)
_IGNORED_RULE = re.compile(r'"[A-Z]+[0-9]*"')


def bare_comments(path: Path) -> Iterator[int]:
    """Yield the lines of a Python file whose exception has no reason."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type != tokenize.COMMENT:
                continue
            for found in _EXCEPTION.finditer(token.string):
                if not _WITH_REASON.match(token.string, found.start()):
                    yield token.start[0]


def bare_rules(text: str) -> Iterator[int]:
    """Yield the lines of a pyproject.toml that ignore rules without a reason."""
    section = key = ""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith("["):
            section, key = line.strip("[]"), ""
            if section == "tool.mypy.overrides" and not lines[number].startswith("#"):
                yield number
        elif found := re.match(r"([^\s#=]+)\s*=", line):
            key = found[1]
        ignores = section == "tool.ruff.lint.per-file-ignores" or (
            section == "tool.ruff.lint" and key in {"ignore", "extend-ignore"}
        )
        rules, _, reason = line.partition("#")
        if ignores and _IGNORED_RULE.search(rules) and not reason.strip():
            yield number


def bare_contracts(text: str) -> Iterator[int]:
    """Yield the lines of an .importlinter that loosen a contract without a reason above them.

    One comment speaks for all imports that follow it directly.
    """
    explained = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            explained = True
        elif "->" in line or line.startswith("allow_indirect_imports"):
            if not explained:
                yield number
        else:
            explained = False


def main(root: Path = ROOT) -> int:
    """Print what is bare; the exit code is 1 if anything is."""
    bare = [
        (path, line)
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        for line in bare_comments(path)
    ]
    for name, find in (("pyproject.toml", bare_rules), (".importlinter", bare_contracts)):
        bare += [(root / name, line) for line in find((root / name).read_text())]
    for path, line in bare:
        print(f"{path.relative_to(root)}:{line}: an exception without a reason beside it")
    return 1 if bare else 0


if __name__ == "__main__":
    sys.exit(main())
