"""The ModelDeployments of the tests: short steps, and an analysis that needs few requests."""

from __future__ import annotations

from typing import Any, Final

from model_operator.api.labels import API_VERSION

Manifest = dict[str, Any]
_REQUESTS: Final = "model_server_requests_total"
_OF_REVISION: Final = 'revision="{{ revision }}"'


def digest(seed: int) -> str:
    return f"sha256:{seed:064x}"


def model_deployment(namespace: str, seed: int = 1, **spec: Any) -> Manifest:
    steps = [{"setWeight": {"percent": percent, "duration": "600ms"}} for percent in (10, 50)]
    analysis = {
        "interval": "200ms",
        "metrics": [
            {
                "name": "errors",
                "type": "Events",
                "events": {
                    "bad": f'sum by (pod) ({_REQUESTS}{{{_OF_REVISION},code=~"5.."}})',
                    "total": f"sum by (pod) ({_REQUESTS}{{{_OF_REVISION}}})",
                    "maxRate": "0.02",
                    # with fewer, half of them bad is not enough for suspicion (core/sequential.py)
                    "minEvents": 10,
                },
            }
        ],
        "onInsufficient": {"hold": "60s"},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": namespace},
        "spec": {
            "model": {"uri": "https://models.example/digits/model.onnx", "digest": digest(seed)},
            "replicas": 2,
            "route": {"parentRefs": [{"name": "main", "namespace": "gateway"}]},
            "rollout": {"steps": steps, "bake": {"duration": "2s"}, "analysis": analysis},
            **spec,
        },
    }
