"""Every label and annotation key that the operator writes or reads."""

from typing import Final

GROUP: Final = "modeldeployment.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FIELD_MANAGER: Final = "model-operator"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY_VALUE: Final = "model-operator"
APP_NAME: Final = "app.kubernetes.io/name"
APP_NAME_VALUE: Final = "model-server"

NAME: Final = f"{GROUP}/name"
"""Name of the ModelDeployment that a child belongs to."""

REVISION: Final = f"{GROUP}/revision"
"""Name of the revision. Never the role: promotion must not touch a pod."""

ROLLED_BACK: Final = f"{GROUP}/rolled-back"
"""On a route: the last rollback as JSON, so that an operator that comes after a crash between the
route's write and the status's does not put the weight back, and knows why."""

LAST_SPEC: Final = f"{GROUP}/last-spec"
"""On the Service that clients inside the cluster use: the spec that was acted on last, as JSON, so
that a restart of the operator under a spec that became invalid leaves a bad candidate judged."""

REQUEST: Final = f"{GROUP}/request"
"""On a ModelDeployment: what a person asks for, ``{"id", "action", "revision"}`` as JSON."""


RESTART: Final = f"{GROUP}/restart"
"""On a ModelDeployment: any value, such as a time. A new one has the pods of its live revisions
made anew, one after the other. On the pods: the value that they were made under."""


def child_labels(name: str, revision: str | None = None) -> dict[str, str]:
    """Labels of an object that belongs to the ModelDeployment ``name``.

    Args:
        name: The ModelDeployment's name.
        revision: The revision's name, for objects that belong to one revision.
    """
    labels = {MANAGED_BY: MANAGED_BY_VALUE, APP_NAME: APP_NAME_VALUE, NAME: name}
    if revision is not None:
        labels[REVISION] = revision
    return labels
