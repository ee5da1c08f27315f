"""What the callback's pages do in a real browser."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from playwright.async_api import Browser, Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from flet_fastapi.notices import apps_page, notice

_APP = "<button onclick=\"open('/provider' + location.search, 'flet_oauth_signin', 'width=600')\">Sign in</button>"
_LOOK = """<p id="seen"></p><script>
try { localStorage.length; seen.textContent = "readable" } catch (error) { seen.textContent = error.name }
</script><a href="/">back</a>"""
_PAGES = {
    "notice": lambda: notice(200, "Done", "Done.", close=True),
    "app": lambda: apps_page("<p>Done</p><script type='text/javascript'>window.close();</script>"),
    "look": lambda: apps_page(_LOOK),
    "words": lambda: notice(200, "Failed", "Failed.", quote="<img src=x onerror=document.title='broken'>"),
}


async def _page(request: Request) -> Response:
    return _PAGES[request.query_params["page"]]()


async def _provider(request: Request) -> Response:
    """Another site between the app and the callback, as in a sign-in."""
    if request.url.hostname == "localhost":
        return RedirectResponse(f"http://127.0.0.1:{request.url.port}/callback?{request.url.query}")
    return RedirectResponse(f"http://localhost:{request.url.port}/provider?{request.url.query}")


async def _app(_: Request) -> Response:
    return HTMLResponse(_APP)


@pytest.fixture
async def site() -> AsyncIterator[str]:
    app = Starlette(routes=[Route("/", _app), Route("/provider", _provider), Route("/callback", _page)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        await browser.close()


async def open_popup(browser: Browser, site: str, page: str) -> Page:
    app = await browser.new_page()
    await app.goto(f"{site}/?page={page}")
    async with app.expect_popup() as popup:
        await app.click("button")
    return await popup.value


@pytest.mark.parametrize("page", ["notice", "app"])
async def test_popup_closes_itself(browser: Browser, site: str, page: str) -> None:
    popup = await open_popup(browser, site, page)
    if not popup.is_closed():
        await popup.wait_for_event("close")
    assert popup.is_closed()


async def test_apps_page_cannot_reach_what_the_browser_keeps_for_the_app(browser: Browser, site: str) -> None:
    popup = await open_popup(browser, site, "look")
    await popup.wait_for_selector("text=SecurityError")
    await popup.click("a")
    await popup.wait_for_selector("text=Sign in")


async def test_somebody_elses_words_stay_words(browser: Browser, site: str) -> None:
    popup = await open_popup(browser, site, "words")
    await popup.wait_for_selector("text=<img src=x")
    assert await popup.title() == "Failed"
