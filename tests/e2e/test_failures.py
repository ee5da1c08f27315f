"""What a browser shows when the user's code fails: that it did, an id, and nothing of what went wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.async_api import expect

from tests.e2e import programs
from tests.support.browser import SHOWN_MS, Screen
from tests.support.servers import Server

Serve = Callable[..., Server]
MESSAGE = re.compile(r"Something went wrong\. .* error id ([0-9a-f]{8})")


async def error_id(screen: Screen) -> str:
    """The id in the message on the screen, which says nothing of the exception."""
    message = screen.page.get_by_text(MESSAGE)
    await expect(message).to_have_count(1, timeout=SHOWN_MS)
    shown = MESSAGE.search(await message.inner_text())
    assert shown is not None
    assert "swordfish" not in await screen.page.locator("flt-semantics-host").inner_html()
    return shown[1]


async def test_failing_handler_shows_an_id_and_the_app_goes_on(serve: Serve, screen: Screen) -> None:
    server = serve(programs.FAILING_HANDLER)
    await screen.open(server.url)
    await screen.click("Fail")
    assert await error_id(screen) in server.said()
    await screen.click("Work")
    await screen.shows("It goes on")


async def test_failing_main_shows_an_id(serve: Serve, screen: Screen) -> None:
    server = serve(programs.FAILING_MAIN)
    frames: list[str] = []
    screen.page.on(
        "websocket", lambda websocket: websocket.on("framereceived", lambda frame: frames.append(str(frame)))
    )
    await screen.open(server.url)
    assert await error_id(screen) in server.said()
    assert "swordfish" not in "".join(frames)
    assert "swordfish" in server.said()


async def test_debug_shows_the_exception(serve: Serve, screen: Screen) -> None:
    server = serve(programs.FAILING_MAIN, FLET_DEBUG="true")
    await screen.open(server.url)
    await expect(screen.page.get_by_text("swordfish")).to_have_count(1, timeout=SHOWN_MS)
