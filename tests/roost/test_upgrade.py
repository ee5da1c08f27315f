"""The usual upgrade request is answered exactly as the `websockets` library answers it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Response

from roost import upgrade
from roost.upgrade import Upgrade, read_upgrade

# As uvicorn hands on what Chromium sends.
CHROMIUM = {
    "host": "app.test:8000",
    "connection": "Upgrade",
    "pragma": "no-cache",
    "cache-control": "no-cache",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "upgrade": "websocket",
    "origin": "http://app.test:8000",
    "sec-websocket-version": "13",
    "accept-encoding": "gzip, deflate, br, zstd",
    "cookie": "flet_browser=AAAAAAAAAAAAAAAAAAAAAA",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-extensions": "permessage-deflate; client_max_window_bits",
}
FIREFOX = CHROMIUM | {
    "connection": "keep-alive, Upgrade",
    "sec-websocket-extensions": "permessage-deflate",
    "accept": "*/*",
    "sec-websocket-protocol": "a, b",
}
BARE = {name: CHROMIUM[name] for name in ("connection", "upgrade", "sec-websocket-version", "sec-websocket-key")}
USUAL = [CHROMIUM, FIREFOX, BARE]

# What any of the fields may say instead: right, wrong, and odd.
VALUES = [
    "", "websocket", "WebSocket", "Upgrade", "close", "keep-alive,UPGRADE", "upgrade, upgrade", "13", "12", "13, 13",
    "websocket, h2c", "dGhlIHNhbXBsZSBub25jZQ", "AAAAAAAAAAAAAAAAAAAAAB==", "short", "\u00e9", "permessage-deflate",
    "permessage-deflate; server_max_window_bits=9", "permessage-deflate; client_max_window_bits=8; x=1", "x-webkit",
    "permessage-deflate; server_max_window_bits=99, permessage-deflate", "permessage-deflate;;", "a\tb", "a b", ";",
]  # fmt: skip
NAMES = [
    *BARE, "sec-websocket-extensions", "Upgrade", "Sec-WebSocket-Key", "content-length", "transfer-encoding", "x-y",
    "bad name",
]  # fmt: skip
FIRST = ["GET / HTTP/1.1", "GET /a%20b?c=d HTTP/1.1", "POST / HTTP/1.1", "GET / HTTP/1.0", "GET /\u00e9 HTTP/1.1"]


def request(fields: list[tuple[str, str]], first: str = "GET /room?secret=1 HTTP/1.1") -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def shown(result: Upgrade | Response) -> Any:
    """What can be compared: a refusal's date differs."""
    if isinstance(result, Response):
        return result.status_code, result.body
    return result


def both(data: bytes, compress: bool = True) -> tuple[Any, Any]:
    return shown(read_upgrade(data, compress=compress)), shown(upgrade._any(data, compress))


@pytest.mark.parametrize("fields", USUAL, ids=["Chromium", "Firefox", "bare"])
@pytest.mark.parametrize("compress", [True, False])
def test_what_browsers_send_is_read_without_the_library(fields: dict[str, str], compress: bool) -> None:
    data = request(list(fields.items()))
    assert upgrade._usual(data, compress) is not None
    ours, theirs = both(data, compress)
    assert ours == theirs
    assert (ours.window > 0) == (compress and "sec-websocket-extensions" in fields)


@given(
    st.sampled_from(USUAL),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3),
    st.sampled_from(FIRST),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_other_request_is_read_as_the_library_reads_it(
    fields: dict[str, str], changes: list[tuple[str, str]], first: str, add: bool, random: random.Random
) -> None:
    said = list(fields.items()) + changes if add else list((fields | dict(changes)).items())
    random.shuffle(said)
    ours, theirs = both(request(said, first))
    assert ours == theirs


@given(st.binary(max_size=40), st.integers(0, 400))
def test_broken_octets_are_read_as_the_library_reads_them(junk: bytes, at: int) -> None:
    data = request(list(CHROMIUM.items()))
    ours, theirs = both(data[:at] + junk + data[at:])
    assert ours == theirs


@pytest.mark.parametrize(
    "fields",
    [[("x", "y")] * 200, [("x", "y" * 9000)], [(f"x{number}", "y" * 1000) for number in range(20)]],
    ids=["many", "long", "much"],
)
def test_size_has_the_library_s_limits(fields: list[tuple[str, str]]) -> None:
    ours, theirs = both(request([*CHROMIUM.items(), *fields]))
    assert ours == theirs


def test_answer_has_the_fields_it_is_given() -> None:
    granted = read_upgrade(request(list(CHROMIUM.items())), compress=True)
    assert isinstance(granted, Upgrade)
    # the accept of RFC 6455, section 1.3
    assert granted.answer([(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Extensions: permessage-deflate; "
        b"server_no_context_takeover; client_no_context_takeover\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n"
    )
