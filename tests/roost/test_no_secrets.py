"""A whole run of the real server: people come, upload, sign in, fail and come back, and no line gives them away."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from roost.lines import LEADING
from tests.support.appliance import KEY, Appliance, appliance
from tests.support.classic_client import ClassicClient, Control
from tests.support.oauth_server import CLIENT_SECRET, OAuthServer

TOKEN = "wGk3-Zt8_qLr5Vn2Xc7Bs1"
PASSWORD = "correct-horse"
PROGRAM = f"""
import logging, os, warnings
import flet as ft
import httpx
from flet_runtime.auth.oauth_provider import OAuthProvider

log = logging.getLogger("shop")

async def main(page):
    page.on_login = lambda e: page.add(ft.Text("signed in " + (e.error or page.auth.user["sub"])))

    async def sign_in(e):
        provider, here = os.environ["PROVIDER"], f"http://127.0.0.1:{{os.environ['ROOST_PORT']}}"
        await page.login_async(
            OAuthProvider(
                "flet-app", "{CLIENT_SECRET}", provider + "/authorize", provider + "/token", here + "/oauth_callback",
                user_scopes=["openid"], user_endpoint=provider + "/userinfo", user_id_fn=lambda user: user["sub"],
            ),
            fetch_groups=False,
        )

    def tell(e):
        log.info("ordered by %s", page.client_ip, extra={{"items": 3}})

    async def fail(e):
        password = "a local variable"
        log.warning("cannot reach redis://:{PASSWORD}@127.0.0.1:1/0, will try https://u:{PASSWORD}@h/?token=x")
        warnings.warn("session_id=" + page.session_id)
        httpx.get("http://127.0.0.1:1/api?api_key={TOKEN}", headers={{"Authorization": "Bearer {TOKEN}"}})

    page.add(ft.Text(page.get_upload_url("a.txt", 60), data="upload"), ft.Text(page.session_id, data="id"))
    page.add(ft.TextButton("sign in", on_click=sign_in), ft.TextButton("tell", on_click=tell))
    page.add(ft.TextButton("fail", on_click=fail))
"""


class Visit:
    """One browser, and all that it knows and nobody else may."""

    def __init__(self, server: Appliance, provider: OAuthServer) -> None:
        self.server = server
        self.provider = provider
        self.secrets: dict[str, str] = {}
        self.request_ids: list[str] = []
        self.asked: list[tuple[str, str, int]] = []

    async def noted(self, response: httpx.Response) -> None:
        if response.url.port == self.server.port:
            self.asked.append((response.request.method, response.url.path, response.status_code))

    async def run(self) -> None:
        hooks = {"response": [self.noted]}
        async with httpx.AsyncClient(base_url=self.server.url, timeout=30, event_hooks=hooks) as http:
            await http.get("/?utm=VISITED")
            (self.secrets["cookie"],) = http.cookies.values()
            client = await self.connect(http)
            await self.upload(http, client)
            await self.sign_in(http, client)
            for button in ("tell", "fail"):
                await client.click(self.button(client, button)["i"])
            await client.wait_for(lambda client: client.all("snackbar"))
            await client.abort()
            again = await self.connect(http, client.session_id)
            await again.click(self.button(again, "tell")["i"])
            await asyncio.to_thread(self.server.until, lambda: len(self.server.logged("ordered by 127.0.0.1")) == 2)
            await again.close()

    async def connect(self, http: httpx.AsyncClient, credential: str = "") -> ClassicClient:
        url = self.server.url.replace("http", "ws") + "/ws?ticket=TICKETED"
        client = ClassicClient(url, cookies=dict(http.cookies))
        await client.connect()
        assert client.socket.response is not None
        self.request_ids.append(client.socket.response.headers["X-Request-ID"])
        await client.register(credential)
        await client.wait_for(lambda client: len(client.all("textbutton")) == 3)
        self.secrets[f"credential {len(self.request_ids)}"] = client.session_id
        self.secrets[f"id {len(self.request_ids)}"] = client.session_id.partition(".")[0]
        return client

    def button(self, client: ClassicClient, text: str) -> Control:
        return client.one("textbutton", text=text)

    async def upload(self, http: httpx.AsyncClient, client: ClassicClient) -> None:
        texts = [control["value"] for control in client.all("text")]
        url, self.secrets["page.session_id"] = texts[:2]
        (token,) = parse_qs(urlsplit(url).query).get("t") or [urlsplit(url).query]
        self.secrets |= {f"upload {number}": part for number, part in enumerate(token.split(".")) if len(part) > 5}
        for path, status in ((url, 201), (url, 403), (url[:-3] + "AAA", 403), ("/upload?t=STOLEN", 403)):
            answer = await http.put(path, content=b"x" * 10_000)
            assert answer.status_code in (status, 401, 409, 410)

    async def sign_in(self, http: httpx.AsyncClient, client: ClassicClient) -> None:
        await client.click(self.button(client, "sign in")["i"])
        await client.wait_for(lambda client: "authorize?" in str(client.messages))
        (url,) = set(re.findall(r"http://[^\"' ]+/authorize\?[^\"'\\ ]+", str(client.messages)))
        location = (await http.get(url)).headers["location"]
        answer = parse_qs(urlsplit(location).query)
        self.secrets |= {"code": answer["code"][0], "state": answer["state"][0]}
        assert (await http.get(location)).status_code == 200
        await client.wait_for(lambda client: client.all("text", value="signed in ann"))
        self.secrets |= {f"access token {number}": token for number, token in enumerate(self.provider.tokens)}
        assert (await http.get(location)).status_code in (400, 403, 404, 409, 410)
        await http.get("/oauth_callback?code=STRAYCODE&state=STRAYSTATE")


def whole_run(folder: Path, level: str) -> tuple[Appliance, Visit]:
    async def run() -> tuple[Appliance, Visit]:
        async with OAuthServer(consent="allow") as provider:
            variables = {"PROVIDER": provider.url, "OAUTHLIB_INSECURE_TRANSPORT": "1", "ROOST_LOG_LEVEL": level}
            with appliance(folder, PROGRAM, workers=1, FLET_UPLOAD_DIR=folder / "uploads", **variables) as server:
                provider.redirect_uris.append(f"{server.url}/oauth_callback")
                visit = Visit(server, provider)
                await visit.run()
        return server, visit

    return asyncio.run(run())


@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_line_of_a_whole_run_has_a_secret(tmp_path: Path, level: str) -> None:
    server, visit = whole_run(tmp_path, level)
    text = server.out.read_text() + server.err.read_text()
    known = {**visit.secrets, "key": KEY, "client secret": CLIENT_SECRET, "password": PASSWORD, "token": TOKEN}
    assert len(visit.secrets) >= 10
    assert not {name: secret for name, secret in known.items() if secret in text}
    words = ("VISITED", "TICKETED", "STOLEN", "STRAYCODE", "STRAYSTATE", "a local variable")
    assert not [word for word in words if word in text]
    assert server.err.read_text() == ""
    entries = [json.loads(line) for line in server.out.read_text().splitlines()]
    assert all(tuple(entry)[: len(LEADING)] == LEADING for entry in entries)
    _check_ids(entries, visit)
    _check_counts(entries, visit)


def _check_ids(entries: list[dict[str, Any]], visit: Visit) -> None:
    """Lines of handlers have the id of the websocket that shows their session, and its hash."""
    told = [entry for entry in entries if entry["event"] == "ordered by 127.0.0.1"]
    websockets = [entry for entry in entries if entry["event"] == "websocket"]
    assert [entry["request_id"] for entry in told] == [entry["request_id"] for entry in websockets] == visit.request_ids
    assert len({entry["session"] for entry in (*told, *websockets)}) == 1
    assert {entry["app"] for entry in told} == {"/ws program.main"}
    (failure,) = [entry for entry in entries if entry["event"] == "app_error"]
    assert failure["request_id"] == visit.request_ids[0]
    assert failure["exception"][0]["type"] == "httpx.ConnectError"


def _check_counts(entries: list[dict[str, Any]], visit: Visit) -> None:
    requests = [entry for entry in entries if entry["event"] == "request" and entry["level"] == "info"]
    assert [(entry["method"], entry["path"], entry["status"]) for entry in requests] == visit.asked
    assert {entry["route"] for entry in requests} == {None, "/upload", "/oauth_callback"}
    assert max(entry["bytes_in"] for entry in requests) == 10_000
    assert {entry["worker"] for entry in entries} == {None, 0}
