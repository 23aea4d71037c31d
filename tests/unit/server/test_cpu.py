from pathlib import Path

import pytest

from model_server.cpu import available_cpus, default_threads, share


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("contents", "cpus"),
    [
        pytest.param({}, 8.0, id="no cgroups at all"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
            1.5,
            id="v2 quota in a container",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
            8.0,
            id="v2 without a quota",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/kubepods/pod1/c1\n",
                "sys/fs/cgroup/kubepods/pod1/c1/cpu.max": "max 100000\n",
                "sys/fs/cgroup/kubepods/pod1/cpu.max": "50000 100000\n",
            },
            0.5,
            id="v2 quota of the pod above the container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1 quota",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8.0,
            id="v1 without a quota",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpu:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
            id="v1 where the container sees itself at the mount's root",
        ),
    ],
)
def test_the_least_of_quota_and_affinity_counts(
    tmp_path: Path, contents: dict[str, str], cpus: float
) -> None:
    root = files(tmp_path, contents)

    assert available_cpus(root, affinity=8) == cpus


def test_a_quota_above_the_affinity_mask_changes_nothing(tmp_path: Path) -> None:
    root = files(
        tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"}
    )

    assert available_cpus(root, affinity=2) == 2.0


def test_this_machine_has_cpus() -> None:
    assert available_cpus() > 0


@pytest.mark.parametrize(("cpus", "threads"), [(0.25, 1), (1.0, 1), (1.9, 1), (2.0, 2), (7.5, 7)])
def test_threads_fit_into_the_limit(cpus: float, threads: int) -> None:
    assert default_threads(cpus) == threads


@pytest.mark.parametrize(
    ("cpus", "threads", "concurrency", "shares"),
    [
        pytest.param(4, None, None, (1, 4), id="many small runs"),
        pytest.param(4, None, 1, (4, 1), id="one large run"),
        pytest.param(5, None, 2, (2, 2), id="two runs"),
        pytest.param(4, 2, None, (2, 2), id="runs of two threads"),
        pytest.param(4, 3, None, (3, 1), id="no half runs"),
        pytest.param(2, 8, None, (8, 1), id="more threads than CPUs"),
        pytest.param(2, None, 8, (1, 8), id="more runs than CPUs"),
        pytest.param(1, None, None, (1, 1), id="one CPU"),
        pytest.param(2, 4, 4, (4, 4), id="the user has the last word"),
    ],
)
def test_threads_and_runs_share_the_cpus(
    cpus: int, threads: int | None, concurrency: int | None, shares: tuple[int, int]
) -> None:
    assert share(cpus, threads=threads, concurrency=concurrency) == shares
