"""How fast a bad revision leaves the traffic, and what a rollout costs the API server.

All runs of a benchmark go on at the same time, each in a namespace of its own, so that ten healthy
minutes are waited for once. Times are the wall clock's: nodes and host are one machine.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.results import tell
from hack.demo import manifests
from hack.demo.cluster import OPERATOR, LoadGenerator, connect, install_operator, kubectl
from hack.demo.history import History, Outcome
from hack.demo.train import INPUT_NAME, OUTPUT_NAME, Models, trained_models
from model_operator.api.times import parse_time
from tests.e2e.backstage import Backstage
from tests.e2e.scene import Scene, scene

RATE = 20.0
PERCENT = 25
"""5 of 20 requests/s reach the candidate."""

FLAWED = 3
LAST_ANSWERS_S = 5.0
Change = Callable[[dict[str, Any]], None]


def fault_to_zero(runs: int, *, source: str, healthy_s: float = 15.0) -> None:
    """From the first bad answer of a candidate to its weight 0.

    The candidate gets 5 requests/s and is healthy for a while, because no image comes that it
    cannot answer; then half of the images are of that kind.
    """
    models = _split_requests(trained_models())
    with _scenes(runs, models, "fault") as scenes:
        for one in scenes:
            one.serving(1, rate=RATE)
        revisions = [_canary(one, FLAWED, _one_long_step(source)) for one in scenes]
        time.sleep(healthy_s)
        for one in scenes:
            _spoil(one, models)
        for one in scenes:
            one.wait_for_rollback(timeout_s=120)
        time.sleep(LAST_ANSWERS_S)
        histories = [_with_spoiled_answers(one) for one in scenes]
    about = {"source": source, "healthy_s": healthy_s, "candidate_requests_per_s": 5}
    pairs = list(zip(histories, revisions, strict=True))
    tell("fault to weight 0", [_zero(h, r) - _first_bad(h, r) for h, r in pairs], "s", **about)
    tell("verdict to route write", [_zero(h, r) - _verdict(h, r) for h, r in pairs], "s", **about)
    late = [max(0.0, _last_answer(h, r) - _zero(h, r)) for h, r in pairs]
    tell("route write to the candidate's last request", late, "s", **about)


def collapse_to_zero(runs: int) -> None:
    """From the deletion of all of a candidate's pods to its weight 0; an upper bound."""
    seconds = []
    with _scenes(runs, trained_models(), "collapse") as scenes:
        for one in scenes:
            one.serving(1, rate=RATE)
        for one in scenes:
            revision = _canary(one, 2, _one_long_step("pods"))
            time.sleep(3)
            began = time.time()
            kubectl(
                "-n", one.namespace, "delete", "pod", "--force", "--grace-period=0",
                "--wait=false", "-l", f"modeldeployment.dev/revision={revision}",
            )  # fmt: skip
            one.wait_for_rollback(timeout_s=60)
            seconds.append(_zero(one.history, revision) - began)
    tell("readiness collapse to weight 0", seconds, "s")


def api_calls(runs: int) -> None:
    """Calls of the operator to the API server for one whole rollout of three weights."""
    counts = []
    writes = []
    with _scenes(1, trained_models(), "calls") as (one,):
        one.serving(1, rate=RATE)
        for turn in range(runs):
            time.sleep(5)
            before = _calls()
            one.apply(2 if turn % 2 == 0 else 1)
            one.wait_for_promotion()
            time.sleep(5)
            spent = {key: count - before.get(key, 0) for key, count in _calls().items()}
            counts.append(sum(spent.values()))
            writes.append(sum(n for key, n in spent.items() if key != "GET"))
    tell("API calls for one rollout", counts, "calls")
    tell("API writes for one rollout", writes, "calls")


def _one_long_step(source: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        rollout = manifest["spec"]["rollout"]
        rollout["steps"] = [{"setWeight": {"percent": PERCENT, "duration": "2h"}}]
        analysis = rollout["analysis"]
        analysis["metrics"] = [m for m in analysis["metrics"] if m["type"] == "Events"]
        analysis["interval"] = "1s"
        if source == "pods":
            del analysis["metricSource"]
            for metric in analysis["metrics"]:
                metric["events"]["bad"] = 'sum by (pod) (model_server_requests_total{code=~"5.."})'
                metric["events"]["total"] = "sum by (pod) (model_server_requests_total)"

    return change


def _canary(one: Scene, version: int, change: Change) -> str:
    digest = one.apply(version, expected=Outcome.ROLLED_BACK, change=change).digest
    return one.wait_for_weight(digest, PERCENT)


@contextmanager
def _scenes(count: int, models: Models, name: str) -> Iterator[list[Scene]]:
    api = connect()
    install_operator()
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(count)]
        backstage = Backstage(models, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(backstage.close)
        namespaces = [f"bench-{name}-{i}" for i in range(count)]
        for namespace in namespaces:
            backstage.begin(namespace)
        yield [
            stack.enter_context(scene(api, namespace, backstage, folder, 5))
            for namespace, folder in zip(namespaces, folders, strict=True)
        ]


def _split_requests(models: Models) -> Models:
    """The models with two sets of images: those that all can answer, and half that one cannot."""
    import onnxruntime as ort  # noqa: PLC0415 - only two of the benchmarks need it

    flawed = next(model for model in models.versions if model.version == FLAWED)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(flawed.path, options)
    requests = json.loads(models.requests.read_text())
    good, bad = [], []
    for image, label in zip(requests["images"], requests["labels"], strict=True):
        pixels = np.array([image], dtype=np.float32)
        try:
            session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument:
            bad.append((image, label))
        else:
            good.append((image, label))
    folder = Path(tempfile.mkdtemp())
    half = [pair for pairs in zip(good, bad, strict=False) for pair in pairs]
    for name, pairs in (("requests.json", good), ("spoiled.json", half)):
        images, labels = zip(*pairs, strict=True)
        content = requests | {"images": images, "labels": labels}
        (folder / name).write_text(json.dumps(content))
    return replace(models, requests=folder / "requests.json")


def _spoil(one: Scene, models: Models) -> None:
    """Swap the load generator for one that sends the other set of images."""
    spoiled = one.folder / "spoiled.yaml"
    if not spoiled.exists():
        spoiled.write_text(_second_generator(one, models))
        kubectl("apply", "--server-side", "-f", str(spoiled))
        kubectl("-n", one.namespace, "rollout", "status", "deployment/spoiler", "--timeout=60s")
    second = LoadGenerator(connect(), one.namespace, name="spoiler")
    one.recorder.stop_load()
    second.start(RATE)


def _second_generator(one: Scene, models: Models) -> str:
    objects = manifests.infrastructure(one.place, models)
    text = yaml.safe_dump_all(
        [o for o in objects if o["metadata"]["name"] in ("loadgen", "requests")]
    )
    text = re.sub(r"\bloadgen\b", "spoiler", text).replace("name: requests", "name: spoiled")
    changed: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    for manifest in changed:
        if manifest["kind"] == "ConfigMap":
            content = (models.requests.parent / "spoiled.json").read_text()
            manifest["data"] = {"requests.json": content}
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            pod["containers"][0]["args"][0] = "loadgen"
            pod["volumes"] = [{"name": "spoiled", "configMap": {"name": "spoiled"}}]
    return yaml.safe_dump_all(changed)


def _with_spoiled_answers(one: Scene) -> History:
    """The whole history, with the answers to the second load generator."""
    windows = LoadGenerator(connect(), one.namespace, name="spoiler").windows(0)
    history = one.history
    return replace(history, windows=(*history.windows, *windows))


def _zero(history: History, revision: str) -> float:
    """When the gateway was told to send nothing more."""
    return next(s.start for s in reversed(history.spans(revision)) if s.percent == 0)


def _first_bad(history: History, revision: str) -> float:
    return min(cell.first_sent for cell in history.cells(revision) if not cell.ok)


def _last_answer(history: History, revision: str) -> float:
    return max(cell.last_sent for cell in history.cells(revision))


def _verdict(history: History, revision: str) -> float:
    evidence = history.record_of(revision).evidence
    return min(parse_time(entry.time) for entry in evidence if entry.verdict == "fail")


def _calls() -> dict[str, float]:
    """The operator's calls so far, by HTTP method."""
    pod = kubectl(
        "-n", OPERATOR, "get", "pods", "-l", f"app.kubernetes.io/name={OPERATOR}",
        "-o", "jsonpath={.items[0].metadata.name}",
    )  # fmt: skip
    path = f"/api/v1/namespaces/{OPERATOR}/pods/http:{pod}:8081/proxy/metrics"
    pattern = re.compile(
        r'^model_operator_api_requests_total\{.*method="(\w+)".*\} (\S+)$', re.MULTILINE
    )
    totals: dict[str, float] = {}
    for method, count in pattern.findall(kubectl("get", "--raw", path)):
        totals[method] = totals.get(method, 0) + float(count)
    return totals
