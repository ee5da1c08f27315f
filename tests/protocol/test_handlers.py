"""Every way in which an app's code is called, and what it may do."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import flet as ft  # type: ignore[import-untyped]
import pytest

from tests.protocol.conftest import Serve
from tests.support.classic_client import ClassicClient

Handler = Callable[..., Any]


def with_button(handler: Callable[[ft.Page], Handler]) -> Handler:
    """An app with one button; `handler(page)` makes what its click calls."""

    def main(page: ft.Page) -> None:
        page.add(ft.ElevatedButton("go", on_click=handler(page)))

    return main


async def click(client: ClassicClient) -> None:
    await client.click((await client.wait_for_control("elevatedbutton"))["i"])


def parts(client: ClassicClient) -> list[Any]:
    """What came, batches taken apart."""
    found: list[Any] = []
    for message in client.messages:
        found += message["payload"] if message["action"] == "pageControlsBatch" else [message]
    return found


def changes(part: Any) -> list[Any]:
    return part["payload"]["props"] if part["action"] == "updateControlProps" else []  # type: ignore[no-any-return]


async def test_async_handler_answers_a_click(serve: Serve) -> None:
    async def main(page: ft.Page) -> None:
        text = ft.Text("0")

        async def clicked(event: ft.ControlEvent) -> None:
            text.value = str(int(text.value) + 1)
            page.update()

        page.add(ft.ElevatedButton("up", on_click=clicked), text)

    client = await (await serve(main)).visit()
    await click(client)
    await click(client)
    await client.wait_for_control("text", value="2")


async def test_plain_handler_runs_in_a_thread(serve: Serve) -> None:
    def made(page: ft.Page) -> Handler:
        return lambda event: page.add(ft.Text(threading.current_thread().name))

    client = await (await serve(with_button(made))).visit()
    await click(client)
    text = await client.wait_for_control("text")
    assert text["value"].startswith("flet-handler")


async def test_plain_subscriber_hears_one_message_after_the_other(serve: Serve) -> None:
    heard: dict[str, list[str]] = {"slow": [], "quick": []}
    go_on = threading.Event()
    names = iter(heard)

    def main(page: ft.Page) -> None:
        name = next(names)

        def hear(message: str) -> None:
            if name == "slow" and message == "0":
                go_on.wait(10)
            heard[name].append(message)

        page.pubsub.subscribe(hear)
        page.add(ft.ElevatedButton("go", on_click=lambda event: [page.pubsub.send_all(str(n)) for n in range(20)]))

    served = await serve(main)
    clients = [await served.visit() for _ in heard]
    await click(clients[1])
    await served.until(lambda: len(heard["quick"]) == 20)
    go_on.set()
    await served.until(lambda: len(heard["slow"]) == 20)
    assert heard["slow"] == heard["quick"] == [str(n) for n in range(20)]


class Callable1:
    def __init__(self, page: ft.Page) -> None:
        self.page = page

    def plain(self, event: Any) -> None:
        self.page.add(ft.Text("done"))

    async def waits(self, event: Any) -> None:
        await asyncio.sleep(0)
        self.page.add(ft.Text("done"))


class PlainCallable(Callable1):
    def __call__(self, event: Any) -> None:
        self.plain(event)


class AsyncCallable(Callable1):
    async def __call__(self, event: Any) -> None:
        await self.waits(event)


@pytest.mark.parametrize(
    "made",
    [
        lambda page: Callable1(page).plain,
        lambda page: Callable1(page).waits,
        lambda page: PlainCallable(page),
        lambda page: AsyncCallable(page),
        lambda page: partial(Callable1.plain, Callable1(page)),
        lambda page: partial(partial(Callable1.waits), Callable1(page)),
        lambda page: lambda event: page.run_task(Callable1(page).waits, event),
        lambda page: lambda event: page.run_thread(Callable1(page).plain, event),
    ],
)
async def test_whatever_can_be_called_is_a_handler(play: Serve, made: Callable[[ft.Page], Handler]) -> None:
    client = await (await play(with_button(made))).visit()
    await click(client)
    await client.wait_for_control("text", value="done")


async def test_main_may_be_any_callable(play: Serve) -> None:
    class Main:
        async def __call__(self, page: ft.Page) -> None:
            page.add(ft.Text("here"))

    client = await (await play(Main())).visit()
    await client.wait_for_control("text", value="here")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_deprecated_async_methods_live(serve: Serve) -> None:
    async def main(page: ft.Page) -> None:
        text = ft.Text("a")
        await page.add_async(text)
        text.value = "b"
        await text.update_async()
        await page.update_async()
        await page.go_async("/there")

    client = await (await serve(main)).visit()
    await client.wait_for_control("text", value="b")
    await client.wait_for(lambda client: client.page["route"] == "/there")


async def test_run_task_gives_its_result(serve: Serve) -> None:
    async def answer(number: int, *, plus: int) -> int:
        await asyncio.sleep(0)
        return number + plus

    def main(page: ft.Page) -> None:
        page.add(ft.Text(str(page.run_task(answer, 40, plus=2).result())))

    client = await (await serve(main)).visit()
    await client.wait_for_control("text", value="42")


async def test_threads_of_the_app_update_the_page(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        texts = [ft.Text("0") for _ in range(8)]
        page.add(*texts)

        def count(text: ft.Text) -> None:
            for n in range(1, 51):
                text.value = str(n)
                text.update()

        for text in texts:
            threading.Thread(target=count, args=(text,)).start()

    client = await (await serve(main)).visit()
    await client.wait_for(lambda client: len(client.all("text", value="50")) == 8)


async def test_updates_of_one_thread_keep_their_order(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        page.add(ft.Text("0"))
        for n in range(1, 300):
            page.controls[0].value = str(n)
            page.update()

    client = await (await serve(main)).visit()
    await client.wait_for_control("text", value="299")
    values = [int(change["value"]) for part in parts(client) for change in changes(part) if "value" in change]
    assert len(values) > 250
    assert values == sorted(values)


async def test_order_of_updates_and_method_calls_is_kept(serve: Serve) -> None:
    async def main(page: ft.Page) -> None:
        text = ft.Text("0")
        page.add(text)
        for n in range(1, 20):
            text.value = str(n)
            page.update()
            page.set_clipboard(str(n))

    client = await (await serve(main)).visit()
    await client.wait_for(lambda client: len(client.method_calls) == 19)
    seen: list[str] = []
    for part in parts(client):
        seen += ["u" + change["value"] for change in changes(part)]
        if part["action"] == "invokeMethod":
            seen.append("m" + part["payload"]["arguments"]["data"])
    assert seen == [kind + str(n) for n in range(1, 20) for kind in "um"]
    assert client.mirror.ignored == 0


async def test_events_reach_async_handlers_in_order(serve: Serve) -> None:
    seen: list[str] = []

    def main(page: ft.Page) -> None:
        async def changed(event: ft.ControlEvent) -> None:
            seen.append(event.data)

        page.add(ft.TextField(on_change=changed))

    served = await serve(main)
    client = await served.visit()
    field = await client.wait_for_control("textfield")
    for n in range(500):
        await client.event(field["i"], "change", str(n))
    await served.until(lambda: len(seen) == 500)
    assert seen == [str(n) for n in range(500)]


async def test_handler_sees_the_value_that_came_before_its_event(serve: Serve) -> None:
    def main(page: ft.Page) -> None:
        async def changed(event: ft.ControlEvent) -> None:
            page.add(ft.Text(event.control.value))

        page.add(ft.TextField(on_change=changed))

    client = await (await serve(main)).visit()
    field = await client.wait_for_control("textfield")
    await client.change(field["i"], "Grüße 🎉")
    await client.wait_for_control("text", value="Grüße 🎉")


async def test_long_handlers_run_side_by_side(serve: Serve) -> None:
    running = 0
    all_here = asyncio.Event()

    def made(page: ft.Page) -> Handler:
        async def clicked(event: Any) -> None:
            nonlocal running
            running += 1
            if running == 20:
                all_here.set()
            await all_here.wait()
            running -= 1

        return clicked

    served = await serve(with_button(made))
    client = await served.visit()
    for _ in range(20):
        await click(client)
    await served.until(lambda: all_here.is_set() and running == 0)
    await served.until(lambda: served.session.running == 0)


# --- what a handler does before its first wait, while it shares its task with the reader ------------------------------


async def times_out(page: ft.Page) -> None:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(60)


async def times_out_nested(page: ft.Page) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60), asyncio.timeout(0.001):
            await asyncio.sleep(60)


async def zero_timeout(page: ft.Page) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.sleep(60)


async def unused_zero_timeout(page: ft.Page) -> None:
    async with asyncio.timeout(0):
        pass


async def groups(page: ft.Page) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(asyncio.sleep(0))


async def group_fails(page: ft.Page) -> None:
    async def fails() -> None:
        raise LookupError

    async def group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup):
        await group()


async def moves_on(page: ft.Page) -> None:
    with anyio.move_on_after(0.001):
        await anyio.sleep(60)


async def scope_cancelled_at_once(page: ft.Page) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()


async def scope_cancelled_then_waits(page: ft.Page) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(60)


async def anyio_group(page: ft.Page) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
        await anyio.sleep(0)


async def waits_for(page: ft.Page) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)


async def gathers(page: ft.Page) -> None:
    await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(lambda: None))


async def shields(page: ft.Page) -> None:
    await asyncio.shield(asyncio.sleep(0))


async def lock(page: ft.Page) -> None:
    async with asyncio.Lock():
        await asyncio.sleep(0)


async def cancels_itself(page: ft.Page) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancels_itself_and_waits(page: ft.Page) -> None:
    await cancels_itself(page)
    await asyncio.sleep(60)


async def cancels_and_uncancels(page: ft.Page) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(60)
    task.uncancel()


async def raises_cancelled(page: ft.Page) -> None:
    raise asyncio.CancelledError


async def exits(page: ft.Page) -> None:
    raise SystemExit(1)


async def exits_later(page: ft.Page) -> None:
    await asyncio.sleep(0)
    raise SystemExit(1)


class OwnBaseException(BaseException):
    pass


async def raises_base_exception(page: ft.Page) -> None:
    raise OwnBaseException


async def raises_base_exception_later(page: ft.Page) -> None:
    await asyncio.sleep(0)
    raise OwnBaseException


async def generator_exit(page: ft.Page) -> None:
    raise GeneratorExit


SHARING = [
    times_out, times_out_nested, zero_timeout, unused_zero_timeout, groups, group_fails, moves_on,
    scope_cancelled_at_once, scope_cancelled_then_waits, anyio_group, waits_for, gathers, shields, lock,
    cancels_itself, cancels_itself_and_waits, cancels_and_uncancels, raises_cancelled, exits, exits_later,
    raises_base_exception, raises_base_exception_later, generator_exit,
]  # fmt: skip


@pytest.mark.parametrize("body", SHARING, ids=[body.__name__ for body in SHARING])
async def test_nothing_that_a_handler_does_stops_the_next_one(play: Serve, body: Callable[[ft.Page], Any]) -> None:
    def main(page: ft.Page) -> None:
        async def clicked(event: Any) -> None:
            await body(page)

        async def after(event: Any) -> None:
            await asyncio.sleep(0)
            page.add(ft.Text("after"))

        page.add(ft.ElevatedButton("go", on_click=clicked), ft.TextButton("after", on_click=after))

    served = await play(main)
    client = await served.visit()
    await click(client)
    await click(client)
    await asyncio.sleep(0.02)  # to let the reader go to its next wait, where a cancellation would hit it
    await client.click(client.one("textbutton")["i"])
    await client.wait_for_control("text", value="after")
    await served.until(lambda: served.session.running == 0)


async def test_task_kept_by_a_handler_can_be_cancelled_by_the_next(play: Serve) -> None:
    """The usual way to debounce: each event cancels what the last one has begun."""
    started: list[str] = []

    def main(page: ft.Page) -> None:
        task: asyncio.Task[Any] | None = None

        async def changed(event: ft.ControlEvent) -> None:
            nonlocal task
            if task is not None:
                task.cancel()
            task = asyncio.current_task()
            if event.data == "quick":
                return
            await asyncio.sleep(0)
            started.append(event.data)
            page.add(ft.Text(event.data))

        page.add(ft.TextField(on_change=changed))

    client = await (await play(main)).visit()
    field = await client.wait_for_control("textfield")
    for data in ("quick", "first"):
        await client.event(field["i"], "change", data)
    await client.wait_for_control("text", value="first")


async def test_task_of_a_finished_handler_is_not_the_readers(play: Serve) -> None:
    kept: list[asyncio.Task[Any]] = []

    def main(page: ft.Page) -> None:
        async def keep(event: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            kept.append(task)

        page.add(ft.ElevatedButton("keep", on_click=keep))

    served = await play(main)
    client = await served.visit()
    await click(client)
    await served.until(lambda: kept)
    await asyncio.sleep(0)
    kept[0].cancel()  # what another session, or a timer of the app, may do at any time
    await asyncio.sleep(0)
    await click(client)
    await served.until(lambda: len(kept) == 2)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_context_variables_of_a_handler_are_its_own(play: Serve) -> None:
    def main(page: ft.Page) -> None:
        async def clicked(event: Any) -> None:
            page.add(ft.Text(variable.get()))
            variable.set("leaked")

        page.add(ft.ElevatedButton("go", on_click=clicked))

    client = await (await play(main)).visit()
    await click(client)
    await click(client)
    await client.wait_for(lambda client: len(client.all("text")) == 2)
    assert [text["value"] for text in client.all("text")] == ["unset", "unset"]


async def test_context_variable_set_before_a_wait_is_there_after_it(play: Serve) -> None:
    def main(page: ft.Page) -> None:
        async def clicked(event: Any) -> None:
            token = variable.set("mine")
            await asyncio.sleep(0)
            page.add(ft.Text(variable.get()))
            variable.reset(token)
            page.add(ft.Text(variable.get()))

        page.add(ft.ElevatedButton("go", on_click=clicked))

    client = await (await play(main)).visit()
    await click(client)
    await client.wait_for_control("text", value="mine")
    await client.wait_for_control("text", value="unset")


async def test_current_page_is_right_everywhere(serve: Serve) -> None:
    """`ft.context.page` in each kind of code, of two sessions that run it at the same time."""
    wrong: list[str] = []
    right: list[str] = []

    def main(page: ft.Page) -> None:
        def check(where: str) -> None:
            (right if ft.context.page is page else wrong).append(where)

        async def checked(where: str) -> None:
            check(where)
            await asyncio.sleep(0.001)
            check(where + " later")

        async def clicked(event: Any) -> None:
            await checked("handler")
            await asyncio.create_task(checked("task of a handler"))
            await asyncio.to_thread(check, "to_thread")
            page.run_task(checked, "run_task")
            page.run_thread(check, "run_thread")
            page.pubsub.send_all("x")

        async def on_message(message: Any) -> None:
            await checked("pubsub")

        check("main")
        page.pubsub.subscribe(on_message)
        page.on_disconnect = lambda event: check("on_disconnect")
        page.on_connect = lambda event: check("on_connect")
        page.on_close = lambda event: check("on_close")
        page.add(
            ft.ElevatedButton("a", on_click=clicked),
            ft.TextButton("b", on_click=lambda event: check("plain handler")),
        )

    served = await serve(main)
    clients = [await served.visit() for _ in range(2)]
    for client in clients:
        await click(client)
        await client.click(client.one("textbutton")["i"])
    await served.until(lambda: right.count("pubsub later") == 4 and right.count("run_task later") == 2)
    for client in clients:
        await client.abort()
    await served.until(lambda: right.count("on_disconnect") == 2)
    for client in clients:
        await served.come_back(client)
    await served.until(lambda: right.count("on_connect") == 2)
    await served.manager.shutdown()
    assert right.count("on_close") == 2
    assert right.count("plain handler") == 2
    assert not wrong


async def test_waiting_for_the_browser_on_the_loop_is_an_error(play: Serve) -> None:
    errors: list[BaseException] = []

    async def main(page: ft.Page) -> None:
        try:
            page.client_storage.get("key")
        except RuntimeError as error:
            errors.append(error)

    served = await play(main)
    await served.visit()
    await served.until(lambda: errors)
    assert "_async" in str(errors[0])
