"""An app for several workers: a session shows which one is its own, a websocket's answer names the one it came to."""

import os
from dataclasses import dataclass, field

import flet as ft
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import flet_fastapi

PID = str(os.getpid())
MARK = (b"x-worker", PID.encode())


@dataclass
class Said:
    """A chat's message: a plain object, as Flet's tutorial sends them."""

    user: str
    text: str
    tags: set[str] = field(default_factory=set)


async def main(page: ft.Page) -> None:
    count, chat = ft.Text("0", data=0, key="count"), ft.Text("", key="chat")
    heard: list[str] = []

    async def click(event: ft.ControlEvent) -> None:
        count.data += 1
        count.value = str(count.data)
        page.update()

    async def say(event: ft.ControlEvent) -> None:
        for text in event.data.split():
            page.pubsub.send_all(Said(PID, text, {text}))

    async def hear(message: Said) -> None:
        assert type(message) is Said and message.tags == {message.text}
        heard.append(message.text)
        chat.value = " ".join(heard)
        page.update()

    async def flood(event: ft.ControlEvent) -> None:
        for number in range(int(event.data)):
            chat.value = f"{number} " + "x" * 100_000
            page.update()

    page.pubsub.subscribe(hear)
    field_ = ft.TextField(on_submit=say, on_blur=flood)
    page.add(ft.Text(PID, key="pid"), count, chat, ft.ElevatedButton("up", on_click=click), field_)


class Marked:
    """Puts the worker's process id into the answer to each handshake."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "websocket.accept":
                message["headers"] = [*message.get("headers", ()), MARK]
            await send(message)

        offer = scope.get("extensions", {}).get("roost.websocket.traffic")
        if offer is not None:  # Roost's own server, whose `send` goes to the app as it is
            offer["headers"].append(MARK)
        await self.app(scope, receive, send if offer or scope["type"] != "websocket" else marked)


app = Marked(flet_fastapi.app(main))
