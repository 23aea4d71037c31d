"""The store: the newest state wins, whatever order news come in."""

from __future__ import annotations

from typing import Any

import pytest

from model_operator.adapters.kube import Listing
from model_operator.api.labels import NAME, REVISION
from model_operator.engine.store import Key, Store

Manifest = dict[str, Any]
OWNER = Key("vision", "digits")


def pod(name: str, version: int, *, owner: str = "digits", **fields: Any) -> Manifest:
    labels = {NAME: owner, REVISION: f"{owner}-1"}
    metadata = {
        "name": name,
        "namespace": "vision",
        "labels": labels,
        "resourceVersion": str(version),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **fields}


@pytest.fixture
def store() -> Store:
    return Store()


def test_older_news_do_not_replace_newer_ones(store: Store) -> None:
    assert store.put(pod("a", 12, status={"phase": "Running"}))
    assert not store.put(pod("a", 9, status={"phase": "Pending"}))
    found = store.get("Pod", "vision", "a")
    assert found is not None
    assert found["status"] == {"phase": "Running"}


def test_a_late_deletion_does_not_remove_a_namesake_that_came_after(store: Store) -> None:
    store.put(pod("a", 12))
    store.remove(pod("a", 11))
    assert store.get("Pod", "vision", "a") is not None
    store.remove(pod("a", 13))
    assert store.get("Pod", "vision", "a") is None
    assert store.children(OWNER, "Pod") == []


def test_children_are_found_by_their_label(store: Store) -> None:
    store.put(pod("b", 1))
    store.put(pod("a", 2))
    store.put(pod("c", 3, owner="faces"))
    names = [child["metadata"]["name"] for child in store.children(OWNER, "Pod")]
    assert names == ["a", "b"]


def test_a_child_whose_label_changes_moves_to_its_new_owner(store: Store) -> None:
    store.put(pod("a", 1))
    store.put(pod("a", 2, owner="faces"))
    assert store.children(OWNER, "Pod") == []
    assert len(store.children(Key("vision", "faces"), "Pod")) == 1


def test_a_list_removes_what_vanished_and_tells_whose_it_was(store: Store) -> None:
    store.put(pod("gone", 5))
    store.put(pod("kept", 6, owner="faces"))
    touched = store.replace("Pod", Listing((pod("kept", 6, owner="faces"),), 20))
    assert store.get("Pod", "vision", "gone") is None
    assert touched == {OWNER}


def test_what_came_after_a_list_was_made_survives_it(store: Store) -> None:
    store.put(pod("younger", 21))
    store.replace("Pod", Listing((), 20))
    assert store.get("Pod", "vision", "younger") is not None


def test_a_list_of_one_owner_or_namespace_says_nothing_of_the_others(store: Store) -> None:
    store.put(pod("a", 1))
    store.put(pod("b", 2, owner="faces"))
    store.replace("Pod", Listing((), 20), owner=OWNER)
    assert store.get("Pod", "vision", "b") is not None
    store.replace("Pod", Listing((), 20), namespace="elsewhere")
    assert store.get("Pod", "vision", "b") is not None


def test_a_list_that_brings_nothing_new_touches_nobody(store: Store) -> None:
    store.put(pod("a", 1))
    assert store.replace("Pod", Listing((pod("a", 1),), 20)) == set()


def test_what_other_managers_own_is_not_kept(store: Store) -> None:
    manifest = pod("a", 1)
    manifest["metadata"]["managedFields"] = [
        {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}},
        {"manager": "model-operator", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
    ]
    store.put(manifest)
    found = store.get("Pod", "vision", "a")
    assert found is not None
    assert [entry["manager"] for entry in found["metadata"]["managedFields"]] == ["model-operator"]


def test_a_list_that_is_behind_brings_nothing_back(store: Store) -> None:
    dead = pod("a", 5)
    dead["metadata"]["uid"] = "uid-1"
    store.put(dead)
    store.remove({**dead, "metadata": {**dead["metadata"], "resourceVersion": "9"}})
    # when an older list still has it
    assert store.replace("Pod", Listing((dead,), 6)) == set()
    assert store.get("Pod", "vision", "a") is None
    # then a namesake that comes after it is another matter
    reborn = pod("a", 12)
    reborn["metadata"]["uid"] = "uid-2"
    assert store.put(reborn)


def test_the_newest_version_of_a_kind_is_known(store: Store) -> None:
    assert store.newest(OWNER, "Pod") == 0
    store.put(pod("a", 5))
    store.put(pod("b", 12))
    store.put(pod("c", 99, owner="faces"))
    assert store.newest(OWNER, "Pod") == 12
