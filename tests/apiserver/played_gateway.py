"""Plays the gateway and its clients: routes are accepted, requests go by their weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from model_operator.adapters.kube import KubeClient
from model_operator.core.httproute import read_weights
from tests.apiserver.informer import Informer
from tests.apiserver.played_kubelet import Kubelet, includes, put

Manifest = dict[str, Any]


@dataclass(slots=True)
class Gateway:
    """Serves the routes of one namespace.

    Attributes:
        live: The routes as the API has them.
        kubelet: Whose pods answer.
        requests_per_s: What clients send.
        accept: Whether routes are accepted.
        stands_still: Whether it takes over no route that is written from now on: requests go by
            the weights of before, and no route is answered.
        weights_seen: The weights of every route that was ever written, in order, without repeats.
        answered: Requests by revision.
        lost: Requests that found no ready pod, by revision.
    """

    kube: KubeClient
    live: Informer
    kubelet: Kubelet
    namespace: str
    requests_per_s: float = 0.0
    accept: bool = True
    stands_still: bool = False
    weights_seen: list[dict[str, int]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    _taken_over: list[dict[str, int]] = field(default_factory=list)
    _due_requests: float = 0.0
    _credits: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.live.seen.append(self._route_seen)

    async def sync(self) -> None:
        """Answer routes that were written."""
        if self.stands_still:
            return
        for route in self.live.of(self.namespace):
            status = {"parents": [self._parent(ref, route) for ref in route["spec"]["parentRefs"]]}
            if not includes(route.get("status", {}), status):
                self.live.put(await put(self.kube, {**route, "status": status}, "status"))

    def send(self, elapsed_s: float) -> None:
        """What clients send in this time, by smooth weighted round robin as real gateways do it."""
        self._due_requests += self.requests_per_s * elapsed_s
        if not self.stands_still:
            self._taken_over = [read_weights(route) for route in self.live.of(self.namespace)]
        while self._due_requests >= 1:
            self._due_requests -= 1
            for route_weights in self._taken_over:
                self._send_one(route_weights)

    def _send_one(self, weights: dict[str, int]) -> None:
        for revision, weight in weights.items():
            self._credits[revision] += weight
        chosen = max(weights, key=lambda revision: self._credits[revision])
        self._credits[chosen] -= sum(weights.values())
        pods = self.kubelet.ready_pods(chosen)
        if pods:
            pod = min(pods, key=lambda pod: pod.answers.total())
            pod.answer(self.kubelet.behaviour(pod.digest).error_share)
            self.answered[chosen] += 1
        else:
            self.lost[chosen] += 1

    def _route_seen(self, route: Manifest, gone: bool) -> None:  # noqa: FBT001 - a callback
        if gone or route["metadata"]["namespace"] != self.namespace:
            return
        weights = read_weights(route)
        if not self.weights_seen or self.weights_seen[-1] != weights:
            self.weights_seen.append(weights)

    def _parent(self, reference: Manifest, route: Manifest) -> Manifest:
        accepted = "True" if self.accept else "False"
        return {
            "parentRef": reference,
            "controllerName": "example.com/played",
            "conditions": [
                {
                    "type": kind,
                    "status": accepted,
                    "reason": kind,
                    "message": "" if self.accept else "no such listener",
                    "observedGeneration": route["metadata"]["generation"],
                    "lastTransitionTime": route["metadata"]["creationTimestamp"],
                }
                for kind in ("Accepted", "ResolvedRefs")
            ],
        }
