"""Everything is bounded: queues, handlers, sessions, patience."""

from __future__ import annotations

import asyncio
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest

from flet_fastapi import connection as connection_module
from flet_fastapi import flet_app as flet_app_module
from flet_fastapi import manager as manager_module
from tests.protocol.conftest import Serve
from tests.protocol.test_handlers import click, with_button
from tests.protocol.test_resume import counted, counter

BROWSER = {"flet_browser": "b" * 22}


def chatty(page: ft.Page) -> None:
    """At a click, sends more than any network buffer holds."""
    text = ft.Text("")

    async def clicked(event: Any) -> None:
        for n in range(400):
            text.value = f"{n}" + "x" * 100_000
            page.update()
            await asyncio.sleep(0)

    page.add(ft.ElevatedButton("go", on_click=clicked), text)


async def test_slow_reader_is_cut_and_its_session_waits(serve: Serve) -> None:
    served = await serve(chatty, send_queue_size=1_000_000)
    client = await served.visit(compression=None)
    await client.wait_for_control("text")
    session = served.session
    client.stop_reading()
    await click(client)
    await served.until(lambda: session.connection is None)
    assert session._outbox_bytes == 0
    assert served.counted("flet_connections_closed_total", code="1013") == 1
    await client.abort()
    await served.until(lambda: session.running == 0, 20)
    other = await served.come_back(client, compression=None)
    assert other.one("text")["value"].startswith("399")


async def test_update_that_is_larger_than_the_queue_reaches_who_reads(serve: Serve) -> None:
    def made(page: ft.Page) -> Any:
        async def clicked(event: Any) -> None:
            for size in (1, 1_000_000, 2):
                page.add(ft.Text("x" * size))

        return clicked

    served = await serve(with_button(made), send_queue_size=100_000)
    client = await served.visit(compression=None)
    for times in (1, 2):
        await click(client)
        await client.wait_for(lambda client, times=times: len(client.all("text", value="xx")) == times)
    assert len(client.all("text", value="x" * 1_000_000)) == 2


async def test_queue_of_a_handler_that_never_waits_is_bounded(play: Serve) -> None:
    """It holds the loop, so the connection cannot be cut meanwhile."""
    most = 0

    def made(page: ft.Page) -> Any:
        async def clicked(event: Any) -> None:
            nonlocal most
            text = page.controls[0]
            for n in range(300):
                text.text = f"{n}" + "x" * 10_000
                page.update()
                most = max(most, sum(len(message.body) for message in served.session._outbox))

        return clicked

    served = await play(with_button(made), send_queue_size=100_000)
    client = await served.visit()
    await click(client)
    await served.until(lambda: served.session.connection is None)
    assert most < 300_000
    other = await served.come_back(client)
    assert other.one("elevatedbutton")["text"].startswith("299")


async def test_client_that_does_not_read_is_cut_after_a_time(play: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_WATCH_SECONDS", 0.05)
    monkeypatch.setattr(connection_module, "_GOODBYE_SECONDS", 0.01)
    served = await play(counter, send_timeout_seconds=1)
    client = await served.visit()
    await counted(client, "0")
    socket: Any = client.socket
    socket.stalled.clear()
    await click(client)
    await served.until(lambda: served.session.connection is None)
    await served.until(lambda: not served.manager.connections)
    assert served.counted("flet_connections_closed_total", code="1013") == 1


async def test_stalled_client_does_not_stop_the_others(play: Serve) -> None:
    served = await play(counter)
    stalled = [await served.visit() for _ in range(5)]
    for client in stalled:
        await counted(client, "0")
        socket: Any = client.socket
        socket.stalled.clear()
        await click(client)
    other = await served.visit()
    await click(other)
    await counted(other, "1")
    for client in stalled:
        client.socket.stalled.set()  # type: ignore[attr-defined]
        await counted(client, "1")


@pytest.mark.parametrize("error", [OSError(), RuntimeError("closed"), asyncio.CancelledError(), KeyError()])
async def test_client_whose_socket_breaks_does_not_stop_the_others(play: Serve, error: BaseException) -> None:
    served = await play(counter)
    broken, other = await served.visit(), await served.visit()
    await counted(broken, "0")
    await counted(other, "0")
    broken.socket.broken = error  # type: ignore[attr-defined]
    await click(broken)
    await click(other)
    await counted(other, "1")
    await served.until(lambda: len(served.manager.connections) == 1)
    broken.socket.broken = None  # type: ignore[attr-defined]
    await counted(await served.come_back(broken), "1")


@pytest.mark.parametrize("when", ["accept", "answer"])
async def test_socket_that_breaks_early_leaves_nothing(play: Serve, when: str) -> None:
    served = await play(counter)
    client = await served.open()
    client.socket.broken = OSError()  # type: ignore[attr-defined]
    await client.send_raw('{"action":"registerWebClient","payload":{}}')
    await served.until(lambda: not served.manager.connections)
    assert not served.sessions, "nobody has the credential of this session"


async def test_too_many_running_handlers_slow_the_reading(play: Serve) -> None:
    go_on = asyncio.Event()
    started = 0

    def made(page: ft.Page) -> Any:
        async def clicked(event: Any) -> None:
            nonlocal started
            started += 1
            await go_on.wait()

        return clicked

    served = await play(with_button(made), max_pending_handlers=3)
    client = await served.visit()
    for _ in range(10):
        await click(client)
    await served.until(lambda: started == 3)
    await asyncio.sleep(0.05)
    assert started == 3
    go_on.set()
    await served.until(lambda: started == 10)


async def test_client_that_leaves_while_its_handlers_never_end_is_noticed(play: Serve) -> None:
    """Otherwise its session is connected for ever, and never expires."""

    def made(page: ft.Page) -> Any:
        async def clicked(event: Any) -> None:
            await asyncio.Event().wait()

        return clicked

    served = await play(with_button(made), max_pending_handlers=2)
    client = await served.visit()
    for _ in range(3):
        await click(client)
    await served.until(lambda: served.session.running >= 2)
    client.socket.abort()  # type: ignore[attr-defined]
    await served.until(lambda: served.session.connection is None)
    other = await served.come_back(client)
    assert other.all("elevatedbutton")


async def test_flood_of_events_is_read_slowly_and_nothing_is_lost(play: Serve) -> None:
    seen: list[str] = []

    def main(page: ft.Page) -> None:
        async def changed(event: Any) -> None:
            seen.append(event.data)

        page.add(ft.TextField(on_change=changed))

    served = await play(main, events_per_second=50)
    client = await served.visit()
    field = await client.wait_for_control("textfield")
    for n in range(80):
        await client.event(field["i"], "change", str(n))
    await served.until(lambda: len(seen) == 80)
    assert seen == [str(n) for n in range(80)]
    assert served.counted("flet_throttled_total") >= 1


# --- how many sessions -----------------------------------------------------------------------------------------------


async def test_browser_has_only_so_many_sessions(play: Serve) -> None:
    served = await play(counter, max_sessions_per_browser=2)
    first = await served.visit(cookies=BROWSER)
    await served.visit(cookies=BROWSER)
    third = await (await served.open(cookies=BROWSER)).register()
    assert "full" in third.register_error
    await served.visit(cookies={"flet_browser": "c" * 22})
    await first.abort()
    await served.until(lambda: len(served.manager._detached) == 1)
    await counted(await served.visit(cookies=BROWSER), "0")
    await served.until(lambda: served.counted("flet_sessions_ended_total", reason="evicted") == 1)


async def test_full_worker_evicts_who_left_first(serve: Serve) -> None:
    served = await serve(counter, max_sessions=3)
    clients = [await served.visit() for _ in range(3)]
    for n in (1, 0, 2):
        await clients[n].abort()
        await served.until(lambda: len(served.manager._detached) in (1, 2, 3))
        await served.until(lambda n=n: sum(s.connection is None for s in served.sessions) == [2, 1, 3][n])
    gone = served.manager.find(next(iter(served.manager._detached)).secret_id)
    await served.visit()
    assert gone not in served.sessions
    assert len(served.sessions) == 3
    other = await served.come_back(clients[1])
    assert other.session_id != clients[1].session_id


async def test_full_worker_says_so_and_closes_later(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flet_app_module, "_REFUSED_SECONDS", 0.05)
    served = await serve(counter, max_sessions=1)
    first = await served.visit()
    second = await (await served.open()).register()
    assert "full" in second.register_error
    assert await second.wait_closed() == 1013
    assert first.open
    assert served.counted("flet_refused_total", kind="full") == 1


async def test_refused_client_that_leaves_is_let_go(play: Serve) -> None:
    served = await play(counter, max_sessions=1, max_unregistered=5)
    await served.visit()
    for _ in range(7):
        refused = await (await served.open()).register()
        refused.socket.abort()  # type: ignore[attr-defined]
        await served.until(lambda: len(served.manager.connections) == 1)
    assert served.manager.unregistered == 0


async def test_resume_needs_no_room(play: Serve) -> None:
    served = await play(counter, max_sessions=1)
    client = await served.visit()
    await client.abort()
    await counted(await served.come_back(client), "0")
    assert len(served.sessions) == 1


async def test_many_starts_at_once_keep_the_limit(play: Serve) -> None:
    served = await play(counter, max_sessions=5)
    clients = [await served.open() for _ in range(20)]
    await asyncio.gather(*(client.register() for client in clients))
    assert len(served.sessions) == 5
    assert sum(bool(client.register_error) for client in clients) == 15


async def test_shutdown_with_clients_that_have_not_registered_keeps_the_count(play: Serve) -> None:
    served = await play(counter)
    for _ in range(3):
        await served.open()
    await served.until(lambda: served.manager.unregistered == 3)
    await served.manager.shutdown()
    await served.until(lambda: not served.manager.connections)
    assert served.manager.unregistered == 0


async def test_client_that_registers_during_shutdown_leaves_nothing(play: Serve) -> None:
    go_on = asyncio.Event()

    def main(page: ft.Page) -> None:
        async def on_close(event: Any) -> None:
            await go_on.wait()

        page.on_close = on_close
        page.add(ft.Text("0"))

    served = await play(main)
    await counted(await served.visit(), "0")
    early = await served.open()
    stopping = asyncio.create_task(served.manager.shutdown())
    await asyncio.sleep(0.01)
    await early.send_raw('{"action":"registerWebClient","payload":{}}')
    with pytest.raises(ConnectionRefusedError, match="1012"):
        await served.open()
    await asyncio.sleep(0.01)
    go_on.set()
    await stopping
    await served.until(lambda: not early.open)
    assert not served.sessions
