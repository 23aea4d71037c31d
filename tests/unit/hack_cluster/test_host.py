"""The machine is put back as it was, and only where a cluster changed it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hack.cluster import host

if TYPE_CHECKING:
    from pathlib import Path


def machine(root: Path, **settings: str) -> Path:
    defaults = {
        "fs/inotify/max_user_instances": "128",
        "fs/inotify/max_user_watches": "65536",
        "fs/file-nr": "1 2 3",
        "vm/overcommit_memory": "0",
        "vm/swappiness": "60",
        "kernel/panic": "1",
    }
    for key, value in {**defaults, **settings}.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_what_a_cluster_sets_is_put_back_and_other_changes_are_only_reported(
    tmp_path: Path,
) -> None:
    root = machine(tmp_path / "sys")
    record = tmp_path / "before.json"
    host.record(record, root)

    (root / "vm/overcommit_memory").write_text("1\n")
    (root / "vm/swappiness").write_text("10\n")
    left = host.restore(record, root)

    assert (root / "vm/overcommit_memory").read_text().strip() == "0"
    assert left == {"vm/swappiness": ("60", "10")}
    assert not record.exists()


def test_counters_are_no_settings(tmp_path: Path) -> None:
    assert "fs/file-nr" not in host.read_sysctls(machine(tmp_path))


def test_a_second_cluster_does_not_record_what_the_first_one_changed(tmp_path: Path) -> None:
    root = machine(tmp_path / "sys")
    record = tmp_path / "before.json"
    host.record(record, root)
    (root / "kernel/panic").write_text("10\n")

    host.record(record, root)

    assert json.loads(record.read_text())["kernel/panic"] == "1"


def test_restoring_without_a_record_changes_nothing(tmp_path: Path) -> None:
    assert host.restore(tmp_path / "none.json", machine(tmp_path / "sys")) == {}


def test_limits_are_raised_and_never_lowered(tmp_path: Path) -> None:
    root = machine(tmp_path, **{"fs/inotify/max_user_watches": "999999"})

    host.raise_limits(root)

    assert (root / "fs/inotify/max_user_instances").read_text() == "512"
    assert (root / "fs/inotify/max_user_watches").read_text().strip() == "999999"


def cgroup(root: Path, path: str, processes: str = "") -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    (root / path / "cgroup.procs").write_text(processes)


def test_control_groups_are_found_in_every_hierarchy(tmp_path: Path) -> None:
    for path in ("memory/kind-x/node", "cpu/kind-x", "cpu/kind-xy"):
        (tmp_path / path).mkdir(parents=True)

    assert host.cgroup_folders("kind-x", tmp_path) == [
        tmp_path / "cpu/kind-x",
        tmp_path / "memory/kind-x",
    ]


def test_empty_control_groups_are_removed_from_the_bottom_up(tmp_path: Path) -> None:
    (tmp_path / "memory/kind-x/node/pod").mkdir(parents=True)
    (tmp_path / "memory/kind-y").mkdir()

    host.remove_cgroups("kind-x", tmp_path)

    assert [path.name for path in (tmp_path / "memory").iterdir()] == ["kind-y"]


def test_a_process_deep_in_a_control_group_is_seen(tmp_path: Path) -> None:
    cgroup(tmp_path, "memory/kind-x")
    cgroup(tmp_path, "memory/kind-x/node/pod")
    assert not host.has_processes("kind-x", tmp_path)

    cgroup(tmp_path, "memory/kind-x/node/pod", "4711\n")

    assert host.has_processes("kind-x", tmp_path)


def test_processes_are_found_by_all_the_words_given(tmp_path: Path) -> None:
    for pid, words in {"10": ["dockerd", "--data-root", "/x"], "11": ["dockerd", "/y"]}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes("\0".join(words).encode())
    (tmp_path / "self").mkdir()

    assert list(host.processes_naming("dockerd", "/x", proc=tmp_path)) == [
        (10, "dockerd --data-root /x")
    ]


def test_mounts_are_found_below_a_folder_and_not_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(
        "a /x/docker/1 ext4 rw 0 0\nb /xy ext4 rw 0 0\nc /x o rw 0 0\n"
    )

    assert host.mounts_below(tmp_path.__class__("/x"), tmp_path) == ["/x/docker/1", "/x"]
