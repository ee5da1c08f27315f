"""Failures of the app's own code: the user reads an id, the operator a traceback, nobody else suffers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest

from flet_fastapi import FletApp
from flet_fastapi.errors import OptionError
from tests.conftest import Logs
from tests.protocol.conftest import Serve
from tests.protocol.test_handlers import click, with_button
from tests.support.classic_client import ClassicClient
from tests.support.servers import WEBSOCKETS, uvicorn_server

SECRET = "the password is 1234"
ID = re.compile(r"[0-9a-f]{8}")


class Sad(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def fails(page: ft.Page) -> Callable[..., Any]:
    def handler(event: Any) -> None:
        raise LookupError(SECRET)

    return handler


def fails_async(page: ft.Page) -> Callable[..., Any]:
    async def handler(event: Any) -> None:
        raise LookupError(SECRET)

    return handler


def fails_later(page: ft.Page) -> Callable[..., Any]:
    async def handler(event: Any) -> None:
        await asyncio.sleep(0)
        raise LookupError(SECRET)

    return handler


def fails_in_task(page: ft.Page) -> Callable[..., Any]:
    async def task() -> None:
        raise LookupError(SECRET)

    return lambda event: page.run_task(task)


def fails_in_thread(page: ft.Page) -> Callable[..., Any]:
    return lambda event: page.run_thread(fails(page), event)


def fails_in_pubsub(page: ft.Page) -> Callable[..., Any]:
    page.pubsub.subscribe(fails(page))
    return lambda event: page.pubsub.send_all("x")


def too_few_parameters(page: ft.Page) -> Callable[..., Any]:
    return lambda: None


def too_few_parameters_async(page: ft.Page) -> Callable[..., Any]:
    async def handler() -> None:
        pass

    return handler


def builtin(page: ft.Page) -> Callable[..., Any]:
    return functools.partial(int, "no number")


def misuse_of_flet(page: ft.Page) -> Callable[..., Any]:
    return lambda event: ft.Text("never added").update()


def flets_own_method(page: ft.Page) -> Callable[..., Any]:
    return functools.partial(page.remove_at, 99)


def exit_in_thread(page: ft.Page) -> Callable[..., Any]:
    return lambda event: sys.exit(1)


def raises(error: BaseException) -> Callable[[ft.Page], Callable[..., Any]]:
    def made(page: ft.Page) -> Callable[..., Any]:
        def handler(event: Any) -> None:
            raise error

        return handler

    made.__name__ = type(error).__name__
    return made


def raises_async(error: BaseException) -> Callable[[ft.Page], Callable[..., Any]]:
    def made(page: ft.Page) -> Callable[..., Any]:
        async def handler(event: Any) -> None:
            raise error

        return handler

    made.__name__ = f"{type(error).__name__}_async"
    return made


def raises_later(error: BaseException) -> Callable[[ft.Page], Callable[..., Any]]:
    def made(page: ft.Page) -> Callable[..., Any]:
        async def handler(event: Any) -> None:
            await asyncio.sleep(0)
            raise error

        return handler

    made.__name__ = f"{type(error).__name__}_later"
    return made


def raises_in_task(error: BaseException) -> Callable[[ft.Page], Callable[..., Any]]:
    def made(page: ft.Page) -> Callable[..., Any]:
        async def task() -> None:
            raise error

        async def handler(event: Any) -> None:
            page.run_task(task)

        return handler

    made.__name__ = f"{type(error).__name__}_in_task"
    return made


def nothing_next(page: ft.Page) -> Callable[..., Any]:
    return lambda event: next(iter([]))


def bad_str(page: ft.Page) -> Callable[..., Any]:
    async def handler(event: Any) -> None:
        raise Sad

    return handler


def module_that_sounds_like_ours(page: ft.Page) -> Callable[..., Any]:
    module = types.ModuleType("json_tools")
    exec("async def handler(event):\n    raise LookupError", module.__dict__)
    return module.handler  # type: ignore[no-any-return]


FAILING = [
    fails, fails_async, fails_later, fails_in_task, fails_in_thread, fails_in_pubsub, too_few_parameters,
    too_few_parameters_async, misuse_of_flet, flets_own_method, builtin, exit_in_thread, bad_str,
    module_that_sounds_like_ours, nothing_next,
    *[made(error) for error in (KeyboardInterrupt(), GeneratorExit(), StopIteration(), StopAsyncIteration())
      for made in (raises, raises_async, raises_later, raises_in_task)],
]  # fmt: skip


@pytest.mark.parametrize("made", FAILING, ids=[made.__name__ for made in FAILING])
async def test_failure_is_counted_logged_and_shown_without_its_text(
    play: Serve, logs: Logs, made: Callable[[ft.Page], Any]
) -> None:
    served = await play(with_button(made))
    client = await served.visit()
    await click(client)
    bar = await client.wait_for_control("snackbar")
    text = client.one("text", p=bar["i"])["value"]
    assert ID.search(text)
    assert SECRET not in str(client.messages)
    await served.until(lambda: served.session.running == 0)
    (record,) = logs.named("app_error")
    assert vars(record)["fields"]["error_id"] in text
    assert record.exc_info
    await click(client)  # the page goes on
    await client.wait_for(lambda client: client.one("text", p=bar["i"])["value"] != text)


async def test_debug_shows_the_traceback(play: Serve) -> None:
    client = await (await play(with_button(fails_async), debug=True)).visit()
    await click(client)
    bar = await client.wait_for_control("snackbar")
    assert SECRET in client.one("text", p=bar["i"])["value"]


@pytest.mark.parametrize(
    "error",
    [
        LookupError(SECRET), SystemExit(1), Sad(), ExceptionGroup(SECRET, [KeyError()]), StopIteration(),
        KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_crash_of_main_shows_an_id(serve: Serve, error: BaseException, kind: str) -> None:
    async def waits(page: ft.Page) -> None:
        raise error

    def plain(page: ft.Page) -> None:
        raise error

    served = await serve(waits if kind == "async" else plain)
    client = await served.visit()
    await client.wait_for(lambda client: client.crash)
    assert ID.search(client.crash)
    assert SECRET not in str(client.messages)
    assert served.counted("flet_app_errors_total", where="main") == 1


async def cancelled_one() -> None:
    """Awaits a task that somebody has cancelled."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def test_main_that_awaits_what_was_cancelled_shows_an_id(play: Serve, logs: Logs) -> None:
    async def main(page: ft.Page) -> None:
        await cancelled_one()

    client = await (await play(main)).visit()
    await client.wait_for(lambda client: client.crash)
    assert logs.fields("app_error")[0]["error_id"] in client.crash


@pytest.mark.parametrize("kind", ["handler", "task"])
async def test_handler_that_awaits_what_was_cancelled_is_logged_and_not_shown(
    play: Serve, logs: Logs, kind: str
) -> None:
    def made(page: ft.Page) -> Any:
        async def handler(event: Any) -> None:
            page.add(ft.Text("here"))
            if kind == "task":
                page.run_task(cancelled_one)
            else:
                await cancelled_one()

        return handler

    served = await play(with_button(made))
    client = await served.visit()
    await click(client)
    await served.until(lambda: served.counted("flet_app_errors_total", where=kind) == 1)
    await client.wait_for_control("text", value="here")
    await served.until(lambda: not served.session.running)
    assert not client.all("snackbar")
    assert len(logs.named("app_error")) == 1


async def test_cancellation_on_purpose_is_no_failure(play: Serve, logs: Logs) -> None:
    def made(page: ft.Page) -> Any:
        async def waits() -> None:
            await asyncio.Event().wait()

        async def handler(event: Any) -> None:
            waiting = page.run_task(waits)
            await asyncio.sleep(0.01)
            waiting.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await waits()
            page.add(ft.Text("done"))
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await waits()

        return handler

    served = await play(with_button(made))
    client = await served.visit()
    await click(client)
    await client.wait_for_control("text", value="done")
    await served.until(lambda: not served.session.running)
    assert not logs.named("app_error")


async def test_end_of_a_session_is_no_failure_of_what_runs(play: Serve, logs: Logs) -> None:
    async def waits(page: ft.Page) -> None:
        page.add(ft.Text("here"))
        await asyncio.Event().wait()

    served = await play(waits)
    client = await served.visit()
    await client.wait_for_control("text")
    await served.manager.shutdown()
    assert not logs.named("app_error")


async def test_keyboard_interrupt_of_an_app_does_not_stop_its_server_and_ctrl_c_does(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(INTERRUPTS)
    with uvicorn_server("program:app", tmp_path, tmp_path / "log", *WEBSOCKETS) as server:
        client = ClassicClient(server.url.replace("http", "ws") + "/ws")
        await client.connect()
        await client.register()
        await client.wait_for_control("textbutton", text="plain")
        for button in ("async", "later", "plain"):
            before = len(client.all("text"))
            await client.click(client.one("textbutton", text=button)["i"])
            await client.wait_for(lambda client, button=button: client.all("text", value=f"{button} failed"))
            assert len(client.all("text")) == before + 1
        os.kill(server.pid, signal.SIGINT)
        assert await client.wait_closed() == 1012
        assert server.said().count("app_error") >= 3


INTERRUPTS = """
import asyncio
import flet as ft
import flet_fastapi

def main(page):
    failed = []

    def on_error(event):
        page.add(ft.Text(f"{failed.pop()} failed"))

    def plain(event):
        failed.append("plain")
        raise KeyboardInterrupt

    async def waits(event):
        failed.append("async")
        raise KeyboardInterrupt

    async def later(event):
        failed.append("later")
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    page.on_error = on_error
    page.add(*[ft.TextButton(name, on_click=handler)
               for name, handler in {"plain": plain, "async": waits, "later": later}.items()])

app = flet_fastapi.app(main)
"""


@pytest.mark.parametrize("main", [lambda: None, lambda page, more: None])
def test_main_that_cannot_be_called_with_a_page_is_refused_at_construction(main: Any) -> None:
    with pytest.raises(OptionError, match="session_handler"):
        FletApp(main)


async def test_crashed_session_is_not_resumed(serve: Serve) -> None:
    crash = [True]

    def main(page: ft.Page) -> None:
        if crash.pop():
            crash.append(False)
            raise LookupError
        page.add(ft.Text("well"))
        crash.append(False)

    served = await serve(main)
    client = await served.visit()
    await client.wait_for(lambda client: client.crash)
    await client.abort()
    other = await served.come_back(client)
    await other.wait_for_control("text", value="well")
    assert served.counted("flet_resumes_total", result="crashed") == 1


async def test_crashed_page_in_an_open_tab_gets_a_new_session_after_reload(serve: Serve) -> None:
    """F5 opens the new connection before the server has seen the old one close."""

    def main(page: ft.Page) -> None:
        raise LookupError

    served = await serve(main)
    client = await served.visit()
    await client.wait_for(lambda client: client.crash)
    other = await served.come_back(client)
    assert other.session_id != client.session_id


async def test_on_error_gets_the_message_instead(play: Serve) -> None:
    seen: list[str] = []

    def made(page: ft.Page) -> Any:
        page.on_error = lambda event: seen.append(event.data)
        return fails_async(page)

    served = await play(with_button(made))
    client = await served.visit()
    await click(client)
    await served.until(lambda: seen == [SECRET])
    assert not client.all("snackbar")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_failing_on_error_does_not_run_for_its_own_failure(play: Serve, kind: str) -> None:
    calls = 0

    def made(page: ft.Page) -> Any:
        def plain(event: Any) -> None:
            nonlocal calls
            calls += 1
            raise LookupError("again")

        async def waits(event: Any) -> None:
            plain(event)

        page.on_error = waits if kind == "async" else plain
        return fails_async(page)

    served = await play(with_button(made))
    client = await served.visit()
    await click(client)
    await client.wait_for_control("snackbar")
    for _ in range(100):
        await asyncio.sleep(0)
    assert calls == 1


async def test_on_close_that_fails_still_ends_the_session(play: Serve, logs: Logs) -> None:
    def main(page: ft.Page) -> None:
        page.on_close = fails(page)

    served = await play(main)
    client = await served.visit()
    await served.until(lambda: "main" not in str(served.session))
    await client.abort()
    await served.manager.shutdown()
    assert served.counted("flet_sessions_ended_total", reason="shutdown") == 1


async def test_will_unmount_that_fails_still_ends_the_session(play: Serve) -> None:
    class Bad(ft.Column):  # type: ignore[misc]
        def will_unmount(self) -> None:
            raise LookupError

    def main(page: ft.Page) -> None:
        page.add(Bad())
        page.add(ft.Text("x"))

    served = await play(main)
    client = await served.visit()
    await client.wait_for_control("text")
    page = served.session.page.argument
    await served.manager.shutdown()
    assert page.connection is None, "the page still holds its connection"


async def test_system_exit_in_a_task_does_not_stop_the_server(play: Serve) -> None:
    async def task() -> None:
        raise SystemExit(1)

    def made(page: ft.Page) -> Any:
        async def handler(event: Any) -> None:
            page.run_task(task)

        return handler

    client = await (await play(with_button(made))).visit()
    await click(client)
    await client.wait_for_control("snackbar")


async def test_tracebacks_are_bounded(play: Serve, logs: Logs) -> None:
    served = await play(with_button(fails_async))
    client = await served.visit()
    for _ in range(60):
        await click(client)
    await served.until(lambda: served.counted("flet_app_errors_total", where="handler") == 60)
    assert sum(bool(record.exc_info) for record in logs.named("app_error")) == 50


async def test_bad_data_of_the_client_is_no_error_of_the_app(play: Serve, logs: Logs) -> None:
    def main(page: ft.Page) -> None:
        page.on_keyboard_event = lambda event: None
        page.add(ft.Text("here"))

    served = await play(main)
    client = await served.visit()
    await client.wait_for_control("text")
    for data in ("", "{", "[]", '{"key": 1, "more": 2}', "null"):
        await client.event("page", "keyboard_event", data)
    await served.until(lambda: served.counted("flet_refused_total", kind="event_data") == 5)
    assert not logs.named("app_error")
    assert len(logs.named("refused")) == 1
