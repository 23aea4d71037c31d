"""How many CPUs this process may use, and for what."""

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


def share(
    cpus: int, *, threads: int | None = None, concurrency: int | None = None
) -> tuple[int, int]:
    """Return the threads inside one run and the runs at once, whose product fits in `cpus`.

    What the user does not say follows from what he does; with nothing said, every run has one
    thread. That is the most requests a second: a run on one thread waits for no other thread, while
    operators of the usual small model are over before a second thread has begun. What it costs is
    the latency of a large model on an idle server: there `concurrency` 1 gives all CPUs to each run
    in turn. Only a user who says both may ask for more than there is.

    Examples: of 4 CPUs `share(4)` makes (1, 4), `threads=2` (2, 2), `concurrency=1` (4, 1) and
    `threads=3` (3, 1).
    """
    if threads is None:
        threads = 1 if concurrency is None else max(1, cpus // concurrency)
    if concurrency is None:
        concurrency = max(1, cpus // threads)
    return threads, concurrency


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
