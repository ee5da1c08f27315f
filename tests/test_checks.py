from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from flet_fastapi.checks import Checks, look
from flet_fastapi.cluster import ClusterUnavailable
from flet_fastapi.health import Part
from flet_fastapi.manager import AppManager
from flet_fastapi.options import Options
from flet_fastapi.uploads import FletUpload
from tests.support.serving import make_manager


async def started(path: Path | None = None) -> AppManager:
    manager = make_manager()
    await manager.start()
    if path is not None:
        await FletUpload.from_options(Options.load(upload_dir=path), manager).prepare()
    return manager


async def test_all_is_well_with_a_store_and_an_upload_directory(tmp_path: Path) -> None:
    manager = await started(tmp_path / "uploads")
    assert [part for part in await look(manager) if not part.ok] == []
    assert os.listdir(tmp_path / "uploads") == []
    await manager.shutdown()


async def test_a_manager_that_does_not_run_needs_nothing() -> None:
    assert await look(make_manager()) == []


async def test_a_store_that_fails_is_told_and_its_secret_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = await started()
    cluster = await manager.open_cluster()

    async def put(*_: object) -> None:
        raise ClusterUnavailable("redis://:hunter2@host", "connection refused")

    monkeypatch.setattr(cluster, "put", put)
    assert (await look(manager))[0] == Part("store", False, "connection refused")
    await manager.shutdown()


async def test_whatever_else_goes_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = await started()

    async def put(*_: object) -> None:
        raise RuntimeError("with a secret in it")

    monkeypatch.setattr(await manager.open_cluster(), "put", put)
    assert (await look(manager))[0] == Part("store", False, "RuntimeError")
    await manager.shutdown()


async def test_a_directory_that_became_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "uploads"
    manager = await started(path)
    path.rmdir()
    path.write_text("")
    assert (await look(manager))[1] == Part("uploads", False, "The server cannot store files now.")
    await manager.shutdown()


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_UPLOAD_MIN_FREE", str(1 << 60))
    manager = await started(tmp_path / "uploads")
    assert (await look(manager))[1] == Part("uploads", False, "The server has no room for this file.")
    await manager.shutdown()


async def test_what_hangs_is_asked_once_and_does_not_hold_up_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = await started()
    monkeypatch.setattr("flet_fastapi.checks._PATIENCE_SECONDS", 0.02)
    asked = []

    async def hang(*_: Any) -> None:
        asked.append(1)
        await asyncio.sleep(3600)

    monkeypatch.setattr(await manager.open_cluster(), "put", hang)
    for _ in range(3):
        assert (await look(manager))[0] == Part("store", False, "does not answer")
    assert len(asked) == 1
    await manager.shutdown()


async def test_who_asks_all_the_time_does_not_load_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = await started()
    asked = []

    async def put(*_: Any) -> None:
        asked.append(1)

    monkeypatch.setattr(await manager.open_cluster(), "put", put)
    await asyncio.gather(*(look(manager) for _ in range(50)))
    await look(manager)
    assert len(asked) == 1
    assert manager.part(Checks) is manager.part(Checks)
    await manager.shutdown()
