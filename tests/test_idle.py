from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import flet_core as ft

from flet_fastapi.idle import Silence
from tests.support.serving import serving


@dataclass(eq=False)
class Session:
    heard: int = 0
    connection: object | None = 1


def test_session_is_idle_when_it_has_been_silent_for_the_timeout() -> None:
    silence, one, two = Silence(10), Session(), Session()
    assert silence.too_long([one, two], 0) == []
    two.heard += 1
    assert silence.too_long([one, two], 5) == []
    assert silence.too_long([one, two], 10) == [one]
    assert silence.too_long([two], 15) == [two]


def test_session_whose_browser_is_away_is_not_idle() -> None:
    silence, session = Silence(10), Session()
    silence.too_long([session], 0)
    session.connection = None
    assert silence.too_long([session], 20) == []
    session.connection = 1
    assert silence.too_long([session], 25) == []


def test_sessions_that_have_ended_are_forgotten() -> None:
    silence = Silence(10)
    silence.too_long([Session() for _ in range(9)], 0)
    silence.too_long([], 1)
    assert silence._since == {}


async def test_idle_session_ends_and_its_browser_starts_afresh() -> None:
    async def main(page: Any) -> None:
        page.add(ft.Text("shown"))

    async with serving(main, idle_timeout_seconds=1) as served:
        client = await served.visit()
        async with asyncio.timeout(10):
            assert await client.wait_closed() == 1001
        assert served.counted("flet_sessions_ended_total", reason="idle") == 1
        again = await served.come_back(client)
        assert again.session_id != client.session_id
