"""The Lease that elects the leader, as the API server keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from kubernetes.aio.client import Configuration

from model_operator.adapters.kube import (
    KubeClient,
    KubeError,
    Manifest,
    NotFoundError,
    Resource,
)

LEASE: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")


class LeaseLostError(KubeError):
    """This process does not lead, or no longer: it must not write."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a Lease says.

    Attributes:
        holder: Identity of the leader; empty when the last one gave it back.
        duration_s: How long after its last renewal the holder may still think that it leads,
            whole seconds.
        transitions: How often the lease went to another process: the number of the term.
        acquired: When the holder got it, by the holder's wall clock. For people: it is compared
            with no clock of ours.
        renewed: When the holder renewed it last, in the same way.
    """

    holder: str
    duration_s: int
    transitions: int
    acquired: datetime | None
    renewed: datetime | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as it was read.

    Attributes:
        manifest: What the API server answered, with the version that a write refers to.
    """

    manifest: Manifest
    claim: Claim


class Leases(Protocol):
    """One Lease. Every method raises `KubeError` and nothing else."""

    async def read(self) -> Lease | None:
        """The Lease as it is now, None when there is none."""
        ...

    async def write(self, claim: Claim, over: Lease | None) -> Lease:
        """Write a claim over the Lease that was read, or create it for None.

        Raises:
            ConflictError: Somebody wrote it in the meantime.
        """
        ...


class LeaseClient(KubeClient):
    """`Leases` over HTTP, with connections and a deadline of its own: renewals wait for nobody."""

    def __init__(
        self, configuration: Configuration, namespace: str, name: str, *, timeout_s: float
    ) -> None:
        """Connect lazily.

        Args:
            configuration: Where the API server is and how to log in.
            namespace: Where the Lease is.
            name: Its name.
            timeout_s: Longest time for one call, seconds.
        """
        super().__init__(configuration, timeout_s=timeout_s)
        self._namespace, self._name = namespace, name

    async def read(self) -> Lease | None:
        """The Lease as it is now."""
        try:
            return _read(await self.get(LEASE, self._namespace, self._name))
        except NotFoundError:
            return None

    async def write(self, claim: Claim, over: Lease | None) -> Lease:
        """Write a claim."""
        metadata = {"namespace": self._namespace, "name": self._name}
        body: Manifest = {"apiVersion": LEASE.api_version, "kind": LEASE.kind}
        if over is None:
            body |= {"metadata": metadata, "spec": _spec(claim)}
            return _read(await self._call("POST", LEASE.path(self._namespace), body=body))
        body |= {"metadata": over.manifest["metadata"], "spec": _spec(claim)}
        path = LEASE.path(self._namespace, self._name)
        return _read(await self._call("PUT", path, body=body))


def _read(manifest: Manifest) -> Lease:
    spec = manifest.get("spec") or {}
    claim = Claim(
        holder=spec.get("holderIdentity") or "",
        duration_s=spec.get("leaseDurationSeconds") or 0,
        transitions=spec.get("leaseTransitions") or 0,
        acquired=_time(spec.get("acquireTime")),
        renewed=_time(spec.get("renewTime")),
    )
    return Lease(manifest, claim)


def _spec(claim: Claim) -> Manifest:
    spec: Manifest = {
        "holderIdentity": claim.holder,
        "leaseDurationSeconds": claim.duration_s,
        "leaseTransitions": claim.transitions,
    }
    times = {"acquireTime": claim.acquired, "renewTime": claim.renewed}
    return spec | {name: _micro_time(time) for name, time in times.items() if time is not None}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _micro_time(time: datetime) -> str:
    """As Kubernetes writes a MicroTime: it takes no other number of digits."""
    moment = time.astimezone(UTC).isoformat(timespec="microseconds")
    return moment.replace("+00:00", "Z")
