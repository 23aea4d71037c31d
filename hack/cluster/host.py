"""What a cluster changes on the machine itself, so that it can be put back.

Namespaces end with their processes. What outlives them is the kernel's settings that are not
namespaced (a kubelet sets some for the whole machine) and control groups.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROC_SYS = Path("/proc/sys")
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")

# net.* is left out: the engine and the nodes have network namespaces of their own.
_TREES = ("fs", "kernel", "vm", "user")

# Counters and random numbers, which differ between any two looks.
_MOVING = (
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random",
    "kernel/sched_domain",
    "vm/stat_refresh",
)

# What the kubelet, kube-proxy, systemd in a node and Docker set for the whole machine. Only these
# are put back: another difference may be someone else's wish, and is reported instead.
RESTORED = (
    "fs/file-max",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/nr_open",
    "kernel/core_pattern",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/pid_max",
    "kernel/printk",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


# systemd, kubelets and containerd of three nodes take some 60 inotify instances of the 128 that a
# machine has by default for all that root runs; a pod that gets none fails in strange ways.
_LEAST = {"fs/inotify/max_user_instances": 512, "fs/inotify/max_user_watches": 65536}


def read_sysctls(root: Path = PROC_SYS) -> dict[str, str]:
    """Read every readable setting that stands still."""
    settings = {}
    for tree in _TREES:
        for folder, _, names in os.walk(root / tree):
            for name in names:
                path = Path(folder) / name
                key = path.relative_to(root).as_posix()
                if key.startswith(_MOVING):
                    continue
                try:
                    settings[key] = path.read_text().strip()
                except (OSError, UnicodeDecodeError):
                    continue  # write-only, or not for us
    return settings


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the settings that differ, with their value before and now."""
    return {
        key: (before[key], now[key])
        for key in sorted(before.keys() & now.keys())
        if before[key] != now[key]
    }


def record(path: Path, root: Path = PROC_SYS) -> None:
    """Write down the machine's settings, unless a cluster that is still up did so before."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(read_sysctls(root), indent=1))
    partial.rename(path)


def restore(path: Path, root: Path = PROC_SYS) -> dict[str, tuple[str, str]]:
    """Put back what clusters change, and return what differs all the same.

    The record is removed: the next cluster looks again.
    """
    if not path.exists():
        return {}
    before = json.loads(path.read_text())
    for key, (value, _) in changed(before, read_sysctls(root)).items():
        if key in RESTORED:
            (root / key).write_text(value)
    path.unlink()
    return changed(before, read_sysctls(root))


def cgroup_folders(name: str, root: Path = CGROUPS) -> list[Path]:
    """Return a parent control group's folders, one for each hierarchy (version 2 has just one)."""
    return sorted(path for path in (root / name, *root.glob(f"*/{name}")) if path.is_dir())


def remove_cgroups(name: str, root: Path = CGROUPS) -> None:
    """Remove a control group with those below it. One that still has processes stays."""
    for top in cgroup_folders(name, root):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue  # reported by verify-down


def raise_limits(root: Path = PROC_SYS) -> None:
    """Raise the limits that the nodes' daemons share with everyone else on the machine."""
    for key, least in _LEAST.items():
        path = root / key
        if int(path.read_text()) < least:
            path.write_text(str(least))


def has_processes(cgroup: str, root: Path = CGROUPS) -> bool:
    """Tell whether any process is in a control group or one below it."""
    for top in cgroup_folders(cgroup, root):
        for members in top.rglob("cgroup.procs"):
            with suppress(OSError):  # it was removed meanwhile
                if members.read_text().strip():
                    return True
    return False


def processes_naming(*texts: str, proc: Path = PROC) -> Iterator[tuple[int, str]]:
    """Yield the id and command line of every process with these texts in its command line."""
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        line = b" ".join(words).decode(errors="replace").strip()
        if all(text in line for text in texts):
            yield int(entry.name), line


def mounts_below(folder: Path, proc: Path = PROC) -> list[str]:
    """Return the mount points of this namespace in and under a folder."""
    points = [line.split(" ")[1] for line in (proc / "mounts").read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(folder)]
