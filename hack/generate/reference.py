"""The API's reference for people, from the same schemas as the CRDs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hack.generate.crds import RESOURCES, Resource, crd
from model_operator.api.labels import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH: Final = "docs/reference/api.md"
_INTRODUCTION: Final = f"""<!-- Made by `python -m hack.generate`: do not edit. -->
# API reference: `{API_VERSION}`

Fields in bold are required where the object that they belong to is given. Durations are strings
such as `90s` or `1h30m`, decimals are strings such as `"0.01"`. `kubectl explain` says the same.
"""
# Kubernetes documents its own types.
_OWN_FIELDS: Final = frozenset(
    {"resources", "env", "envFrom", "tolerations", "affinity", "imagePullSecrets"}
)


def reference() -> str:
    """Write the whole page, as Markdown."""
    return "\n".join([_INTRODUCTION, *(_kind(resource) for resource in RESOURCES)])


def _kind(resource: Resource) -> str:
    manifest = crd(resource)
    (version,) = manifest["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        f"## {manifest['spec']['names']['kind']}",
        "",
        f"{schema['description']} Short name: `{resource.short_name}`.",
        "",
    ]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            lines += ["| Field | Type | |", "|---|---|---|"]
            lines += list(_rows(schema["properties"][part], part))
            lines += [""]
    rules = list(_rules(schema, ""))
    if rules:
        lines += ["What the API server checks beyond types and limits:", ""]
        lines += [f"- `{path or 'metadata'}`: {message}" for path, message in rules] + [""]
    return "\n".join(lines)


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        shown = f"{path}.{name}"
        field = f"**`{shown}`**" if name in schema.get("required", ()) else f"`{shown}`"
        yield f"| {field} | {_type(child)} | {_cell(child['description'])} |"
        if name not in _OWN_FIELDS:
            yield from _rows(child, shown)
            yield from _rows(child.get("items", {}), f"{shown}[]")


def _type(schema: dict[str, Any]) -> str:
    kind: str = schema.get("type", "")
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if kind == "array":
        items = schema["items"].get("type", "value")
        return f"list of {items}s, at most {schema['maxItems']}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return kind


def _rules(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
