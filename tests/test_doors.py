"""Both doors of a whole app, as its browser uses them: the websocket, then plain HTTP beside it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import flet as ft
import httpx
import pytest
import uvicorn
from flet_runtime.auth.oauth_provider import OAuthProvider  # type: ignore[import-untyped]

import flet_fastapi
from tests.support.classic_client import ClassicClient
from tests.support.disk import small_disk
from tests.support.oauth_server import OAuthServer
from tests.support.servers import uvicorn_server
from tests.support.serving import uvicorn_in_process

__all__ = ["small_disk"]  # a fixture


ON_A_SMALL_DISK = """
import flet as ft
import flet_fastapi

def main(page):
    said = ft.Text("")

    def say(text):
        said.value = text
        page.update()

    page.add(
        ft.ElevatedButton("url", on_click=lambda _: say(page.get_upload_url("f.bin", 600))),
        ft.ElevatedButton("more", on_click=lambda _: say("still here")),
        said,
    )

app = flet_fastapi.app(main, upload_dir="disk/uploads")
"""


@dataclass
class Site:
    """A running server with one app at `/one/` and another at `/`."""

    url: str
    uploads: Path

    def client(self, path: str = "/ws") -> ClassicClient:
        return ClassicClient(self.url.replace("http", "ws") + path)


class App:
    """Asks for an upload URL, or starts a sign-in, when its buttons are clicked."""

    def __init__(self) -> None:
        self.provider: dict[str, Any] = {}
        self.login: dict[str, Any] = {}
        self.names = ["f.bin"]

    def __call__(self, page: ft.Page) -> None:
        said = ft.Text("")

        def say(text: str) -> None:
            said.value = text
            page.update()

        def signed_in(event: Any) -> None:
            say(event.error or f"hello {page.auth.user['name']}")

        page.on_login = signed_in
        page.add(
            ft.ElevatedButton("url", on_click=lambda _: say(page.get_upload_url(self.names[0], 600))),
            ft.ElevatedButton("login", on_click=lambda _: page.login(OAuthProvider(**self.provider), **self.login)),
            said,
        )


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def site(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("FLET_RUN_DIR", str(tmp_path / "run"))
    root = flet_fastapi.FastAPI()
    root.mount("/one", flet_fastapi.app(app, upload_dir=str(tmp_path / "one")))
    root.mount("/", flet_fastapi.app(app, upload_dir=str(tmp_path / "up"), max_upload_size=1000))
    server = uvicorn.Server(uvicorn.Config(root, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path / "up")
        server.should_exit = True
        await serving


async def click(client: ClassicClient, text: str) -> None:
    await client.click((await client.wait_for_control("elevatedbutton", text=text))["i"])


async def said(client: ClassicClient) -> str:
    await client.wait_for(lambda client: client.one("text").get("value"))
    return str(client.one("text")["value"])


async def upload_url(client: ClassicClient) -> str:
    await click(client, "url")
    return await said(client)


@pytest.mark.parametrize(("path", "prefix"), [("/ws", ""), ("/one/ws", "/one")])
async def test_page_gets_a_url_that_takes_its_file_once(site: Site, path: str, prefix: str) -> None:
    async with site.client(path) as client, httpx.AsyncClient(base_url=site.url) as http:
        await client.register()
        url = await upload_url(client)
        answers = [await http.put(url, content=b"content") for _ in range(2)]
    assert url.startswith(f"{prefix}/upload?t=")
    assert [answer.status_code for answer in answers] == [201, 409]
    assert (site.uploads.parent / (prefix.strip("/") or "up") / "f.bin").read_bytes() == b"content"


# where the app is mounted, what was given for it, what the page gets, and what of it a proxy takes off
PATHS = [
    ("", {"upload_endpoint_path": "/files/put"}, "/files/put", ""),
    ("", {"upload_endpoint_path": "files/put/"}, "/files/put", ""),
    ("/sub", {"upload_endpoint_path": "/files/put"}, "/sub/files/put", ""),
    ("/sub", {"upload_endpoint_path": "/sub/files/put"}, "/sub/files/put", ""),
    ("", {"upload_endpoint_path": "/files/put", "proxy_path": "/prox"}, "/prox/files/put", "/prox"),
    ("", {"upload_endpoint_path": "/prox/put", "proxy_path": "/prox"}, "/prox/put", "/prox"),
    ("/sub", {"upload_endpoint_path": "/prox/sub/put", "proxy_path": "/prox"}, "/prox/sub/put", "/prox"),
]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("mount", "given", "path", "stripped"), PATHS)
async def test_uploads_are_taken_at_the_path_that_was_given(
    app: App, tmp_path: Path, mount: str, given: dict[str, str], path: str, stripped: str, slash: str
) -> None:
    site = flet_fastapi.FastAPI()
    served = flet_fastapi.app(app, upload_dir=str(tmp_path / "up"), **given)
    site.mount(mount, served)
    async with (
        uvicorn_in_process(site if mount else served, lifespan="on") as place,
        ClassicClient(f"ws://{place}{mount}/ws") as client,
        httpx.AsyncClient(base_url=f"http://{place}") as http,
    ):
        await client.register()
        url = await upload_url(client)
        asked = url.removeprefix(stripped).replace("?", f"{slash}?")
        answers = [await http.put(asked, content=b"content") for _ in range(2)]
        elsewhere = await http.put(f"{mount}/upload", content=b"content")
    assert url.partition("?")[0] == path
    assert [answer.status_code for answer in answers] == [201, 409]
    assert elsewhere.status_code == 405
    assert (tmp_path / "up/f.bin").read_bytes() == b"content"


async def test_path_of_somebody_elses_endpoint_is_as_it_was_given(app: App) -> None:
    site = flet_fastapi.FastAPI()
    site.mount("/sub", flet_fastapi.app(app, upload_endpoint_path="/files/put", proxy_path="/prox"))
    async with uvicorn_in_process(site, lifespan="on") as place, ClassicClient(f"ws://{place}/sub/ws") as client:
        await client.register()
        assert (await upload_url(client)).startswith("/files/put?t=")


async def test_url_of_one_app_is_not_for_another(site: Site) -> None:
    async with site.client("/one/ws") as client, httpx.AsyncClient(base_url=site.url) as http:
        await client.register()
        url = await upload_url(client)
        answer = await http.put(url.removeprefix("/one"), content=b"content")
    assert (answer.status_code, answer.json()["error"]) == (403, "bad_signature")


async def test_limit_of_the_app_is_kept(site: Site) -> None:
    async with site.client() as client, httpx.AsyncClient(base_url=site.url) as http:
        await client.register()
        answer = await http.put(await upload_url(client), content=b"x" * 1001)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


async def test_bad_name_fails_the_upload_and_not_the_app(site: Site, app: App) -> None:
    app.names = ["../\ud800"]
    async with site.client() as client, httpx.AsyncClient(base_url=site.url) as http:
        await client.register()
        answer = await http.put(await upload_url(client), content=b"x")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_name")


async def start_login(client: ClassicClient) -> str:
    """The address that the popup goes to."""
    await click(client, "login")
    await client.wait_for(lambda client: client.method_calls)
    call = client.method_calls[-1]
    assert call["methodName"] == "launchUrl"
    return str(call["arguments"]["url"])


async def through_the_provider(site: Site, client: ClassicClient) -> httpx.Response:
    async with httpx.AsyncClient(cookies=client.cookies) as browser:
        address = (await browser.get(await start_login(client))).headers["location"]
        return await browser.get(address)


@pytest.mark.parametrize(("consent", "end"), [("allow", "hello Ann <b>Example</b>"), ("deny", "access_denied")])
async def test_page_hears_how_its_sign_in_went(site: Site, app: App, consent: Any, end: str) -> None:
    async with OAuthServer(consent=consent) as provider, site.client() as client:
        app.provider = provider.provider(f"{site.url}/oauth_callback")
        await client.register()
        answer = await through_the_provider(site, client)
        assert (answer.status_code, await said(client)) == (200, end)
    outcome = "completed" if consent == "allow" else "provider_error"
    assert sign_ins("127.0.0.1", "started") == sign_ins("127.0.0.1", outcome) == 1


def sign_ins(provider: str, outcome: str) -> float | None:
    labels = {"provider": provider, "outcome": outcome}
    return flet_fastapi.app_manager.metrics.registry.get_sample_value("flet_oauth_flows_total", labels)


async def test_redirect_flow_leads_back_to_the_page(site: Site, app: App) -> None:
    app.login = {"redirect_to_page": True}
    async with OAuthServer(consent="allow") as provider, site.client("/one/ws") as client:
        app.provider = provider.provider(f"{site.url}/one/oauth_callback")
        await client.register(page_name="one")
        answer = await through_the_provider(site, client)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{site.url}/one")


async def test_callback_in_another_browser_signs_nobody_in(site: Site, app: App) -> None:
    async with OAuthServer(consent="allow") as provider, site.client() as client:
        app.provider = provider.provider(f"{site.url}/oauth_callback")
        await client.register()
        async with httpx.AsyncClient() as stranger:
            address = (await stranger.get(await start_login(client))).headers["location"]
            answer = await stranger.get(address)
        assert (answer.status_code, provider.token_requests) == (403, 0)
        assert dict(parse_qsl(urlsplit(address).query)).keys() == {"code", "state"}


@pytest.mark.parametrize("first", ["flet_fastapi", "flet", "flet_core"])
def test_page_can_sign_in_whatever_was_imported_first(first: str) -> None:
    """flet_core puts up with a sign-in that does nothing if `flet` is not there before it."""
    take = "from flet_fastapi.generations.classic import _with_authorization as given"
    code = f"import {first}, flet_fastapi; {take}; given((), {{}})['authorization'].request_token_async"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


DOORS = [("GET", "/"), ("HEAD", "/favicon.png"), ("PUT", "/upload?t=x"), ("GET", "/one/oauth_callback"), ("POST", "/")]


@pytest.fixture
def named_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_ALLOWED_HOSTS", "127.0.0.1")


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_only_hosts_that_are_named_are_served(named_host: None, site: Site, method: str, path: str) -> None:
    async with httpx.AsyncClient(base_url=site.url) as http:
        answers = [await http.request(method, path, headers={"Host": host}) for host in ("evil.test", "[..]")]
        served = await http.request(method, path)
    assert [answer.status_code for answer in answers] == [421, 400]
    assert answers[0].headers["x-content-type-options"] == "nosniff"
    assert served.status_code in (200, 400, 403, 405)
    assert "This server" not in served.text


async def test_any_host_is_served_if_none_is_named(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as http:
        assert (await http.get("/", headers={"Host": "whoever.test"})).status_code == 200


@pytest.mark.parametrize("where", [".", "disk"])
async def test_sessions_go_on_while_the_disk_is_full(tmp_path: Path, small_disk: Path, where: str) -> None:
    """The disk of the uploads, on which also may be what the workers share: then no URL can be claimed."""
    (tmp_path / "program.py").write_text(ON_A_SMALL_DISK)
    run = tmp_path / where / "run"
    run.mkdir(mode=0o700)
    limits = {"FLET_RUN_DIR": str(run), "FLET_UPLOAD_MIN_FREE": "0"}
    with uvicorn_server("program:app", tmp_path, tmp_path / "log", **limits) as server:
        async with ClassicClient(f"ws://127.0.0.1:{server.port}/ws") as client, httpx.AsyncClient() as http:
            await client.register()
            url = server.url + await upload_url(client)
            _fill(small_disk / "filler")
            answer = await http.put(url, content=b"x" * 100_000)
            assert (answer.status_code, answer.json()["error"]) == (507, "no_space")
            await click(client, "more")
            await client.wait_for(lambda client: client.one("text").get("value") == "still here")
            async with ClassicClient(client.url) as newcomer:
                await newcomer.register()
        assert "Traceback" not in server.said()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
