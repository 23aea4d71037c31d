"""An API server that writes down each call of one account, and calls that are made again."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from tests.apiserver.control_plane import ControlPlane

_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
_APPLY: Final = "application/apply-patch+yaml"
_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # with its body, so that a call can be made again
        {"level": "Request", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the API server's audit log has it.

    Attributes:
        account: Name of the user who made it.
        allowed: Whether the account was authorised.
        code: HTTP status of the answer.
        granted_by: The authoriser's reason, which names the binding.
    """

    account: str
    group: str
    resource: str
    verb: str
    namespace: str
    uri: str
    body: Any
    allowed: bool
    code: int
    granted_by: str

    def uses(self) -> Iterator[tuple[str, str, str]]:
        """Group, resource and verb of what it needs; two when an apply makes a new object."""
        yield self.group, self.resource, self.verb
        if self.verb == "patch" and self.code == HTTPStatus.CREATED:
            yield self.group, self.resource, "create"


class AuditedControlPlane(ControlPlane):
    """A control plane whose API server keeps an audit log."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._audit_log = folder / "audit.log"
        self._read_bytes = 0
        self._calls: list[Call] = []

    def _start(self, name: str, *arguments: str) -> None:
        if name == "kube-apiserver":
            policy = self.folder / "audit-policy.json"
            policy.write_text(json.dumps(_POLICY))
            arguments += (
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self._audit_log}",
            )
        super()._start(name, *arguments)

    def calls(self, account: str) -> list[Call]:
        """What an account asked of resources so far, oldest first."""
        with self._audit_log.open("rb") as log:
            log.seek(self._read_bytes)
            new = log.read()
        complete = new[: new.rfind(b"\n") + 1]  # the last line may be half written
        self._read_bytes += len(complete)
        events = map(json.loads, complete.splitlines())
        self._calls += [_call(event) for event in events if "objectRef" in event]
        return [call for call in self._calls if call.account == account]

    def again(self, call: Call, token: str) -> int:
        """Make a call again without lasting effect; the HTTP status of its answer."""
        writes = call.verb in {"create", "update", "patch", "delete"}
        separator = "&" if "?" in call.uri else "?"
        request = urllib.request.Request(  # noqa: S310 -- our own server
            self._server + call.uri + (f"{separator}dryRun=All" if writes else ""),
            method=_METHODS[call.verb],
            data=json.dumps(call.body).encode() if writes and call.verb != "delete" else None,
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": _APPLY if call.verb == "patch" else "application/json",
            },
        )
        trusted = ssl.create_default_context(cafile=str(self._certificate))
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:  # noqa: S310 -- our own server
                status: int = answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return status


def _call(event: dict[str, Any]) -> Call:
    reference = event["objectRef"]
    resource = [reference["resource"], reference.get("subresource", "")]
    annotations = event.get("annotations", {})
    return Call(
        account=event["user"]["username"],
        group=reference.get("apiGroup", ""),
        resource="/".join(filter(None, resource)),
        verb=event["verb"],
        namespace=reference.get("namespace", ""),
        uri=event["requestURI"],
        body=event.get("requestObject"),
        allowed=annotations.get("authorization.k8s.io/decision") == "allow",
        code=event.get("responseStatus", {}).get("code", 0),
        granted_by=annotations.get("authorization.k8s.io/reason", ""),
    )
