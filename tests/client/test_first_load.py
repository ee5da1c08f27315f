"""What a browser with an empty cache downloads for the counter, and what one that comes back does."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, async_playwright

from flet_fastapi.client.build import default_roots, gather, load, web_folder

EXAMPLES = Path(__file__).parents[2] / "app/examples"
# main.dart.js and its companions as the flet package serves them, and CanvasKit and fonts from public CDNs
UPSTREAM_BYTES = 9_350_000 + 2_800_000
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = """--no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync""".split()


@pytest.fixture
def address() -> Iterator[str]:
    """The counter in a process of its own; the socket listens before it starts, so nobody has to wait for it."""
    listener = socket.create_server(("127.0.0.1", 0))
    command = [sys.executable, "-m", "uvicorn", "--fd", str(listener.fileno()), "--log-level", "warning", "counter:app"]
    process = subprocess.Popen(command, cwd=EXAMPLES / "counter", pass_fds=[listener.fileno()])
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    process.terminate()
    process.wait(20)
    listener.close()


@pytest.fixture
async def context() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield await browser.new_context()
        await browser.close()


@dataclass
class Load:
    urls: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    @property
    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.urls.values() if not url.startswith(("data:", "blob:"))}


async def _load(context: BrowserContext, address: str) -> Load:
    loaded = Load()
    page = await context.new_page()
    session = await context.new_cdp_session(page)
    await session.send("Network.enable")
    session.on("Network.requestWillBeSent", lambda event: _note(loaded.urls, event, event["request"]["url"]))
    session.on("Network.loadingFinished", lambda event: _note(loaded.sizes, event, event["encodedDataLength"]))
    async with page.expect_websocket() as opening:
        await page.goto(address)
    await (await opening.value).wait_for_event("framereceived")
    await page.wait_for_selector("#loading", state="detached")
    await page.wait_for_load_state("networkidle")
    await page.close()
    return loaded


def _note(notes: dict[str, Any], event: dict[str, Any], value: Any) -> None:
    notes[event["requestId"]] = value


async def test_counter_loads_little_and_from_here_only(address: str, context: BrowserContext) -> None:
    build = await asyncio.to_thread(lambda: load(gather(web_folder(), default_roots()), default_roots()))
    assert (build.quality, build.missing()) == (11, []), "run `make setup` first"
    first, second = await _load(context, address), await _load(context, address)
    assert first.hosts | second.hosts == {urlsplit(address).netloc}
    assert first.sizes.keys() >= {key for key, url in first.urls.items() if "/_b/" in url}
    assert 3_000_000 < first.total <= 0.40 * UPSTREAM_BYTES
    assert second.total <= 20_000
