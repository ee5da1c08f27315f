from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flet_fastapi.client import FletStaticFiles, startup
from flet_fastapi.client.build import START_QUALITY, ClientNotFound
from flet_fastapi.client.startup import Client


async def test_prepared_build_is_found(prepared: Path) -> None:
    build = await Client((prepared,)).get()
    assert build.quality == 1


async def test_unprepared_client_is_served_plain_and_compressed_behind(tmp_path: Path) -> None:
    client = Client((tmp_path,))
    first = await client.get()
    _wait_for_compression()
    second = await client.get()
    assert (first.quality, second.quality) == (0, START_QUALITY)
    assert first.name == second.name


def _wait_for_compression() -> None:
    for thread in threading.enumerate():
        if thread.name == "web client":
            thread.join()


async def test_client_stays_plain_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client = Client((tmp_path / "file",))
    await client.get()
    _wait_for_compression()
    assert (await client.get()).quality == 0


async def test_missing_package_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(startup, "web_folder", _no_package)
    messages, sent = iter(["lifespan.startup", "lifespan.shutdown"]), []

    async def receive() -> Any:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await FletStaticFiles()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.failed", "lifespan.shutdown.complete"]


def _no_package() -> Path:
    raise ClientNotFound("the web client is missing")
