"""Hosts that do not share their upload directory hear of it; all others hear nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.app import assemble
from flet_fastapi.cluster import Cluster, WorkerInfo
from flet_fastapi.cluster.embedded import EmbeddedCluster
from flet_fastapi.identity import Keyring
from flet_fastapi.manager import AppManager
from flet_fastapi.options import Options
from flet_fastapi.uploads.names import MARK, parts_of
from flet_fastapi.uploads.refusal import UploadRefused
from flet_fastapi.uploads.sameness import Sameness, directory_id, name_of
from tests.conftest import Logs
from tests.support.disk import read_only_disk, small_disk
from tests.support.redis_server import redis_server
from tests.support.serving import KEY

__all__ = ["read_only_disk", "small_disk"]  # fixtures

# --- the mark --------------------------------------------------------------------------------------------------------


def test_directory_keeps_its_id(tmp_path: Path) -> None:
    first, second = directory_id(tmp_path), directory_id(tmp_path)
    assert first == second is not None
    assert os.listdir(tmp_path) == [MARK]


def test_directories_have_ids_of_their_own(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert directory_id(tmp_path / "a") != directory_id(tmp_path / "b")


def test_hosts_that_mark_a_directory_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(directory_id, [tmp_path] * 64))) == 1
    assert os.listdir(tmp_path) == [MARK]


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"x" * 500])
def test_mark_that_is_none_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARK).write_bytes(content)
    assert directory_id(tmp_path) == directory_id(tmp_path) is not None


def test_file_system_without_links_can_be_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert directory_id(tmp_path) == directory_id(tmp_path) is not None


def test_link_in_place_of_the_mark_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a" * 22)
    (tmp_path / MARK).symlink_to(tmp_path / "secret")
    assert directory_id(tmp_path) != "a" * 22


def test_read_only_directory_has_the_id_that_it_had(read_only_disk: Path) -> None:
    assert directory_id(read_only_disk) is None


def test_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert directory_id(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", [MARK, f"a/{MARK}", f"{MARK}-x"])
def test_no_upload_may_take_the_place_of_a_mark(name: str) -> None:
    with pytest.raises(UploadRefused):
        parts_of(name)


def test_name_tells_apps_and_paths_apart() -> None:
    names = {name_of(Path(path), Keyring([key])) for path in ("/a", "/b") for key in (KEY, "other" * 8)}
    assert len(names) == 4
    assert name_of(Path("/a"), Keyring(["new" * 8, KEY])) != name_of(Path("/a"), Keyring([KEY]))


# --- what hosts say --------------------------------------------------------------------------------------------------


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = EmbeddedCluster(tmp_path / "keys.sqlite3")
    yield cluster
    await cluster.close()


Host = Callable[..., Any]


@pytest.fixture
async def host(cluster: Cluster) -> Host:
    """Makes a worker that lives: `host("a")` is on a node of its own, which `node` may change."""

    async def make(worker: str, node: str | None = None, *, lives: bool = True) -> Sameness:
        if lives:
            await cluster.announce(WorkerInfo(worker, f"unix:/{worker}", node or worker, None, 0.0), 60)
        return Sameness(cluster, "uploads", worker, node or worker)

    return make


async def test_the_same_directory_is_no_news(host: Host) -> None:
    one, two, three = await host("1"), await host("2"), await host("3")
    for _ in range(2):
        assert [await each.other("shared") for each in (one, two, three)] == [None, None, None]


async def test_another_directory_is_told_to_both_sides(host: Host) -> None:
    one, two = await host("1"), await host("2")
    assert await one.other("a") is None
    found = await two.other("b")
    assert found is not None and (found.node, found.directory) == ("1", "a")
    found = await one.other("a")
    assert found is not None and (found.node, found.directory) == ("2", "b")


async def test_directory_that_became_the_same_is_well(host: Host) -> None:
    one, two = await host("1"), await host("2")
    await one.other("a")
    assert await two.other("b") is not None
    assert await two.other("a") is None
    # what two said of another one is over with the next that it says
    await two.other("a")
    assert await one.other("a") is None


async def test_word_of_a_worker_that_is_gone_does_not_count(host: Host, cluster: Cluster) -> None:
    gone, here = await host("1"), await host("2")
    await gone.other("old volume")
    await cluster.withdraw("1")
    assert await here.other("new volume") is None
    assert await here.other("new volume") is None


async def test_directory_that_was_exchanged_under_one_host_is_no_news(host: Host) -> None:
    one, two = await host("1", "node"), await host("2", "node")
    await one.other("old volume")
    assert await two.other("new volume") is None
    assert await one.other("new volume") is None


# --- at the start ----------------------------------------------------------------------------------------------------


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FLET_SECRET_KEY", KEY)
    monkeypatch.setattr("flet_fastapi.uploads.worker._FIRST_LOOKS", (0.1,) * 100)
    with redis_server(tmp_path / "redis") as server:
        monkeypatch.setenv("FLET_CLUSTER_URL", server.url)
        yield


Start = Callable[[Path, str], Awaitable[AppManager]]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts a worker with this upload directory on a host of this name."""
    managers = []

    async def start(path: Path, node: str) -> AppManager:
        monkeypatch.setenv("FLET_NODE", node)
        manager = AppManager(CollectorRegistry())
        managers.append(manager)
        # an app that nobody keeps is not prepared
        manager.__dict__["app"] = assemble(lambda page: None, Options.load(upload_dir=path), None, manager)
        await manager.start()
        return manager

    yield start
    for manager in managers:
        await manager.shutdown()


def uploads(manager: AppManager) -> str | None:
    (part,) = [part for part in manager.health() if part.name == "uploads"]
    return part.reason or None


@pytest.mark.usefixtures("redis")
async def test_start_says_that_the_directory_is_not_shared(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    # what is one path on two hosts has to be two paths here
    monkeypatch.setattr("flet_fastapi.uploads.worker.name_of", lambda path, keyring: "uploads")
    one, two = [await start(tmp_path / node, node) for node in ("one", "two")]
    await settled(lambda: uploads(one) is not None and uploads(two) is not None)
    assert uploads(one) == f"{tmp_path}/one is not the same directory on one and on two"
    assert len(logs.named("upload_dir_not_shared")) == 2
    await one.shutdown()
    await settled(lambda: uploads(two) is None)
    assert len(logs.named("upload_dir_recovered")) == 1


@pytest.mark.usefixtures("redis")
async def test_shared_directory_is_no_news(start: Start, tmp_path: Path, logs: Logs) -> None:
    managers = [await start(tmp_path / "up", node) for node in ("one", "two", "three")]
    await asyncio.sleep(0.8)
    assert [uploads(manager) for manager in managers] == [None] * 3
    assert not logs.named("upload_dir_not_shared")


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_host_marks_nothing(start: Start, tmp_path: Path) -> None:
    manager = await start(tmp_path / "up", "one")
    await asyncio.sleep(0.1)
    assert uploads(manager) is None
    assert os.listdir(tmp_path / "up") == []


async def test_full_disk_is_told(start: Start, small_disk: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs) -> None:
    monkeypatch.setattr("flet_fastapi.uploads.worker._FIRST_LOOKS", (0.05,) * 1000)
    manager = await start(small_disk, "one")
    await asyncio.sleep(0.1)
    assert uploads(manager) is None
    (small_disk / "big").write_bytes(b"x" * 1024 * 1024)
    await settled(lambda: "full" in (uploads(manager) or ""))
    (small_disk / "big").unlink()
    await settled(lambda: uploads(manager) is None)
    assert len(logs.named("upload_dir_unusable")) == len(logs.named("upload_dir_recovered")) == 1
