"""Several apps in one program: endpoints made for each request, and an app that is mounted."""

import os

import flet as ft
from fastapi import WebSocket
from starlette.types import Message, Receive, Scope, Send

import flet_fastapi

PID = str(os.getpid())


async def main(page: ft.Page) -> None:
    count = ft.Text("0", data=0, key="count")

    async def click(event: ft.ControlEvent) -> None:
        count.data += 1
        count.value = str(count.data)
        page.update()

    page.add(ft.Text(PID, key="pid"), count, ft.ElevatedButton("up", on_click=click))


async def second(page: ft.Page) -> None:
    await main(page)


inner = flet_fastapi.FastAPI()


@inner.websocket("/one/ws")
async def one(websocket: WebSocket) -> None:
    await flet_fastapi.FletApp(main).handle(websocket)


@inner.websocket("/two/ws")
async def two(websocket: WebSocket) -> None:
    await flet_fastapi.FletApp(second).handle(websocket)


inner.mount("/sub", flet_fastapi.app(main))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Puts the worker's process id into the answer to each handshake."""

    async def marked(message: Message) -> None:
        if message["type"] == "websocket.accept":
            message["headers"] = [*message.get("headers", ()), (b"x-worker", PID.encode())]
        await send(message)

    await inner(scope, receive, marked if scope["type"] == "websocket" else send)
