import base64
from pathlib import Path

import msgspec
import pytest

from hack.demo import manifests
from hack.demo.train import Models, TrainedModel
from model_operator.api.parse import parse_metric_source, parse_spec

PLACE = manifests.Place(namespace="vision", hostname="digits.example.com", step_s=20)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    requests = tmp_path / "requests.json"
    requests.write_text("{}")
    versions = []
    for version in (1, 2):
        path = tmp_path / f"{version}.onnx"
        path.write_bytes(b"model" * version)
        digest = "sha256:" + f"{version}" * 64
        versions.append(TrainedModel(version, "a model", "", path, digest, 1.0, 0.0))
    return Models(tuple(versions), requests)


def test_the_model_deployment_is_one_that_the_operator_accepts(models: Models) -> None:
    manifest = manifests.model_deployment(PLACE, models.versions[1])

    spec = parse_spec(manifest)

    assert spec.model.digest == models.versions[1].digest
    assert spec.model.uri == "http://models.vision.svc.cluster.local/digits/2/model.onnx"
    assert manifests.weights(manifest) == (5, 25, 50)
    assert {metric.name for metric in spec.rollout.analysis.metrics} == {"errors", "latency-p99"}


def test_from_version_to_version_only_the_model_changes(models: Models) -> None:
    first, second = (manifests.model_deployment(PLACE, model) for model in models.versions)

    assert first["spec"].pop("model") != second["spec"].pop("model")
    assert first == second


def test_the_metric_source_is_one_that_the_operator_accepts(models: Models) -> None:
    found = [m for m in manifests.infrastructure(PLACE, models) if m["kind"] == "MetricSource"]

    assert parse_metric_source(found[0]).spec.prometheus.scrape_interval.seconds == 2


def test_the_file_server_has_every_model_under_its_uri(models: Models) -> None:
    objects = manifests.infrastructure(PLACE, models)
    files = {m["metadata"]["name"]: m for m in objects if m["kind"] == "ConfigMap"}
    server = next(m for m in objects if m["metadata"]["name"] == "models")
    sources = server["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]

    paths = {s["configMap"]["items"][0]["path"]: s["configMap"]["name"] for s in sources}

    assert set(paths) == {"digits/1/model.onnx", "digits/2/model.onnx"}
    for model in models.versions:
        content = files[paths[f"digits/{model.version}/model.onnx"]]["binaryData"]["model.onnx"]
        assert base64.b64decode(content) == model.path.read_bytes()


def test_the_manifests_are_plain_yaml(models: Models) -> None:
    text = manifests.to_yaml(manifests.infrastructure(PLACE, models))

    assert "!!" not in text
    assert msgspec.yaml.decode(manifests.to_yaml(manifests.namespace(PLACE)))["kind"] == "Namespace"
