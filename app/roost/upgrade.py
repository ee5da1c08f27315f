"""The request that asks for a websocket, and what is agreed with it (RFC 6455, section 4.2).

Almost all of them are written in one way, the browsers', which is read here at an eighth of the cost. Any other one
goes through the `websockets` library, which also says what is wrong with a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.utils import accept_key

# Beyond this the library's own limits of lines and headers are asked.
_MAX_BYTES, _MAX_FIELDS = 8192, 64
_USUAL = re.compile(
    rb"GET (?P<target>[!-~]++) HTTP/1\.1\r\n"
    rb"(?P<fields>(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: [\t -~\x80-\xff]*+\r\n)++)\r\n"
)
_SIXTEEN_BYTES = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_UPGRADE, _CONNECTION = b"upgrade", b"connection"
_KEY, _VERSION, _EXTENSIONS = b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions"
# A request has these once or not at all, and no body.
_ONCE = frozenset({_UPGRADE, _CONNECTION, _KEY, _VERSION, _EXTENSIONS})
_BODY = frozenset({b"content-length", b"transfer-encoding"})

Field = tuple[bytes, bytes]


class Upgrade(NamedTuple):
    """A request that may be granted. `accept` and `extensions` are values of the answer's header fields."""

    target: str
    fields: list[Field]
    accept: str
    extensions: str | None
    window: int  # the bits of our compression window; 0 is no compression

    def answer(self, fields: list[Field]) -> bytes:
        """The response that grants it, with these header fields in addition."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + self.accept.encode(),
        ]
        if self.extensions is not None:
            lines.append(b"Sec-WebSocket-Extensions: " + self.extensions.encode())
        lines += [name + b": " + value for name, value in fields]
        return b"\r\n".join([*lines, b"", b""])


def read_upgrade(request: bytes, *, compress: bool) -> Upgrade | Response:
    """What `request` asks for, or the response that refuses it. `compress` allows permessage-deflate."""
    return _usual(request, compress) or _any(request, compress)


def _usual(request: bytes, compress: bool) -> Upgrade | None:
    parts = _USUAL.fullmatch(request) if len(request) <= _MAX_BYTES else None
    if parts is None:
        return None
    fields = [_field(line) for line in parts["fields"].split(b"\r\n")[:-1]]
    known = _known(fields)
    if known is None or not _asks_for_websocket(known):
        return None
    try:
        extensions, window = agree(known[_EXTENSIONS].decode("latin-1") if _EXTENSIONS in known else None, compress)
    except InvalidHandshake:
        return None
    return Upgrade(parts["target"].decode(), fields, accept_key(known[_KEY].decode()), extensions, window)


def _known(fields: list[Field]) -> dict[bytes, bytes] | None:
    """The fields by name; None if there are too many, one that counts is there twice, or a body follows."""
    known = dict(fields)
    once = sum(name in _ONCE for name, _ in fields) == len(known.keys() & _ONCE)
    return known if once and len(fields) <= _MAX_FIELDS and known.keys().isdisjoint(_BODY) else None


def _asks_for_websocket(known: dict[bytes, bytes]) -> bool:
    return (
        known.get(_UPGRADE, b"").lower() == b"websocket"
        and b"upgrade" in [token.strip() for token in known.get(_CONNECTION, b"").lower().split(b",")]
        and known.get(_VERSION) == b"13"
        and _SIXTEEN_BYTES.fullmatch(known.get(_KEY, b"")) is not None
    )


def _field(line: bytes) -> Field:
    name, _, value = line.partition(b": ")
    return name.lower(), value.strip(b" \t")


@lru_cache(64)
def agree(offers: str | None, compress: bool) -> tuple[str | None, int]:
    """The answer to `Sec-WebSocket-Extensions` and our compression window; browsers differ little in their offers.

    Raises:
        InvalidHandshake: the offers are malformed.
    """
    headers = Headers() if offers is None else Headers([("Sec-WebSocket-Extensions", offers)])
    answer, extensions = _handshake(compress).process_extensions(headers)
    return answer, window_of(extensions)


def _any(request: bytes, compress: bool) -> Upgrade | Response:
    handshake = _handshake(compress)
    handshake.receive_data(request)
    requests = handshake.events_received()
    if not requests or not isinstance(requests[0], Request):
        return refusal(HTTPStatus.BAD_REQUEST, [], b"")
    answer = handshake.accept(requests[0])
    if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        return answer
    headers = requests[0].headers
    fields = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.raw_items()]
    accept, extensions = answer.headers["Sec-WebSocket-Accept"], answer.headers.get("Sec-WebSocket-Extensions")
    return Upgrade(requests[0].path, fields, accept, extensions, window_of(handshake.extensions))


def _handshake(compress: bool) -> ServerProtocol:
    # no context takeover on either side: no zlib state outlives a message
    return ServerProtocol(extensions=[ServerPerMessageDeflateFactory(True, True)] if compress else [], max_size=0)


def window_of(extensions: Sequence[object]) -> int:
    """The bits of our window if compression is among the agreed `extensions`, else 0."""
    return max((each.local_max_window_bits for each in extensions if isinstance(each, PerMessageDeflate)), default=0)


def refusal(status: int, fields: list[Field], body: bytes) -> Response:
    """A response that ends the connection."""
    headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])
    headers.setdefault("Content-Length", str(len(body)))
    headers.setdefault("Connection", "close")
    return Response(status, phrase(status), headers, body)


def phrase(status: int) -> str:
    """The reason phrase of a status code; empty if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
