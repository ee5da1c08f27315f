"""One Chromium for all tests of a run, a fresh profile for each test, and servers to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.support.browser import Screen, launch, screen_of
from tests.support.servers import ROOT, WEBSOCKETS, Server, uvicorn_server

E2E = Path(__file__).parent
COUNTER = ROOT / "app/examples/counter"

Serve = Callable[..., Server]
# Of a test with its servers and pages, where the machine has much else to do.
_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser belongs to one event loop, so all tests that use it run on that; and they may take their time."""
    for item in items:
        if E2E in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def screen(browser: Browser) -> AsyncIterator[Screen]:
    """A tab in a profile of its own."""
    async with screen_of(browser) as screen:
        yield screen


@pytest.fixture(scope="session")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The counter of the examples."""
    log = tmp_path_factory.mktemp("counter") / "log"
    with uvicorn_server("counter:app", COUNTER, log, *WEBSOCKETS) as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves a program's text: `serve(source, **environment)`."""
    with ExitStack() as running:

        def start(source: str, *, port: int = 0, **variables: str) -> Server:
            (tmp_path / "program.py").write_text(source, encoding="utf-8")
            log = tmp_path / "log"
            server = uvicorn_server("program:app", tmp_path, log, *WEBSOCKETS, port=port, **variables)
            return running.enter_context(server)

        yield start
