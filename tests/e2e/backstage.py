"""Namespaces with a file server and a load generator, set up while the test before still runs."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hack.demo import manifests
from hack.demo.cluster import kubectl
from hack.demo.train import Models


class Backstage:
    """Prepares the scenery of scenes; a namespace is prepared once and used once."""

    def __init__(self, models: Models, folder: Path) -> None:
        self.models = models
        self._folder = folder
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._prepared: dict[str, Future[None]] = {}

    def begin(self, namespace: str) -> None:
        """Begin to prepare a namespace, without waiting for it."""
        if namespace not in self._prepared:
            self._prepared[namespace] = self._worker.submit(self._prepare, namespace)

    def take(self, namespace: str) -> None:
        """Wait until a namespace is prepared and all in it runs."""
        self.begin(namespace)
        self._prepared.pop(namespace).result()
        for deployment in ("models", "loadgen"):
            kubectl(
                "-n", namespace, "rollout", "status", f"deployment/{deployment}", "--timeout=120s"
            )

    def close(self) -> None:
        """Remove what nobody took."""
        self._worker.shutdown(wait=True)
        for namespace in self._prepared:
            kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")

    def _prepare(self, namespace: str) -> None:
        kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")
        place = manifests.Place(namespace, f"{namespace}.example.com", 0)
        folder = self._folder / namespace
        folder.mkdir(exist_ok=True)
        _apply(manifests.namespace(place), folder / "namespace.yaml")
        infrastructure = manifests.infrastructure(place, self.models)
        _apply(infrastructure, folder / "infrastructure.yaml", "--server-side", "--force-conflicts")


def _apply(objects: list[dict[str, Any]], path: Path, *flags: str) -> None:
    path.write_text(manifests.to_yaml(objects))
    kubectl("apply", *flags, "-f", str(path))
