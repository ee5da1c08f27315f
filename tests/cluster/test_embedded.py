from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flet_fastapi.cluster import Cluster, ClusterUnavailable
from flet_fastapi.cluster.embedded import EmbeddedCluster
from tests.support.clock import Clock, clock
from tests.support.disk import read_only_disk, small_disk

__all__ = ["clock", "read_only_disk", "small_disk"]  # fixtures


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[EmbeddedCluster]:
    cluster = EmbeddedCluster(tmp_path / "keys.sqlite3")
    yield cluster
    await cluster.close()


async def test_key_holds_what_was_put(cluster: Cluster) -> None:
    await cluster.put("k", b"\0old", 60)
    await cluster.put("k", b"\0new", 60)
    assert (await cluster.get("k"), await cluster.get("other")) == (b"\0new", None)


async def test_key_expires(cluster: Cluster, clock: Clock) -> None:
    await cluster.put("k", b"v", 60)
    clock.now += 61
    assert [await cluster.get("k"), await cluster.take("k"), await cluster.swap("k", b"v", b"w", 60)] == [
        None,
        None,
        False,
    ]


async def test_key_is_taken_once(cluster: Cluster) -> None:
    await cluster.put("k", b"v", 60)
    assert sorted(await asyncio.gather(*(cluster.take("k") for _ in range(5))), key=bool) == [None] * 4 + [b"v"]


async def test_add_leaves_what_is_there_unless_it_has_expired(cluster: Cluster, clock: Clock) -> None:
    first, second = await cluster.add("k", b"1", 60), await cluster.add("k", b"2", 60)
    clock.now += 61
    third = await cluster.add("k", b"3", 60)
    assert ([first, second, third], await cluster.get("k")) == ([True, False, True], b"3")


async def test_swap_needs_the_value_that_is_there(cluster: Cluster) -> None:
    await cluster.put("k", b"1", 60)
    assert [await cluster.swap("k", b"0", b"2", 60), await cluster.swap("k", b"1", b"3", 60)] == [False, True]
    assert await cluster.get("k") == b"3"


async def test_delete_may_name_the_value(cluster: Cluster) -> None:
    await cluster.put("k", b"1", 60)
    assert [await cluster.delete("k", b"0"), await cluster.delete("k", b"1"), await cluster.delete("k")] == [
        False, True, False,
    ]  # fmt: skip


async def test_number_starts_anew_when_it_has_expired(cluster: Cluster, clock: Clock) -> None:
    numbers = [await cluster.increase("n", amount, 60) for amount in (5, 10**12, -7)]
    clock.now += 61
    assert [*numbers, await cluster.increase("n", 1, 60)] == [5, 10**12 + 5, 10**12 - 2, 1]


async def test_expired_keys_leave_the_file(cluster: EmbeddedCluster, clock: Clock) -> None:
    for i in range(10):
        await cluster.put(str(i), b"v", 60)
    clock.now += 61
    await cluster.put("new", b"v", 60)
    with sqlite3.connect(cluster.path) as db:
        assert db.execute("SELECT key FROM keys").fetchall() == [("new",)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(key=st.text(st.characters(exclude_categories=["Cs"])), value=st.binary())
async def test_any_key_and_value_come_back(cluster: Cluster, key: str, value: bytes) -> None:
    await cluster.put(key, value, 60)
    assert await cluster.take(key) == value


async def test_nobody_else_may_read_the_files(cluster: EmbeddedCluster) -> None:
    await cluster.put("k", b"v", 60)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in cluster.path.parent.iterdir()}
    assert modes == dict.fromkeys(("keys.sqlite3", "keys.sqlite3-wal", "keys.sqlite3-shm"), 0o600)


async def test_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite3"
    path.touch(mode=0o666)
    cluster = EmbeddedCluster(path)
    await cluster.put("k", b"v", 60)
    await cluster.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_loop_does_no_file_work(cluster: Cluster) -> None:
    with blockbuster_ctx():
        await cluster.put("k", b"v", 60)
        assert await cluster.take("k") == b"v"


async def test_workers_share_keys(cluster: EmbeddedCluster) -> None:
    other = EmbeddedCluster(cluster.path)
    results = await asyncio.gather(*(worker.add("k", b"v", 60) for worker in (cluster, other) for _ in range(20)))
    await other.close()
    assert results.count(True) == 1


async def test_file_that_a_cleaner_removed_is_made_again(cluster: EmbeddedCluster) -> None:
    await cluster.put("k", b"v", 60)
    for path in cluster.path.parent.iterdir():
        path.unlink()
    other = EmbeddedCluster(cluster.path)
    await other.put("k", b"new", 60)
    assert await cluster.get("k") == b"new"
    await cluster.put("k", b"newer", 60)
    assert await other.get("k") == b"newer"
    await other.close()


# --- what can go wrong -----------------------------------------------------------------------------------------------

WORKER = """
import asyncio, sys
from pathlib import Path
from flet_fastapi.cluster.embedded import EmbeddedCluster

async def main():
    cluster = EmbeddedCluster(Path(sys.argv[1]))
    for i in range(int(sys.argv[2])):
        number = await cluster.increase("n", 1, 600)
        print(number, flush=True)

asyncio.run(main())
"""


def worker(path: Path, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, path, str(times)], stdout=subprocess.PIPE)


async def test_processes_that_start_at_once_lose_no_write(tmp_path: Path, cluster: EmbeddedCluster) -> None:
    workers = [worker(cluster.path, 100) for _ in range(3)]
    seen = [int(line) for process in workers for line in process.communicate()[0].split()]
    assert (sorted(seen), await cluster.get("n")) == (list(range(1, 301)), b"300")


async def test_worker_killed_in_the_middle_leaves_the_keys_whole(cluster: EmbeddedCluster) -> None:
    process = worker(cluster.path, 1_000_000)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    lines += process.communicate()[0].splitlines()
    assert await cluster.increase("n", 0, 60) in (int(lines[-1]), int(lines[-1]) + 1)


async def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(tmp_path / "folder" / "keys.sqlite3")
    (tmp_path / "folder").touch()
    with pytest.raises(ClusterUnavailable) as unavailable:
        await cluster.get("k")
    (tmp_path / "folder").unlink()
    assert unavailable.value.place.endswith("folder/keys.sqlite3")
    assert await cluster.get("k") is None
    await cluster.close()


async def test_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "base" / "folder"
    cluster = EmbeddedCluster(folder / "keys.sqlite3")
    await cluster.put("k", b"1", 60)
    shutil.rmtree(base)
    await cluster.put("k", b"2", 60)
    assert await cluster.get("k") == b"2"
    assert [stat.S_IMODE(made.stat().st_mode) for made in (base, folder)] == [0o700, 0o700]
    await cluster.close()


_NOT_OURS: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to("elsewhere"),
    "folder": Path.mkdir,
    "no_database": lambda path: path.write_bytes(b"x" * 9999),
}


@pytest.mark.parametrize("kind", _NOT_OURS)
async def test_file_that_is_not_ours_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "keys.sqlite3"
    _NOT_OURS[kind](path)
    cluster = EmbeddedCluster(path)
    with pytest.raises(ClusterUnavailable):
        await cluster.put("k", b"v", 60)
    await cluster.close()


async def test_full_disk_is_told_and_gets_over(small_disk: Path) -> None:
    cluster = EmbeddedCluster(small_disk / "keys.sqlite3")
    await cluster.put("k", b"v", 60)
    with pytest.raises(ClusterUnavailable) as unavailable:
        await cluster.put("big", b"x" * 2_000_000, 60)
    assert (unavailable.value.full, await cluster.take("k")) == (True, b"v")
    await cluster.close()


async def test_disk_that_is_full_from_the_start_is_told(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(b"x" * (1024 * 1024 - 4096))
    cluster = EmbeddedCluster(small_disk / "keys.sqlite3")
    with pytest.raises(ClusterUnavailable):
        await cluster.put("k", b"v", 60)
    (small_disk / "other").unlink()
    await cluster.put("k", b"v", 60)
    await cluster.close()


async def test_read_only_disk_is_told(read_only_disk: Path) -> None:
    cluster = EmbeddedCluster(read_only_disk / "keys.sqlite3")
    with pytest.raises(ClusterUnavailable, match=r"[Rr]ead-only"):
        await cluster.put("k", b"v", 60)
    await cluster.close()
