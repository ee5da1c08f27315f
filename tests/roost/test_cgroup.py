"""Readings from trees of files as kernels have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost import cgroup
from roost.cgroup import Memory

# Lines of /proc/self/mountinfo and /proc/self/cgroup.
TWO = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
ONE = (
    "33 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
    "36 31 0:32 {root} /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
)
HYBRID = "38 31 0:38 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw"
MiB = 1024 * 1024
UNLIMITED = "9223372036854771712"


def tree(root: Path, mounts: str, own: str, **files: str) -> Path:
    """A file system; `files` are named by their path below /sys/fs/cgroup, with `__` for slashes."""
    for path, text in {"proc/self/mountinfo": mounts, "proc/self/cgroup": own}.items():
        write(root / path, text)
    for name, text in files.items():
        folder, _, file = name.rpartition("__")
        write(root / "sys/fs/cgroup" / folder.replace("__", "/") / file.replace("_", ".", 1), text)
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("limit", "quota"),
    [("150000 100000", 1.5), ("50000 100000", 0.5), ("max 100000", None), ("junk", None), ("", None)],
)
def test_the_quota_of_version_2_is_read(tmp_path: Path, limit: str, quota: float | None) -> None:
    assert cgroup.cpu_quota(tree(tmp_path, TWO, "0::/", cpu_max=limit)) == quota


def test_the_tightest_quota_of_those_above_counts(tmp_path: Path) -> None:
    files = {"cpu_max": "max 100000", "a__cpu_max": "100000 100000", "a__b__cpu_max": "400000 100000"}
    assert cgroup.cpu_quota(tree(tmp_path, TWO, "0::/a/b", **files)) == 1.0


@pytest.mark.parametrize("root", ["/", "/docker/abc"], ids=["own namespace", "the host's namespace"])
@pytest.mark.parametrize(("limit", "quota"), [("250000", 2.5), ("-1", None)])
def test_the_quota_of_version_1_is_read(tmp_path: Path, root: str, limit: str, quota: float | None) -> None:
    own = f"5:cpu,cpuacct:{root}\n4:memory:{root}\n0::/"
    files = {"cpu,cpuacct__cpu_cfs_quota_us": limit, "cpu,cpuacct__cpu_cfs_period_us": "100000"}
    assert cgroup.cpu_quota(tree(tmp_path, f"{HYBRID}\n{ONE.format(root=root)}", own, **files)) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup.cpu_quota(tmp_path) is cgroup.memory(tmp_path) is None
    assert cgroup.cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("limit", "usable", "cpus"), [(0.5, 8, 1), (1.5, 8, 2), (2.0, 8, 2), (16, 8, 8), (64, 2, 2)])
def test_workers_are_as_many_as_the_quota_pays_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, usable: int, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    assert cgroup.cpus(tree(tmp_path, TWO, "0::/", cpu_max=f"{int(limit * 100_000)} 100000")) == cpus


def test_the_memory_of_version_2_is_without_the_cache_of_files(tmp_path: Path) -> None:
    files = {
        "memory_max": str(512 * MiB), "memory_current": str(300 * MiB),
        "memory_stat": f"anon 1\ninactive_file {100 * MiB}\nactive_file 7",
    }  # fmt: skip
    assert cgroup.memory(tree(tmp_path, TWO, "0::/", **files)) == Memory(200 * MiB, 512 * MiB)


def test_no_limit_of_memory_is_none(tmp_path: Path) -> None:
    assert cgroup.memory(tree(tmp_path, TWO, "0::/", memory_max="max", memory_current="5")) is None
    files = {"memory__memory_limit_in_bytes": UNLIMITED, "memory__memory_usage_in_bytes": "5"}
    assert cgroup.memory(tree(tmp_path, ONE.format(root="/"), "4:memory:/", **files)) is None


def test_the_memory_of_version_1_is_read(tmp_path: Path) -> None:
    files = {
        "memory__a__memory_limit_in_bytes": str(64 * MiB), "memory__a__memory_usage_in_bytes": str(32 * MiB),
        "memory__a__memory_stat": f"inactive_file 1\ntotal_inactive_file {2 * MiB}",
        "memory__memory_limit_in_bytes": UNLIMITED, "memory__memory_usage_in_bytes": "5",
    }  # fmt: skip
    root = tree(tmp_path, ONE.format(root="/"), "4:memory:/a", **files)
    assert cgroup.memory(root) == Memory(30 * MiB, 64 * MiB)


def test_the_hosts_memory_is_what_is_not_available(tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\nHugePages_Total: 0")
    assert cgroup.host_memory(tmp_path) == Memory(600 * 1024, 1000 * 1024)
    assert cgroup.host_memory(tmp_path / "nowhere") is None


def test_this_machine_is_read() -> None:
    assert cgroup.cpus() >= 1
    assert cgroup.host_memory() is not None
