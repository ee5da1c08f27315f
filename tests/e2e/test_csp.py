"""The real client under the Content-Security-Policy that its pages come with: nothing that it does is against it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Route

from tests.e2e.conftest import Serve
from tests.support.browser import Screen, until
from tests.support.servers import Server

_PIXEL_TEXT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_PIXEL = base64.b64decode(_PIXEL_TEXT)
# Tells the test of every violation, also of those that happen before the page's own scripts.
_WATCH = """
document.addEventListener("securitypolicyviolation", (event) =>
  window.seen(`${event.disposition} ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""

SHOWCASE = """
import flet as ft
import flet.map as map
import flet_fastapi

def main(page: ft.Page) -> None:
    page.fonts = {"Far": "https://fonts.test/far.ttf", "Near": "/near.ttf"}
    page.add(
        ft.Text("shown"), ft.Text("far", font_family="Far"), ft.Text("near", font_family="Near"),
        ft.Text("\\u4e2d\\u6587"),
        ft.Image(src="https://images.test/one.png", width=20), ft.Image(src="/near.png", width=20),
        ft.Image(src_base64="PIXEL"),
        ft.Markdown("![picture](https://images.test/two.png)"),
        ft.Container(map.Map(layers=[map.TileLayer(url_template="https://tiles.test/{z}/{x}/{y}.png")]), height=200),
    )
    page.overlay.append(ft.FilePicker())
    page.overlay.append(ft.Audio(src="https://sounds.test/one.mp3", autoplay=False))
    page.update()

app = flet_fastapi.app(main, assets_dir="assets")
""".replace("PIXEL", _PIXEL_TEXT)

INLINE = """
import flet as ft
import flet_fastapi

def main(page: ft.Page) -> None:
    page.add(ft.Text("shown"))

app = flet_fastapi.app(main, assets_dir="assets")
"""


class Watch:
    """What the browser has complained about, and whom else it has asked."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.seen: list[str] = []
        self.asked: set[str] = set()

    async def start(self) -> None:
        page = self.screen.page
        await page.expose_function("seen", lambda line: self.seen.append(line))
        await page.add_init_script(_WATCH)
        await page.route(lambda url: url.startswith("https:"), self._answer)

    async def _answer(self, route: Route) -> None:
        """The internet, as far as the test has one."""
        self.asked.add(urlsplit(route.request.url).netloc)
        allowed = {"Access-Control-Allow-Origin": "*"}
        await route.fulfill(status=200, content_type="image/png", headers=allowed, body=_PIXEL)

    @property
    def complaints(self) -> list[str]:
        words = ("Content Security Policy", "Permissions-Policy", "Refused to")
        return [*self.seen, *(error for error in self.screen.errors if any(word in error for word in words))]


@pytest_asyncio.fixture(loop_scope="session")
async def watch(screen: Screen) -> Watch:
    watch = Watch(screen)
    await watch.start()
    return watch


async def test_counter_violates_nothing(counter: Server, watch: Watch) -> None:
    await watch.screen.open(counter.url)
    await watch.screen.shows("0")
    assert (watch.complaints, watch.asked) == ([], set())


async def test_pictures_fonts_and_tiles_of_other_sites_are_shown(serve: Serve, watch: Watch, tmp_path: Path) -> None:
    _assets(tmp_path)
    await watch.screen.open(serve(SHOWCASE).url)
    await watch.screen.shows("shown")
    # the last one by way of a redirect, for letters that Roboto does not have
    sites = {"images.test", "fonts.test", "tiles.test", "fonts.gstatic.com"}
    await until(_is_true(lambda: sites <= watch.screen.hosts))
    assert watch.complaints == []


async def test_sources_can_be_narrowed(serve: Serve, watch: Watch, tmp_path: Path) -> None:
    _assets(tmp_path)
    server = serve(SHOWCASE, FLET_CSP_SOURCES="https://images.test")
    await watch.screen.open(server.url)
    await until(_is_true(lambda: any("https://tiles.test" in line for line in watch.seen)))
    assert "tiles.test" not in watch.asked
    assert not any("images.test" in line for line in watch.seen)


async def test_injected_script_does_not_run(counter: Server, watch: Watch) -> None:
    await watch.screen.open(counter.url)
    page = watch.screen.page
    await page.evaluate(
        """() => { const script = document.createElement("script"); script.textContent = "window.ran = 1";
                   document.body.append(script);
                   document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = 1'>"); }"""
    )
    await until(_is_true(lambda: any("script-src" in line for line in watch.seen)))
    assert await page.evaluate("window.ran") is None


@pytest.mark.parametrize(("mode", "ran"), [("on", None), ("report", 1), ("off", 1)])
async def test_mode_decides(serve: Serve, watch: Watch, tmp_path: Path, mode: str, ran: int | None) -> None:
    await watch.screen.open(serve(INLINE.replace(', assets_dir="assets"', ""), FLET_CSP=mode).url)
    page = watch.screen.page
    await page.evaluate(
        """() => { const script = document.createElement("script"); script.textContent = "window.ran = 1";
                   document.body.append(script); }"""
    )
    assert await page.evaluate("window.ran") == ran


async def test_own_index_with_scripts_of_its_own_works(serve: Serve, watch: Watch, tmp_path: Path) -> None:
    _assets(tmp_path)
    server = serve(INLINE)
    await watch.screen.page.goto(server.url)
    own = '<script>\r\nwindow.mine = "\u00e9 </b>";\r\n</script>\n<script src="/own.js"></script>'
    page = await watch.screen.page.context.request.get(server.url)
    text = (await page.text()).replace("<title>", own + "<title>")
    text = text.replace("<body>", '<body onload="window.loaded = 1">')
    (tmp_path / "assets/index.html").write_bytes(text.encode())
    (tmp_path / "assets/own.js").write_text("window.other = 1")
    await watch.screen.open(server.url)
    await watch.screen.shows("shown")
    assert await watch.screen.page.evaluate("[window.mine, window.other, window.loaded]") == ["\u00e9 </b>", 1, 1]
    assert watch.complaints == []


def _assets(folder: Path) -> None:
    assets = folder / "assets"
    assets.mkdir()
    (assets / "near.png").write_bytes(_PIXEL)
    (assets / "near.ttf").write_bytes(b"")


def _is_true(check: Callable[[], bool]) -> Callable[[], Any]:
    async def checked() -> bool:
        return check()

    return checked
