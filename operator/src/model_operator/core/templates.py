"""Query templates: ``{{ namespace }}``, ``{{ name }}``, ``{{ revision }}`` and their like."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{\{(?P<name>.*?)\}\}", re.DOTALL)
_REGEX_MATCHER = re.compile(r"[=!]~\s*$")
_REGEX_SPECIAL = re.compile(r"[.^$*+?()\[\]{}|\\]")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`', re.DOTALL)


class TemplateError(Exception):
    """A template that cannot be rendered; the message names what is wrong."""


def render(template: str, values: Mapping[str, str]) -> str:
    r"""Fill in a PromQL template.

    A value inside a string literal is escaped for that literal, so that no value can end it, and
    after ``=~`` and ``!~`` for the regular expression too, so that a name matches only itself.
    Outside of literals a value is put in as it is, which only ``{{ window }}`` needs.

    Examples:
        >>> render('up{app="{{ name }}"}', {"name": 'a"b'})
        'up{app="a\\"b"}'
        >>> render("rate(x[{{ window }}])", {"window": "60s"})
        'rate(x[60s])'

    Args:
        template: PromQL with placeholders.
        values: What the placeholders stand for.

    Raises:
        TemplateError: A placeholder that is not among ``values``, or one that is not closed.
    """
    literals = [match.span() for match in _QUOTED.finditer(template)]

    def fill(match: re.Match[str]) -> str:
        name = match["name"].strip()
        if name not in values:
            known = ", ".join(sorted(values))
            raise TemplateError(f"unknown template variable {name!r}; there are: {known}")
        value = values[name]
        for start, end in literals:
            if start < match.start() < end:
                if _REGEX_MATCHER.search(template[:start]):
                    value = _REGEX_SPECIAL.sub(r"\\\g<0>", value)
                return _escape(value, template[start])
        return value

    if "{{" in _PLACEHOLDER.sub("", template):
        raise TemplateError("a '{{' is not closed by '}}'")
    return _PLACEHOLDER.sub(fill, template)


def _escape(value: str, quote: str) -> str:
    if quote == "`":
        if "`" in value:
            raise TemplateError(f"a value with a backtick cannot be put into `...`: {value!r}")
        return value
    return value.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n")
