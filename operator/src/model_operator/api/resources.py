"""The three kinds as whole objects."""

from typing import Annotated, ClassVar

from msgspec import Meta, field

from model_operator.api.base import Api, Rule
from model_operator.api.revision import ModelRevisionSpec, ModelRevisionStatus
from model_operator.api.rollout import PODS_SOURCE
from model_operator.api.source import MetricSourceSpec
from model_operator.api.spec import ModelDeploymentSpec
from model_operator.api.status import ModelDeploymentStatus

MAX_NAME_LENGTH = 52
"""A revision's name is 11 characters longer, and a Service's name has 63 at most."""


class ObjectMeta(Api, frozen=True, kw_only=True):
    """The part of an object's metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class ModelDeployment(Api, frozen=True, kw_only=True):
    """An ONNX model that is served, and how a new version of it may take over."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
            f"metadata.name has at most {MAX_NAME_LENGTH} characters: names of revisions are made "
            "from it",
        ),
        Rule(
            "self.metadata.name.matches(r'^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name becomes a Service's name: lower-case letters, digits and '-', a letter "
            "first, no dots",
        ),
    )

    metadata: ObjectMeta
    spec: Annotated[ModelDeploymentSpec, Meta(description="What is asked for.")]
    status: Annotated[
        ModelDeploymentStatus, Meta(description="What the operator saw and decided.")
    ] = ModelDeploymentStatus()


class ModelRevision(Api, frozen=True, kw_only=True):
    """One model with the server settings it is served with, and the record of its rollout."""

    metadata: ObjectMeta
    spec: Annotated[ModelRevisionSpec, Meta(description="What can serve; immutable.")]
    status: Annotated[ModelRevisionStatus, Meta(description="What was found about it.")] = (
        ModelRevisionStatus()
    )


class MetricSource(Api, frozen=True, kw_only=True):
    """A Prometheus that health queries may ask, with its credentials; owned by administrators."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name != '{PODS_SOURCE}'",
            f"'{PODS_SOURCE}' is built in: the operator scrapes the revision's pods",
        ),
    )

    metadata: ObjectMeta
    spec: Annotated[MetricSourceSpec, Meta(description="Where samples come from.")]
