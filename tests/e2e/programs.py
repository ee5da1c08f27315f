"""Apps that the tests of this folder serve, as users would write them."""

TWO_APPS = """
import flet as ft
import flet_fastapi


async def root_main(page: ft.Page):
    await page.add_async(ft.Text("This is root app!"))


async def sub_main(page: ft.Page):
    await page.add_async(ft.Text("This is sub app!"))


app = flet_fastapi.FastAPI()


app.mount("/sub-app", flet_fastapi.app(sub_main))
app.mount("/", flet_fastapi.app(root_main))
"""

IN_EXISTING_APP = """
from contextlib import asynccontextmanager

import flet as ft
import flet_fastapi
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app: FastAPI):
    await flet_fastapi.app_manager.start()
    yield
    await flet_fastapi.app_manager.shutdown()

app = FastAPI(lifespan=lifespan)

async def main(page: ft.Page):
    await page.add_async(ft.Text("Hello, Flet!"))

app.mount("/flet-app", flet_fastapi.app(main))

@app.get("/api/hello")
async def hello():
    return {"hello": "api"}
"""

COUNTER_BELOW = """
import flet as ft
import flet_fastapi

async def main(page):
    count = ft.Text("0", data=0)

    async def add(e):
        count.data += 1
        count.value = str(count.data)
        count.update()

    def place(e):
        where.value = f"at {page.route}"
        page.update()

    where = ft.Text(f"at {page.route}")
    page.on_route_change = place
    go = ft.TextButton("Go", on_click=lambda e: page.go("/deep/er"))
    page.add(count, where, ft.TextButton("Add", on_click=add), go)
    page.add(ft.Image(src="/pixel.svg", tooltip="Pixel"))

app = flet_fastapi.app(main, proxy_path="/tools/counter", assets_dir="assets")
"""

FAILING_HANDLER = """
import flet as ft
import flet_fastapi

async def main(page):
    def fail(e):
        raise RuntimeError("the password is swordfish")

    async def work(e):
        page.add(ft.Text("It goes on"))

    page.add(ft.TextButton("Fail", on_click=fail), ft.TextButton("Work", on_click=work))

app = flet_fastapi.app(main)
"""

FAILING_MAIN = """
import flet_fastapi

async def main(page):
    raise RuntimeError("the password is swordfish")

app = flet_fastapi.app(main)
"""

UPLOADING = """
import flet as ft
import flet_fastapi

async def main(page):
    log = ft.Column()

    def note(text):
        log.controls.append(ft.Text(text))
        log.update()

    def picked(e):
        if not e.files:
            return note("picked nothing")
        note("picked " + ", ".join(f"{file.name} ({file.size})" for file in e.files))
        picker.upload(
            [ft.FilePickerUploadFile(file.name, page.get_upload_url(file.name, 60)) for file in e.files]
        )

    def uploaded(e):
        if e.error:
            note(f"refused {e.file_name}: {e.error}")
        elif e.progress == 1:
            note(f"uploaded {e.file_name}")

    picker = ft.FilePicker(on_result=picked, on_upload=uploaded)
    page.overlay.append(picker)
    page.add(ft.TextButton("Pick", on_click=lambda e: picker.pick_files(allow_multiple=True)), log)

app = flet_fastapi.app(main, upload_dir="uploads", max_upload_size=100_000)
"""

SIGNING_IN = """
import os

import flet as ft
import flet_fastapi
from flet.auth import OAuthProvider

url, callback = os.environ["PROVIDER"], os.environ["CALLBACK"]

async def main(page):
    provider = OAuthProvider(
        client_id="flet-app", client_secret="not-a-secret", authorization_endpoint=url + "/authorize",
        token_endpoint=url + "/token", redirect_url=callback, user_scopes=["openid", "profile"],
        user_endpoint=url + "/userinfo", user_id_fn=lambda user: user["sub"],
    )

    def signed_in(e):
        if e.error:
            page.add(ft.Text(f"error {e.error}"), ft.Text(f"because {e.error_description}"))
        else:
            page.add(ft.Text(f"signed in as {page.auth.user.id}"))

    async def popup(e):
        await page.login_async(provider)

    async def redirect(e):
        await page.login_async(
            provider, redirect_to_page=True, on_open_authorization_url=lambda url: page.launch_url(url, "_self")
        )

    async def work(e):
        page.add(ft.Text("It goes on"))

    page.on_login = signed_in
    page.add(
        ft.TextButton("Sign in", on_click=popup), ft.TextButton("Sign in here", on_click=redirect),
        ft.TextButton("Work", on_click=work),
    )

app = flet_fastapi.app(main)
"""

SIGNING_IN_WITH = """
import os

import flet as ft
import flet_fastapi
from flet.auth.providers import Auth0OAuthProvider, AzureOAuthProvider, GitHubOAuthProvider, GoogleOAuthProvider

app_keys = {"client_id": "flet-app", "client_secret": "not-a-secret", "redirect_url": os.environ["CALLBACK"]}
providers = {
    "GitHub": GitHubOAuthProvider(**app_keys),
    "Google": GoogleOAuthProvider(**app_keys),
    "Azure": AzureOAuthProvider(**app_keys),
    "Auth0": Auth0OAuthProvider("ann.auth0.test", **app_keys),
}

def main(page):
    def signed_in(e):
        user = page.auth.user
        names = user and [user.id, user.get("name") or user["displayName"], user.get("email") or user["mail"]]
        page.add(ft.Text(f"error {e.error}" if e.error else ", ".join(names)))

    def go(url):
        page.launch_url(url, "_self")

    page.on_login = signed_in
    for name, provider in providers.items():
        page.add(
            ft.TextButton(name, on_click=lambda e, p=provider: page.login(p)),
            ft.TextButton(
                f"{name} here",
                on_click=lambda e, p=provider: page.login(p, redirect_to_page=True, on_open_authorization_url=go),
            ),
        )

app = flet_fastapi.app(main)
"""
