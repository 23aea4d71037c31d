"""The Kubernetes API as the engine needs it: manifests in, manifests out, a closed set of errors.

Connection, TLS and credentials come from the official client's configuration; requests go through
its HTTP session as plain manifests, since generated models would only stand between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from model_operator.api.labels import API_VERSION, FIELD_MANAGER

Manifest = dict[str, Any]

_LIST_CHUNK: Final = 500
_APPLY: Final = "application/apply-patch+yaml"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and where it is served.

    Attributes:
        namespaced: Whether its objects live in namespaces.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group, empty for the core's."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Path of the collection, of one object, or of its subresource."""
        root = "/apis/" if self.group else "/api/"
        parts = [f"{root}{self.api_version}"]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


MODEL_DEPLOYMENT: Final = Resource(API_VERSION, "ModelDeployment", "modeldeployments")
MODEL_REVISION: Final = Resource(API_VERSION, "ModelRevision", "modelrevisions")
METRIC_SOURCE: Final = Resource(API_VERSION, "MetricSource", "metricsources", namespaced=False)
DEPLOYMENT: Final = Resource("apps/v1", "Deployment", "deployments")
SERVICE: Final = Resource("v1", "Service", "services")
POD: Final = Resource("v1", "Pod", "pods")
SECRET: Final = Resource("v1", "Secret", "secrets")
EVENT: Final = Resource("v1", "Event", "events")
DISRUPTION_BUDGET: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
HTTP_ROUTE: Final = Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")

RESOURCES: Final = {
    resource.kind: resource
    for resource in (
        MODEL_DEPLOYMENT,
        MODEL_REVISION,
        METRIC_SOURCE,
        DEPLOYMENT,
        SERVICE,
        POD,
        SECRET,
        EVENT,
        DISRUPTION_BUDGET,
        HTTP_ROUTE,
    )
}


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one moment.

    Attributes:
        resource_version: Of that moment: whatever is older and not in `items` is gone.
    """

    items: tuple[Manifest, ...]
    resource_version: int


class KubeError(Exception):
    """A call to the API failed.

    Attributes:
        retry_after_s: How long the server asks to wait, seconds; None when it does not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFoundError(KubeError):
    """There is no such object, or no such kind."""


class ConflictError(KubeError):
    """Another version of the object is there than the one that was read, or it exists already."""


class AlreadyExistsError(ConflictError):
    """There is an object of that name already."""


class InvalidError(KubeError):
    """The server refuses the object; the same call cannot succeed later."""


class ForbiddenError(KubeError):
    """The operator's account may not do this."""


class ThrottledError(KubeError):
    """The server has too much to do (429)."""


class ServerError(KubeError):
    """The server failed (5xx)."""


class UnreachableError(KubeError):
    """No answer: no connection, or not within the deadline. The call may have been carried out."""


_BY_STATUS: Final[Mapping[int, type[KubeError]]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidError,
    409: ConflictError,
    410: ConflictError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
    429: ThrottledError,
}


class Kube(Protocol):
    """What the engine asks of the API. Every method raises `KubeError` and nothing else."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """Read one object; `NotFoundError` when there is none."""
        ...

    async def list(self, resource: Resource, *, namespace: str = "", selector: str = "") -> Listing:
        """Read all objects of a kind, in one namespace or in all, that a label selector takes."""
        ...

    async def apply(self, manifest: Manifest, *, resource_version: str | None = None) -> Manifest:
        """Server-side apply, taking over fields that others set.

        With a `resource_version`, only when the live object still has that one: `ConflictError`
        otherwise. Returns the object as it is then.
        """
        ...

    async def replace_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Write `status` whole, when the object still has the manifest's resourceVersion."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object with that uid, its dependents after it; one that is gone is fine."""
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; `AlreadyExistsError` when there is one of that name."""
        ...


class KubeClient:
    """`Kube` over HTTP."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        timeout_s: float = 10.0,
        answered: Callable[[str, int], None] = lambda _method, _code: None,
    ) -> None:
        """Connect lazily.

        Args:
            configuration: Where the API server is and how to log in.
            timeout_s: Longest time for one call, seconds.
            answered: Told the HTTP method and code of every call that was answered.
        """
        self._answered = answered
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """Read one object."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, *, namespace: str = "", selector: str = "") -> Listing:
        """Read all objects of a kind, in chunks."""
        items: list[Manifest] = []
        token, version = "", 0
        while True:
            query = {"limit": str(_LIST_CHUNK), "labelSelector": selector, "continue": token}
            page = await self._call("GET", resource.path(namespace), query)
            # NB: items of a list carry neither their apiVersion nor their kind
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            items.extend({**kind, **item} for item in page.get("items") or ())
            # NB: the chunks show the moment of the first; later ones may carry no version
            version = version or int(page["metadata"].get("resourceVersion") or 0)
            token = page["metadata"].get("continue", "")
            if not token:
                return Listing(tuple(items), version)

    async def apply(self, manifest: Manifest, *, resource_version: str | None = None) -> Manifest:
        """Server-side apply."""
        if resource_version is not None:
            metadata = {**manifest["metadata"], "resourceVersion": resource_version}
            manifest = {**manifest, "metadata": metadata}
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", _path_of(manifest), query, manifest, _APPLY)

    async def replace_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Write `status` whole."""
        identity = ("namespace", "name", "uid", "resourceVersion")
        metadata = {key: manifest["metadata"].get(key) for key in identity}
        body = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": metadata,
            "status": status,
        }
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PUT", _path_of(manifest, "status"), query, body)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object with that uid."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", resource.path(namespace, name), body=options)
        except (NotFoundError, ConflictError):  # a conflict: the name has another object by now
            return

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""
        resource = RESOURCES[manifest["kind"]]
        path = resource.path(manifest["metadata"].get("namespace", ""))
        return await self._call("POST", path, {"fieldManager": FIELD_MANAGER}, manifest)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = _JSON,
    ) -> Manifest:
        parameters = urlencode({key: value for key, value in (query or {}).items() if value})
        url = f"{self._configuration.host}{path}" + (f"?{parameters}" if parameters else "")
        headers = {"Accept": _JSON, "Content-Type": content_type}
        try:
            token = await self._configuration.get_api_key_with_prefix("BearerToken")
            if token:
                headers["Authorization"] = token
            response = await self._rest.request(  # type: ignore[no-untyped-call] # kubernetes has no types
                method, url, headers=headers, body=body, _request_timeout=self._timeout
            )
            data: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise UnreachableError(f"{method} {path}: {error or type(error).__name__}") from error
        self._answered(method, response.status)
        if response.status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
            raise _error(method, path, response.status, data, response.headers)
        answer: Manifest = json.loads(data)
        return answer


def _path_of(manifest: Manifest, subresource: str = "") -> str:
    metadata = manifest["metadata"]
    resource = RESOURCES[manifest["kind"]]
    return resource.path(metadata.get("namespace", ""), metadata["name"], subresource)


def _error(
    method: str, path: str, status: int, data: bytes, headers: Mapping[str, str]
) -> KubeError:
    try:
        answer = json.loads(data)
        message, reason = answer["message"], answer.get("reason")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, reason = data[:200].decode(errors="replace"), None
    # NB: a create is refused with 409 also where a quota is contended for
    exists = reason == "AlreadyExists"
    kind = AlreadyExistsError if exists else _BY_STATUS.get(status, ServerError)
    after = headers.get("Retry-After", "")
    return kind(f"{method} {path}: {status} {message}", float(after) if after.isdecimal() else None)


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """Where the API server is and how to log in.

    Args:
        kubeconfig: Path of a kubeconfig; None for the pod's own account, which is read anew as
            its token rotates.
    """
    configuration = Configuration()
    if kubeconfig is None:
        kube_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call] # the same
    else:
        await kube_config.load_kube_config(  # type: ignore[no-untyped-call] # the same
            config_file=kubeconfig, client_configuration=configuration
        )
    return configuration
