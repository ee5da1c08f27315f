from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from flet_fastapi.options import Options
from tests.support.fake_server import FakeServer
from tests.support.upload_door import Door

MakeDoor = Callable[..., Door]


@pytest.fixture
async def make_door(tmp_path: Path) -> AsyncIterator[MakeDoor]:
    """A door per call: `options` are the app's, everything else is limits; all share one run directory."""
    servers = []
    (tmp_path / "run").mkdir()

    def make(options: dict[str, Any] | None = None, **limits: Any) -> Door:
        server = FakeServer(tmp_path / "run", **limits)
        servers.append(server)
        directory = tmp_path / "uploads"
        directory.mkdir(exist_ok=True)
        return Door(server, Options.load(**{"upload_dir": directory, **(options or {})}), directory)

    yield make
    for server in servers:
        await server.close()


@pytest.fixture
async def door(make_door: MakeDoor) -> Door:
    return make_door()
