"""What the metrics say of connections, events, sessions and sign-ins."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest
from websockets.asyncio.client import connect

from flet_fastapi import manager as manager_module
from tests.protocol.conftest import Serve
from tests.protocol.test_bounds import chatty
from tests.protocol.test_handlers import click, with_button
from tests.protocol.test_resume import counted, counter
from tests.support.classic_client import event_message, register_message


@pytest.fixture(autouse=True)
def quick_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_WATCH_SECONDS", 0.01)


async def test_frames_and_bytes_are_those_on_the_wire(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        text = ft.Text("Grüße, 世界 🌍" * 100)

        def clicked(event: Any) -> None:
            text.value += "ü"
            page.update()

        page.add(text, ft.ElevatedButton("go", on_click=clicked))

    served = await serve(main)
    frames: list[str] = []
    origin = served.url.replace("ws:", "http:").removesuffix("/ws")
    async with connect(served.url, compression=None, origin=origin) as socket:
        sent = [register_message()]
        await socket.send(sent[0])
        while "elevatedbutton" not in "".join(frames):
            frames.append(str(await socket.recv()))
        button = re.findall(r'"t":"elevatedbutton","i":"(\w+)"', frames[-1])[0]
        sent.append(event_message(button, "click", "é" * 1000))
        await socket.send(sent[1])
        frames.append(str(await socket.recv()))
    await served.until(lambda: served.counted("flet_frames_sent_total") == len(frames))
    assert served.counted("flet_frames_received_total") == 2
    assert served.counted("flet_received_bytes_total") == sum(len(message.encode()) for message in sent)
    assert served.counted("flet_sent_bytes_total") == sum(len(frame.encode()) for frame in frames)
    assert "世" in "".join(frames)


async def test_counts_of_a_short_connection_are_there_when_it_has_ended(play: Serve) -> None:
    manager_module._WATCH_SECONDS = 1000  # `quick_sums` puts it back
    served = await play(counter)
    client = await served.visit()
    await client.abort()
    await served.until(lambda: served.counted("flet_connections") == 0)
    assert served.counted("flet_frames_received_total") == 1
    assert served.counted("flet_frames_sent_total") >= 1


@pytest.mark.parametrize("kind", ["quick", "waiting", "plain", "failing"])
async def test_time_of_an_event_is_that_of_its_handler_waiting_included(play: Serve, kind: str) -> None:
    go = asyncio.Event()
    thread_go = threading.Event()

    async def quick(event: Any) -> None: ...

    async def waiting(event: Any) -> None:
        await go.wait()

    def plain(event: Any) -> None:
        assert thread_go.wait(30)

    async def failing(event: Any) -> None:
        raise LookupError

    handlers = {"quick": quick, "waiting": waiting, "plain": plain, "failing": failing}
    served = await play(with_button(lambda page: handlers[kind]))
    client = await served.visit()
    await click(client)
    waits = kind in ("waiting", "plain")
    await served.until(lambda: served.session.running == waits)
    await asyncio.sleep(0.06)
    go.set()
    thread_go.set()
    await served.until(lambda: served.counted("flet_event_seconds_count") == 1)
    assert (served.counted("flet_event_seconds_sum") >= 0.05) == waits


async def test_what_is_no_event_of_the_page_is_not_timed(play: Serve) -> None:
    served = await play(counter)
    client = await served.visit()
    await client.event("nothing", "click")
    await served.until(lambda: served.counted("flet_refused_total", kind="event_target") == 1)
    await click(client)
    await counted(client, "1")
    await served.until(lambda: served.counted("flet_event_seconds_count") >= 1)
    assert served.counted("flet_event_seconds_count") == 1


async def test_send_queue_grows_while_the_browser_does_not_read_and_is_dropped_with_it(serve: Serve) -> None:
    served = await serve(chatty, send_queue_size=3_000_000)
    client = await served.visit(compression=None)
    await client.wait_for_control("text")
    assert served.counted("flet_send_queue_bytes") == 0
    client.stop_reading()
    await click(client)
    await served.until(lambda: served.counted("flet_send_queue_bytes") > 100_000)
    await served.until(lambda: served.session.connection is None)
    assert served.counted("flet_send_queue_drops_total") >= 1
    await served.until(lambda: served.counted("flet_send_queue_bytes") == 0)


async def test_frame_that_cannot_be_written_waits_in_the_queue_and_is_dropped_in_the_end(play: Serve) -> None:
    served = await play(with_button(adding_text), send_timeout_seconds=1)
    client = await served.visit()
    await client.wait_for_control("elevatedbutton")
    client.socket.stalled.clear()
    await click(client)
    await served.until(lambda: served.counted("flet_send_queue_bytes") > 50_000)
    await served.until(lambda: served.session.connection is None)
    assert served.counted("flet_send_queue_drops_total") == 1


def adding_text(page: ft.Page) -> Any:
    async def clicked(event: Any) -> None:
        page.add(ft.Text("x" * 50_000))

    return clicked


async def test_time_in_the_dark_is_counted_when_the_browser_is_back(play: Serve) -> None:
    served = await play(counter)
    client = await served.visit()
    assert served.counted("flet_session_dark_seconds_count") == 0
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    await asyncio.sleep(0.06)
    await served.come_back(client)
    assert served.counted("flet_session_dark_seconds_count") == 1
    assert 0.05 <= served.counted("flet_session_dark_seconds_sum") < 5


@pytest.mark.parametrize(
    ("credential", "path", "result"),
    [(None, "local", "resumed"), ("forged", "missed", "forged")],
)
async def test_resumes_say_where_the_credential_led(
    play: Serve, credential: str | None, path: str, result: str
) -> None:
    served = await play(counter)
    client = await served.visit()
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    client.session_id = credential or client.session_id
    await served.come_back(client)
    assert served.counted("flet_resumes_total", path=path, result=result) == 1
    assert served.counted("flet_resumes_total") == 1


async def test_sessions_of_this_worker(play: Serve) -> None:
    served = await play(counter)
    client = await served.visit()
    await served.visit(cookies={})
    assert served.counted("flet_worker_sessions", worker="0") == 2
    await client.abort()
    await served.until(lambda: served.counted("flet_sessions", state="detached") == 1)
    assert served.counted("flet_worker_sessions", worker="0") == 2
    assert served.counted("flet_worker_ready", worker="0") == 1


async def test_worker_without_room_is_not_ready(play: Serve) -> None:
    served = await play(counter, max_sessions=1)
    client = await served.visit()
    await served.until(lambda: served.counted("flet_worker_ready") == 0)
    await client.abort()
    await served.until(lambda: served.counted("flet_worker_ready") == 1)
    served.manager.refusing = "draining"
    await served.until(lambda: served.counted("flet_worker_ready") == 0)


async def test_life_of_a_session_is_counted_when_it_ends(play: Serve) -> None:
    served = await play(counter)
    await served.visit()
    assert served.counted("flet_session_seconds_count") == 0
    await asyncio.sleep(0.06)
    served.manager.end(served.session, "expired")
    await served.until(lambda: served.counted("flet_session_seconds_count") == 1)
    assert served.counted("flet_session_seconds_sum") >= 0.05
