"""The CustomResourceDefinitions of the API's three kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from hack.generate.schema import structural_schema
from model_operator.api.labels import GROUP, VERSION
from model_operator.api.types import MetricSource, ModelDeployment, ModelRevision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADER: Final = (
    "# Made by `python -m hack.generate` from operator/src/model_operator/api: do not edit.\n"
)
_INITIAL: Final = {
    "apiVersion": {
        "type": "string",
        "description": "Version of this representation of the object.",
    },
    "kind": {"type": "string", "description": "Kind of the object."},
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`.

    Attributes:
        wide: Shown with `-o wide` only.
    """

    name: str
    json_path: str
    type: str = "string"
    description: str = ""
    wide: bool = False

    def manifest(self) -> dict[str, Any]:
        """Write the column as a CRD has it."""
        column: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.json_path}
        if self.description:
            column["description"] = self.description
        if self.wide:
            column["priority"] = 1
        return column


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind, and what its CRD says beside the schema."""

    kind: type
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    subresources: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the CRD."""
        return f"{self.plural}.{GROUP}"


RESOURCES: Final = (
    Resource(
        kind=ModelDeployment,
        plural="modeldeployments",
        short_name="mdep",
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        columns=(
            Column(
                "Ready",
                '.status.conditions[?(@.type=="Ready")].status',
                description="Whether the model is served.",
            ),
            Column("Revision", ".status.stable.revision", description="What users are on."),
            Column(
                "Replicas",
                ".status.stable.readyReplicas",
                "integer",
                "Ready pods of the stable revision.",
            ),
            Column("State", ".status.rollout.state", description="Where the rollout is."),
            Column(
                "Weight",
                ".status.candidate.percent",
                "integer",
                "Share of the requests for the candidate, percent.",
            ),
            Column("Reason", ".status.rollout.reason", description="Why it is there."),
            _AGE,
            Column(
                "Candidate",
                ".status.candidate.revision",
                description="What is being introduced.",
                wide=True,
            ),
            Column(
                "Digest",
                ".status.stable.digest",
                description="Model of the stable revision.",
                wide=True,
            ),
            Column(
                "Message",
                ".status.rollout.message",
                description="The reason in words.",
                wide=True,
            ),
        ),
    ),
    Resource(
        kind=ModelRevision,
        plural="modelrevisions",
        short_name="mrev",
        subresources={"status": {}},
        columns=(
            Column(
                "Model",
                f".metadata.labels.{GROUP.replace('.', chr(92) + '.')}/name",
                description="The ModelDeployment that it belongs to.",
            ),
            Column("Verdict", ".status.verdict", description="The last verdict on it."),
            Column("Promoted", ".status.promotedTime", "date", "Since when it was stable."),
            Column("RolledBack", ".status.rolledBackTime", "date", "When it was rolled back."),
            Column("Reason", ".status.rolledBackReason", description="Why it was rolled back."),
            _AGE,
            Column("Digest", ".spec.model.digest", description="Digest of the model.", wide=True),
            Column("URI", ".spec.model.uri", description="Where the model was.", wide=True),
        ),
    ),
    Resource(
        kind=MetricSource,
        plural="metricsources",
        short_name="msrc",
        namespaced=False,
        columns=(
            Column("URL", ".spec.prometheus.url", description="Base URL of the Prometheus."),
            Column("Scrape", ".spec.prometheus.scrapeInterval", description="Scrape interval."),
            _AGE,
            Column(
                "Namespaces",
                ".spec.namespaces",
                description="Who may use it; none: all.",
                wide=True,
            ),
        ),
    ),
)


def crd(resource: Resource) -> dict[str, Any]:
    """Make a kind's CustomResourceDefinition."""
    kind = resource.kind.__name__
    schema = structural_schema(resource.kind)
    properties = schema["properties"]
    schema["properties"] = {**_INITIAL, "metadata": {"type": "object"}}
    schema["properties"] |= {k: v for k, v in properties.items() if k in ("spec", "status")}
    schema["required"] = ["spec"]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.manifest() for column in resource.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    if resource.subresources is not None:
        version["subresources"] = dict(resource.subresources)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": resource.name,
            # for Helm: the chart's removal must not remove the users' objects
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["models"],
            },
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


def files() -> Iterator[tuple[str, str]]:
    """Yield each CRD's file name and content."""
    for resource in RESOURCES:
        yield (
            f"{GROUP}_{resource.plural}.yaml",
            HEADER + yaml.dump(crd(resource), Dumper=_Dumper, sort_keys=False, width=100),
        )


class _Dumper(yaml.SafeDumper):
    """Writes each value in full: an API server knows anchors, a reader of a diff does not."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- the base class's signature
        return True
