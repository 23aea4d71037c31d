"""The part of PromQL that the source ``pods`` understands, as a syntax tree.

    selector     name{label="v", label!="v", label=~"re", label!~"re"}
    rate(selector[1m30s])
    histogram_quantile(number, expression)
    sum|min|max|avg|count [by|without (label, ...)] (expression)
    expression +|-|*|/ expression, numbers, parentheses

Whatever is left out is refused by name, so that a query means the same here and in Prometheus or
does not run at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

AGGREGATIONS: Final = frozenset({"sum", "min", "max", "avg", "count"})
FUNCTIONS: Final = frozenset({"rate", "histogram_quantile"})

_UNIT_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
  | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<duration>(?:\d+(?:ms|s|m|h|d|w))+\b)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<symbol>=~|!~|!=|[=(){}\[\],+\-*/])
    """,
    re.VERBOSE,
)


class PromqlError(Exception):
    """A query that the source ``pods`` does not understand; the message says where."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on a label. A label that is not set is empty.

    Attributes:
        label: Its name.
        pattern: What its whole value must match.
        negated: Or must not.
    """

    label: str
    pattern: re.Pattern[str]
    negated: bool

    def matches(self, value: str) -> bool:
        """Whether a value meets the condition."""
        return (self.pattern.fullmatch(value) is None) == self.negated


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written."""

    value: float


@dataclass(frozen=True, slots=True)
class Selector:
    """Series by name and labels."""

    name: str
    matchers: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class Rate:
    """Increase of counters, per second, over the last ``range_s`` seconds."""

    of: Selector
    range_s: float


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of histograms by their buckets."""

    quantile: float
    of: Expression


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One number out of many, for each combination of labels that is kept."""

    function: str
    labels: tuple[str, ...]
    without: bool
    of: Expression


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two expressions and ``+``, ``-``, ``*`` or ``/``."""

    operator: str
    left: Expression
    right: Expression


Expression: TypeAlias = Number | Selector | Rate | Quantile | Aggregation | Arithmetic


def metric_names(expression: Expression) -> frozenset[str]:
    """Names of the series that an expression reads."""
    match expression:
        case Number():
            return frozenset()
        case Selector(name=name):
            return frozenset({name})
        case Arithmetic(left=left, right=right):
            return metric_names(left) | metric_names(right)
        case Rate(of=inner) | Quantile(of=inner) | Aggregation(of=inner):
            return metric_names(inner)


def longest_range_s(expression: Expression) -> float:
    """How far back an expression looks, seconds; 0 for the present only."""
    match expression:
        case Number() | Selector():
            return 0.0
        case Rate(range_s=range_s):
            return range_s
        case Arithmetic(left=left, right=right):
            return max(longest_range_s(left), longest_range_s(right))
        case Quantile(of=inner) | Aggregation(of=inner):
            return longest_range_s(inner)


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Parse a query.

    Raises:
        PromqlError: It is no PromQL, or more than the source ``pods`` understands.
    """
    parser = _Parser(text)
    expression = parser.sum()
    parser.expect_end()
    return expression


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise PromqlError(f"{text[at]!r} at position {at} is not understood")
        at = match.end()
        if match.lastgroup and match.lastgroup != "space":
            tokens.append(_Token(match.lastgroup, match.group(), match.start()))
    return [*tokens, _Token("end", "", len(text))]


class _Parser:
    """Recursive descent, one method for each rule, one token ahead."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0

    def sum(self) -> Expression:
        left = self._product()
        while self._peek("+", "-"):
            left = Arithmetic(self._take().text, left, self._product())
        return left

    def expect_end(self) -> None:
        if self._token.kind != "end":
            raise self._unexpected()

    def _product(self) -> Expression:
        left = self._term()
        while self._peek("*", "/"):
            left = Arithmetic(self._take().text, left, self._term())
        return left

    def _term(self) -> Expression:
        if self._peek("("):
            self._take()
            inner = self.sum()
            self._expect(")")
            return inner
        if self._peek("-"):
            self._take()
            return Arithmetic("*", Number(-1.0), self._term())
        if self._token.kind == "number":
            return Number(float(self._take().text))
        if self._token.kind != "name":
            raise self._unexpected()
        name = self._take()
        if name.text in AGGREGATIONS and self._peek("(", "by", "without"):
            return self._aggregation(name.text)
        if self._peek("("):
            return self._call(name)
        selector = self._selector(name.text)
        if self._peek("["):
            raise PromqlError("a range, such as x[1m], can only be given to rate()")
        return selector

    def _aggregation(self, function: str) -> Aggregation:
        grouping = self._grouping()
        self._expect("(")
        inner = self.sum()
        self._expect(")")
        without, labels = grouping or self._grouping() or (False, ())
        return Aggregation(function, labels, without, inner)

    def _grouping(self) -> tuple[bool, tuple[str, ...]] | None:
        if not self._peek("by", "without"):
            return None
        without = self._take().text == "without"
        self._expect("(")
        labels: list[str] = []
        while not self._peek(")"):
            labels.append(self._take("name").text)
            if not self._peek(")"):
                self._expect(",")
        self._expect(")")
        return without, tuple(labels)

    def _call(self, name: _Token) -> Expression:
        if name.text not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS | AGGREGATIONS))
            raise PromqlError(
                f"{name.text}() is unknown to the source 'pods', which knows {known}; "
                "use a Prometheus for more"
            )
        self._expect("(")
        call: Expression
        if name.text == "rate":
            selector = self._selector(self._take("name").text)
            self._expect("[")
            call = Rate(selector, _duration_s(self._take("duration").text))
            self._expect("]")
        else:
            quantile = float(self._take("number").text)
            self._expect(",")
            call = Quantile(quantile, self.sum())
        self._expect(")")
        return call

    def _selector(self, name: str) -> Selector:
        matchers: list[Matcher] = []
        if self._peek("{"):
            self._take()
            while not self._peek("}"):
                matchers.append(self._matcher())
                if not self._peek("}"):
                    self._expect(",")
            self._expect("}")
        return Selector(name, tuple(matchers))

    def _matcher(self) -> Matcher:
        label = self._take("name").text
        if not self._peek("=", "!=", "=~", "!~"):
            raise self._unexpected()
        operator = self._take().text
        value = _unquote(self._take("string").text)
        try:
            pattern = re.compile(value if operator.endswith("~") else re.escape(value), re.DOTALL)
        except re.error as error:
            raise PromqlError(f"{value!r} is no regular expression: {error}") from None
        return Matcher(label, pattern, negated=operator.startswith("!"))

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _peek(self, *texts: str) -> bool:
        return self._token.kind != "string" and self._token.text in texts

    def _take(self, kind: str | None = None) -> _Token:
        token = self._token
        if token.kind == "end" or (kind is not None and token.kind != kind):
            raise self._unexpected()
        self._next += 1
        return token

    def _expect(self, symbol: str) -> None:
        if not self._peek(symbol):
            raise self._unexpected()
        self._take()

    def _unexpected(self) -> PromqlError:
        token = self._token
        if token.kind == "end":
            return PromqlError("the query ends too early")
        return PromqlError(f"{token.text!r} at position {token.at} is not understood")


def _duration_s(text: str) -> float:
    parts = re.findall(r"(\d+)(ms|s|m|h|d|w)", text)
    return float(sum(int(number) * _UNIT_S[unit] for number, unit in parts))


def _unquote(literal: str) -> str:
    return re.sub(
        r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), literal[1:-1], flags=re.DOTALL
    )
