"""One request is one request, for nginx and for the app."""

from __future__ import annotations

import pytest

from tests.support.nginx import Nginx, raw

HEAD = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
REFUSED = {
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + INNER,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 43\r\n\r\n" + INNER,
    "two equal lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + INNER,
    "a list of lengths": HEAD + b"Content-Length: 0, 43\r\n\r\n" + INNER,
    "a signed length": HEAD + b"Content-Length: +0\r\n\r\n" + INNER,
    "a length in hex": HEAD + b"Content-Length: 0x0\r\n\r\n" + INNER,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "two codings": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "chunks twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks in HTTP/1.0": b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a folded header": HEAD + b"Content-Length: 0\r\n Transfer-Encoding: chunked\r\n\r\n" + INNER,
    "a space before the colon": HEAD + b"Content-Length : 43\r\n\r\n" + INNER,
    "a control character": HEAD + b"X: a\x00b\r\n\r\n" + INNER,
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\nConnection: close\r\n\r\n",
    "no host": b"GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a bad host": b"GET /echo HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n",
    "a space in the path": b"GET /echo /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    "a tunnel": b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: close\r\n\r\n",
    "a trace": b"TRACE /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    "large headers": b"GET /echo HTTP/1.1\r\nHost: a.test\r\n" + b"X: %b\r\n" % (b"x" * 20_000) + b"\r\n",
    "many headers": b"GET /echo HTTP/1.1\r\nHost: a.test\r\n" + b"X: %b\r\n" % (b"x" * 1000) * 80 + b"\r\n",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_two_servers_could_read_in_two_ways_reaches_no_app(proxy: Nginx, kind: str) -> None:
    answer = raw(proxy.https_port, REFUSED[kind])

    assert b"smuggled" not in answer
    assert b" 200 OK" not in answer.split(b"\r\n")[0] or kind in HARMLESS
    assert answer.count(b"HTTP/1.1 ") == 1


# nginx leaves the odd header out, and the request is an ordinary one without it
HARMLESS = {"a space before the colon", "a folded header"}


def test_an_upgrade_to_anything_but_a_websocket_is_no_upgrade(proxy: Nginx) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    last = b"GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    answer = raw(proxy.https_port, b"GET /echo HTTP/1.1\r\nHost: a.test\r\n" + upgrade + b"\r\n" + last)

    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"h2c" not in answer and b'"http2-settings"' not in answer.lower()


@pytest.mark.parametrize("name", [b"TE: trailers", b"Upgrade: websocket", b"Keep-Alive: timeout=9", b"Connection: x-y"])
def test_hop_by_hop_headers_end_here(proxy: Nginx, name: bytes) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 0\r\n%b\r\n\r\n" % name
    answer = raw(proxy.https_port, request)

    assert b" 200 OK" in answer
    assert name.split(b": ")[1] not in answer.partition(b"\r\n\r\n")[2]
