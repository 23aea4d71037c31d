"""Query templates: what is filled in cannot change what the query means."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_operator.core.templates import TemplateError, render

VALUES = {"name": "digits", "revision": "digits-0a1b", "window": "60000ms"}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ('up{r="{{ revision }}"}', 'up{r="digits-0a1b"}'),
        ('up{r="{{revision}}",n="x-{{ name }}-y"}', 'up{r="digits-0a1b",n="x-digits-y"}'),
        ("rate(x[{{ window }}])", "rate(x[60000ms])"),
        ("up{r='{{ name }}'} # {a}", "up{r='digits'} # {a}"),
        ("up", "up"),
    ],
)
def test_placeholders_are_filled_in(template: str, rendered: str) -> None:
    assert render(template, VALUES) == rendered


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(TemplateError, match=r"unknown template variable 'revison'.*revision"):
        render('up{r="{{ revison }}"}', VALUES)


def test_a_placeholder_that_is_not_closed_is_an_error() -> None:
    with pytest.raises(TemplateError, match="not closed"):
        render('up{r="{{ revision }"}', VALUES)


def test_a_name_matches_only_itself_in_a_regular_expression() -> None:
    rendered = render('up{h=~"{{ host }}.*"}', {"host": "a.b+c"})
    assert rendered == r'up{h=~"a\\.b\\+c.*"}'


def test_a_backtick_cannot_be_escaped_and_is_refused() -> None:
    with pytest.raises(TemplateError, match="backtick"):
        render("up{r=`{{ name }}`}", {"name": "a`b"})


@given(st.text(max_size=30), st.sampled_from("\"'"))
def test_no_value_can_end_its_string_literal(value: str, quote: str) -> None:
    rendered = render(f"up{{r={quote}{{{{ name }}}}{quote}}}", {"name": value})
    literal = rendered.removeprefix(f"up{{r={quote}").removesuffix(f"{quote}}}")
    assert re.fullmatch(rf"(?:\\.|[^\\{quote}])*", literal, re.DOTALL)
    assert re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), literal) == value
