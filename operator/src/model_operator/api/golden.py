"""Requests whose answers are known: what a pod has to answer rightly before it is ready."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta

from model_operator.api.base import ATOMIC, Decimal, FieldError, Rule, Strict, map_by
from model_operator.api.plain import to_plain

MAX_GOLDEN_BYTES: Final = 65_536
"""They travel in one argument of the server, which Linux limits to 128 KiB."""


class GoldenTensor(Strict, frozen=True, kw_only=True):
    """A tensor as the Open Inference Protocol has it in requests and answers."""

    name: Annotated[
        str, Meta(description="Name of the input or output.", min_length=1, max_length=253)
    ]
    datatype: Annotated[
        Literal[
            "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
            "FP16", "FP32", "FP64", "BYTES",
        ],
        Meta(description="Open Inference Protocol type, such as FP32."),
    ]  # fmt: skip
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        Meta(description="Its dimensions.", max_length=16, extra_json_schema=ATOMIC),
    ]
    data: Annotated[
        tuple[Any, ...],
        Meta(
            description="Its values in row-major order, flat or nested; null is NaN.",
            max_length=4096,
            extra_json_schema=ATOMIC,
        ),
    ]


class Tolerance(Strict, frozen=True, kw_only=True):
    """How far a floating point number may be off: absolute + relative * |expected|."""

    RULES: ClassVar[tuple[Rule, ...]] = tuple(
        Rule(f"!has(self.{name}) || double(self.{name}) >= 0.0", f"{name} must be 0 or more")
        for name in ("relative", "absolute")
    )

    relative: Annotated[
        Decimal, Meta(description="Share of the expected number. Default: '0.001'.")
    ] = Decimal("0.001")
    absolute: Annotated[Decimal, Meta(description="The same for all. Default: '0.00001'.")] = (
        Decimal("0.00001")
    )

    def __post_init__(self) -> None:
        """Check that neither is negative."""
        for path, share in ((".relative", self.relative), (".absolute", self.absolute)):
            if share.value < 0:
                raise FieldError("must be 0 or more", path)


class GoldenRequest(Strict, frozen=True, kw_only=True):
    """A request and its answer."""

    name: Annotated[str, Meta(description="What messages call it.", min_length=1, max_length=63)]
    inputs: Annotated[
        tuple[GoldenTensor, ...],
        Meta(
            description="Inputs, as in the body of a request.",
            min_length=1,
            max_length=32,
            extra_json_schema=map_by("name"),
        ),
    ]
    outputs: Annotated[
        tuple[GoldenTensor, ...],
        Meta(
            description="Expected outputs, as in the body of an answer; others may be anything. "
            "Default: any answer will do.",
            max_length=32,
            extra_json_schema=map_by("name"),
        ),
    ] = ()
    tolerance: Annotated[
        Tolerance,
        Meta(
            description="How far floating point numbers may be off; all else must be equal. "
            "Default: absolute '0.00001' and relative '0.001'."
        ),
    ] = Tolerance()


def golden_argument(requests: Iterable[GoldenRequest]) -> str:
    """The requests as one argument of the server: JSON in which Kubernetes finds no variable."""
    documents = [
        {
            "name": request.name,
            "inputs": to_plain(request.inputs),
            "outputs": to_plain(request.outputs),
            "tolerance": {
                "relative": request.tolerance.relative.value,
                "absolute": request.tolerance.absolute.value,
            },
        }
        for request in requests
    ]
    # a dollar can only be in a text, where this is another way to write it
    return json.dumps(documents, separators=(",", ":")).replace("$", r"\u0024")


def require_golden_fits(path: str, requests: tuple[GoldenRequest, ...]) -> None:
    """Refuse golden requests that are too large together, or share a name.

    Raises:
        FieldError: At `path` or below.
    """
    size = len(golden_argument(requests))
    if size > MAX_GOLDEN_BYTES:
        raise FieldError(
            f"they take {size} bytes together, at most {MAX_GOLDEN_BYTES} fit; "
            "use fewer or smaller ones",
            path,
        )
    names = [request.name for request in requests]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise FieldError(f"{name!r} is the name of another one too", f"{path}[{index}].name")
