"""What people see: the app through TLS, and the page that waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, async_playwright, expect

from tests.proxy.conftest import PROGRAMS
from tests.support.appliance import appliance
from tests.support.browser import SHOWN_MS, VIEW, launch, new_screen
from tests.support.nginx import nginx_server, wait_for
from tests.support.servers import ROOT, free_port, free_ports, uvicorn_server

pytestmark = pytest.mark.timeout(300)
COUNTER = ROOT / "app/examples/counter/counter.py"


@asynccontextmanager
async def browsing(**settings: object) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        context = await browser.new_context(viewport=VIEW, ignore_https_errors=True, **settings)  # type: ignore[arg-type]
        try:
            yield context
        finally:
            await context.close()
            await browser.close()


async def test_the_waiting_page_gives_way_to_the_app_and_the_app_counts(folder: Path, tmp_path: Path) -> None:
    first_port = free_ports(4)
    settings = {"APP_HOST": "127.0.0.1", "ROOST_INTERNAL_PORT": str(first_port + 1)}
    with nginx_server(folder, **settings) as nginx:
        async with browsing() as context:
            screen = await new_screen(context)
            await screen.page.goto(nginx.url)
            await expect(screen.page.get_by_role("status")).to_contain_text("One moment", timeout=SHOWN_MS)
            await screen.page.screenshot(path=tmp_path / "waiting.png")
            assert {url for url in screen.urls if not url.startswith(nginx.url)} == set()

            with appliance(tmp_path, COUNTER, first_port=first_port):
                await screen.page.locator("flt-semantics-placeholder").wait_for(state="attached", timeout=SHOWN_MS)
                await screen.look()
                await screen.shows("0")
                await screen.click(screen.role("button"))
                await screen.shows("1")
                await screen.page.screenshot(path=tmp_path / "counter.png")
                assert not any(url.startswith("ws:") for url in screen.urls)
                assert [cookie["name"] for cookie in await context.cookies()] == ["__Host-flet_browser"]

                # nginx is reloaded under it: it goes on counting on the same websocket
                registered = screen.registered
                nginx.process.send_signal(1)
                wait_for(lambda: nginx.lines(event="configuration_changed", level="info")[1:], "nginx has reloaded")
                await screen.click(screen.role("button"))
                await screen.shows("2")
                assert screen.registered == registered


async def test_the_page_comes_back_by_itself_without_scripts(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    with nginx_server(folder, APP_SERVERS=f"127.0.0.1:{port}") as nginx:
        async with browsing(java_script_enabled=False) as context:
            page = await context.new_page()
            await page.goto(nginx.url)
            assert "One moment" in await page.inner_text("h1")
            with uvicorn_server("echo:app", PROGRAMS, tmp_path / "log", port=port):
                await expect(page.locator("body")).to_contain_text('"scheme":"https"', timeout=SHOWN_MS)
