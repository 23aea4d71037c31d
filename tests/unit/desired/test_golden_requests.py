"""Golden requests on their way from the spec to the server's argument."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_operator.api.parse import InvalidSpec, parse_spec
from model_operator.core.pod_template import render_pod_template
from model_server.golden import Golden, read_golden
from tests.builders import manifest

INPUT = {"name": "words", "datatype": "BYTES", "shape": [2], "data": ["a $(HOME) b", "größer"]}
OUTPUT = {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [[0.5, None]]}
REQUEST = {"name": "two words", "inputs": [INPUT], "outputs": [OUTPUT]}


def arguments(*requests: dict[str, Any]) -> list[str]:
    spec = parse_spec(manifest(server={"goldenRequests": list(requests)} if requests else {}))
    template = render_pod_template("digits", "digits-1", spec.model, spec.server, "server:1")
    found: list[str] = template["spec"]["containers"][0]["args"]
    return [argument for argument in found if argument.startswith("--golden")]


def test_the_server_reads_what_the_user_wrote() -> None:
    tolerant = {**REQUEST, "name": "tolerant", "tolerance": {"relative": "0.1"}}

    (argument,) = arguments(REQUEST, tolerant)

    first, second = read_golden(argument.removeprefix("--golden="))
    assert [tensor.array.tolist() for tensor in first.inputs] == [INPUT["data"]]
    assert first.outputs[0].array.shape == (1, 2)
    assert (first.relative, first.absolute) == (Golden("", ()).relative, Golden("", ()).absolute)
    assert (second.name, second.relative, second.absolute) == ("tolerant", 0.1, 1e-5)


def test_kubernetes_finds_no_variable_to_expand() -> None:
    (argument,) = arguments(REQUEST)

    assert "$" not in argument
    assert json.loads(argument.removeprefix("--golden="))[0]["inputs"][0]["data"] == INPUT["data"]


def test_without_them_the_template_is_what_it_always_was() -> None:
    assert arguments() == []


@pytest.mark.parametrize(
    ("requests", "path", "words"),
    [
        ([REQUEST, REQUEST], "spec.server.goldenRequests[1].name", "name of another one"),
        ([{**REQUEST, "inputs": []}], "spec.server.goldenRequests[0].inputs", "length >= 1"),
        (
            [{**REQUEST, "tolerance": {"absolute": "-1"}}],
            "spec.server.goldenRequests[0].tolerance.absolute",
            "0 or more",
        ),
        (
            [{**REQUEST, "inputs": [{**INPUT, "datatype": "FLOAT"}]}],
            "spec.server.goldenRequests[0].inputs[0].datatype",
            "FLOAT",
        ),
        (
            [{**REQUEST, "inputs": [{**INPUT, "data": ["x" * 1000] * 100}]}],
            "spec.server.goldenRequests",
            "at most 65536 fit",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_path(
    requests: list[dict[str, Any]], path: str, words: str
) -> None:
    with pytest.raises(InvalidSpec, match=words) as refused:
        parse_spec(manifest(server={"goldenRequests": requests}))

    assert refused.value.path == path
