"""After thousands of connections in every order nothing is left: no object, no task, no count."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest

from flet_fastapi.connection import Connection
from flet_fastapi.session import Session
from tests.support.classic_client import ClassicClient, event_message
from tests.support.serving import Served, serving

Step = Callable[[Served, ClassicClient], Awaitable[None]]


def app(page: ft.Page) -> Any:
    async def ticking() -> None:
        while True:
            await asyncio.sleep(3600)

    async def waits(event: Any) -> None:
        await asyncio.sleep(3600)

    async def fails(event: Any) -> None:
        raise LookupError

    async def quick(event: Any) -> None:
        page.controls[-1].value = str(random.random())
        page.update()

    page.run_task(ticking)
    page.pubsub.subscribe(quick)
    page.on_disconnect = page.on_connect = page.on_close = quick
    page.add(
        ft.ElevatedButton("waits", on_click=waits),
        ft.FilledButton("fails", on_click=fails),
        ft.OutlinedButton("quick", on_click=quick),
        ft.TextButton("thread", on_click=lambda event: page.add(ft.Text("x"))),
        ft.Text(""),
    )


async def press(client: ClassicClient, text: str) -> None:
    controls = client.all(text=text)
    if controls:
        await client.click(controls[0]["i"])


async def nothing(served: Served, client: ClassicClient) -> None:
    """The websocket opens, and that is all."""


async def registers(served: Served, client: ClassicClient) -> None:
    await client.register()


async def registers_and_leaves_at_once(served: Served, client: ClassicClient) -> None:
    await client.send_raw('{"action":"registerWebClient","payload":{}}')
    client.socket.abort()  # type: ignore[attr-defined]


async def clicks(served: Served, client: ClassicClient) -> None:
    await client.register()
    await client.wait_for_control(text="quick")
    for text in ("quick", "waits", "fails"):
        await press(client, text)
    await client.wait_for(lambda client: client.all("snackbar"))


async def leaves_while_handlers_run(served: Served, client: ClassicClient) -> None:
    await client.register()
    await client.wait_for_control(text="waits")
    for text in ("waits", "thread", "quick"):
        await press(client, text)
    client.socket.abort()  # type: ignore[attr-defined]


async def comes_back(served: Served, client: ClassicClient) -> None:
    await client.register()
    await client.abort()
    other = await served.come_back(client)
    await press(other, "outlinedbutton")
    await other.abort()


async def breaks_the_protocol(served: Served, client: ClassicClient) -> None:
    await client.register()
    await client.send_raw(random.choice(["{", "[]", b"\0", event_message("page", "invoke_method_result", "x")]))
    await client.wait_closed()


async def breaks_it_first(served: Served, client: ClassicClient) -> None:
    await client.send_raw("{")
    await client.wait_closed()


async def socket_breaks(served: Served, client: ClassicClient) -> None:
    await client.register()
    client.socket.broken = random.choice([OSError(), RuntimeError(), KeyError()])  # type: ignore[attr-defined]
    await press(client, "quick")


async def stalls(served: Served, client: ClassicClient) -> None:
    await client.register()
    await client.wait_for_control(text="quick")
    client.socket.stalled.clear()  # type: ignore[attr-defined]
    await press(client, "quick")
    await asyncio.sleep(0)


async def is_ended(served: Served, client: ClassicClient) -> None:
    await client.register()
    session = next(iter(served.manager.sessions()), None)
    if session is not None:
        served.manager.end(session, "evicted")


async def server_task_is_cancelled(served: Served, client: ClassicClient) -> None:
    await client.register()
    client.socket.server.cancel()  # type: ignore[attr-defined]
    await asyncio.sleep(0)


STEPS: list[Step] = [
    nothing, registers, registers_and_leaves_at_once, clicks, leaves_while_handlers_run, comes_back,
    breaks_the_protocol, breaks_it_first, socket_breaks, stalls, is_ended, server_task_is_cancelled,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_tracebacks_are_kept() -> Iterator[None]:
    """What pytest captures of the log would hold the frames of what failed."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class Watch:
    """Weak references to everything that a connection makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.living: weakref.WeakSet[Any] = weakref.WeakSet()
        self.made = 0
        for kind in (Session, Connection):
            if "__weakref__" in dir(kind):
                self._watch(monkeypatch, kind)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
        original = kind.__init__

        def init(this: Any, *args: Any, **kwargs: Any) -> None:
            original(this, *args, **kwargs)
            self.living.add(this)
            self.made += 1

        monkeypatch.setattr(kind, "__init__", init)

    def left(self) -> list[Any]:
        gc.collect()
        return list(self.living)


def pages() -> int:
    gc.collect()
    return sum(isinstance(found, ft.Page) for found in gc.get_objects())


async def one(served: Served, step: Step) -> None:
    try:
        client = await served.open()
    except ConnectionError:
        return
    try:
        await step(served, client)
    except ConnectionError:
        pass  # another order of events ended this connection first
    finally:
        await client.abort()


async def handler_threads_end() -> None:
    """Wait for the manager's pool: a plain function that still runs there holds its page."""
    async with asyncio.timeout(60):
        while any(thread.name.startswith("flet-handler") for thread in threading.enumerate()):
            await asyncio.sleep(0.001)


async def play_out(served: Served) -> None:
    served._clients.clear()
    await served.until(lambda: not served.manager.connections)


@pytest.mark.parametrize("step", STEPS, ids=[step.__name__ for step in STEPS])
async def test_one_way_to_end_leaves_nothing(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    pages_before = pages()
    watch = Watch(monkeypatch)
    async with serving(app, options={"session_timeout_seconds": 0}) as served:
        for _ in range(40):
            await one(served, step)
        await play_out(served)
        await served.until(lambda: not served.sessions)
        await served.until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() in NAMES])
    served = None
    await handler_threads_end()
    assert not watch.left()
    assert pages() == pages_before


NAMES = {"main", "handler", "on_connect", "on_disconnect", "listen", "converse", "close_session", "on_close", "server"}


async def test_thousands_in_random_order_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pages_before = pages()
    watch = Watch(monkeypatch)
    random.seed(20240824)
    async with serving(app, max_sessions=60, options={"session_timeout_seconds": 3600}) as served:
        monkeypatch.setattr("flet_fastapi.session._PROBE_SECONDS", 0.05)
        for _ in range(50):
            await asyncio.gather(*(one(served, random.choice(STEPS)) for _ in range(40)))
            served._clients.clear()
        await play_out(served)
        assert len(served.sessions) <= 60
        assert served.counted("flet_sessions", state="connected") == 0
        assert served.counted("flet_sessions", state="detached") == len(served.sessions)
        assert len(served.manager._detached) == len(served.sessions)
        assert len(served.manager._by_key) == len(served.sessions)
        started = served.counted("flet_sessions_started_total")
        assert started == len(served.sessions) + served._ended()
        assert served.manager.unregistered == 0
        for session in served.sessions:
            served.manager.end(session, "expired")
        await served.until(lambda: served._ended() == started)
        assert not served.manager._browsers
        assert not served.manager._hubs
        del session
    served = None
    await handler_threads_end()
    assert watch.made > 500
    assert not watch.left()
    assert pages() == pages_before
