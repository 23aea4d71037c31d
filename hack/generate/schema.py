"""Structural OpenAPI v3 schemas, as a CRD wants them, from the API's types.

msgspec's own JSON schemas are no help: a CRD knows no `$ref`, no `anyOf` with null, and not
`additionalProperties: false` (the API server refuses or prunes unknown fields by itself).
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from typing import Any, Final

import kubernetes.client
import msgspec.inspect as mi

from model_operator.api.base import (
    DECIMAL_MAX_LENGTH,
    DECIMAL_PATTERN,
    DURATION_MAX_LENGTH,
    DURATION_PATTERN,
    Api,
    Decimal,
    Duration,
)

Schema = dict[str, Any]

_SCALARS: Final[dict[type, Schema]] = {
    Duration: {"type": "string", "pattern": DURATION_PATTERN, "maxLength": DURATION_MAX_LENGTH},
    Decimal: {"type": "string", "pattern": DECIMAL_PATTERN, "maxLength": DECIMAL_MAX_LENGTH},
}

_MAX_ITEMS: Final = 32
_QUANTITY: Final[Schema] = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
}
_QUANTITIES: Final[Schema] = {"type": "object", "additionalProperties": _QUANTITY}
# Quantities, which the client's models take for strings
_OVERRIDES: Final[dict[tuple[str, str], Schema]] = {
    ("V1ResourceRequirements", "limits"): _QUANTITIES,
    ("V1ResourceRequirements", "requests"): _QUANTITIES,
    ("V1ResourceFieldSelector", "divisor"): _QUANTITY,
}
# These name claims and volumes of the pod, which a ModelDeployment cannot add
_LEFT_OUT: Final = {("V1ResourceRequirements", "claims"), ("V1EnvVarSource", "fileKeyRef")}


def structural_schema(kind: type) -> Schema:
    """Schema of an API type, with its descriptions, limits and CEL rules.

    Raises:
        TypeError: The type has a member that a structural schema cannot express.
    """
    return _schema(mi.type_info(kind))


def _schema(  # noqa: PLR0911 -- one return for each kind of node reads best
    node: mi.Type, extra: Schema | None = None, model: str | None = None
) -> Schema:
    """Schema of a node of msgspec's type tree.

    Args:
        node: The node.
        extra: What an enclosing annotation adds.
        model: The Kubernetes type that an enclosing annotation names.
    """
    match node:
        case mi.Metadata(type=inner, extra_json_schema=more, extra=marks):
            named = (marks or {}).get("kubernetes", model)
            return _schema(inner, {**(more or {}), **(extra or {})}, named)
        case mi.UnionType(types=members):
            return _schema(_only_member(members), extra, model)
        case mi.VarTupleType(item_type=item, min_length=low, max_length=high):
            return _list(_schema(item, model=model), low, high, extra or {})
        case mi.AnyType():
            anything = {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
            return _described(anything, extra)
        case mi.DictType() if model is not None:
            return _described(kubernetes_schema(model), extra)
        case mi.DictType(value_type=mi.AnyType()):
            free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            return _described(free, extra)
        case mi.DictType(value_type=value, max_length=high):
            mapping = {"type": "object", "additionalProperties": _schema(value)}
            return _described(mapping | _present(maxProperties=high), extra)
        case mi.StructType():
            return _struct(node, extra)
        case mi.CustomType(cls=scalar) if scalar in _SCALARS:
            return _described(dict(_SCALARS[scalar]), extra)
        case _:
            return _described(_scalar(node), extra)


def _scalar(node: mi.Type) -> Schema:
    match node:
        case mi.StrType(min_length=low, max_length=high, pattern=pattern):
            return {"type": "string"} | _present(minLength=low, maxLength=high, pattern=pattern)
        case mi.LiteralType(values=values):
            return {"type": "string", "enum": list(values)}
        case mi.BoolType():
            return {"type": "boolean"}
        case mi.IntType(ge=low, le=high):
            return {"type": "integer"} | _present(minimum=low, maximum=high)
        case mi.FloatType(ge=low, le=high):
            return {"type": "number"} | _present(minimum=low, maximum=high)
        case _:
            raise TypeError(f"a structural schema cannot express {node}")


def _struct(node: mi.StructType, extra: Schema | None) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": _first_sentence(inspect.getdoc(node.cls) or ""),
        "properties": {field.encode_name: _schema(field.type) for field in node.fields},
    }
    if required := [field.encode_name for field in node.fields if field.required]:
        schema["required"] = required
    if issubclass(node.cls, Api) and (rules := node.cls.RULES):
        schema["x-kubernetes-validations"] = [
            {"rule": rule.cel, "message": rule.message} for rule in rules
        ]
    return _described(schema, extra)


def _list(items: Schema, low: int | None, high: int | None, extra: Schema) -> Schema:
    if high is None:
        raise TypeError(f"a list needs max_length, for CEL's cost: {extra.get('description')}")
    for key in extra.get("x-kubernetes-list-map-keys", ()):
        required = items.setdefault("required", [])
        if key not in required:
            required.append(key)
    limits = _present(minItems=low or None, maxItems=high)
    return _described({"type": "array", "items": items} | limits, extra)


def kubernetes_schema(model: str) -> Schema:
    """Schema of a Kubernetes type, read from the models of its Python client.

    Args:
        model: The client's name for it, such as `V1Affinity`.
    """
    cls = getattr(kubernetes.client, model)
    schema: Schema = {"type": "object", "properties": {}}
    for name, field in cls.model_fields.items():
        key = cls.attribute_map[name]
        if (model, key) in _LEFT_OUT:
            continue
        value = _OVERRIDES.get((model, name)) or _annotated_schema(field.annotation)
        description = _first_sentence(field.description or "") or f"As in Kubernetes' {model[2:]}."
        schema["properties"][key] = _described(value, {"description": description})
        if field.is_required():
            schema.setdefault("required", []).append(key)
    return schema


def _annotated_schema(annotation: Any) -> Schema:
    """Schema of a pydantic field's annotation, as the client's generator writes them."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotated_schema(args[0])
    if origin is typing.Union or origin is types.UnionType:
        return _annotated_schema(next(arg for arg in args if arg is not type(None)))
    if origin is list:
        items = _annotated_schema(args[0])
        return {
            "type": "array",
            "items": items,
            "maxItems": _MAX_ITEMS,
            "x-kubernetes-list-type": "atomic",
        }
    if origin is dict:
        return {"type": "object", "additionalProperties": _annotated_schema(args[1])}
    if annotation in (str, int, bool):
        return {"type": {str: "string", int: "integer", bool: "boolean"}[annotation]}
    return kubernetes_schema(annotation.__name__)


def _only_member(members: tuple[mi.Type, ...]) -> mi.Type:
    values = [member for member in members if not isinstance(member, mi.NoneType)]
    if len(values) != 1:
        raise TypeError(f"a union in a CRD is a struct with one member set, not {members}")
    return values[0]


def _described(schema: Schema, extra: Schema | None) -> Schema:
    """Put the description first, where a reader looks for it."""
    merged = {**schema, **(extra or {})}
    description = merged.pop("description", None)
    return _present(description=description) | merged


def _present(**keywords: Any) -> Schema:
    return {key: value for key, value in keywords.items() if value is not None}


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.])\s", text.strip(), maxsplit=1)[0].replace("\n", " ")
