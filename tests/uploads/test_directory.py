from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flet_fastapi.uploaded import folders
from flet_fastapi.uploads.directory import LocalDirectory
from flet_fastapi.uploads.names import parts_of
from flet_fastapi.uploads.refusal import UploadRefused
from tests.support.disk import read_only_disk, small_disk

__all__ = ["read_only_disk", "small_disk"]  # fixtures


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def directory(tmp_path: Path, threads: ThreadPoolExecutor) -> LocalDirectory:
    (tmp_path / "up").mkdir()
    return LocalDirectory(tmp_path / "up", threads)


async def store(directory: LocalDirectory, name: str, content: bytes) -> bool:
    incoming = await directory.open(tuple(name.split("/")), len(content))
    try:
        await incoming.write(content)
        await incoming.flush()
        return await incoming.commit()
    finally:
        await incoming.discard()


def everything(directory: LocalDirectory) -> set[str]:
    return {str(path.relative_to(directory.path)) for path in directory.path.rglob("*")}


async def error_of(directory: LocalDirectory, name: str) -> str:
    with pytest.raises(UploadRefused) as refused:
        await store(directory, name, b"x")
    return refused.value.error


async def test_file_appears_when_it_is_whole(directory: LocalDirectory) -> None:
    (directory.path / "f").write_bytes(b"old")
    incoming = await directory.open(("f",), 3)
    await incoming.write(b"new")
    assert (directory.path / "f").read_bytes() == b"old"
    assert await incoming.commit() is False
    assert (directory.path / "f").read_bytes() == b"new"


async def test_file_is_on_the_disk_before_it_takes_its_name(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []

    def fsync(file: int, real: Callable[[int], None] = os.fsync) -> None:
        about = os.fstat(file)
        steps.append(("folder" if stat.S_ISDIR(about.st_mode) else "file", 0 if steps else about.st_size))
        real(file)

    def rename(*names: str, real: Callable[..., None] = os.rename, **folders: int) -> None:
        steps.append(("rename", 0))
        real(*names, **folders)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    await store(directory, "f", b"four")
    assert steps == [("file", 4), ("rename", 0), ("folder", 0)]


async def test_discarded_file_leaves_no_folder(directory: LocalDirectory) -> None:
    incoming = await directory.open(("a", "b", "f"), 3)
    assert len(everything(directory)) == 3
    await incoming.discard()
    assert everything(directory) == set()


async def test_folder_that_others_use_stays(directory: LocalDirectory) -> None:
    incoming = await directory.open(("a", "f"), 3)
    await store(directory, "a/g", b"x")
    await incoming.discard()
    assert everything(directory) == {"a", "a/g"}


async def test_uploads_that_make_and_remove_the_same_folders_do_not_disturb_each_other(
    directory: LocalDirectory,
) -> None:
    async def give_up(i: int) -> None:
        await (await directory.open(("a", "b", f"x{i}"), 1)).discard()

    async def succeed(i: int) -> None:
        assert await store(directory, f"a/b/{i}", b"x")

    await asyncio.gather(*(work(i) for i in range(200) for work in (give_up, succeed)))
    assert everything(directory) == {"a", "a/b"} | {f"a/b/{i}" for i in range(200)}


@pytest.mark.parametrize("name", ["link/f", "deep/link/f", "loop/f"])
async def test_links_lead_nowhere(directory: LocalDirectory, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (directory.path / "deep").mkdir()
    (directory.path / "link").symlink_to(tmp_path / "elsewhere")
    (directory.path / "deep/link").symlink_to("../../elsewhere")
    (directory.path / "loop").symlink_to("loop")
    assert await error_of(directory, name) == "bad_name"
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_link_that_appears_during_the_upload_leads_nowhere(directory: LocalDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    incoming = await directory.open(("a", "f"), 1)
    (directory.path / "a").rename(directory.path / "moved")
    (directory.path / "a").symlink_to(tmp_path / "elsewhere")
    await incoming.write(b"x")
    await incoming.commit()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (directory.path / "moved/f").read_bytes() == b"x"


async def test_link_of_the_files_name_is_replaced_and_not_followed(directory: LocalDirectory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (directory.path / "f").symlink_to(tmp_path / "secret")
    await store(directory, "f", b"new")
    assert ((tmp_path / "secret").read_bytes(), (directory.path / "f").read_bytes()) == (b"secret", b"new")


async def test_name_of_a_folder_is_taken(directory: LocalDirectory) -> None:
    (directory.path / "folder").mkdir()
    (directory.path / "file").touch()
    os.mkfifo(directory.path / "pipe")
    assert {name: await error_of(directory, name) for name in ("folder", "file/f", "pipe")} == dict.fromkeys(
        ("folder", "file/f", "pipe"), "name_is_taken"
    )


async def test_folder_that_appears_during_the_upload_is_not_overwritten(directory: LocalDirectory) -> None:
    incoming = await directory.open(("f",), 1)
    (directory.path / "f").mkdir()
    with pytest.raises(UploadRefused) as refused:
        await incoming.commit()
    assert refused.value.error == "name_is_taken"


async def test_sweep_removes_what_nobody_writes(directory: LocalDirectory) -> None:
    (directory.path / "a/b").mkdir(parents=True)
    (directory.path / "a/b/.flet-upload-9-dead").touch()
    living = await directory.open(("c", "f"), 1)
    assert await directory.sweep() == 1
    assert {path.partition("/")[0] for path in everything(directory)} == {"c"}
    await living.write(b"x")
    assert await living.commit()


async def test_sweep_leaves_the_work_of_other_processes(directory: LocalDirectory) -> None:
    path = directory.path / ".flet-upload-9-other"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert await directory.sweep() == 0
    assert await directory.sweep() == 1


async def test_cleaning_removes_old_files_and_the_folders_they_leave_empty(directory: LocalDirectory) -> None:
    for name in ("old/f", "new"):
        await store(directory, name, b"x")
    os.utime(directory.path / "old/f", (time.time() - 100,) * 2)
    assert await directory.clean(50) == 1
    assert everything(directory) == {"new"}


async def test_cleaning_leaves_what_was_not_uploaded(directory: LocalDirectory) -> None:
    (directory.path / "logo.png").touch()
    os.utime(directory.path / "logo.png", (0, 0))
    assert await directory.clean(50) == 0
    assert everything(directory) == {"logo.png"}


@pytest.mark.parametrize("mixed", [False, True])
async def test_cleaning_where_files_cannot_be_marked(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    def unsupported(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "getxattr", unsupported)
    monkeypatch.setattr(folders, "mixed", lambda _: [("event", directory.path)] if mixed else [])
    (directory.path / "f").touch()
    os.utime(directory.path / "f", (0, 0))
    assert await directory.clean(50) == (0 if mixed else 1)


async def test_cleaning_leaves_a_file_that_took_its_place_meanwhile(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(directory, "f", b"old")
    os.utime(directory.path / "f", (0, 0))
    new = directory.path / "new"
    new.write_bytes(b"new")

    def look(file: int, *, unknown: bool) -> bool:
        new.rename(directory.path / "f")
        return True

    monkeypatch.setattr("flet_fastapi.uploads.directory.is_marked", look)
    assert await directory.clean(50) == 0
    assert (directory.path / "f").read_bytes() == b"new"


async def test_link_to_a_directory_is_a_directory(directory: LocalDirectory, tmp_path: Path) -> None:
    (directory.path / "link").symlink_to(tmp_path)
    with pytest.raises(UploadRefused) as refused:
        await directory.open(("link",), 1)
    assert refused.value.error == "name_is_taken"
    assert (directory.path / "link").is_symlink()


async def test_upload_directory_that_is_none_is_the_servers_fault(directory: LocalDirectory) -> None:
    directory.path.rmdir()
    directory.path.touch()
    with pytest.raises(UploadRefused) as refused:
        await directory.open(("f",), 1)
    assert (refused.value.status_code, refused.value.error) == (507, "storage")


async def test_by_default_a_twentieth_of_a_small_disk_stays_free(small_disk: Path, threads: ThreadPoolExecutor) -> None:
    directory = LocalDirectory(small_disk / "up", threads)
    size = os.statvfs(small_disk).f_blocks * os.statvfs(small_disk).f_frsize
    assert await store(directory, "f", b"x")
    with pytest.raises(UploadRefused) as refused:
        await directory.open(("g",), size - size // 25)
    assert refused.value.error == "no_space"


async def test_full_disk_is_seen_before_the_first_byte(small_disk: Path, threads: ThreadPoolExecutor) -> None:
    directory = LocalDirectory(small_disk / "up", threads)
    with pytest.raises(UploadRefused) as refused:
        await directory.open(("f",), 2 * 1024 * 1024)
    assert (refused.value.status_code, everything(directory)) == (507, set())


async def test_promised_room_is_kept(small_disk: Path, threads: ThreadPoolExecutor) -> None:
    directory = LocalDirectory(small_disk / "up", threads, min_free=100_000)
    incoming = await directory.open(("a", "f"), 600_000)
    with pytest.raises(UploadRefused) as refused:
        await directory.open(("g",), 600_000)
    assert (refused.value.error, os.statvfs(small_disk).f_bavail * 4096 >= 100_000) == ("no_space", True)
    await incoming.write(b"x" * 600_000)
    assert await incoming.commit()
    assert (small_disk / "up/a/f").stat().st_size == 600_000


@pytest.mark.parametrize("bound", [{"quota": 1000}, {"min_free": 600_000}])
async def test_room_that_a_killed_worker_holds_is_found(
    small_disk: Path, threads: ThreadPoolExecutor, bound: dict[str, int]
) -> None:
    swept: list[int] = []
    directory = LocalDirectory(small_disk, threads, removed=swept.append, **bound)
    (small_disk / ".flet-upload-900000-dead").write_bytes(b"x" * 900_000)
    assert await store(directory, "f", b"x")
    assert (swept, everything(directory)) == ([1], {"f"})


async def test_disk_that_fills_up_meanwhile_leaves_nothing(
    small_disk: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a file system that cannot reserve room
    monkeypatch.setattr("flet_fastapi.uploads.directory._reserve", lambda *_: None)
    directory = LocalDirectory(small_disk / "up", threads)
    incoming = await directory.open(("a", "f"), 900_000)
    (small_disk / "other").write_bytes(b"x" * 500_000)
    with pytest.raises(UploadRefused) as refused:
        await incoming.write(b"x" * 900_000)
    await incoming.discard()
    assert (refused.value.status_code, refused.value.error, everything(directory)) == (507, "no_space", set())


async def test_read_only_disk_gets_507(read_only_disk: Path, threads: ThreadPoolExecutor) -> None:
    directory = LocalDirectory(read_only_disk, threads)
    with pytest.raises(UploadRefused) as refused:
        await directory.open(("f",), 1)
    assert (refused.value.status_code, refused.value.error) == (507, "storage")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(min_size=1, max_size=60))
async def test_every_name_that_is_taken_can_be_stored(directory: LocalDirectory, name: str) -> None:
    try:
        parts = parts_of(name)
    except UploadRefused:
        return
    await store(directory, "/".join(("kept", *parts)), b"x")
    assert (directory.path / Path("kept", *parts)).read_bytes() == b"x"
    shutil.rmtree(directory.path / "kept")  # a later example may use a part of this name for a folder
