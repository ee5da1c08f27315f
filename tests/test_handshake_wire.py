"""Handshakes as bytes on a socket, at both ways to serve websockets: each is answered, none breaks the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flet_core as ft
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

import flet_fastapi
from flet_fastapi.handshake import _ANSWERS
from flet_fastapi.identity import new_id
from tests.conftest import Logs
from tests.support.classic_client import ClassicClient
from tests.support.servers import Server, uvicorn_server
from tests.support.serving import WEBSOCKETS, Served, serving, uvicorn_in_process

PROGRAM = """
import flet as ft
import flet_fastapi

async def main(page):
    await page.add_async(ft.Text("shown"))

app = flet_fastapi.app(main)
"""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
USUAL = {
    "Host": "app.test", "Origin": "http://app.test", "Connection": "Upgrade", "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY,
}  # fmt: skip
BOTH = pytest.mark.parametrize("ws", WEBSOCKETS)


async def main(page: Any) -> None:
    page.add(ft.Text("shown"))


@asynccontextmanager
async def refusing(ws: str, **limits: Any) -> AsyncIterator[Served]:
    """An app whose handshakes count against limits, although they come from this machine."""
    async with serving(main, ws, limit_private_addresses=True, **limits) as served:
        yield served


async def refused(served: Served, **client: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refusal:
        await served.open(**client)
    return refusal.value


@BOTH
@pytest.mark.parametrize("origin", ["http://evil.test", "null", None])
async def test_foreign_page_is_refused_before_the_websocket_is_accepted(ws: str, origin: str | None) -> None:
    async with refusing(ws) as served:
        response = (await refused(served, origin=origin)).response
        assert (response.status_code, response.headers["Content-Type"]) == (403, "text/plain; charset=utf-8")
        assert "Set-Cookie" not in response.headers
        assert served.counted("flet_connections_closed_total", code="1006") == 0
        assert not served.sessions


@BOTH
async def test_page_of_the_app_is_let_in(ws: str) -> None:
    async with refusing(ws) as served:
        assert (await served.visit()).open


@BOTH
async def test_native_client_is_let_in_if_that_is_set(ws: str) -> None:
    async with refusing(ws, allow_no_origin=True) as served:
        assert (await served.visit(origin=None)).open


@BOTH
async def test_connection_that_ends_makes_room(ws: str) -> None:
    async with refusing(ws, max_connections_per_browser=1) as served:
        browser = {"cookies": {"flet_browser": new_id()}}
        first = await served.visit(**browser)
        assert (await refused(served, **browser)).response.status_code == 429
        await first.abort()
        await served.until(lambda: not served.manager.connections)
        assert (await served.visit(**browser)).open


@dataclass(frozen=True)
class Row:
    """A handshake that differs from the usual one in `headers`, perhaps with another websocket open, and its answer."""

    status: int
    headers: dict[str, str | bytes | None] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    crowded: bool = False


BROWSER = new_id()
COOKIE = {"Cookie": f"flet_browser={BROWSER}"}
REFUSALS = {
    "bad_host": Row(400, {"Host": "app.test/x"}),
    "unknown_host": Row(421, limits={"allowed_hosts": "other.test"}),
    "bad_origin": Row(403, {"Origin": "http://app.test/"}),
    "no_origin": Row(403, {"Origin": None}),
    "cross_origin": Row(403, {"Origin": "http://evil.test"}),
    "rate": Row(429, limits={"handshake_burst": 1, "handshakes_per_second": 1}, crowded=True),
    "address_connections": Row(429, limits={"max_connections_per_address": 1}, crowded=True),
    "browser_connections": Row(429, COOKIE, {"max_connections_per_browser": 1}, crowded=True),
    "unregistered": Row(503, limits={"max_unregistered": 1}, crowded=True),
}


def test_every_refusal_stands_in_the_table() -> None:
    assert {reason: row.status for reason, row in REFUSALS.items()} == {
        reason: status for reason, (status, _) in _ANSWERS.items()
    }


@BOTH
@pytest.mark.parametrize("reason", REFUSALS)
async def test_refused_handshake_is_told_why(ws: str, reason: str, logs: Logs) -> None:
    row = REFUSALS[reason]
    async with refusing(ws, **row.limits) as served:
        if row.crowded:
            await served.open(cookies={"flet_browser": BROWSER})
        status, headers, body = await answer_to(urlsplit(served.url).netloc, handshake({**USUAL, **row.headers}))
        assert (status, served.counted("flet_handshakes_refused_total", reason=reason)) == (row.status, 1)
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert headers.get("retry-after") == ("5" if status in (429, 503) else None)
        assert (headers["content-type"], "set-cookie" in headers) == ("text/plain; charset=utf-8", False)
        assert body == _ANSWERS[reason][1]
        assert "Traceback" not in logs.text


@BOTH
@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 101), ("192.0.2.1", 403)])
async def test_scheme_of_the_apps_origin_is_what_the_trusted_proxy_says(ws: str, trusted: str, status: int) -> None:
    app = flet_fastapi.app(main)
    under_tls = handshake({**USUAL, "Origin": "https://app.test", "X-Forwarded-Proto": "https"})
    async with uvicorn_in_process(app, WEBSOCKETS[ws], lifespan="on", forwarded_allow_ips=trusted) as address:
        assert (await answer_to(address, under_tls))[0] == status


async def answer_to(address: str, request: bytes) -> tuple[int, Mapping[str, str], str]:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
        return int(line.split()[1]), headers, (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
    finally:
        writer.close()
        await writer.wait_closed()


# --- any bytes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=WEBSOCKETS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("wire")
    (folder / "program.py").write_text(PROGRAM)
    arguments = ("--ws", WEBSOCKETS[request.param])
    with uvicorn_server("program:app", folder, folder / "log", *arguments, FLET_RUN_DIR=str(folder)) as server:
        yield server
        asyncio.run(_visit(server))
        assert "Traceback" not in server.said()


async def _visit(server: Server) -> None:
    async with ClassicClient(f"ws://127.0.0.1:{server.port}/ws") as client:
        await client.register()


def exchange(server: Server, request: bytes) -> bytes:
    """The first line of the answer to `request`; empty if the server hangs up or waits for more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
        wire.sendall(request)
        with suppress(OSError):
            wire.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError), wire.makefile("rb") as answer:
            return answer.readline()
    return b""


def handshake(headers: dict[str, str | bytes | None], line: bytes = b"GET /ws HTTP/1.1") -> bytes:
    lines = [line]
    for name, value in headers.items():
        if value is not None:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("latin-1")))
    return b"\r\n".join(lines) + b"\r\n\r\n"


VALUES = [
    b"", b"null", b"*", b"http://app.test", b"app.test", b"http://[", b"[::1", b"x" * 5000, b"a, b", b"\xff",
    b"websocket", b"13, 8", b"permessage-deflate; server_max_window_bits=99", b"foo\tbar", KEY.encode(),
    b"Upgrade, keep-alive",
]  # fmt: skip
NAMES = [
    *USUAL, "Cookie", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "X-Forwarded-For", "X-Forwarded-Proto",
    "Content-Length", "Transfer-Encoding", "Forwarded", "User-Agent",
]  # fmt: skip
LINES = [
    *[b"GET /ws HTTP/1.1"] * 6, b"GET /ws HTTP/1.0", b"POST /ws HTTP/1.1", b"GET /ws?a=%00 HTTP/1.1", b"GET * HTTP/1.1",
    b"GET http://evil.test/ws HTTP/1.1", b"GET /ws/../ws HTTP/1.1", b"GET //ws HTTP/1.1", b"GET /nothing HTTP/1.1",
]  # fmt: skip
VALUE = st.none() | st.binary(max_size=80) | st.sampled_from(VALUES)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_usual_handshake_is_accepted(server: Server) -> None:
    assert exchange(server, handshake(dict(USUAL))).startswith(b"HTTP/1.1 101 ")


@FUZZ
@given(line=st.sampled_from(LINES), changes=st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=4))
def test_changed_handshake_is_answered_without_an_error(server: Server, line: bytes, changes: Any) -> None:
    answer = exchange(server, handshake({**USUAL, **changes}, line))
    assert not answer or answer.split()[1][:1] in (b"1", b"2", b"3", b"4")


@FUZZ
@given(change=st.tuples(st.integers(0, 200), st.binary(max_size=12), st.integers(0, 12)))
def test_damaged_handshake_is_answered_without_an_error(server: Server, change: tuple[int, bytes, int]) -> None:
    at, put, dropped = change
    request = handshake(dict(USUAL))
    answer = exchange(server, request[:at] + put + request[at + dropped :])
    assert not answer or answer.split()[1][:1] in (b"1", b"2", b"3", b"4")
