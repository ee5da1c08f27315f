"""A websocket that another worker has: the lines of its session's handlers are those of this websocket."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.appliance import Appliance, appliance
from tests.support.classic_client import ClassicClient

PROGRAM = """
import logging
import flet as ft

def main(page):
    page.add(ft.TextButton("tell", on_click=lambda e: logging.getLogger("shop").info("told by %s", page.client_ip)))
"""


async def visit(server: Appliance, slot: int, cookies: dict[str, str], credential: str = "") -> ClassicClient:
    client = ClassicClient(f"ws://127.0.0.1:{server.slot_port + slot}/ws", cookies=cookies)
    await (await client.connect()).register(credential)
    await client.wait_for(lambda client: client.all("textbutton"))
    await client.click(client.one("textbutton")["i"])
    return client


async def come_and_come_back(server: Appliance) -> None:
    client = await visit(server, 0, {})
    await asyncio.to_thread(server.until, lambda: server.logged("told by 127.0.0.1"))
    await client.abort()
    again = await visit(server, 1, client.cookies, client.session_id)
    await asyncio.to_thread(server.until, lambda: len(server.logged("told by 127.0.0.1")) == 2)
    await again.close()
    await asyncio.to_thread(server.until, lambda: len(server.logged("websocket")) == 2)


def test_lines_of_a_relayed_session_are_those_of_its_websocket(tmp_path: Path) -> None:
    with appliance(tmp_path, PROGRAM) as server:
        asyncio.run(come_and_come_back(server))
        told, websockets = server.logged("told by 127.0.0.1"), server.logged("websocket")
    assert [line["worker"] for line in told] == [0, 0]
    assert [line["worker"] for line in websockets] == [0, 1]
    for name in ("request_id", "session", "client", "app"):
        assert [line[name] for line in told] == [line[name] for line in websockets]
    assert told[0]["session"] == told[1]["session"]
    assert told[0]["request_id"] != told[1]["request_id"]
