"""The hash of a revision is fixed for ever: another one would roll every model out again."""

from __future__ import annotations

from typing import Any

import pytest

from model_operator.core.revision import revision_hash, revision_name
from tests.builders import digest

GOLDEN = [
    (digest(1), {}, "ff1e2cf1b6"),
    (digest(2), {}, "cc5680b632"),
    (digest(1), {"image": "registry.example/server:2"}, "959687d0c3"),
    (
        digest(1),
        {
            "resources": {"requests": {"cpu": "1", "memory": "512Mi"}},
            "executionProviders": ["CPUExecutionProvider"],
            "env": [{"name": "MODEL_SERVER_LOG_LEVEL", "value": "größer"}],
        },
        "ee2cfc6ed6",
    ),
    (
        digest(1),
        {
            "goldenRequests": [
                {
                    "name": "a seven",
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}],
                    "tolerance": {"absolute": "0.1"},
                }
            ]
        },
        "dd7ec6bf97",
    ),
]


@pytest.mark.parametrize(("model_digest", "server", "expected"), GOLDEN)
def test_the_hash_is_what_it_always_was(
    model_digest: str, server: dict[str, Any], expected: str
) -> None:
    assert revision_hash(model_digest, server) == expected


def test_the_order_of_fields_makes_no_revision() -> None:
    one = {"image": "a", "env": [{"name": "A", "value": "1"}]}
    other = {"env": [{"value": "1", "name": "A"}], "image": "a"}
    assert revision_hash(digest(1), one) == revision_hash(digest(1), other)


def test_the_order_of_execution_providers_makes_one() -> None:
    one = {"executionProviders": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    other = {"executionProviders": ["CPUExecutionProvider", "CUDAExecutionProvider"]}
    assert revision_hash(digest(1), one) != revision_hash(digest(1), other)


@pytest.mark.parametrize("empty", [{"image": None}, {"env": []}, {"nodeSelector": {}}])
def test_a_field_that_is_empty_counts_as_not_set(empty: dict[str, Any]) -> None:
    assert revision_hash(digest(1), empty) == revision_hash(digest(1), {})


def test_a_false_or_zero_that_the_user_set_counts() -> None:
    assert revision_hash(digest(1), {"x": 0}) != revision_hash(digest(1), {})
    assert revision_hash(digest(1), {"x": False}) != revision_hash(digest(1), {})


def test_the_name_is_the_model_deployments_and_the_hash() -> None:
    assert revision_name("digits", digest(1), {}) == "digits-ff1e2cf1b6"
