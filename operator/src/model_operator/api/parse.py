"""Manifests to types and back: the one place that knows how the API looks on the wire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from model_operator.api.types import (
    Decimal,
    Duration,
    FieldError,
    MetricSource,
    MetricSourceSpec,
    ModelDeployment,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    ModelRevision,
    ModelRevisionSpec,
    ModelRevisionStatus,
    ObjectMeta,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
_WHERE = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_FIELD = re.compile(
    r"^Object (?P<fault>contains unknown|missing required) field `(?P<name>[^`]*)`$"
)


class InvalidSpec(ValueError):  # noqa: N818 -- named after the condition reason it becomes
    """A spec that cannot be acted on.

    Attributes:
        path: JSON path of the field at fault, such as `spec.rollout.steps[2].setWeight.percent`.
        message: What is wrong with it.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def parse_model_deployment(manifest: Mapping[str, Any]) -> ModelDeployment:
    """Parse a ModelDeployment with its status.

    Raises:
        InvalidSpec: The spec breaks a rule; `parse_metadata` and `parse_status` still work.
    """
    return ModelDeployment(
        metadata=parse_metadata(manifest),
        spec=parse_spec(manifest),
        status=parse_status(manifest),
    )


def parse_spec(manifest: Mapping[str, Any]) -> ModelDeploymentSpec:
    """Parse a ModelDeployment's spec and apply the defaults.

    Raises:
        InvalidSpec: It breaks a rule. What is refused here is what the CRD refuses, and what a CRD
            that is older or newer than this operator lets pass.
    """
    return _strict(manifest, ModelDeploymentSpec)


def parse_status(manifest: Mapping[str, Any]) -> ModelDeploymentStatus:
    """Parse a ModelDeployment's status; what cannot be read counts as not there. Never raises."""
    return _lenient(manifest.get("status"), ModelDeploymentStatus)


def parse_metadata(manifest: Mapping[str, Any]) -> ObjectMeta:
    """Parse the part of the metadata that the operator reads."""
    return msgspec.convert(manifest["metadata"], ObjectMeta)


def parse_model_revision(manifest: Mapping[str, Any]) -> ModelRevision:
    """Parse a ModelRevision with its status.

    Raises:
        InvalidSpec: The spec was not written by this operator.
    """
    return ModelRevision(
        metadata=parse_metadata(manifest),
        spec=_strict(manifest, ModelRevisionSpec),
        status=_lenient(manifest.get("status"), ModelRevisionStatus),
    )


def parse_metric_source(manifest: Mapping[str, Any]) -> MetricSource:
    """Parse a MetricSource.

    Raises:
        InvalidSpec: The spec breaks a rule.
    """
    return MetricSource(metadata=parse_metadata(manifest), spec=_strict(manifest, MetricSourceSpec))


def to_manifest(value: msgspec.Struct) -> dict[str, Any]:
    """Write a spec or a status as it looks on the wire, without nulls.

    What equals its default is left out of a spec, and written out in a status.
    """
    manifest: dict[str, Any] = _without_nulls(msgspec.to_builtins(value, enc_hook=_encode))
    return manifest


def _strict(manifest: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return _convert(manifest.get("spec", {}), kind)
    except msgspec.ValidationError as error:
        raise _invalid_spec(error) from error


def _lenient(raw: Any, kind: type[S]) -> S:
    """Convert field by field, so that one that cannot be read costs no other one."""
    readable = {}
    if isinstance(raw, dict):
        for field in msgspec.structs.fields(kind):
            if field.encode_name in raw:
                try:
                    readable[field.name] = _convert(raw[field.encode_name], field.type)
                except msgspec.ValidationError:
                    continue
    return kind(**readable)


def _convert(raw: Any, kind: type[T]) -> T:
    return msgspec.convert(raw, kind, dec_hook=_decode)


def _decode(kind: type[Any], raw: Any) -> Duration | Decimal:
    if kind is Duration or kind is Decimal:
        if not isinstance(raw, str):
            raise ValueError(f"must be a string, not {type(raw).__name__}; put it into quotes")
        return Duration(raw) if kind is Duration else Decimal(raw)
    raise NotImplementedError(kind)


def _encode(value: Any) -> Any:
    if isinstance(value, Duration | Decimal):
        return value.text
    raise NotImplementedError(type(value))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def _invalid_spec(error: msgspec.ValidationError) -> InvalidSpec:
    """Take msgspec's message apart: it ends with the path, which a `FieldError` knows further."""
    message = str(error)
    where = _WHERE.search(message)
    path = "spec"
    if where is not None:
        path, message = path + where["path"], message[: where.start()]
    if isinstance(error.__cause__, FieldError):
        path += error.__cause__.path
    elif field := _FIELD.match(message):
        path = f"{path}.{field['name']}"
        message = "is required" if field["fault"] == "missing required" else "unknown field"
    return InvalidSpec(path, message)
