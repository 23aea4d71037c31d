"""The demo's manifests: the files beside this module, with what is only known when it runs."""

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

import yaml

from hack.demo.train import Models, TrainedModel
from model_operator.api.base import Duration

Manifest: TypeAlias = dict[str, Any]

FOLDER = Path(__file__).parent
MODEL_DEPLOYMENT = "digits"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo runs.

    Attributes:
        namespace: Namespace of all its objects.
        hostname: Host name of the route.
        step_s: How long each weight is held, seconds.
    """

    namespace: str
    hostname: str
    step_s: int

    def values(self) -> dict[str, str]:
        """What the placeholders of the files stand for."""
        return {
            "NAMESPACE": self.namespace,
            "HOSTNAME": self.hostname,
            "STEP_DURATION": f"{self.step_s}s",
        }


def namespace(place: Place) -> list[Manifest]:
    """The namespace."""
    return _read("namespace.yaml", place.values())


def infrastructure(place: Place, models: Models) -> list[Manifest]:
    """The file server with the models, the load generator with its requests, the MetricSource."""
    files = _read("models.yaml", place.values())
    pod = next(m for m in files if m["kind"] == "Deployment")["spec"]["template"]["spec"]
    pod["volumes"][0]["projected"]["sources"] = [
        {
            "configMap": {
                "name": _model_name(model),
                "items": [
                    {"key": "model.onnx", "path": f"{MODEL_DEPLOYMENT}/{model.version}/model.onnx"}
                ],
            }
        }
        for model in models.versions
    ]
    requests = _config_map("requests", place)
    requests["data"] = {models.requests.name: models.requests.read_text()}
    return [
        *(_model_file(model, place) for model in models.versions),
        requests,
        *files,
        *_read("loadgen.yaml", place.values()),
        *_read("metricsource.yaml", place.values()),
    ]


def model_deployment(place: Place, model: TrainedModel) -> Manifest:
    """The ModelDeployment of one version."""
    values = {**place.values(), "VERSION": str(model.version), "DIGEST": model.digest}
    (manifest,) = _read("digits.yaml", values)
    return manifest


def weights(manifest: Manifest) -> tuple[int, ...]:
    """The weights that a ModelDeployment plans, percent."""
    steps = manifest["spec"]["rollout"]["steps"]
    return tuple(step["setWeight"]["percent"] for step in steps if "setWeight" in step)


def hold_s(manifest: Manifest) -> float:
    """How long evidence may be missing until a version is rolled back for that, seconds."""
    policy = manifest["spec"]["rollout"]["analysis"]["onInsufficient"]
    return Duration(policy["hold"]).seconds if policy["then"] == "Rollback" else math.inf


def to_yaml(manifests: list[Manifest]) -> str:
    """Manifests as one YAML stream."""
    text: str = yaml.safe_dump_all(manifests, sort_keys=False)
    return text


def _model_name(model: TrainedModel) -> str:
    return f"{MODEL_DEPLOYMENT}-{model.version}"


def _model_file(model: TrainedModel, place: Place) -> Manifest:
    config_map = _config_map(_model_name(model), place)
    content = base64.b64encode(model.path.read_bytes()).decode()
    config_map["binaryData"] = {"model.onnx": content}
    return config_map


def _config_map(name: str, place: Place) -> Manifest:
    metadata = {"name": name, "namespace": place.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def _read(name: str, values: dict[str, str]) -> list[Manifest]:
    text = Template((FOLDER / name).read_text()).substitute(values)
    return list(yaml.safe_load_all(text))
