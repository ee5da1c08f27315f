"""The page talks to its browser, and to the other sessions of its app."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest

from tests.protocol.conftest import Serve
from tests.protocol.test_handlers import click
from tests.support.classic_client import ClassicClient
from tests.support.serving import Served


def with_storage(client: ClassicClient) -> ClassicClient:
    """A browser whose local storage works."""
    store: dict[str, str] = {}
    client.methods |= {
        "clientStorage:set": lambda arguments: [store.__setitem__(arguments["key"], arguments["value"]), "true"][1],
        "clientStorage:get": lambda arguments: json.dumps(store.get(arguments["key"])),
        "clientStorage:containskey": lambda arguments: json.dumps(arguments["key"] in store),
        "clientStorage:getkeys": lambda arguments: json.dumps(
            [key for key in store if key.startswith(arguments["key_prefix"])]
        ),
        "clientStorage:remove": lambda arguments: json.dumps(store.pop(arguments["key"], None) is not None),
        "clientStorage:clear": lambda arguments: [store.clear(), "true"][1],
    }  # fmt: skip
    return client


async def visit(served: Served) -> ClassicClient:
    return await with_storage(await served.open()).register()


async def test_client_storage_in_a_plain_handler(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        storage = page.client_storage
        storage.set("a.b", {"x": [1, "ü"]})
        got = [storage.get("a.b"), storage.contains_key("a.b"), storage.get_keys("a"), storage.remove("a.b")]
        page.add(ft.Text(json.dumps([*got, storage.get("a.b")])))

    client = await visit(await serve(main))
    text = await client.wait_for_control("text")
    assert json.loads(text["value"]) == [{"x": [1, "ü"]}, True, ["a.b"], True, None]


async def test_client_storage_in_an_async_handler(serve: Serve) -> None:
    async def main(page: ft.Page) -> None:
        storage = page.client_storage
        await storage.set_async("k", 5)
        page.add(ft.Text(str(await storage.get_async("k"))))

    client = await visit(await serve(main))
    await client.wait_for_control("text", value="5")


async def test_many_calls_at_once_get_their_own_answers(serve: Serve) -> None:
    async def main(page: ft.Page) -> None:
        storage = page.client_storage
        await asyncio.gather(*(storage.set_async(f"k{n}", n) for n in range(50)))
        values = await asyncio.gather(*(storage.get_async(f"k{n}") for n in range(50)))
        page.add(ft.Text(json.dumps(values)))

    client = await visit(await serve(main))
    text = await client.wait_for_control("text")
    assert json.loads(text["value"]) == list(range(50))


async def test_more_threads_wait_for_the_browser_than_the_machine_has_cores(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        def clicked(event: Any) -> None:
            page.add(ft.Text(page.get_clipboard()))

        page.add(ft.ElevatedButton("go", on_click=clicked))

    served = await serve(main)
    client = await served.visit()
    for _ in range(40):
        await click(client)
    await client.wait_for(lambda client: len(client.method_calls) == 40)
    for call in client.method_calls:
        await client.answer(call["methodId"], "pasted")
    await client.wait_for(lambda client: len(client.all("text", value="pasted")) == 40)


async def test_error_of_a_call_is_raised(serve: Serve) -> None:
    async def main(page: ft.Page) -> None:
        try:
            await page.get_clipboard_async()
        except Exception as error:  # noqa: BLE001  flet raises no other
            page.add(ft.Text(str(error)))

    client = await (await serve(main)).visit()
    await client.wait_for(lambda client: client.method_calls)
    await client.answer(client.method_calls[0]["methodId"], error="not allowed")
    await client.wait_for_control("text", value="not allowed")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_call_made_while_away_waits_for_the_return(serve: Serve, kind: str) -> None:
    go_on = asyncio.Event()

    def main(page: ft.Page) -> None:
        async def call_async() -> None:
            await go_on.wait()
            page.add(ft.Text(await page.get_clipboard_async()))

        async def call() -> None:
            await go_on.wait()
            page.run_thread(lambda: page.add(ft.Text(page.get_clipboard())))

        page.run_task(call_async if kind == "async" else call)

    served = await serve(main)
    client = await served.visit()
    await asyncio.sleep(0.01)
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    go_on.set()
    await served.until(lambda: served.session.waiting)
    other = await served.reopen(client)
    other.methods["getClipboard"] = lambda arguments: "pasted"
    await other.register()
    await other.wait_for_control("text", value="pasted")


async def test_calls_made_while_away_are_bounded_and_keep_their_order(play: Serve) -> None:
    errors: list[Exception] = []
    pages: list[ft.Page] = []
    served = await play(pages.append)
    client = await served.visit()
    await served.until(lambda: pages)
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    for n in range(200):
        try:
            pages[0].set_clipboard(str(n))
        except Exception as error:  # noqa: BLE001
            errors.append(error)
    assert len(errors) == 100
    assert "away" in str(errors[0])
    other = await served.come_back(client)
    await other.wait_for(lambda client: len(client.method_calls) == 100)
    assert [call["arguments"]["data"] for call in other.method_calls] == [str(n) for n in range(100)]


async def test_answer_to_a_call_nobody_made_is_ignored(play: Serve) -> None:
    served = await play(lambda page: page.add(ft.Text("here")))
    client = await served.visit()
    for method_id in ("x", "probe", ""):
        await client.answer(method_id, "true")
    await client.wait_for_control("text")
    await served.until(lambda: served.session.heard == 3)
    assert client.open


async def test_method_results_of_abandoned_calls_are_not_kept(play: Serve) -> None:
    async def main(page: ft.Page) -> None:
        for _ in range(5):
            with contextlib.suppress(TimeoutError):
                await page._invoke_method_async("getClipboard", wait_for_result=True, wait_timeout=0.001)
        page.add(ft.Text("here"))

    served = await play(main)
    client = await served.visit()
    await client.wait_for_control("text")
    await client.wait_for(lambda client: len(client.method_calls) == 5)
    for call in client.method_calls:
        await client.answer(call["methodId"], "late")
    await served.until(lambda: served.session.heard == 5)
    assert not served.session.page.argument._Page__method_call_results


# --- routing, page.session, pubsub -----------------------------------------------------------------------------------


async def test_routing_with_views(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        def changed(event: ft.RouteChangeEvent) -> None:
            page.views.clear()
            page.views.append(ft.View("/", [ft.Text("home")]))
            if page.route == "/store":
                page.views.append(ft.View("/store", [ft.Text("store")]))
            page.update()

        def popped(event: ft.ViewPopEvent) -> None:
            page.views.pop()
            page.go(page.views[-1].route)

        page.on_route_change = changed
        page.on_view_pop = popped
        page.go(page.route)

    served = await serve(main)
    client = await (await served.open()).register(route="/store")
    await client.wait_for_control("text", value="store")
    store = next(view for view in client.all("view") if view.get("route") == "/store")
    await client.event("page", "view_pop", store["i"])
    await client.wait_for(lambda client: len(client.all("view")) == 1)
    await client.update("page", route="/store")
    await client.event("page", "route_change", "/store")
    await client.wait_for_control("text", value="store")


@pytest.mark.parametrize("data", ["", "_1", "_2", "page", "_99", "null"])
async def test_view_pop_names_a_view(play: Serve, data: str) -> None:
    seen: list[Any] = []

    def main(page: ft.Page) -> None:
        page.on_view_pop = lambda event: seen.append(event.view)
        page.add(ft.Text("here"))

    served = await play(main)
    client = await served.visit()
    await client.wait_for_control("text")
    await client.event("page", "view_pop", data)
    await client.answer("x")
    await served.until(lambda: served.session.heard == 2 and served.session.running == 0)
    assert all(isinstance(view, ft.View) for view in seen)


async def test_page_session_is_kept_over_a_resume(serve: Serve) -> None:
    pages: list[ft.Page] = []
    served = await serve(pages.append)
    client = await served.visit()
    await served.until(lambda: pages)
    pages[0].session.set("cart", ["apple"])
    await client.abort()
    await served.come_back(client)
    assert pages[0].session.get("cart") == ["apple"]
    assert served.session.page.values() == {"cart": ["apple"]}


async def test_page_knows_its_browser(serve: Serve) -> None:
    pages: list[ft.Page] = []
    served = await serve(pages.append)
    await (await served.open(headers={"User-Agent": "Test/1"})).register(platform="android", platformBrightness="dark")
    await served.until(lambda: pages)
    page = pages[0]
    assert (page.width, page.height, page.route) == (1280, 720, "/")
    assert page.platform == ft.PagePlatform.ANDROID
    assert page.platform_brightness == ft.Brightness.DARK
    assert (page.web, page.pwa, page.client_ip, page.client_user_agent) == (True, False, "127.0.0.1", "Test/1")
    assert page.session_id not in (served.session.secret_id, served.session.key)


async def test_pubsub_reaches_all_or_the_others(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        async def on_message(message: Any) -> None:
            page.add(ft.Text(f"got {message}"))

        page.pubsub.subscribe(on_message)
        page.add(
            ft.ElevatedButton("all", on_click=lambda event: page.pubsub.send_all("all")),
            ft.TextButton("others", on_click=lambda event: page.pubsub.send_others("others")),
        )

    served = await serve(main)
    clients = [await served.visit() for _ in range(3)]
    for client in clients:
        await client.wait_for_control("textbutton")
    await click(clients[0])
    for client in clients:
        await client.wait_for_control("text", value="got all")
    await clients[0].click(clients[0].one("textbutton")["i"])
    for client in clients[1:]:
        await client.wait_for_control("text", value="got others")
    assert not clients[0].all("text", value="got others")


async def test_pubsub_topics_and_unsubscribing(serve: Serve) -> None:
    seen: list[tuple[int, str, str]] = []
    pages: list[ft.Page] = []

    def main(page: ft.Page) -> None:
        number = len(pages)
        page.pubsub.subscribe_topic("news", lambda topic, message: seen.append((number, topic, message)))
        pages.append(page)

    served = await serve(main)
    for n in range(3):
        await served.visit()
        await served.until(lambda n=n: len(pages) == n + 1)
    pages[1].pubsub.unsubscribe_topic("news")
    pages[0].pubsub.send_others_on_topic("news", "a")
    await served.until(lambda: len(seen) == 1)
    pages[2].pubsub.unsubscribe_all()
    pages[2].pubsub.send_all_on_topic("news", "b")
    await served.until(lambda: len(seen) == 2)
    assert seen == [(2, "news", "a"), (0, "news", "b")]


async def test_pubsub_does_not_cross_apps(play: Serve) -> None:
    seen: list[str] = []
    pages: list[ft.Page] = []

    def main(page: ft.Page) -> None:
        page.pubsub.subscribe(lambda message: seen.append(page.session_id))
        pages.append(page)

    served = await play(main)
    await served.visit()
    await served.visit(path="/other/ws")
    await served.until(lambda: len(pages) == 2)
    pages[0].pubsub.send_all("x")
    await served.until(lambda: seen)
    assert seen == [pages[0].session_id]


async def test_pubsub_reaches_who_is_away(serve: Serve) -> None:
    pages: list[ft.Page] = []

    def main(page: ft.Page) -> None:
        page.pubsub.subscribe(lambda message: page.add(ft.Text(message)))
        pages.append(page)

    served = await serve(main)
    client = await served.visit()
    await served.until(lambda: pages)
    await client.abort()
    await served.until(lambda: served.session.connection is None)
    pages[0].pubsub.send_all("hello")
    await served.until(lambda: pages[0].controls)
    assert (await served.come_back(client)).one("text", value="hello")
