"""Who a request comes from, where a proxy stands between: `X-Forwarded-For` and `X-Forwarded-Proto`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

EVERYBODY = "*"
# How a listener for both kinds of addresses shows those of IPv4.
_MAPPED = "::ffff:"
_SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss"), "ws": ("http", "ws"), "wss": ("https", "wss")}
# An address with its port; what is longer is none.
_MAX_ADDRESS = 64
# More proxies than anybody has, and all that is looked at of a header that a client may have filled.
_MAX_HOPS = 20


def parse_networks(text: str) -> tuple[Network, ...]:
    """`127.0.0.1, 10.1.0.0/16, ::1` as networks; `*` is all of them.

    Raises:
        ValueError: naming what is neither an address nor a network.
    """
    networks: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part == EVERYBODY:
            networks += [ip_network("0.0.0.0/0"), ip_network("::/0")]
            continue
        try:
            networks.append(ip_network(part))
        except ValueError:
            raise ValueError(f"must be addresses and networks such as 10.1.0.0/16, which {part!r} is not") from None
    return tuple(networks)


def parse_address(text: str) -> Address | None:
    """An address as a proxy writes it, perhaps with a port; one of IPv4 that was mapped into IPv6 is one of IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text) if len(text) <= _MAX_ADDRESS else None
    except ValueError:
        return None
    return (getattr(address, "ipv4_mapped", None) or address) if address is not None else None


class Forwarded:
    """What is believed of forwarded headers: from a peer in `trusted`, or from any if the listener is `closed`.

    A client may have sent such headers itself, to which each proxy adds the address that it saw: the last one that is
    no trusted proxy's is the client's.
    """

    def __init__(self, trusted: Sequence[Network], *, closed: bool = False) -> None:
        self._trusted = trusted
        self._closed = closed
        self._is_trusted = lru_cache(4096)(self._look_up)

    def apply(self, scope: Scope) -> bool:
        """Put the client and the scheme into `scope`; whether the peer is one that is believed."""
        peer = scope.get("client")
        if peer is not None and peer[0].startswith(_MAPPED) and (address := parse_address(peer[0])) is not None:
            peer = scope["client"] = (str(address), peer[1])
        if not self._closed and (peer is None or not self._is_trusted(peer[0])):
            return False
        headers = scope["headers"]
        if (client := self._client(_values(headers, b"x-forwarded-for"))) is not None:
            scope["client"] = (client, 0)
        scheme = next(reversed(_values(headers, b"x-forwarded-proto")), "")
        if scheme in _SCHEMES:
            scope["scheme"] = _SCHEMES[scheme][scope["type"] == "websocket"]
        return True

    def _client(self, hops: list[str]) -> str | None:
        """The last hop that is no trusted proxy's, else the first; what is no address ends the chain."""
        found: str | None = None
        for hop in reversed(hops[-_MAX_HOPS:]):
            address = parse_address(hop)
            if address is None:
                break
            found = str(address)
            if not self._is_trusted(found):
                break
        return found

    def _look_up(self, host: str) -> bool:
        address = parse_address(host)
        return address is not None and any(address in network for network in self._trusted)


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """The parts of a list header, which may be there several times (RFC 9110, section 5.3)."""
    joined = b",".join(value for key, value in headers if key == name).decode("latin-1")
    return [part.strip() for part in joined.split(",") if part.strip()]
