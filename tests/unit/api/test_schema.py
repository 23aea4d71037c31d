"""The CRDs as files: what Kubernetes, GitOps agents and people need of every one of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_operator.api.base import DURATION_PATTERN

_ROOT = Path(__file__).resolve().parents[3]
_FILES = sorted((_ROOT / "crds").glob("*.yaml"))
_MAX_BYTES = 100_000
_DESCRIBED_BY_THEIR_LIST = "items"


@cache
def _schema(path: Path) -> dict[str, Any]:
    crd = yaml.safe_load(path.read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from _nodes(schema["items"], f"{path}.{_DESCRIBED_BY_THEIR_LIST}")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _nodes(schema["additionalProperties"], f"{path}.*")


pytestmark = pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)


def test_each_crd_is_small_enough_for_client_side_apply(path: Path) -> None:
    assert path.stat().st_size < _MAX_BYTES


def test_every_field_has_a_description(path: Path) -> None:
    bare = [
        name
        for name, node in _nodes(_schema(path))
        if not node.get("description") and not name.endswith((".items", ".*", ".metadata"))
    ]

    assert bare == []


def test_every_optional_field_of_a_spec_says_its_default(path: Path) -> None:
    def silent(schema: dict[str, Any], at: str) -> Iterator[str]:
        required = schema.get("required", [])
        for name, child in schema.get("properties", {}).items():
            if _is_kubernetes_own(f"{at}.{name}"):
                continue
            union = f"{at}.{name}".endswith(_UNION_MEMBERS)
            if name not in required and not union and "Default: " not in child["description"]:
                yield f"{at}.{name}"
            yield from silent(child, f"{at}.{name}")
            yield from silent(child.get("items", {}), f"{at}.{name}")

    assert list(silent(_schema(path)["properties"]["spec"], "spec")) == []


_UNION_MEMBERS = (
    ".steps.setWeight",
    ".steps.pause",
    ".metrics.events",
    ".metrics.value",
    ".metrics.comparison",
)


def _is_kubernetes_own(path: str) -> bool:
    fields = ("resources", "env", "envFrom", "tolerations", "affinity", "imagePullSecrets")
    return any(path.startswith(f"spec.server.{field}.") for field in fields)


def test_every_list_is_bounded_and_says_how_it_is_merged(path: Path) -> None:
    for name, node in _nodes(_schema(path)):
        if node.get("type") == "array":
            assert "maxItems" in node, name
            assert "x-kubernetes-list-type" in node, name


def test_every_key_of_a_map_is_required(path: Path) -> None:
    for name, node in _nodes(_schema(path)):
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"], name


def test_only_replicas_has_a_default_in_the_schema(path: Path) -> None:
    defaults = {name for name, node in _nodes(_schema(path)) if "default" in node}

    assert defaults <= {".spec.replicas"}


def test_every_rule_has_a_message(path: Path) -> None:
    for name, node in _nodes(_schema(path)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"], name


def test_every_duration_but_the_bakes_must_be_longer_than_nothing(path: Path) -> None:
    for name, node in _nodes(_schema(path)):
        if node.get("pattern") == DURATION_PATTERN:
            rules = node.get("x-kubernetes-validations", ())
            positive = any("duration(self) > " in rule["rule"] for rule in rules)
            assert positive == (name != ".spec.rollout.bake.duration"), name
