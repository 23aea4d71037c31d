"""How types become structural schemas, and what cannot become one."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta

from hack.generate.schema import kubernetes_schema, structural_schema
from model_operator.api.base import ATOMIC, Api, Duration, map_by


class Inner(Api, frozen=True, kw_only=True):
    """An item. Told in more words."""

    name: Annotated[str, Meta(description="Its name.", max_length=5)] = ""


class Outer(Api, frozen=True, kw_only=True):
    """The whole."""

    needed: Annotated[int, Meta(description="A count.", ge=1, le=9)]
    not_needed: Annotated[Duration | None, Meta(description="A time.")] = None
    items: Annotated[
        tuple[Inner, ...],
        Meta(description="By name.", max_length=3, extra_json_schema=map_by("name")),
    ] = ()
    free: Annotated[dict[str, Any], Meta(description="Anything.")]


def test_an_optional_field_is_one_that_is_not_required_and_never_null() -> None:
    schema = structural_schema(Outer)

    assert schema["required"] == ["needed", "free"]
    not_needed = schema["properties"]["notNeeded"]
    assert not_needed["type"] == "string"
    assert not {"anyOf", "nullable", "default"} & not_needed.keys()


def test_limits_and_descriptions_come_along() -> None:
    needed = structural_schema(Outer)["properties"]["needed"]

    assert needed == {"description": "A count.", "type": "integer", "minimum": 1, "maximum": 9}


def test_the_key_of_a_map_is_required_though_it_has_a_default_here() -> None:
    items = structural_schema(Outer)["properties"]["items"]

    assert items["maxItems"] == 3
    assert items["x-kubernetes-list-map-keys"] == ["name"]
    assert items["items"]["required"] == ["name"]
    assert items["items"]["description"] == "An item."


def test_what_has_no_schema_of_its_own_is_kept_as_it_is() -> None:
    free = structural_schema(Outer)["properties"]["free"]

    assert free["x-kubernetes-preserve-unknown-fields"] is True


class TwoMembers(Api, frozen=True, kw_only=True):
    """A union that a CRD cannot tell apart."""

    either: int | str


class Unbounded(Api, frozen=True, kw_only=True):
    """A list without an end."""

    items: Annotated[tuple[str, ...], Meta(extra_json_schema=ATOMIC)] = ()


@pytest.mark.parametrize(
    ("kind", "words"),
    [(TwoMembers, "a union in a CRD is a struct"), (Unbounded, "a list needs max_length")],
)
def test_what_a_crd_cannot_say_is_refused(kind: type, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        structural_schema(kind)


def test_a_kubernetes_type_is_taken_over_with_its_own_fields() -> None:
    schema = kubernetes_schema("V1EnvVar")

    assert schema["required"] == ["name"]
    reference = schema["properties"]["valueFrom"]["properties"]["secretKeyRef"]
    assert reference["properties"]["optional"]["type"] == "boolean"


def test_quantities_may_be_numbers() -> None:
    limits = kubernetes_schema("V1ResourceRequirements")["properties"]["limits"]

    assert limits["additionalProperties"]["x-kubernetes-int-or-string"] is True
