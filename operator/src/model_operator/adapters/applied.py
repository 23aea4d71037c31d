"""Whether a server-side apply would change anything, found without asking the server.

The server records which fields a manager owns (`metadata.managedFields`). An apply is needed when
a desired value differs from the live one, when a desired field is not owned (yet), or when an
owned field is not desired any more. The record also tells atomic lists from those whose items are
told apart by keys, so that no schema is needed here.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

from kubernetes.utils import parse_quantity

from model_operator.api.labels import FIELD_MANAGER

Manifest = dict[str, Any]

_IDENTITY: Final = frozenset({"name", "namespace"})
_DEFAULTS: Final = {"apiVersion": "v1", "divisor": "0"}
"""What the server adds to references in a pod's environment. A default that is missing here costs
an apply that changes nothing."""
_QUANTITIES: Final = frozenset({"requests", "limits"})


def is_applied(desired: Manifest, live: Manifest, manager: str = FIELD_MANAGER) -> bool:
    """Whether applying `desired` by `manager` would leave `live` as it is."""
    owned = _owned(live, manager)
    if owned is None:
        return False
    content = {key: value for key, value in desired.items() if key not in {"apiVersion", "kind"}}
    metadata = {key: v for key, v in content.get("metadata", {}).items() if key not in _IDENTITY}
    return _map_applied({**content, "metadata": metadata}, live, owned, "")


def keep_own_fields(live: Manifest, manager: str = FIELD_MANAGER) -> Manifest:
    """The object without what other managers own: it can be as large as the object itself."""
    metadata = live["metadata"]
    entries = [
        entry
        for entry in metadata.get("managedFields") or ()
        if entry.get("manager") == manager and entry.get("operation") == "Apply"
    ]
    return {**live, "metadata": {**metadata, "managedFields": entries}}


def _owned(live: Manifest, manager: str) -> Manifest | None:
    for entry in live["metadata"].get("managedFields") or ():
        if (
            entry.get("manager") == manager
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            fields: Manifest = entry.get("fieldsV1") or {}
            return fields
    return None


def _map_applied(desired: Manifest, live: Any, owned: Manifest, parent: str) -> bool:
    if not isinstance(live, dict):
        return False
    if any(field[2:] not in desired for field in owned if field.startswith("f:")):
        return False
    return all(
        _value_applied(value, live.get(key), owned.get(f"f:{key}"), key, parent)
        for key, value in desired.items()
    )


def _value_applied(
    desired: Any, live: Any, owned: Manifest | None, key: str = "", parent: str = ""
) -> bool:
    if owned is None:  # nobody owns what is empty
        return desired in ({}, []) and not live
    if owned and isinstance(desired, dict):
        return _map_applied(desired, live, owned, key)
    if owned and isinstance(desired, list):
        return _items_applied(desired, live, owned)
    return live is not None and _same(desired, live, quantity=parent in _QUANTITIES)


def _items_applied(desired: list[Any], live: Any, owned: Manifest) -> bool:
    """A list of items that are told apart by keys (`k:`) or by their value (`v:`)."""
    if not isinstance(live, list):
        return False
    if all(field.startswith("v:") for field in owned):
        mine = [json.loads(field[2:]) for field in owned]
        return len(mine) == len(desired) and all(v in mine and v in live for v in desired)
    keys = {field: json.loads(field[2:]) for field in owned if field.startswith("k:")}
    if len(keys) != len(desired):
        return False
    for field, key in keys.items():
        wanted, found = _find(desired, key), _find(live, key)
        if wanted is None or found is None:
            return False
        if not _value_applied(wanted, found, owned[field]):
            return False
    return True


def _find(items: list[Any], key: Manifest) -> Manifest | None:
    for item in items:
        if isinstance(item, dict) and all(item.get(name) == v for name, v in key.items()):
            return item
    return None


def _same(desired: Any, live: Any, *, quantity: bool = False) -> bool:
    """Whether a value that is owned as a whole is live; the server may have added a default.

    What else is in it is not wanted any more: nobody but us can have put it there.
    """
    if isinstance(desired, dict):
        return (
            isinstance(live, dict)
            and all(key in live and _same(value, live[key]) for key, value in desired.items())
            and all(_DEFAULTS.get(key) == live[key] for key in live.keys() - desired.keys())
        )
    if isinstance(desired, list):
        return (
            isinstance(live, list)
            and len(live) == len(desired)
            and all(_same(a, b) for a, b in zip(desired, live, strict=True))
        )
    if desired == live:
        return True
    return quantity and _quantities_equal(desired, live)


def _quantities_equal(one: Any, other: Any) -> bool:
    """The server writes quantities in its own way: 0.5 becomes 500m."""
    try:
        return _amount(one) == _amount(other)
    except ValueError:
        return False


def _amount(quantity: Any) -> Decimal:
    amount: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call] # kubernetes has no types
    return amount
