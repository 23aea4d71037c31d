"""Whose an object is. An apply by force would take over whatever has the wanted name."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]


class NotOursError(Exception):
    """An object of the wanted name is there and belongs to somebody else."""


def controller_uid(manifest: Manifest) -> str:
    """The uid of an object's controller, empty when it has none."""
    for reference in manifest["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            uid: str = reference["uid"]
            return uid
    return ""


def require_same_owner(live: Manifest, desired: Manifest) -> None:
    """Refuse a live object that is controlled by somebody else than the desired one.

    Raises:
        NotOursError: It belongs to somebody else, or to nobody.
    """
    if controller_uid(live) != controller_uid(desired):
        kind, name = desired["kind"], desired["metadata"]["name"]
        raise NotOursError(
            f"there is a {kind} {name} already that this ModelDeployment does not control; "
            "rename one of the two"
        )
