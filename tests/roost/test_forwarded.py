from __future__ import annotations

from typing import Any

import pytest

from roost.forwarded import Forwarded, parse_address, parse_networks

TRUSTED = parse_networks("10.0.0.0/8, 192.0.2.1, fd00::/8")


def seen(peer: str | None, *headers: tuple[str, str], closed: bool = False, kind: str = "http") -> tuple[Any, ...]:
    scope: dict[str, Any] = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "client": (peer, 1) if peer else None,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    trusted = Forwarded(TRUSTED, closed=closed).apply(scope)
    return trusted, scope["client"] and scope["client"][0], scope["scheme"]


CHAINS = [
    # peer, X-Forwarded-For: client
    ("198.51.100.1", "203.0.113.5", "198.51.100.1"),
    ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
    ("10.0.0.1", "6.6.6.6, 203.0.113.5", "203.0.113.5"),
    ("10.0.0.1", "6.6.6.6,203.0.113.5, 10.0.0.9 ,192.0.2.1", "203.0.113.5"),
    ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
    ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
    ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
    ("10.0.0.1", "2001:DB8:0::7", "2001:db8::7"),
    ("10.0.0.1", "::ffff:203.0.113.5", "203.0.113.5"),
    ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
    ("fd00::1", "203.0.113.5", "203.0.113.5"),
    ("10.0.0.1", "", "10.0.0.1"),
    ("10.0.0.1", "unknown", "10.0.0.1"),
    ("10.0.0.1", "<script>", "10.0.0.1"),
    ("10.0.0.1", "203.0.113.5, unknown, 10.0.0.7", "10.0.0.7"),
    ("10.0.0.1", "6.6.6.6, " + "10.0.0.2, " * 5000 + "10.0.0.3", "10.0.0.2"),
    ("10.0.0.1", "1" * 5000, "10.0.0.1"),
    ("10.0.0.1", "\xe9\xff", "10.0.0.1"),
]


@pytest.mark.parametrize(("peer", "chain", "client"), CHAINS)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(peer: str, chain: str, client: str) -> None:
    assert seen(peer, ("x-forwarded-for", chain))[1] == client


def test_several_headers_are_one_list() -> None:
    headers = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.5")]
    assert seen("10.0.0.1", *headers)[1] == "203.0.113.5"


@pytest.mark.parametrize(
    ("kind", "given", "scheme"),
    [
        ("http", "https", "https"), ("http", "http", "http"), ("http", "wss", "https"), ("http", "gopher", "http"),
        ("http", "http, https", "https"), ("websocket", "https", "wss"), ("websocket", "http", "ws"),
        ("http", "HTTPS", "http"), ("http", "", "http"),
    ],
)  # fmt: skip
def test_the_scheme_is_one_that_there_is(kind: str, given: str, scheme: str) -> None:
    assert seen("10.0.0.1", ("x-forwarded-proto", given), kind=kind)[2] == scheme


def test_a_peer_that_is_not_trusted_changes_nothing() -> None:
    headers = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https")]
    assert seen("198.51.100.1", *headers) == (False, "198.51.100.1", "http")
    assert seen(None, *headers) == (False, None, "http")


def test_an_address_is_the_same_on_a_listener_for_both_kinds() -> None:
    assert seen("::ffff:198.51.100.1")[1] == "198.51.100.1"


def test_a_closed_listener_believes_whoever_reaches_it() -> None:
    headers = [("x-forwarded-for", "6.6.6.6, 203.0.113.5"), ("x-forwarded-proto", "https")]
    assert seen("198.51.100.1", *headers, closed=True) == (True, "203.0.113.5", "https")
    assert seen(None, *headers, closed=True) == (True, "203.0.113.5", "https")


@pytest.mark.parametrize("text", ["nginx", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.1; 10.0.0.2", "10.0.0.*"])
def test_what_is_no_network_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="must be addresses and networks"):
        parse_networks(f"127.0.0.1, {text}")


def test_a_star_is_everybody() -> None:
    assert Forwarded(parse_networks("*")).apply({"type": "http", "client": ("2001:db8::1", 1), "headers": []})


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5", "[::1", "::1::", "1.2.3.4/24", "a" * 70])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None or text == "[::1"
