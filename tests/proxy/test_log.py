"""One line of JSON for each request, in which nothing is secret and nothing can be forged."""

from __future__ import annotations

import datetime
import re

import pytest

from tests.proxy.conftest import Start
from tests.support.nginx import Nginx, fetch, raw

SECRETS = "?code=secret-1&state=secret-2"


def test_a_request_has_a_line(proxy: Nginx) -> None:
    answer = fetch(
        f"{proxy.url}/logged{SECRETS}", Cookie="a=secret-3", Referer=f"https://a.test/{SECRETS}", User_Agent="me"
    )
    (line,) = proxy.logged(path="/logged")

    assert line.pop("request_id") == answer.header("X-Request-ID")
    assert abs(datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(line["timestamp"])).seconds < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line.pop("bytes") > 200 and line.pop("received_bytes") > 50
    assert 0 <= line.pop("seconds") < 10 and 0 <= float(line.pop("upstream_seconds")) < 10
    assert line.pop("upstream").startswith("127.0.0.1:")
    assert line == {
        "level": "info", "logger": "nginx", "event": "proxied", "client": "127.0.0.1", "host": "127.0.0.1",
        "method": "GET", "path": "/logged", "status": 200, "protocol": "HTTP/1.1", "tls": "TLSv1.3",
        "upstream_status": "200", "cache": "MISS",
    }  # fmt: skip
    assert "secret-" not in proxy.output


def test_nginxs_own_messages_are_json_without_secrets(start: Start) -> None:
    nginx = start(APP_SERVERS="127.0.0.1:1")
    fetch(f'{nginx.url}/callback{SECRETS}&q="quoted"%22', Referer=f"https://a.test/{SECRETS}")
    (line,) = nginx.logged(event="nginx", level="error")

    assert "connect() failed" in line["message"] and '"GET /callback HTTP/1.1"' in line["message"]
    assert "secret-" not in nginx.output


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE"])
def test_a_request_that_gets_an_error_page_is_logged_as_it_was(start: Start, method: str) -> None:
    nginx = start(APP_SERVERS="127.0.0.1:1")
    fetch(f"{nginx.url}/upload{SECRETS}", method=method)
    (line,) = nginx.logged(event="proxied")
    assert (line["method"], line["path"], line["status"]) == (method, "/upload", 502)


ODD = {
    "quotes and braces": b'GET /a"},{"b":"c HTTP/1.1\r\nHost: a.test\r\n',
    "a line break": b"GET /a%0a%22b HTTP/1.1\r\nHost: a.test\r\n",
    "bytes": b"GET /\xff\xfe\xc3( HTTP/1.1\r\nHost: a.test\r\n",
    "an odd host": b'GET /x HTTP/1.1\r\nHost: a"\\b\xff\r\n',
    "an odd method": b"G@T /x HTTP/1.1\r\nHost: a.test\r\n",
    "no request": b"\x00\x01\x02\r\n",
    "TLS in TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01",
    "an odd upgrade": b'GET /x HTTP/1.1\r\nHost: a.test\r\nUpgrade: "\xff\r\n',
    "HTTP/0.9": b"GET /x\r\n",
    "an absolute URL": b"GET http://a.test/abs?x=secret-4 HTTP/1.1\r\nHost: a.test\r\n",
}


@pytest.mark.parametrize("kind", ODD)
def test_no_client_breaks_a_line(start: Start, kind: str) -> None:
    nginx = start(NGINX_LOG_LEVEL="info")
    raw(nginx.https_port, ODD[kind] + b"Connection: close\r\n\r\n")

    lines = nginx.logged(event="proxied")
    assert len(lines) == 1 and "secret-" not in nginx.output
    assert all(character.isprintable() and character.isascii() for character in lines[0]["path"])


@pytest.mark.parametrize(
    ("setting", "address", "shown"),
    [
        ("full", "203.0.113.77", "203.0.113.77"),
        ("truncated", "203.0.113.77", "203.0.113.0"),
        ("truncated", "2001:db8:1:2::77", "2001:db8:1::"),
        ("truncated", "2001:db8::77", ""),
        ("none", "203.0.113.77", ""),
    ],
)
def test_the_clients_address_is_a_setting(start: Start, setting: str, address: str, shown: str) -> None:
    nginx = start(NGINX_LOG_CLIENT=setting, NGINX_TRUSTED_PROXIES="127.0.0.1")
    assert fetch(f"{nginx.url}/x", X_Forwarded_For=address).status == 200
    assert nginx.logged(path="/x")[0]["client"] == shown
    nginx_said = nginx.output
    assert setting == "full" or address not in nginx_said


def test_an_address_is_not_in_nginxs_own_messages_either(start: Start) -> None:
    nginx = start(APP_SERVERS="127.0.0.1:1", NGINX_LOG_CLIENT="truncated", NGINX_TRUSTED_PROXIES="127.0.0.1")
    fetch(nginx.url, X_Forwarded_For="203.0.113.77")
    assert nginx.logged(event="nginx", level="error")
    assert "203.0.113.77" not in nginx.output


async def test_a_websocket_has_a_line_when_it_ends(proxy: Nginx) -> None:
    from websockets.asyncio.client import connect

    from tests.support.nginx import async_wait_for, trusting

    async with connect(proxy.websocket_url, ssl=trusting(), proxy=None) as socket:
        await socket.recv()
        await socket.send("hello")
        assert await socket.recv() == "hello"
        assert not proxy.lines(path="/ws")
    (line,) = await async_wait_for(lambda: proxy.lines(path="/ws"), "a line")
    assert (line["status"], line["method"]) == (101, "GET")
