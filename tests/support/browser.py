"""A real Chromium, and one page of it that shows a Flet app.

Flutter paints on a canvas; its accessibility tree is made of elements, so tests find what is on the screen there and
then use mouse and keyboard as people do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Playwright,
    ViewportSize,
    WebSocket,
    expect,
)

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# The last one gives a name that is not localhost: the client retries there ever more slowly.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP app.test 127.0.0.1",
]  # fmt: skip
VIEW: ViewportSize = {"width": 1000, "height": 800}
# Bounds, not pauses: what is waited for is taken up as soon as it is there, but a busy machine may need long.
SHOWN_MS = 60_000
_SECONDS = 30
_TREE = "flt-semantics-placeholder"
# The tree is for reading only: what the mouse does goes to the canvas, as for people without a screen reader.
_READ_ONLY = "flt-semantics-host, flt-semantics-host * { pointer-events: none !important }"
_TWO_FRAMES = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
_FOCUS = """() => {
  const field = document.querySelector("input:focus, textarea:focus")?.getBoundingClientRect();
  return field && [field.left, field.top, field.right, field.bottom];
}"""
# Between the presses of a double tap Flutter wants 40 ms at least, and from the first release to the second press at
# most 300 ms.
_DOUBLE_TAP_MS = 60


def chromium_path() -> str:
    """Where Chromium is; without one the test fails."""
    if not Path(CHROMIUM).exists():
        pytest.fail(f"there is no {CHROMIUM}: `make test` installs it, or CHROMIUM names another one", pytrace=False)
    return CHROMIUM


async def launch(playwright: Playwright) -> Browser:
    return await playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS, timeout=SHOWN_MS)


class Screen:
    """One tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.urls: list[str] = []
        self.registered = 0
        page.context.set_default_timeout(SHOWN_MS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("websocket", self._websocket)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _websocket(self, websocket: WebSocket) -> None:
        self.urls.append(websocket.url)
        websocket.on("framereceived", self._frame)

    def _frame(self, frame: str | bytes) -> None:
        self.registered += "registerWebClient" in str(frame[:100])

    @property
    def hosts(self) -> set[str]:
        """Whom the tab has asked for anything."""
        return {urlsplit(url).netloc for url in self.urls if not url.startswith(("data:", "blob:"))}

    async def open(self, url: str) -> None:
        """Load the app and wait for its accessibility tree."""
        await self.page.goto(url)
        await self.look()

    async def reload(self) -> None:
        await self.page.reload()
        await self.look()

    async def look(self) -> None:
        """Turn the accessibility tree on."""
        await self.page.add_style_tag(content=_READ_ONLY)
        await self.page.locator(_TREE).wait_for(state="attached", timeout=SHOWN_MS)
        await self.page.locator(_TREE).dispatch_event("click")
        await self.page.locator("flt-semantics").first.wait_for(state="attached", timeout=SHOWN_MS)

    @asynccontextmanager
    async def coming_back(self) -> AsyncIterator[None]:
        """For what takes the connection away: afterwards the client is with its server again."""
        before = self.registered

        async def is_back() -> bool:
            return self.registered > before

        yield
        await until(is_back)

    def find(self, name: str) -> Locator:
        """What is labelled or reads `name`."""
        tree = self.page.locator("flt-semantics-host")
        return tree.locator(f'[aria-label="{name}"]').or_(tree.get_by_text(name, exact=True))

    def role(self, role: Any, name: str | None = None) -> Locator:
        return self.page.get_by_role(role) if name is None else self.page.get_by_role(role, name=name, exact=True)

    async def shows(self, name: str) -> None:
        """Wait until `name` is on the screen."""
        await expect(self.find(name).first).to_be_attached(timeout=SHOWN_MS)

    async def hides(self, name: str) -> None:
        """Wait until `name` is gone."""
        await expect(self.find(name)).to_have_count(0, timeout=SHOWN_MS)

    async def place(self, target: str | Locator, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """The point at these fractions of a thing's width and height, once it stands still."""
        thing = self.find(target).first if isinstance(target, str) else target
        await thing.wait_for(state="attached", timeout=SHOWN_MS)
        box, before = await thing.bounding_box(), None
        while box != before:
            await asyncio.sleep(0.05)
            await self.page.evaluate(_TWO_FRAMES)
            box, before = await thing.bounding_box(), box
        assert box is not None, f"{target} is not on the screen"
        return box["x"] + box["width"] * x, box["y"] + box["height"] * y

    async def settles(self) -> None:
        """Wait until nothing moves."""
        picture, before = await self.page.screenshot(), b""
        while picture != before:
            await asyncio.sleep(0.1)
            await self.page.evaluate(_TWO_FRAMES)
            picture, before = await self.page.screenshot(), picture

    async def click(self, target: str | Locator, x: float = 0.5, y: float = 0.5, **how: Any) -> None:
        await self.page.mouse.click(*await self.place(target, x, y), **how)

    async def double_tap(self, target: str | Locator) -> None:
        await self.click(target, click_count=2, delay=_DOUBLE_TAP_MS)

    async def hover(self, target: str | Locator, x: float = 0.5, y: float = 0.5) -> None:
        """Move the mouse to a thing; it moves even if it is there already."""
        to_x, to_y = await self.place(target, x, y)
        await self.page.mouse.move(to_x + 2, to_y + 2)
        await self.page.mouse.move(to_x, to_y)

    async def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        mouse = self.page.mouse
        await mouse.move(*start)
        await mouse.down()
        await mouse.move(*end, steps=steps)
        await mouse.up()

    async def type(self, target: str | Locator, text: str) -> None:
        """Click into a field and type when it is the one that listens."""
        x, y = await self.place(target)

        async def listens() -> bool:
            field = await self.page.evaluate(_FOCUS)
            return field is not None and field[0] <= x <= field[2] and field[1] <= y <= field[3]

        await self.page.mouse.click(x, y)
        await until(listens)
        await self.page.keyboard.type(text)

    async def credential(self) -> str | None:
        """What the client keeps to come back to its session."""
        kept: str | None = await self.page.evaluate("sessionStorage.getItem('_flet_session_id')")
        return kept


async def new_screen(context: BrowserContext) -> Screen:
    return Screen(await context.new_page())


@asynccontextmanager
async def screen_of(browser: Browser) -> AsyncIterator[Screen]:
    """A tab in a browser profile of its own."""
    context = await browser.new_context(viewport=VIEW)
    try:
        yield await new_screen(context)
    finally:
        await context.close()


async def until(check: Any, seconds: float = _SECONDS) -> None:
    """Ask until `check` holds.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, f"{check} did not hold within {seconds} s"
        await asyncio.sleep(0.03)
