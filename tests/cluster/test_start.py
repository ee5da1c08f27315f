"""A worker that starts with a Redis: what stops it, what only degrades it, and what it writes again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.app import assemble
from flet_fastapi.cluster import ClusterUnavailable, WorkerInfo
from flet_fastapi.errors import OptionError
from flet_fastapi.health import Part
from flet_fastapi.manager import AppManager
from flet_fastapi.oauth import SignIns
from flet_fastapi.options import Options
from flet_fastapi.uploads.refusal import UploadRefused
from flet_fastapi.uploads.urls import Grant
from flet_fastapi.uploads.worker import Uploads
from tests.conftest import Logs
from tests.support.redis_server import RedisServer, free_port, redis_server
from tests.support.serving import KEY

ONE = WorkerInfo("a" * 22, "tcp://10.0.0.1:7000", "one", 0, 1.0)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    monkeypatch.setenv("FLET_SECRET_KEY", KEY)
    with redis_server(tmp_path / "redis") as server:
        monkeypatch.setenv("FLET_CLUSTER_URL", server.url)
        yield server


@pytest.fixture
async def manager(server: RedisServer) -> Any:
    manager = AppManager(CollectorRegistry())
    yield manager
    await manager.shutdown()


def parts(manager: AppManager) -> dict[str, Part]:
    return {part.name: part for part in manager.health()}


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def refused(manager: AppManager) -> OptionError:
    with pytest.raises(OptionError) as error:
        await manager.start()
    assert len(asyncio.all_tasks()) == 1
    return error.value


async def test_wrong_password_stops_the_start(
    server: RedisServer, manager: AppManager, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    server.ask("CONFIG", "SET", "requirepass", "right")
    monkeypatch.setenv("FLET_CLUSTER_URL", f"redis://:wrongone@127.0.0.1:{server.port}")
    error = await refused(manager)
    assert error.name == "FLET_CLUSTER_URL"
    assert "wrongone" not in f"{error} {logs.text}"


async def test_missing_password_stops_the_start(server: RedisServer, manager: AppManager) -> None:
    server.ask("CONFIG", "SET", "requirepass", "right")
    assert (await refused(manager)).name == "FLET_CLUSTER_URL"


async def test_redis_that_is_away_does_not_stop_the_start(
    manager: AppManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLET_CLUSTER_URL", f"redis://127.0.0.1:{free_port()}")
    await manager.start()
    assert not parts(manager)["store"].ok
    assert "redis://127.0.0.1" in (parts(manager)["store"].reason or "")


async def test_health_tells_when_redis_goes_and_comes(server: RedisServer, manager: AppManager) -> None:
    await manager.start()
    assert {"store", "uploads"} <= parts(manager).keys()
    assert all(part.ok for part in parts(manager).values())
    server.kill()
    cluster = await manager.open_cluster()
    with pytest.raises(ClusterUnavailable):
        await cluster.get("k")
    assert not parts(manager)["store"].ok
    server.start()
    await eventually(lambda: parts(manager)["store"].ok)


async def test_app_without_a_key_does_not_start(
    server: RedisServer, manager: AppManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLET_SECRET_KEY")
    app = assemble(lambda page: None, Options.load(), None, manager)
    error = await refused(manager)
    assert app
    assert error.name == "FLET_SECRET_KEY"
    assert "roost secret" in error.problem


async def begin(manager: AppManager, state: str, timeout: float = 600) -> None:
    """Begin a sign-in, and wait until the other workers know."""
    sign_ins = manager.part(SignIns)
    sign_ins.begin(state=state, session_key=f"session of {state}", browser="b", timeout_seconds=timeout)
    await asyncio.sleep(0)
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "save_sign_in"))


async def test_sign_ins_under_way_are_written_again(server: RedisServer, manager: AppManager) -> None:
    await manager.start()
    cluster = await manager.open_cluster()
    await cluster.announce(ONE, 60)
    await begin(manager, "state-one")
    await begin(manager, "state-two")
    sign_ins = manager.part(SignIns)
    await sign_ins.use("state-two", await sign_ins.find("state-two"))
    before = {key for key in server.names() if key.startswith("flet:key:oauth")}
    values = {server.ask("GET", key) for key in before}
    server.kill()
    server.start()
    await cluster_back(manager)
    await cluster.announce(ONE, 60)
    await eventually(lambda: {key for key in server.names() if key.startswith("flet:key:oauth")} == before)
    assert {server.ask("GET", key) for key in before} == values
    assert "done" in values


async def cluster_back(manager: AppManager) -> None:
    cluster = await manager.open_cluster()
    async with asyncio.timeout(20):
        while True:
            try:
                return await cluster.check()
            except ClusterUnavailable:
                await asyncio.sleep(0.02)


async def test_sign_in_that_was_not_shared_is_shared_later(server: RedisServer, manager: AppManager) -> None:
    await manager.start()
    server.kill()
    await begin(manager, "state-one")
    server.start()
    await eventually(lambda: any(key.startswith("flet:key:oauth") for key in server.names()))
    sign_ins = manager.part(SignIns)
    await sign_ins.use("state-one", await sign_ins.find("state-one"))
    (key,) = [key for key in server.names() if key.startswith("flet:key:oauth")]
    assert server.ask("GET", key) == "done"


async def test_sign_in_used_while_redis_is_away_cannot_be_used_again(server: RedisServer, manager: AppManager) -> None:
    other = AppManager(CollectorRegistry())
    await manager.start()
    await other.start()
    await begin(manager, "state-one")
    server.freeze()
    sign_ins = manager.part(SignIns)
    await sign_ins.use("state-one", await sign_ins.find("state-one"))
    server.thaw()
    (key,) = [key for key in server.names() if key.startswith("flet:key:oauth")]
    await eventually(lambda: server.ask("GET", key) == "done")
    await other.shutdown()


def grant(nonce: str) -> Grant:
    return Grant("/upload", "f.bin", "session", time.time() + 600, None, nonce)


async def test_used_upload_urls_stay_used(server: RedisServer, manager: AppManager) -> None:
    await manager.start()
    cluster = await manager.open_cluster()
    await cluster.announce(ONE, 60)
    uploads = manager.part(Uploads)
    async with uploads.claimed(grant("n1"), 3) as claim:
        await claim.finish()
    server.ask("FLUSHALL")
    await cluster.announce(ONE, 60)
    await eventually(lambda: server.ask("GET", "flet:key:upload:n1") == "used")
    with pytest.raises(UploadRefused, match="used"):
        async with uploads.claimed(grant("n1"), 3):
            pytest.fail("it was used")


async def test_upload_under_way_bears_an_emptied_redis(server: RedisServer, manager: AppManager) -> None:
    await manager.start()
    uploads = manager.part(Uploads)
    async with uploads.claimed(grant("n1"), 3) as claim:
        server.ask("FLUSHALL")
        await claim.renew()
        with pytest.raises(UploadRefused, match="progress"):
            async with uploads.claimed(grant("n1"), 3):
                pytest.fail("it is in progress")
        await claim.finish()
    assert server.ask("GET", "flet:key:upload:n1") == "used"


async def test_upload_that_ends_while_redis_is_away_counts(server: RedisServer, manager: AppManager) -> None:
    """Its lease holds; that its URL was used is told as soon as Redis is back."""
    await manager.start()
    uploads = manager.part(Uploads)
    async with uploads.claimed(grant("n1"), 3) as claim:
        server.freeze()
        await claim.renew()
        await claim.finish()
    server.thaw()
    await eventually(lambda: server.ask("GET", "flet:key:upload:n1") == "used")


async def test_upload_whose_lease_is_over_cannot_end_while_redis_is_away(
    server: RedisServer, manager: AppManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLET_UPLOAD_LEASE", "1")
    await manager.start()
    async with manager.part(Uploads).claimed(grant("n1"), 3) as claim:
        server.kill()
        await asyncio.sleep(1.1)
        with pytest.raises(ClusterUnavailable):
            await claim.renew()
