"""Connections come and go; the session stays, and belongs to its browser."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from flet_fastapi import session as session_module
from flet_fastapi.flet_app import FletApp
from flet_fastapi.identity import Keyring
from flet_fastapi.options import Options
from tests.protocol.conftest import Serve
from tests.protocol.test_handlers import click
from tests.support.classic_client import ClassicClient
from tests.support.serving import KEY, WEBSOCKETS, Served, make_manager, serving, uvicorn_in_process


def counter(page: ft.Page) -> None:
    text = ft.Text("0")

    async def clicked(event: Any) -> None:
        text.value = str(int(text.value) + 1)
        page.update()

    page.add(ft.Row([ft.Container(text)]), ft.ElevatedButton("up", on_click=clicked))


async def counted(client: ClassicClient, value: str) -> None:
    await client.wait_for_control("text", value=value)


def shape(client: ClassicClient) -> dict[str, Any]:
    """The page as its browser has it; `at` is about the message that brought a control."""
    return {i: {k: v for k, v in control.items() if k != "at" and v} for i, control in client.controls.items()}


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_PROBE_SECONDS", 0.2)


def answering(client: ClassicClient) -> ClassicClient:
    client.methods = {**client.methods, "canLaunchUrl": lambda arguments: "true"}
    return client


async def test_resume_after_an_abrupt_drop_brings_the_whole_tree(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.visit()
    await click(client)
    await counted(client, "1")
    before = shape(client)
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    other = await served.come_back(client)
    assert shape(other) == before
    await click(other)
    await counted(other, "2")
    assert served.counted("flet_resumes_total", result="resumed") == 1


async def test_resume_after_a_polite_close(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.visit()
    await click(client)
    await counted(client, "1")
    await client.close()
    await counted(await served.come_back(client), "1")


async def test_resume_before_the_server_saw_the_drop(serve: Serve, quick_probe: None) -> None:
    """The old connection is open as far as the server knows, but nobody answers there."""
    served = await serve(counter)
    client = await served.visit()
    await click(client)
    await counted(client, "1")
    client.lose_network()
    other = await served.come_back(client)
    await counted(other, "1")
    assert len(served.sessions) == 1
    client.find_network()
    assert await client.wait_closed() == 1008


async def test_tab_whose_client_answers_pings_only_keeps_its_session() -> None:
    async with serving(counter, "roost") as served:
        client = await served.visit()
        await click(client)
        await counted(client, "1")
        other = await served.come_back(client)
        await counted(other, "0")
        await click(client)
        await counted(client, "2")
        assert served.counted("flet_resumes_total", result="in_use") == 1
        assert not client.method_calls, "the tab was asked by a call, too"


async def test_tab_is_asked_by_a_call_where_the_server_has_no_ping(quick_probe: None) -> None:
    async with serving(counter, "websockets") as served:
        client = await served.visit()
        await click(client)
        await counted(client, "1")
        await counted(await served.come_back(client), "1")
        assert [call["methodName"] for call in client.method_calls] == ["canLaunchUrl"]


async def test_tab_is_pinged_through_a_route_of_ones_own(quick_probe: None) -> None:
    manager = make_manager()
    endpoint = FletApp.from_options(counter, Options.load(secret_key=KEY), manager)
    app = Starlette(routes=[WebSocketRoute("/ws", endpoint.handle)])
    async with uvicorn_in_process(app, WEBSOCKETS["roost"]) as host:
        served = Served(manager, endpoint, f"ws://{host}/ws")
        client = await served.visit()
        await counted(client, "0")
        await served.come_back(client)
        assert len(served.sessions) == 2
        await served.close()


async def test_second_tab_gets_its_own_session(serve: Serve) -> None:
    served = await serve(counter)
    client = answering(await served.visit())
    await click(client)
    await counted(client, "1")
    other = await served.come_back(client)
    await counted(other, "0")
    await click(client)
    await counted(client, "2")
    assert len(served.sessions) == 2
    assert served.counted("flet_resumes_total", result="in_use") == 1


def slow(page: ft.Page) -> None:
    """Each click keeps the loop for 10 ms; only the first button's changes the page."""
    text = ft.Text("0")

    async def think(event: Any) -> None:
        done = time.perf_counter() + 0.01
        while time.perf_counter() < done:
            pass

    async def clicked(event: Any) -> None:
        await think(event)
        text.value = str(int(text.value) + 1)
        page.update()

    page.add(ft.ElevatedButton("up", on_click=clicked), ft.OutlinedButton("think", on_click=think), text)


async def test_frames_that_a_browser_has_left_behind_are_no_sign_of_life(serve: Serve, quick_probe: None) -> None:
    served = await serve(slow)
    client = await served.visit()
    think = await client.wait_for_control("outlinedbutton")
    for _ in range(40):
        await client.click(think["i"])
    await asyncio.sleep(0.02)  # they are in the server, which has handled two or three
    await client.abort()
    other = await served.come_back(client)
    await counted(other, "0")
    assert len(served.sessions) == 1


async def test_tab_that_has_sent_much_has_longer_to_answer(serve: Serve, quick_probe: None) -> None:
    served = await serve(slow)
    client = answering(await served.visit())
    for _ in range(40):
        await click(client)
    other = await served.come_back(client)
    await counted(other, "0")
    await counted(client, "40")


async def test_one_client_with_much_to_do_does_not_keep_the_others_waiting(serve: Serve) -> None:
    served = await serve(slow)
    busy, other = await served.visit(), await served.visit()
    for _ in range(100):
        await click(busy)
    await click(other)
    await counted(other, "1")
    assert int(busy.one("text")["value"]) < 60
    await counted(busy, "100")


async def test_pages_that_come_back_at_once_do_so_one_in_a_turn(play: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await play(counter)
    clients = [await served.visit() for _ in range(10)]
    await asyncio.gather(*(client.abort() for client in clients))
    await served.until(lambda: all(session.connection is None for session in served.sessions))
    turn, turns = 0, []
    resume = session_module.Session.resume

    async def noted(*arguments: Any) -> Any:
        turns.append(turn)
        return await resume(*arguments)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(session_module.Session, "resume", noted)
    others = [await served.reopen(client) for client in clients]
    counting = asyncio.create_task(count())
    await asyncio.gather(*(other.register() for other in others))
    counting.cancel()
    assert len(set(turns)) == len(turns) == 10


async def test_two_newcomers_do_not_share_one_silent_session(play: Serve, quick_probe: None) -> None:
    """The second may take over only what the first has not got meanwhile: the first is alive and would say so."""
    served = await play(counter)
    client = await served.visit()
    client.stop_reading()
    first, second = answering(await served.reopen(client)), answering(await served.reopen(client))
    await asyncio.gather(first.register(), second.register())
    await served.until(lambda: len(served.sessions) == 2)
    assert first.open
    assert second.open
    assert first.session_id != second.session_id


async def test_newcomer_that_leaves_while_the_tab_is_probed_takes_nothing(play: Serve, quick_probe: None) -> None:
    served = await play(counter)
    client = await served.visit()
    other = await served.reopen(client)
    other_socket: Any = other.socket
    await other.send("registerWebClient", {"sessionId": client.session_id})
    await asyncio.sleep(0.01)
    other_socket.abort()
    await served.until(lambda: other_socket.server.done())
    await served.until(lambda: len(served.manager.connections) <= 1)
    assert len(served.sessions) == 1


async def test_updates_made_while_away_are_there_afterwards(serve: Serve) -> None:
    pages: list[ft.Page] = []

    def main(page: ft.Page) -> None:
        pages.append(page)
        page.add(ft.Text("before"))

    served = await serve(main)
    client = await served.visit()
    await client.wait_for_control("text")
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    (page,) = pages
    page.controls[0].value = "after"
    page.add(ft.Text("new"))
    page.controls.pop()
    page.add(ft.Row([ft.Text("inner")]))
    other = await served.come_back(client)
    assert {text["value"] for text in other.all("text")} == {"after", "inner"}
    page.controls[0].value = "later"
    page.update()
    await other.wait_for_control("text", value="later")


async def test_changes_not_yet_updated_are_not_lost_on_resume(serve: Serve) -> None:
    """A property that was set, but not yet sent by an `update()`, arrives with the tree or with that update."""
    pages: list[ft.Page] = []

    def main(page: ft.Page) -> None:
        pages.append(page)
        page.add(ft.Text("before"))

    served = await serve(main)
    client = await served.visit()
    await client.wait_for_control("text")
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    pages[0].controls[0].value = "after"
    pages[0].controls.append(ft.Text("unsent"))
    other = await served.come_back(client)
    assert not other.all("text", value="unsent")
    pages[0].update()
    await other.wait_for_control("text", value="unsent")
    await other.wait_for_control("text", value="after")


async def test_resume_while_a_thread_updates_misses_and_doubles_nothing(serve: Serve) -> None:
    stop = threading.Event()
    done = threading.Event()
    page_of: list[ft.Page] = []

    def main(page: ft.Page) -> None:
        column = ft.Column()
        page.add(column)
        page_of.append(page)

        def work() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                column.controls.append(ft.Text(str(n)))
                if n % 3 == 0:
                    column.controls.pop(0)
                column.update()
                stop.wait(0.0005)
            done.set()

        threading.Thread(target=work).start()

    served = await serve(main)
    client = await served.visit()
    for _ in range(10):
        await asyncio.sleep(0.01)
        await client.abort()
        client = await served.come_back(client)
    stop.set()
    await served.until(done.is_set)
    column = page_of[0].controls[0]
    expected = [text.value for text in column.controls]
    await client.wait_for(lambda client: [client.controls[i]["value"] for i in client.one("column")["c"]] == expected)


async def test_on_connect_and_on_disconnect_are_called(serve: Serve) -> None:
    seen: list[str] = []

    def main(page: ft.Page) -> None:
        async def connected(event: Any) -> None:
            seen.append("connect")

        page.on_connect = connected
        page.on_disconnect = lambda event: seen.append("disconnect")

    served = await serve(main)
    client = await served.visit()
    await served.until(lambda: served.session.running == 0)
    await asyncio.sleep(0.01)
    await client.abort()
    await served.until(lambda: seen == ["disconnect"])
    await served.come_back(client)
    await served.until(lambda: seen == ["disconnect", "connect"])


async def test_return_to_another_route_is_a_route_change(serve: Serve) -> None:
    routes: list[str] = []

    def main(page: ft.Page) -> None:
        page.on_route_change = lambda event: routes.append(event.route)

    served = await serve(main)
    client = await served.visit()
    await served.until(lambda: served.session.running == 0)
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    other = await served.reopen(client)
    await other.register(route="/store")
    await served.until(lambda: routes == ["/store"])
    assert served.session.page.route == "/store"


# --- who may have a session ------------------------------------------------------------------------------------------


async def refuse_resume(served: Served, client: ClassicClient, result: str, **settings: Any) -> None:
    other = await served.come_back(client, **settings)
    await counted(other, "0")
    assert other.session_id != client.session_id
    assert served.counted("flet_resumes_total", result=result) == 1
    assert len(served.sessions) == 2


async def left(served: Served) -> ClassicClient:
    """A browser that went away with its counter at 1."""
    client = await served.visit(cookies={"flet_browser": "a" * 22})
    await click(client)
    await counted(client, "1")
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    return client


@pytest.mark.parametrize(
    "forged",
    [
        "x",
        "a" * 22 + "." + "b" * 43,
        "\0" * 66,
        "ü" * 66,
        "é.é",
        ".",
        "a" * 8000,
        Keyring(["other" * 8]).sign_credential("a" * 22),
    ],
)
async def test_forged_credential_counts_as_none(play: Serve, forged: str) -> None:
    served = await play(counter)
    client = await left(served)
    client.session_id = forged
    await refuse_resume(served, client, "forged")


async def test_public_id_opens_nothing(play: Serve) -> None:
    served = await play(counter)
    client = await left(served)
    client.session_id = Keyring([KEY]).sign_credential(served.session.public_id)
    await refuse_resume(served, client, "unknown")


@pytest.mark.parametrize("cookies", [{}, {"flet_browser": "b" * 22}, {"__Host-flet_browser": "a" * 22}])
async def test_credential_of_another_browser_opens_nothing(serve: Serve, cookies: dict[str, str]) -> None:
    served = await serve(counter)
    await refuse_resume(served, await left(served), "other_browser", cookies=cookies)


async def test_credential_of_another_app_opens_nothing(play: Serve) -> None:
    served = await play(counter)
    client = await left(served)
    await refuse_resume(served, client, "other_app", path="/other/ws")


async def test_change_of_address_and_user_agent_does_not_matter(play: Serve) -> None:
    served = await play(counter)
    client = await left(served)
    other = await served.come_back(client, headers={"user-agent": "new"}, scope={"client": ("198.51.100.7", 1)})
    await counted(other, "1")


async def test_browser_that_keeps_no_cookies_comes_back_by_credential_alone(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.visit()
    await click(client)
    await counted(client, "1")
    await client.abort()
    for _ in range(2):
        client = await served.come_back(client, cookies={})
        await counted(client, "1")
        await client.abort()


async def test_cookie_given_at_the_handshake_binds_once_it_comes_back(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.visit()
    assert client.cookies.keys() == {"flet_browser"}
    await click(client)
    await counted(client, "1")
    await client.abort()
    client = await served.come_back(client)
    await counted(client, "1")
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    await refuse_resume(served, client, "other_browser", cookies={})


async def test_cookie_of_another_is_not_bound_to_a_session_without_cookie(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.visit()
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    other = await served.come_back(client, cookies={"flet_browser": "x" * 22})
    await other.abort()
    assert served.session.browser is None
    await served.come_back(client)
    assert len(served.sessions) == 1


async def test_known_browser_is_given_no_new_cookie(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.visit(cookies={"flet_browser": "a" * 22})
    assert client.cookies == {"flet_browser": "a" * 22}


async def test_cookie_under_tls_is_secure(play: Serve) -> None:
    served = await play(counter)
    client = await served.open(scope={"scheme": "wss"})
    assert client.cookies.keys() == {"__Host-flet_browser"}


# --- the end of a session --------------------------------------------------------------------------------------------


async def test_session_expires_and_runs_on_close(serve: Serve) -> None:
    closed: list[str] = []

    def main(page: ft.Page) -> None:
        page.on_close = lambda event: closed.append(page.session_id)

    served = await serve(main, options={"session_timeout_seconds": 0})
    client = await served.visit()
    await served.until(lambda: served.sessions)
    await asyncio.sleep(0.01)
    await client.abort()
    await served.until(lambda: closed)
    await served.until(lambda: served.counted("flet_sessions_ended_total", reason="expired") == 1)
    other = await served.come_back(client)
    assert other.session_id != client.session_id


async def test_connected_session_does_not_expire(play: Serve) -> None:
    served = await play(counter, options={"session_timeout_seconds": 0})
    client = await served.visit()
    await click(client)
    await counted(client, "1")
    assert served.session._expiry is None


async def test_resume_stops_the_expiry(play: Serve) -> None:
    served = await play(counter, options={"session_timeout_seconds": 3600})
    client = await left(served)
    timer = served.session._expiry
    assert timer is not None
    await served.come_back(client)
    assert timer.cancelled()
    assert served.session._expiry is None


async def test_session_that_is_closing_is_not_resumed(play: Serve) -> None:
    """It was evicted, and its `on_close` takes a while; meanwhile its browser comes back."""
    closing = asyncio.Event()
    go_on = asyncio.Event()

    def main(page: ft.Page) -> None:
        async def on_close(event: Any) -> None:
            closing.set()
            await go_on.wait()

        page.on_close = on_close
        page.add(ft.Text("0"))

    served = await play(main)
    client = await left_alone(served)
    old = served.session
    served.manager.end(old, "evicted")
    await closing.wait()
    other = await served.come_back(client)
    go_on.set()
    assert other.session_id != client.session_id
    await served.until(lambda: old.closed)
    assert other.open


async def left_alone(served: Served) -> ClassicClient:
    client = await served.visit()
    await client.wait_for_control("text")
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    return client


async def test_session_that_ends_while_it_is_probed_is_not_resumed(play: Serve, quick_probe: None) -> None:
    go_on = asyncio.Event()

    def main(page: ft.Page) -> None:
        async def on_close(event: Any) -> None:
            await go_on.wait()

        page.on_close = on_close
        page.add(ft.Text("0"))

    served = await play(main)
    client = await served.visit()
    await client.wait_for_control("text")
    old = served.session
    other = await served.reopen(client)
    registering = asyncio.create_task(other.register())
    await served.until(lambda: old._outbox or client.method_calls)  # the probe is under way
    served.manager.end(old, "evicted")
    await registering
    go_on.set()
    await served.until(lambda: old.closed)
    assert other.session_id != client.session_id, "the newcomer was given a session that is about to end"
    assert other.open


async def test_connected_session_that_is_ended_leaves_no_timer(play: Serve) -> None:
    go_on = asyncio.Event()

    def main(page: ft.Page) -> None:
        async def on_close(event: Any) -> None:
            await go_on.wait()

        page.on_close = on_close
        page.add(ft.Text("0"))

    served = await play(main)
    client = await served.visit()
    await client.wait_for_control("text")
    old = served.session
    served.manager.end(old, "evicted")
    assert await client.wait_closed() == 1001
    go_on.set()
    await served.until(lambda: old.closed)
    assert old._expiry is None or old._expiry.cancelled()


async def test_shutdown_says_1012_and_runs_on_close(serve: Serve) -> None:
    closed: list[str] = []

    def main(page: ft.Page) -> None:
        page.on_close = lambda event: closed.append("x")
        page.add(ft.Text("0"))

    served = await serve(main)
    clients = [await served.visit() for _ in range(3)]
    for client in clients:
        await client.wait_for_control("text")
    await served.manager.shutdown()
    assert closed == ["x"] * 3
    assert [await client.wait_closed() for client in clients] == [1012] * 3


async def test_closed_page_tells_its_app(play: Serve) -> None:
    pages: list[ft.Page] = []
    served = await play(lambda page: (pages.append(page), page.add(ft.Text("x"))))
    client = await served.visit()
    await client.wait_for_control("text")
    await served.manager.shutdown()
    with pytest.raises(Exception, match="disconnected"):
        pages[0].update()
