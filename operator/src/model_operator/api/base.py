"""What every API type is made of: bases, scalars, and rules that the API server checks by itself.

A type states its invariants twice, side by side: as `RULES` in CEL, which land in the CRD and
refuse a bad object at once, and in `__post_init__`, which refuses it when it is parsed (a CRD may
be older than the operator, and not all can be said in CEL).
"""

import re
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import msgspec
from msgspec import Meta

_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_TERM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")

# NB: at most two terms of the largest kind fit into the length, 228 years. CEL's duration() ends
# at 292 years, and a rule that cannot be evaluated gives a message that helps nobody.
DURATION_PATTERN: Final = r"^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$"
DURATION_MAX_LENGTH: Final = 20
DECIMAL_PATTERN: Final = r"^-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]{1,2})?$"
DECIMAL_MAX_LENGTH: Final = 32


class Rule(NamedTuple):
    """A CEL rule of the CRD.

    Attributes:
        cel: The expression, true for what is valid; `self` is the object of the type.
        message: Says what to change.
    """

    cel: str
    message: str


class FieldError(ValueError):
    """A value that breaks an invariant of its type.

    Attributes:
        path: Where, below the object that noticed: `.steps[2].setWeight.percent`, or nothing.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Duration:
    """A span of time, written as Go and Kubernetes write it: `90s`, `1m30s`, `250ms`.

    Attributes:
        text: As the user wrote it.
        seconds: The same in seconds.
    """

    __slots__ = ("seconds", "text")

    def __init__(self, text: str) -> None:
        if len(text) > DURATION_MAX_LENGTH or not re.fullmatch(DURATION_PATTERN, text):
            raise ValueError(
                f"{text!r} is not a duration; write numbers with units (ms, s, m, h), "
                "such as 30s or 1m30s"
            )
        self.text = text
        self.seconds = sum(
            float(number) * _UNIT_S[unit] for number, unit in _DURATION_TERM.findall(text)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)

    def __repr__(self) -> str:
        return f"Duration({self.text!r})"


class Decimal:
    """A decimal number written as a string, because JSON numbers lose digits on their way.

    Attributes:
        text: As the user wrote it.
        value: The same as a float.
    """

    __slots__ = ("text", "value")

    def __init__(self, text: str) -> None:
        if len(text) > DECIMAL_MAX_LENGTH or not re.fullmatch(DECIMAL_PATTERN, text):
            raise ValueError(
                f"{text!r} is not a decimal number; write it as a string, such as '0.01'"
            )
        self.text = text
        self.value = float(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decimal) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return f"Decimal({self.text!r})"


class Api(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every API type: immutable, camelCase on the wire."""

    RULES: ClassVar[tuple[Rule, ...]] = ()


class Strict(Api, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what users write: a field that is not known is an error, never dropped."""


class Status(Api, frozen=True, kw_only=True, omit_defaults=False):
    """Base of what the operator writes.

    Zeros are written out, because a printer column shows a missing one as nothing. Fields that are
    not known are ignored: a newer operator may have written them.
    """


Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339, in UTC."""

Label = Annotated[str, Meta(min_length=1, max_length=63)]
"""A name as long as a DNS label at most."""

Name = Annotated[str, Meta(min_length=1, max_length=253)]
"""A name as long as a DNS name at most."""

POSITIVE: Final = Meta(
    extra_json_schema={
        "x-kubernetes-validations": [
            {"rule": "duration(self) > duration('0s')", "message": "must be longer than 0s"}
        ]
    }
)
"""Marks a Duration that must not be zero; `require_positive` is the same when parsing."""

ATOMIC: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
"""A list whose order matters: one owner for all of it."""

SET: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}


def matching(pattern: str, message: str) -> dict[str, Any]:
    """Schema of a string that matches `pattern`, refused with `message`; see `require_match`."""
    return {
        "x-kubernetes-validations": [{"rule": f"self.matches(r'{pattern}')", "message": message}]
    }


def map_by(key: str) -> dict[str, Any]:
    """Schema of a list whose order does not matter: its items are told apart by `key`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def kubernetes_type(model: str) -> dict[str, Any]:
    """Mark a field whose schema is that of a Kubernetes type, such as `V1Affinity`."""
    return {"kubernetes": model}


def require_positive(path: str, duration: Duration | None) -> None:
    """Refuse a duration of zero.

    Raises:
        FieldError: At `path`.
    """
    if duration is not None and duration.seconds <= 0:
        raise FieldError("must be longer than 0s", path)


def require_match(path: str, text: str, pattern: str, message: str) -> None:
    """Refuse a string that does not match.

    Raises:
        FieldError: At `path`.
    """
    if not re.fullmatch(pattern, text):
        raise FieldError(message, path)
