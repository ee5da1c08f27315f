"""Where an app can be served: several in one server, in another application, behind a proxy that strips a prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e import programs
from tests.support.browser import Screen
from tests.support.servers import Server, wire_to

Serve = Callable[..., Server]
PIXEL = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="40" height="40" fill="red"/></svg>'


async def test_two_apps_in_one_server(serve: Serve, screen: Screen) -> None:
    server = serve(programs.TWO_APPS)
    await screen.open(f"{server.url}/sub-app/")
    await screen.shows("This is sub app!")
    await screen.open(server.url)
    await screen.shows("This is root app!")
    await screen.open(f"{server.url}/sub-app/")
    await screen.shows("This is sub app!")
    assert screen.errors == []


async def test_app_in_an_existing_application(serve: Serve, screen: Screen) -> None:
    server = serve(programs.IN_EXISTING_APP)
    await screen.open(f"{server.url}/flet-app/")
    await screen.shows("Hello, Flet!")
    assert screen.errors == []
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{server.url}/api/hello")).json() == {"hello": "api"}
        assert (await client.get(f"{server.url}/api/nothing")).status_code == 404


async def test_app_behind_a_proxy_that_strips_a_prefix(serve: Serve, screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/pixel.svg").write_text(PIXEL)
    async with wire_to(serve(programs.COUNTER_BELOW), prefix="/tools/counter") as wire:
        await screen.open(f"{wire.url}/")
        await screen.shows("at /")
        await screen.click("Go")
        await screen.shows("at /deep/er")
        assert screen.page.url == f"{wire.url}/deep/er"
        await screen.click("Add")
        await screen.shows("1")
        await screen.reload()
        await screen.shows("1")
        await screen.shows("at /deep/er")
        assert screen.errors == []
        assert f"{wire.url}/pixel.svg" in screen.urls


async def test_deep_link_behind_a_prefix(serve: Serve, screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    async with wire_to(serve(programs.COUNTER_BELOW), prefix="/tools/counter") as wire:
        await screen.open(f"{wire.url}/a/b?c=d")
        await screen.shows("at /a/b?c=d")
