"""How many CPUs this process may use."""

import math
import os
from pathlib import Path


def available_cpus(root: Path = Path("/"), affinity: int | None = None) -> float:
    """Return the CPUs that the scheduler grants: the least of affinity mask and cgroup quotas.

    Reads cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`), at the process's own cgroup and above
    it: in a container without a cgroup namespace the own path is not the root of the mount.

    Args:
        root: Where `proc` and `sys` are mounted.
        affinity: CPUs in the affinity mask; asked of the kernel when not given.
    """
    if affinity is None:
        affinity = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _cgroups(root) if (quota := _quota(folder)) is not None]
    return min([float(affinity), *quotas])


def default_threads(cpus: float) -> int:
    """Return whole threads that fit in `cpus`, at least one.

    Rounded down: a thread beyond the quota is paid for by all with the throttling of the rest of
    each period, while the fraction left over serves the event loop.
    """
    return max(1, math.floor(cpus))


def _cgroups(root: Path) -> list[Path]:
    mounts = root / "sys/fs/cgroup"
    folders = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            mount = mounts
        elif "cpu" in controllers.split(","):
            mount = next((m for m in (mounts / controllers, mounts / "cpu") if m.is_dir()), mounts)
        else:
            continue
        leaf = mount / own.strip("/")
        folders += [leaf, *(p for p in leaf.parents if p.is_relative_to(mount))]
    return folders


def _quota(cgroup: Path) -> float | None:
    """Return the CPUs of one cgroup, or None where it sets no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (cgroup / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    return int(quota) / int(period)
