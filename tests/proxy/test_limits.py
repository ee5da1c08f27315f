"""What one address may ask for, how large it may be, and how slow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.proxy.conftest import Start
from tests.support.classic_client import ClassicClient
from tests.support.nginx import Nginx, fetch, raw, tls_connection

# Everything comes from one address here; with a trusted "proxy" it comes from many.
MANY = {"NGINX_TRUSTED_PROXIES": "127.0.0.1"}


def statuses(nginx: Nginx, count: int, **headers: str) -> Counter[int]:
    with ThreadPoolExecutor(8) as pool:
        return Counter(
            answer.status for answer in pool.map(lambda _: fetch(f"{nginx.url}/echo", **headers), range(count))
        )


def test_an_address_that_asks_too_often_is_told_when_to_come_back(start: Start) -> None:
    nginx = start(NGINX_REQUESTS_PER_SECOND="1", NGINX_REQUEST_BURST="10")
    counts = statuses(nginx, 40)
    assert counts[200] >= 11 and counts[429] >= 20 and counts[200] + counts[429] == 40

    refused = fetch(f"{nginx.url}/echo", Accept="text/html")
    assert (refused.status, refused.header("Retry-After")) == (429, "3")
    assert refused.header("Content-Type") == "text/plain; charset=utf-8"
    assert nginx.logged(status=429)[0]["upstream"] == ""


def test_other_addresses_are_not_meant(start: Start) -> None:
    nginx = start(NGINX_REQUESTS_PER_SECOND="1", NGINX_REQUEST_BURST="5", **MANY)
    assert statuses(nginx, 20, X_Forwarded_For="203.0.113.1")[429] > 0
    assert statuses(nginx, 5, X_Forwarded_For="203.0.113.2") == {200: 5}


def test_an_ipv6_network_is_one_address(start: Start) -> None:
    nginx = start(NGINX_REQUESTS_PER_SECOND="1", NGINX_REQUEST_BURST="5", **MANY)
    same = [fetch(f"{nginx.url}/echo", X_Forwarded_For=f"2001:db8:1:2:{host:x}::1").status for host in range(20)]
    other = fetch(f"{nginx.url}/echo", X_Forwarded_For="2001:db8:1:3::1").status
    assert 429 in same and other == 200


def test_a_stranger_gets_no_second_share_by_a_header(start: Start) -> None:
    nginx = start(NGINX_REQUESTS_PER_SECOND="1", NGINX_REQUEST_BURST="5")
    assert 429 in [fetch(f"{nginx.url}/echo", X_Forwarded_For=f"203.0.113.{host}").status for host in range(20)]


def test_an_office_is_not_limited_by_default(proxy: Nginx) -> None:
    assert statuses(proxy, 600) == {200: 600}


def test_no_limit_can_be_said(start: Start) -> None:
    nginx = start(NGINX_REQUESTS_PER_SECOND="0", NGINX_CONNECTIONS_PER_ADDRESS="0")
    assert statuses(nginx, 20) == {200: 20}


async def test_websockets_of_an_address_are_limited(start: Start) -> None:
    nginx = await asyncio.to_thread(start, NGINX_CONNECTIONS_PER_ADDRESS="3")
    clients = [ClassicClient(nginx.websocket_url) for _ in range(3)]
    for client in clients:
        await client.connect()
    with pytest.raises(Exception, match="429"):
        await ClassicClient(nginx.websocket_url).connect()
    for client in clients:
        client._reader.cancel() if client._reader else None
        await client.socket.close()


@pytest.mark.parametrize(
    ("settings", "size", "status"),
    [
        ({}, 2_000_000, 200),
        ({"NGINX_MAX_BODY_SIZE": "1m"}, 1 << 20, 200),
        ({"NGINX_MAX_BODY_SIZE": "1m"}, (1 << 20) + 1, 413),
        ({"NGINX_MAX_BODY_SIZE": "0"}, 2_000_000, 200),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_body_has_a_largest_size(start: Start, settings: dict[str, str], size: int, status: int, method: str) -> None:
    assert fetch(f"{start(**settings).url}/echo", method=method, body=b"x" * size).status == status


@pytest.mark.parametrize(
    ("app", "given", "limit"),
    [("", "", "1g"), ("1000", "", "1g"), ("5000000000", "", "5000000000"), ("5000000000", "2m", "2m")],
)
def test_the_size_follows_the_apps_own_limit(start: Start, app: str, given: str, limit: str) -> None:
    nginx = start(FLET_MAX_UPLOAD_SIZE=app, NGINX_MAX_BODY_SIZE=given)
    assert f"client_max_body_size {limit};" in (nginx.folder / "run/now/nginx.conf").read_text()


def test_chunks_that_grow_too_large_are_cut(start: Start) -> None:
    nginx = start(NGINX_MAX_BODY_SIZE="1m")
    head = b"PUT /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = (b"%x\r\n%b\r\n" % (65536, b"x" * 65536)) * 20 + b"0\r\n\r\n"
    assert b" 413 " in raw(nginx.https_port, head + chunks).split(b"\r\n")[0]


# --- slow clients: a request's head has 15 seconds --------------------------------------------------------------------


@pytest.fixture
def slow(proxy: Nginx) -> Iterator[list[socket.socket]]:
    """Connections that have begun a request, and will not end it soon."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", proxy.http_port))) for _ in range(200)]


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side has closed; asks without waiting."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass
        return True
    return False


def test_who_trickles_a_head_is_cut_and_others_are_served(proxy: Nginx, slow: list[socket.socket]) -> None:
    began = time.monotonic()
    left = list(slow)
    for connection in left:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n")
    while left and time.monotonic() - began < 25:
        assert fetch(f"{proxy.url}/echo").status == 200
        left = [connection for connection in left if not is_cut(connection)]
        for connection in left:
            with suppress(OSError):
                connection.sendall(b"X-a: b\r\n")
        time.sleep(0.5)
    assert left == []
    assert 10 < time.monotonic() - began < 22


def test_a_tls_handshake_that_never_ends_is_cut(proxy: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", proxy.https_port), timeout=60) as connection:
        began = time.monotonic()
        connection.sendall(b"\x16\x03\x01\x02")
        with suppress(ConnectionError):
            assert connection.recv(1) == b""
        assert time.monotonic() - began < 60


def test_a_body_that_stops_is_cut(proxy: Nginx) -> None:
    with tls_connection(proxy.https_port, "localhost") as connection:
        connection.sendall(b"PUT /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nx")
        began = time.monotonic()
        with suppress(OSError):
            connection.recv(4096)
        assert 25 < time.monotonic() - began < 45
