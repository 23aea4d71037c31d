"""The newest known state of every object that the operator watches."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any, Final, NamedTuple

from model_operator.adapters.applied import keep_own_fields
from model_operator.adapters.kube import Listing
from model_operator.api.labels import NAME, REVISION

Manifest = dict[str, Any]

_GONE_LIMIT: Final = 10_000
"""How many deleted objects are remembered, lest a list that is behind brings them back."""


class Key(NamedTuple):
    """A ModelDeployment's namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ObjectKey(NamedTuple):
    """Identity of an object of any kind."""

    kind: str
    namespace: str
    name: str


def object_key(manifest: Manifest) -> ObjectKey:
    """Identity of a manifest."""
    metadata = manifest["metadata"]
    return ObjectKey(manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def owner_of(manifest: Manifest) -> Key | None:
    """The ModelDeployment that a manifest is, or belongs to by its label."""
    metadata = manifest["metadata"]
    if manifest["kind"] == "ModelDeployment":
        return Key(metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(NAME)
    return Key(metadata.get("namespace", ""), name) if name else None


def revision_of(manifest: Manifest) -> str:
    """The revision that a child belongs to, empty for none."""
    label: str = (manifest["metadata"].get("labels") or {}).get(REVISION, "")
    return label


def is_deleting(manifest: Manifest) -> bool:
    """Whether the object only waits for its end."""
    return bool(manifest["metadata"].get("deletionTimestamp"))


class Store:
    """Objects by identity, and those of a ModelDeployment by their kind.

    Watch events, answers to our own writes and lists arrive in any order; the newest
    `resourceVersion` of an object wins, and what is known to be deleted never comes back: no two
    objects ever have the same uid.
    """

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, Manifest] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._owned: dict[Key, set[ObjectKey]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, manifest: Manifest) -> bool:
        """Remember an object; whether that was news."""
        key = object_key(manifest)
        known = self._objects.get(key)
        if _uid(manifest) in self._gone or (known is not None and not _newer(manifest, known)):
            return False
        if known is not None:
            self._drop(key)
        self._objects[key] = keep_own_fields(manifest)
        owner = owner_of(manifest)
        if owner is not None:
            self._owned[owner].add(key)
        return True

    def remove(self, manifest: Manifest) -> None:
        """Forget a deleted object, unless a namesake came after it."""
        self._bury(manifest)
        key = object_key(manifest)
        known = self._objects.get(key)
        if known is None or _version(known) > _version(manifest):
            return
        self._drop(key)

    def discard(self, kind: str, namespace: str, name: str) -> None:
        """Forget an object that a live read did not find."""
        key = ObjectKey(kind, namespace, name)
        if key in self._objects:
            self._bury(self._objects[key])
            self._drop(key)

    def newest(self, owner: Key, kind: str) -> int:
        """Newest version among a ModelDeployment's objects of a kind; 0 when there are none.

        A list of them that was asked for now and is older does not tell how things are.
        """
        return max((_version(manifest) for manifest in self.children(owner, kind)), default=0)

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """An object, None when there is none."""
        return self._objects.get(ObjectKey(kind, namespace, name))

    def children(self, owner: Key, kind: str) -> list[Manifest]:
        """Objects of a kind that belong to a ModelDeployment, by name."""
        keys = sorted(key for key in self._owned.get(owner, ()) if key.kind == kind)
        return [self._objects[key] for key in keys]

    def of_kind(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""
        return [manifest for key, manifest in self._objects.items() if key.kind == kind]

    def replace(
        self, kind: str, listing: Listing, *, owner: Key | None = None, namespace: str = ""
    ) -> set[Key]:
        """Take over a list of all objects of a kind, of a namespace's or of a ModelDeployment's.

        Objects that are not in it have vanished, unless they came after the list was made.

        Returns:
            The ModelDeployments for which that was news.
        """
        touched = {owner_of(manifest) for manifest in listing.items if self.put(manifest)}
        present = {object_key(manifest) for manifest in listing.items}
        for manifest in self.of_kind(kind) if owner is None else self.children(owner, kind):
            key = object_key(manifest)
            elsewhere = namespace not in ("", key.namespace)
            if elsewhere or key in present or _version(manifest) > listing.resource_version:
                continue
            touched.add(owner_of(manifest))
            self._bury(manifest)
            self._drop(key)
        return {owned for owned in touched if owned is not None}

    def _bury(self, manifest: Manifest) -> None:
        if uid := _uid(manifest):
            self._gone[uid] = None
        while len(self._gone) > _GONE_LIMIT:
            self._gone.popitem(last=False)

    def _drop(self, key: ObjectKey) -> None:
        owner = owner_of(self._objects.pop(key))
        if owner is None:
            return
        self._owned[owner].discard(key)
        if not self._owned[owner]:
            del self._owned[owner]


def _version(manifest: Manifest) -> int:
    # NB: resource versions of a kind are numbers that grow, by the API's contract since 1.35
    return int(manifest["metadata"].get("resourceVersion") or 0)


def _uid(manifest: Manifest) -> str:
    uid: str = manifest["metadata"].get("uid", "")
    return uid


def _newer(manifest: Manifest, known: Manifest) -> bool:
    return _version(manifest) > _version(known)
