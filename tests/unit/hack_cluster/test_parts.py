"""A part is built once for what it is built from, and never half."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hack.cluster.parts import Build, Lane, Part, Store, content_hash
from hack.cluster.process import ClusterError

if TYPE_CHECKING:
    from pathlib import Path


class Silence:
    """Reports to nobody, and remembers what ended."""

    def __init__(self) -> None:
        self.finished: list[str] = []

    def stage(self, name: str) -> None: ...

    def done(self, name: str, seconds: float) -> None:  # noqa: ARG002 - the protocol's name
        self.finished.append(name)


def write_name(build: Build) -> None:
    needs = sorted(build.needs)
    (build.out / "content").write_text(" ".join(needs))


def part(name: str, *needs: str, lane: Lane = Lane.GO) -> Part:
    return Part(name, lane, write_name, needs=needs)


def store(root: Path, *parts: Part) -> Store:
    return Store(root / "parts", parts)


def test_parts_are_planned_after_what_they_need_and_only_where_needed(tmp_path: Path) -> None:
    parts = store(tmp_path, part("a"), part("b", "a"), part("other"), part("c", "b", "a"))

    assert [p.name for p in parts.plan(["c"])] == ["a", "b", "c"]


def test_what_a_built_part_was_made_from_is_not_built_again(tmp_path: Path) -> None:
    parts = store(tmp_path, part("a"), part("b", "a"), part("c", "b"))
    parts.path("b").mkdir(parents=True)

    assert [p.name for p in parts.plan(["c"])] == ["c"]


def test_a_second_build_does_nothing(tmp_path: Path) -> None:
    parts = store(tmp_path, part("a"), part("b", "a", lane=Lane.ASSEMBLY))
    first, second = Silence(), Silence()

    parts.build(["b"], first)
    parts.build(["b"], second)

    assert first.finished == ["build a", "build b"]
    assert second.finished == []
    assert (parts.path("b") / "content").read_text() == "a"


def test_a_changed_source_changes_the_key_of_all_that_is_made_from_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    made = (replace(part("a"), sources=(source,)), part("b", "a"), part("apart"))
    before = {p.name: store(tmp_path, *made).key(p.name) for p in made}

    source.write_text("two")
    after = {p.name: store(tmp_path, *made).key(p.name) for p in made}

    assert before["a"] != after["a"]
    assert before["b"] != after["b"]
    assert before["apart"] == after["apart"]


def test_a_changed_recipe_changes_the_key(tmp_path: Path) -> None:
    plain, tagged = part("a"), replace(part("a"), recipe=("-tags", "x"))

    assert store(tmp_path, plain).key("a") != store(tmp_path, tagged).key("a")


def test_the_key_of_a_folder_knows_names_and_ignores_where_the_checkout_is(tmp_path: Path) -> None:
    for checkout in ("one", "two"):
        folder = tmp_path / checkout / "tool"
        folder.mkdir(parents=True)
        (folder / "go.mod").write_text("module x")
    assert content_hash([tmp_path / "one" / "tool"]) == content_hash([tmp_path / "two" / "tool"])

    (tmp_path / "two" / "tool" / "go.mod").rename(tmp_path / "two" / "tool" / "go.sum")

    assert content_hash([tmp_path / "one" / "tool"]) != content_hash([tmp_path / "two" / "tool"])


def test_a_failed_build_leaves_nothing_that_looks_finished_and_is_tried_again(
    tmp_path: Path,
) -> None:
    attempts = []

    def fail_once(build: Build) -> None:
        assert list(build.out.iterdir()) == []  # nothing of the first attempt is left
        (build.out / "half").write_text("")
        attempts.append(build)
        if len(attempts) == 1:
            raise ClusterError("no network")

    parts = store(tmp_path, Part("a", Lane.GO, fail_once), part("b", "a"))

    with pytest.raises(ClusterError, match="building a: no network"):
        parts.build(["b"], Silence())
    assert not parts.is_built("a")
    assert not parts.is_built("b")

    parts.build(["b"], Silence())
    assert parts.is_built("b")


def test_a_large_part_replaces_its_former_version_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    image = replace(part("image"), sources=(source,), replaces=True)
    before = store(tmp_path, image, part("image-other"))
    before.build(["image", "image-other"], Silence())

    source.write_text("two")
    after = store(tmp_path, image, part("image-other"))
    after.build(["image"], Silence())

    assert not before.path("image").exists()
    assert after.is_built("image")
    assert after.is_built("image-other")
