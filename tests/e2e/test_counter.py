"""The counter in a real Chromium: it counts, and whatever happens to the connection it goes on counting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from tests.support.browser import ARGUMENTS, SHOWN_MS, Screen, chromium_path, new_screen, screen_of
from tests.support.servers import ROOT, WEBSOCKETS, Server, free_port, uvicorn_server, wire_to

COUNTER = ROOT / "app/examples/counter"
HOSTS = ["127.0.0.1", "app.test"]


async def add(screen: Screen, times: int = 1) -> None:
    for _ in range(times):
        await screen.click(screen.role("button"))


async def counts(screen: Screen, start: int = 0) -> None:
    """It shows `start`, and one more after a click."""
    await screen.shows(str(start))
    await add(screen)
    await screen.shows(str(start + 1))


async def test_counter_counts_and_asks_nobody_else(counter: Server, screen: Screen) -> None:
    await screen.open(counter.url)
    await counts(screen)
    await counts(screen, 1)
    assert screen.errors == []
    assert screen.hosts == {f"127.0.0.1:{counter.port}"}


async def test_two_browsers_have_a_counter_each(counter: Server, browser: Browser, screen: Screen) -> None:
    await screen.open(counter.url)
    await counts(screen)
    async with screen_of(browser) as other:
        await other.open(counter.url)
        await counts(other)
    await counts(screen, 1)


@pytest.mark.parametrize("host", HOSTS)
async def test_count_survives_a_page_load(counter: Server, screen: Screen, host: str) -> None:
    await screen.open(counter.url_at(host))
    await counts(screen)
    await screen.reload()
    await counts(screen, 1)


@pytest.mark.parametrize("host", HOSTS)
async def test_count_survives_a_reset_connection(counter: Server, screen: Screen, host: str) -> None:
    async with wire_to(counter) as wire:
        await screen.open(wire.url_at(host))
        await counts(screen)
        async with screen.coming_back():
            await wire.reset()
        await counts(screen, 1)


@pytest.mark.parametrize("host", HOSTS)
async def test_count_survives_a_network_that_is_away_for_a_while(counter: Server, screen: Screen, host: str) -> None:
    async with wire_to(counter) as wire:
        await screen.open(wire.url_at(host))
        await counts(screen)
        for _ in range(2):
            async with screen.page.expect_websocket():  # an attempt that fails
                await wire.cut()
        async with screen.coming_back():
            await wire.mend()
        await counts(screen, 1)


async def test_browser_that_is_offline_finds_its_count_again(counter: Server, screen: Screen) -> None:
    await screen.open(counter.url)
    await counts(screen)
    await screen.page.context.set_offline(True)
    await screen.page.context.set_offline(False)
    await screen.reload()
    await counts(screen, 1)


async def test_server_that_forgot_everything_starts_the_counter_anew(tmp_path: Path, screen: Screen) -> None:
    port = free_port()
    for log in ("first", "second"):
        with uvicorn_server("counter:app", COUNTER, tmp_path / log, *WEBSOCKETS, port=port) as server:
            if log == "first":
                await screen.open(server.url)
            await counts(screen)


async def test_uvicorns_own_websockets_do_as_well(tmp_path: Path, screen: Screen) -> None:
    with uvicorn_server("counter:app", COUNTER, tmp_path / "log") as server:
        await screen.open(server.url)
        await counts(screen)
        await screen.reload()
        await counts(screen, 1)


async def test_duplicated_tab_counts_for_itself(counter: Server, screen: Screen) -> None:
    await screen.open(counter.url)
    await counts(screen)
    double = await new_screen(screen.page.context)
    await double.page.add_init_script(
        f"sessionStorage.setItem('_flet_session_id', {json.dumps(await screen.credential())})"
    )
    await double.open(counter.url)
    await counts(double)
    await counts(screen, 1)
    assert await double.credential() != await screen.credential()


async def test_credential_opens_nothing_in_another_browser(counter: Server, browser: Browser, screen: Screen) -> None:
    await screen.open(counter.url)
    await counts(screen)
    stolen = json.dumps(await screen.credential())
    await screen.page.close()
    async with screen_of(browser) as thief:
        await thief.page.add_init_script(f"sessionStorage.setItem('_flet_session_id', {stolen})")
        await thief.open(counter.url)
        await counts(thief)


async def test_browser_without_cookies_finds_its_count_again(counter: Server, screen: Screen) -> None:
    async with wire_to(counter, drop_cookies=True) as wire:
        await screen.open(wire.url)
        await counts(screen)
        await screen.reload()
        await counts(screen, 1)
        async with screen.coming_back():
            await wire.reset()
        await counts(screen, 2)
    assert await screen.page.context.cookies() == []


async def test_browser_that_may_store_nothing_counts_over_a_reset_connection(counter: Server, tmp_path: Path) -> None:
    profile = tmp_path / "profile/Default"
    profile.mkdir(parents=True)
    (profile / "Preferences").write_text('{"profile": {"default_content_setting_values": {"cookies": 2}}}')
    async with async_playwright() as playwright, wire_to(counter) as wire:
        context = await playwright.chromium.launch_persistent_context(
            profile.parent, executable_path=chromium_path(), args=ARGUMENTS, timeout=SHOWN_MS
        )
        screen = await new_screen(context)
        await screen.open(wire.url)
        await counts(screen)
        async with screen.coming_back():
            await wire.reset()
        await counts(screen, 1)
        assert await context.cookies() == []
        await context.close()
