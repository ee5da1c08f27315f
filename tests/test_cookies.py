"""The browser's cookie as a browser gets it, over HTTP and, behind a proxy that ends TLS, over HTTPS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import pytest

import flet_fastapi
from tests.support.classic_client import ClassicClient
from tests.support.serving import WEBSOCKETS, uvicorn_in_process

TLS = {"X-Forwarded-Proto": "https"}
TRUSTED, UNTRUSTED = "127.0.0.1", "192.0.2.1"


@asynccontextmanager
async def site(trusted: str, ws: str = "websockets") -> AsyncIterator[str]:
    app = flet_fastapi.app(lambda page: None)
    async with uvicorn_in_process(app, WEBSOCKETS[ws], lifespan="on", forwarded_allow_ips=trusted) as address:
        yield address


def cookie(header: str) -> Morsel[str]:
    (morsel,) = SimpleCookie(header).values()
    return morsel


async def from_page(address: str, headers: dict[str, str]) -> str:
    async with httpx.AsyncClient() as client:
        return str((await client.get(f"http://{address}/", headers=headers)).headers["set-cookie"])


async def from_websocket(address: str, headers: dict[str, str]) -> str:
    scheme = "https" if headers else "http"
    async with ClassicClient(f"ws://{address}/ws", headers=headers, origin=f"{scheme}://{address}") as client:
        assert client.socket.response is not None
        return str(client.socket.response.headers["set-cookie"])


BOTH = pytest.mark.parametrize("get", [from_page, from_websocket])


@BOTH
@pytest.mark.parametrize("ws", WEBSOCKETS)
async def test_under_tls_the_cookie_is_for_this_host_alone(get: Callable[..., Any], ws: str) -> None:
    async with site(TRUSTED, ws) as address:
        given = cookie(await get(address, TLS))
    assert given.key == "__Host-flet_browser"
    assert (given["secure"], given["httponly"], given["samesite"], given["path"]) == (True, True, "Lax", "/")
    assert given["domain"] == ""


@BOTH
async def test_without_tls_the_cookie_is_hidden_from_scripts_and_other_sites(get: Callable[..., Any]) -> None:
    async with site(TRUSTED) as address:
        given = cookie(await get(address, {}))
    assert (given.key, given["secure"], given["httponly"], given["samesite"]) == ("flet_browser", "", True, "Lax")


async def test_nobody_else_than_the_trusted_proxy_says_that_it_is_tls() -> None:
    async with site(UNTRUSTED) as address:
        given = cookie(await from_page(address, TLS))
    assert (given.key, given["secure"]) == ("flet_browser", "")


async def test_page_keeps_the_cookie_that_the_browser_has() -> None:
    async with site(TRUSTED) as address:
        first = cookie(await from_page(address, TLS))
        again = cookie(await from_page(address, {**TLS, "Cookie": f"{first.key}={first.value}"}))
        plain = cookie(await from_page(address, {**TLS, "Cookie": f"flet_browser={first.value}"}))
    assert again.value == first.value
    # a page without TLS may be anybody's: what it has set is not believed under TLS
    assert plain.value != first.value
