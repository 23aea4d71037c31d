"""Tells people and machines what happened, after it was written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from model_operator.adapters.kube import Kube, KubeError
from model_operator.api.labels import API_VERSION, FIELD_MANAGER
from model_operator.api.times import format_time
from model_operator.core.decision import Event, Plan, Transition, describe
from model_operator.core.observed import Observed
from model_operator.engine.snapshot import Subject, Wanted
from model_operator.engine.telemetry import Metrics

logger = logging.getLogger(__name__)

_MESSAGE_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Announcer:
    """Writes Kubernetes events, log lines and metrics.

    Attributes:
        clock: Seconds since the epoch.
    """

    kube: Kube
    metrics: Metrics
    clock: Callable[[], float]

    async def transitions(
        self, subject: Subject, wanted: Wanted, transitions: Iterable[Transition]
    ) -> None:
        """Tell of what changed."""
        owner = wanted.spec.owner
        for transition in transitions:
            self.metrics.transition(subject.key, owner.team if owner else "", transition)
            await self._post(subject, describe(transition))

    async def drift(self, subject: Subject, plan: Plan, observed: Observed) -> None:
        """Tell of a route that was written although nothing had changed but the route itself."""
        confirmed = {
            entry.revision: entry.confirmed_percent
            for entry in subject.status.traffic
            if entry.desired_percent > 0
        }
        if confirmed != dict(plan.weights):
            return
        live = dict(observed.route.weights) if observed.route else None
        if live == confirmed:
            return
        found = f"had the weights {live}" if live is not None else "was gone"
        self.metrics.drift(subject.key)
        message = f"the route {found}; restored to {confirmed}"
        await self._post(subject, Event("Warning", "RouteDrift", message))

    async def _post(self, subject: Subject, event: Event) -> None:
        """Post an event; one that cannot be posted is logged and holds nothing up."""
        logger.info("%s: %s: %s", subject.key, event.reason, event.message)
        metadata = subject.manifest["metadata"]
        moment = format_time(self.clock())
        manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{subject.key.name}.{time.time_ns():x}",
                "namespace": subject.key.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "ModelDeployment",
                "namespace": subject.key.namespace,
                "name": subject.key.name,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MESSAGE_LIMIT],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": moment.split(".", maxsplit=1)[0] + "Z",
            "lastTimestamp": moment.split(".", maxsplit=1)[0] + "Z",
            "count": 1,
        }
        try:
            await self.kube.create(manifest)
        except KubeError as error:
            logger.warning("%s: the event %s was not posted: %s", subject.key, event.reason, error)
