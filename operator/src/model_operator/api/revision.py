"""`ModelRevision`: the record of one thing that can serve, and of what was found about it."""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, field

from model_operator.api.base import ATOMIC, Api, Rule, Status, Time, map_by
from model_operator.api.spec import Model, Owner


class ModelRevisionSpec(Api, frozen=True, kw_only=True):
    """What can serve, for ever: immutable."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a revision never changes; change the ModelDeployment instead"),
    )

    model: Annotated[Model, Meta(description="The model.")]
    owner: Annotated[
        Owner | None,
        Meta(
            description="Who answered for it when the revision was made. Default: nobody is named."
        ),
    ] = None
    hash: Annotated[
        str,
        Meta(
            description="Hash of the digest and of what the user set in spec.server.",
            min_length=1,
            max_length=64,
        ),
    ]
    template: Annotated[
        dict[str, Any],
        Meta(
            description="The pod template as it was rendered, with the image pinned: a newer "
            "operator applies it unchanged."
        ),
    ]


class Tensor(Status, frozen=True, kw_only=True):
    """A tensor of a model's signature."""

    name: Annotated[str, Meta(description="Name of the input or output.")]
    datatype: Annotated[str, Meta(description="Open Inference Protocol type, such as FP32.")]
    shape: Annotated[
        tuple[int, ...],
        Meta(
            description="Dimensions; -1 is one of any size.",
            max_length=64,
            extra_json_schema=ATOMIC,
        ),
    ]


class OpsetImport(Status, frozen=True, kw_only=True):
    """Operators that a model uses: those of a domain as they were in one version."""

    domain: Annotated[str, Meta(description="The domain; ONNX's own is ai.onnx.")]
    version: Annotated[int, Meta(description="Version of its operators.")]


class Signature(Status, frozen=True, kw_only=True):
    """Inputs and outputs of the model, as a ready pod tells them."""

    inputs: Annotated[
        tuple[Tensor, ...],
        Meta(description="What it takes.", max_length=1024, extra_json_schema=map_by("name")),
    ] = ()
    outputs: Annotated[
        tuple[Tensor, ...],
        Meta(description="What it answers.", max_length=1024, extra_json_schema=map_by("name")),
    ] = ()
    opset_imports: Annotated[
        tuple[OpsetImport, ...],
        Meta(
            description="Versions of ONNX that it is written for.",
            max_length=64,
            extra_json_schema=map_by("domain"),
        ),
    ] = ()
    producer: Annotated[str, Meta(description="Tool that wrote it, with its version.")] = ""


class Evidence(Status, frozen=True, kw_only=True):
    """One metric's verdict at one time, as the decision saw it."""

    metric: Annotated[str, Meta(description="Name of the metric.")]
    verdict: Annotated[
        Literal["pass", "fail", "insufficient", "error"],
        Meta(description="What the analysis made of the samples."),
    ]
    step: Annotated[int, Meta(description="Index of the step; -1 before the first.")]
    percent: Annotated[int, Meta(description="The revision's weight at that time, percent.")]
    time: Annotated[Time, Meta(description="When it was judged.")]
    value: Annotated[str | None, Meta(description="What was measured.")] = None
    threshold: Annotated[str | None, Meta(description="What it was measured against.")] = None
    samples: Annotated[int, Meta(description="Number of samples or events behind it.")] = 0
    message: Annotated[str, Meta(description="The verdict in words.")] = ""


class Preflight(Status, frozen=True, kw_only=True):
    """What was found before the first request."""

    passed: Annotated[bool, Meta(description="Whether it may have traffic.")]
    reason: Annotated[
        str,
        Meta(description="Why not, in CamelCase; SignatureUnknown when that was not compared."),
    ] = ""
    message: Annotated[str, Meta(description="The reason in words, the loader's if any.")] = ""
    time: Annotated[Time, Meta(description="When it was found.")]


class ModelRevisionStatus(Status, frozen=True, kw_only=True):
    """The record of a revision."""

    signature: Annotated[
        Signature | None,
        Meta(description="Inputs and outputs of the model, once its first pod was ready."),
    ] = None
    preflight: Annotated[
        Preflight | None, Meta(description="What was found before the first request.")
    ] = None
    evidence: Annotated[
        tuple[Evidence, ...],
        Meta(
            description="Verdicts with their numbers; the latest last.",
            max_length=64,
            extra_json_schema=ATOMIC,
        ),
    ] = ()
    tests: Annotated[
        dict[str, Any],
        Meta(description="State of the running tests, so that a restart loses little."),
    ] = field(default_factory=dict)
    verdict: Annotated[str, Meta(description="The last verdict, as in evidence.")] = ""
    promoted_time: Annotated[Time | None, Meta(description="When it became stable.")] = None
    rolled_back_time: Annotated[Time | None, Meta(description="When it was rolled back.")] = None
    rolled_back_reason: Annotated[
        str | None, Meta(description="Why it was rolled back, in CamelCase.")
    ] = None
