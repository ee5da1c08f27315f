"""Users of the office, good and bad, for half a minute."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.observability.stack import Stack
from tests.support.classic_client import ClassicClient
from tests.support.nginx import async_wait_for
from tests.support.oauth_server import OAuthServer, callback_of


def provider_of_office() -> OAuthServer:
    """Where users of the office sign in."""
    return OAuthServer(redirect_uris=["http://office.test/oauth_callback"])


def variables_of_office(provider: OAuthServer, folder: Path) -> dict[str, str]:
    """The environment that `programs/office.py` wants; it keeps its uploads in `folder`."""
    return {
        "PROVIDER": provider.url,
        "CALLBACK": provider.redirect_uris[0],
        "UPLOADS": str(folder / "uploads"),
        "OAUTHLIB_INSECURE_TRANSPORT": "1",
    }


def added(client: ClassicClient) -> int:
    """What the counter shows, from 1 on; 0 if it is not there yet."""
    texts = [text.get("value", "") for text in client.all("text")]
    return next((int(text.removeprefix("added ")) for text in texts if text.startswith("added ")), 0)


class Traffic:
    """Browsers of one run; all of them are closed at its end."""

    def __init__(self, stack: Stack, provider: OAuthServer, http: httpx.AsyncClient) -> None:
        self.stack = stack
        self.provider = provider
        self.http = http
        self.url = stack.nginx.plain_url
        # the listener that all workers share gives anybody any of them
        self.public = stack.app.url.replace("http", "ws") + "/ws"
        self._clients: list[ClassicClient] = []

    async def visit(self, url: str = "", route: str = "/") -> ClassicClient:
        """A browser that loads the page, and opens its websocket with the cookie that it got."""
        url = url or self.url.replace("http", "ws") + "/ws"
        page = await self.http.get(url.replace("ws", "http", 1).removesuffix("/ws"))
        client = await ClassicClient(url, cookies=dict(page.cookies)).connect()
        self._clients.append(client)
        return await client.register(route=route)

    async def come_back(self, client: ClassicClient, url: str = "") -> ClassicClient:
        client.url = url or client.url
        other = await client.reconnect()
        self._clients.append(other)
        return await other.register()

    async def click(self, client: ClassicClient, name: str, times: int = 1) -> None:
        button = await client.wait_for_control("textbutton", text=name)
        for _ in range(times):
            await client.click(button["i"])

    async def asked_to_open(self, client: ClassicClient, name: str) -> str:
        """The address that the app opens at a click."""
        before = len(client.method_calls)
        await self.click(client, name)
        await client.wait_for(lambda client: len(client.method_calls) > before)
        url: str = client.method_calls[-1]["arguments"]["url"]
        return url

    async def close(self) -> None:
        for client in self._clients:
            with suppress(ConnectionError, ConnectionClosed):
                await client.abort()

    # --- what they do ---

    async def work(self) -> None:
        """Ten users click, and lose their connection now and then."""

        async def one(number: int) -> None:
            client = await self.visit()
            for _ in range(4):
                await client.wait_for(added)
                before = added(client)
                for name in ("add", "slow", "share", *(["fail"] if number == 0 else [])):
                    await self.click(client, name, 4)
                await client.wait_for(lambda client, wanted=before + 4: added(client) == wanted)
                await client.abort()
                await asyncio.sleep(0.3)
                client = await self.come_back(client)

        await asyncio.gather(*(one(number) for number in range(10)))

    async def find_the_way_back(self) -> None:
        """Reconnects that another worker gets, a second tab, and credentials that nobody knows."""
        here, there = (f"ws://127.0.0.1:{self.stack.app.slot_port + slot}/ws" for slot in (0, 1))
        for _ in range(6):
            client = await self.visit(here)
            await client.abort()
            client = await self.come_back(client, there)
            await self.click(client, "add")
            await client.wait_for(lambda client: added(client) == 2)
        first = await self.visit()
        await self.come_back(first)
        forger = await ClassicClient(there).connect()
        self._clients.append(forger)
        await forger.register("x" * 40)

    async def be_refused(self) -> None:
        """Pages of other sites, and programs, that try to open a websocket."""
        for origin in ("https://elsewhere.example", None):
            with suppress(InvalidStatus):
                await ClassicClient(self.url.replace("http", "ws") + "/ws", origin=origin).connect()

    async def disturb(self) -> None:
        """What no browser of Flet's does, and what no app should."""
        await self.visit(route="/broken")
        for frame in ("no json", b"binary", '{"action":"unknown","payload":{}}'):
            client = await self.visit()
            await client.send_raw(frame)
            await client.wait_closed()
        client = await self.visit()
        await client.click("_999")
        await self.click(client, "block", 3)
        await self.click(client, "add", 400)

    async def read_nothing(self) -> None:
        """A browser that does not take what it asks for, until it is cut."""
        client = await self.visit()
        button = await client.wait_for_control("textbutton", text="flood")
        client.stop_reading()
        for _ in range(30):
            with suppress(ConnectionClosed):
                await client.click(button["i"])
        await asyncio.sleep(0)

    async def browse(self) -> None:
        for path in ("/", "/manifest.json", "/orders/1", "/orders/2", "/orders/x", "/nothing.js", "/boom"):
            for _ in range(3):
                await self.http.get(self.url + path)

    async def upload(self) -> None:
        client = await self.visit()
        small = await self.asked_to_open(client, "upload small")
        for url, size in (
            (small, 150_000),
            (small, 1000),  # used already
            (small[:-3] + "xxx", 1000),  # a wrong signature
            (await self.asked_to_open(client, "upload large"), 300_000),  # too large
            (await self.asked_to_open(client, "upload more"), 150_000),  # over the quota
        ):
            await self.http.put(self.url + url, content=b"x" * size)
        await client.close()

    async def sign_in(self) -> None:
        for decision in ("allow", "deny", "allow"):
            self.provider.consent = decision  # type: ignore[assignment]
            client = await self.visit()
            consent = await self.http.get(await self.asked_to_open(client, "sign_in"))
            callback = self.url + callback_of(consent.headers["location"])
            cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
            await self.http.get(callback, headers={"Cookie": cookies})
        await self.http.get(f"{self.url}/oauth_callback?state=nobody-knows-it&code=x")

    async def fill_up(self) -> None:
        """More users at once than there is room for; the last ones are told so."""
        for _ in range(45):
            await asyncio.gather(*(self.visit(self.public) for _ in range(4)))
            if any(client.register_error for client in self._clients[-4:]):
                return
        raise AssertionError("there was room for everybody")

    async def kill_a_worker(self) -> None:
        """One worker dies, another one takes its place, and the users of the first come back."""
        app = self.stack.app
        killed = app.workers_now()[0]
        clients = [await self.visit(self.public) for _ in range(6)]
        os.kill(killed, signal.SIGKILL)
        await async_wait_for(lambda: app.workers_now()[0] != killed, "a new worker", 60)
        for client in clients:
            if not client.open:
                await self.come_back(client)


def _each_its_own() -> CookieJar:
    """Keeps nothing: many browsers share the HTTP client."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


@asynccontextmanager
async def traffic(stack: Stack, provider: OAuthServer) -> AsyncIterator[Traffic]:
    async with httpx.AsyncClient(timeout=30, cookies=_each_its_own()) as http:
        running = Traffic(stack, provider, http)
        try:
            yield running
        finally:
            await running.close()
