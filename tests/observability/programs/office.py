"""An app in which everything happens that the dashboards show."""

from __future__ import annotations

import asyncio
import os
import time

import flet as ft
from flet.auth import OAuthProvider

import flet_fastapi

PROVIDER, CALLBACK = os.environ["PROVIDER"], os.environ["CALLBACK"]


async def main(page: ft.Page) -> None:
    if page.route == "/broken":
        raise RuntimeError("main fails")

    async def add(event: ft.ControlEvent) -> None:
        count.data += 1
        count.value = f"added {count.data}"
        page.update()

    def fail(event: ft.ControlEvent) -> None:
        raise RuntimeError("a handler fails")

    async def slow(event: ft.ControlEvent) -> None:
        await asyncio.sleep(0.2)

    async def block(event: ft.ControlEvent) -> None:
        time.sleep(0.3)  # what an app should not do

    def flood(event: ft.ControlEvent) -> None:
        page.add(ft.Text("x" * 1_000_000))

    def share(event: ft.ControlEvent) -> None:
        page.pubsub.send_all(count.value)

    def told(message: str) -> None:
        heard.value = f"heard {message}"
        page.update()

    def upload(event: ft.ControlEvent) -> None:
        page.launch_url(page.get_upload_url(f"{event.control.data}.bin", 60))

    async def sign_in(event: ft.ControlEvent) -> None:
        await page.login_async(
            OAuthProvider(
                client_id="flet-app", client_secret="not-a-secret", authorization_endpoint=f"{PROVIDER}/authorize",
                token_endpoint=f"{PROVIDER}/token", redirect_url=CALLBACK, user_scopes=["openid", "profile"],
                user_endpoint=f"{PROVIDER}/userinfo", user_id_fn=lambda user: user["sub"],
            )
        )  # fmt: skip

    count, heard = ft.Text("added 1", data=1), ft.Text("")
    page.pubsub.subscribe(told)
    page.on_login = lambda event: None
    handlers = [add, fail, slow, block, flood, share, sign_in]
    page.add(count, heard, *(ft.TextButton(handler.__name__, on_click=handler) for handler in handlers))
    page.add(*(ft.TextButton(f"upload {name}", data=name, on_click=upload) for name in ("small", "large", "more")))


app = flet_fastapi.FastAPI()


@app.get("/orders/{order}")
async def orders(order: int) -> dict[str, int]:
    return {"order": order}


@app.get("/boom")
async def boom() -> None:
    raise RuntimeError("a route fails")


app.mount("/", flet_fastapi.app(main, upload_dir=os.environ["UPLOADS"], max_upload_size=200_000))
