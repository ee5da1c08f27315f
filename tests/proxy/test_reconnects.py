"""All come back at once through nginx: to their own workers by their cookie, or to any worker without one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import appliance as support
from tests.support.appliance import Appliance
from tests.support.classic_client import ClassicClient
from tests.support.nginx import Nginx, fetch

SESSIONS = 200
COUNTER = Path(__file__).parents[2] / "app/examples/counter/counter.py"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with support.appliance(tmp_path_factory.mktemp("four"), COUNTER, workers=4) as running:
        yield running


def resumed(appliance: Appliance, path: str) -> int:
    """How many have got their session back, as its owner counts them."""
    counted = re.search(
        rf'^flet_resumes_total{{path="{path}",result="resumed"}} (\S+)$', appliance.ask("/metrics")[1], re.MULTILINE
    )
    return int(float(counted[1])) if counted else 0


async def visit(front: Nginx, *, keeps_cookies: bool) -> ClassicClient:
    """A browser loads the page, which gives it a cookie, opens the websocket, and clicks once."""
    cookies = {}
    if keeps_cookies:
        page = await asyncio.to_thread(fetch, front.url)
        name, _, value = (page.header("Set-Cookie") or "").partition(";")[0].partition("=")
        cookies = {name: value}
    client = ClassicClient(front.websocket_url, cookies=cookies)
    await (await client.connect()).register()
    button = await client.wait_for_control("floatingactionbutton")
    await client.click(button["i"])
    await client.wait_for_control("text", value="1")
    return client


async def come_back(client: ClassicClient, *, keeps_cookies: bool) -> ClassicClient:
    await client.abort()
    other = await client.reconnect(**({} if keeps_cookies else {"cookies": {}}))
    await other.register()
    await other.click(other.one("floatingactionbutton")["i"])
    await other.wait_for_control("text", value="2")
    return other


@pytest.mark.parametrize("keeps_cookies", [True, False])
async def test_all_sessions_are_found(front: Nginx, appliance: Appliance, keeps_cookies: bool) -> None:
    before = {path: resumed(appliance, path) for path in ("local", "relay")}
    clients: list[ClassicClient] = []
    for _ in range(0, SESSIONS, 20):
        clients += await asyncio.gather(*(visit(front, keeps_cookies=keeps_cookies) for _ in range(20)))
    if not keeps_cookies:
        # a browser that keeps no cookies never shows the one that it was given
        for client in clients:
            client.cookies.clear()
    back = await asyncio.gather(*(come_back(client, keeps_cookies=keeps_cookies) for client in clients))
    found = {path: resumed(appliance, path) - before[path] for path in before}
    print(f"cookies: {keeps_cookies}; resumed: {found}; lost: {SESSIONS - sum(found.values())}")
    assert sum(found.values()) == SESSIONS
    assert found["local"] >= 0.95 * SESSIONS or not keeps_cookies
    await asyncio.gather(*(client.close() for client in back))
