"""Tells people and machines what happened, after it was written."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from model_operator.adapters.kube import (
    AlreadyExistsError,
    ConflictError,
    Kube,
    KubeError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from model_operator.api.labels import API_VERSION, FIELD_MANAGER
from model_operator.api.times import format_time, parse_time
from model_operator.api.types import ModelDeploymentStatus
from model_operator.core.decision import (
    Event,
    Plan,
    Promoted,
    RolledBack,
    Transition,
    describe,
)
from model_operator.core.observed import Observed
from model_operator.engine.snapshot import Subject, Wanted
from model_operator.engine.store import Key, Manifest
from model_operator.engine.telemetry import Metrics

logger = logging.getLogger(__name__)

_MESSAGE_LIMIT: Final = 1024
_UNPOSTED_LIMIT: Final = 50
_AGAIN_S: Final = 5.0
_NEWS_S: Final = 3600.0
"""How long the end of a rollout is news: Kubernetes keeps events for an hour."""


@dataclass(frozen=True, slots=True)
class _News:
    """An event to be posted.

    Attributes:
        posted: Called when it was not there yet.
    """

    manifest: Manifest
    posted: Callable[[], None]


@dataclass(slots=True)
class Announcer:
    """Writes Kubernetes events, log lines and metrics.

    An event's name follows from what it tells. So it can be posted again after an answer was lost,
    and by an operator that comes after a crash, and is there once.

    Attributes:
        clock: Seconds since the epoch.
    """

    kube: Kube
    metrics: Metrics
    clock: Callable[[], float]
    _unposted: dict[Key, deque[_News]] = field(default_factory=dict)
    _met: set[Key] = field(default_factory=set)

    def transitions(
        self, subject: Subject, wanted: Wanted, transitions: Iterable[Transition]
    ) -> None:
        """Tell of what changed; `post` sends it.

        Args:
            subject: The ModelDeployment with its status after the change.
            wanted: Its spec.
            transitions: What changed, in order.
        """
        for transition in transitions:
            self.metrics.transition(subject.key, _team(wanted), transition)
            self._tell(subject, describe(transition), _identity(subject, transition))

    def catch_up(self, subject: Subject, wanted: Wanted) -> None:
        """Tell how the last rollout ended, unless it was told: once for each ModelDeployment."""
        if subject.key in self._met:
            return
        self._met.add(subject.key)
        ended = _last_end(subject.status)
        since = subject.status.rollout.since_time
        if ended is None or since is None or self.clock() - parse_time(since) > _NEWS_S:
            return

        def untold() -> None:
            self.metrics.transition(subject.key, _team(wanted), ended)

        self._tell(subject, describe(ended), _identity(subject, ended), posted=untold)

    def drift(self, subject: Subject, plan: Plan, observed: Observed) -> None:
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
        self._tell(subject, Event("Warning", "RouteDrift", message), str(self.clock()))

    async def post(self, key: Key) -> float | None:
        """Post what is to be told; what the API does not take now is tried again.

        Returns:
            Seconds until then; None when everything was posted.

        Raises:
            Nothing: news hold nothing up.
        """
        unposted = self._unposted.get(key)
        while unposted:
            news = unposted[0]
            try:
                await self.kube.create(news.manifest)
            except AlreadyExistsError:  # it was told: by another operator, or its answer was lost
                pass
            except (ConflictError, ThrottledError, ServerError, UnreachableError) as error:
                logger.info("%s: an event comes later: %s", key, error)
                return _AGAIN_S
            except KubeError as error:
                logger.warning("%s: an event was refused: %s", key, error)
            else:
                news.posted()
            unposted.popleft()
        self._unposted.pop(key, None)
        return None

    def forget(self, key: Key) -> None:
        """Drop what is known of a ModelDeployment; its events have nobody any more to speak of."""
        self._unposted.pop(key, None)
        self._met.discard(key)

    def _tell(
        self,
        subject: Subject,
        event: Event,
        identity: str,
        *,
        posted: Callable[[], None] = lambda: None,
    ) -> None:
        logger.info("%s: %s: %s", subject.key, event.reason, event.message)
        manifest = _manifest(subject, event, identity, self.clock())
        unposted = self._unposted.setdefault(subject.key, deque(maxlen=_UNPOSTED_LIMIT))
        unposted.append(_News(manifest, posted))


def _team(wanted: Wanted) -> str:
    owner = wanted.spec.owner
    return owner.team if owner else ""


def _last_end(status: ModelDeploymentStatus) -> Promoted | RolledBack | None:
    """How the last rollout ended, as far as the status tells by itself."""
    state, stable, former = status.rollout.state, status.stable, status.former
    if state == "RolledBack" and status.rolled_back:
        entry = status.rolled_back[-1]
        return RolledBack(entry.revision, entry.reason, entry.message)
    if state == "Baking" and stable is not None and former is not None:
        return Promoted(stable.revision, former.revision)
    return None


def _identity(subject: Subject, transition: Transition) -> str:
    """What tells one occurrence from another; of an end the same whenever the status is read."""
    status = subject.status
    match transition:
        case RolledBack(revision):
            times = (e.time for e in status.rolled_back if e.revision == revision)
            return f"RolledBack {revision} {next(times, '')}"
        case Promoted(revision) if status.former is not None:
            return f"Promoted {revision} {status.former.rollout_start_time}"
        case _:
            return f"{transition} {subject.manifest['metadata'].get('resourceVersion')}"


def _manifest(subject: Subject, event: Event, identity: str, now: float) -> Manifest:
    metadata = subject.manifest["metadata"]
    digest = hashlib.sha256(f"{metadata['uid']} {event.reason} {identity}".encode()).hexdigest()
    second = format_time(now).split(".", maxsplit=1)[0] + "Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{subject.key.name}.{digest[:16]}",
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
        "firstTimestamp": second,
        "lastTimestamp": second,
        "count": 1,
    }
