"""One representation and how it goes out: preconditions, ranges, HEAD, in pieces, never blocking the event loop."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from anyio import to_thread
from starlette.types import Scope, Send

from .negotiation import Span, Unsatisfiable, choose_span, http_date, precondition

Headers = list[tuple[bytes, bytes]]

# 2 MB of CanvasKit are nine hops to a thread; a thousand slow readers hold a quarter of a gigabyte at most
CHUNK_SIZE = 256 * 1024

IMMUTABLE = b"public, max-age=31536000, immutable"
REVALIDATE = b"no-cache"
PRIVATE = b"no-cache, private"

# The one place for headers that every answer of the static client carries.
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = ((b"x-content-type-options", b"nosniff"),)

# What a 304 repeats (RFC 9110, 15.4.5).
_NOT_MODIFIED = frozenset({b"cache-control", b"etag", b"last-modified", b"vary"})


@dataclass(frozen=True, slots=True)
class Representation:
    """A body with its metadata: the sender closes `body`, `extra` goes into a 304 too."""

    body: BinaryIO
    size: int
    etag: str
    content_type: str
    cache_control: bytes
    coding: str = "identity"
    vary: bool = False
    modified: int | None = None
    extra: Sequence[tuple[bytes, bytes]] = ()

    def headers(self) -> Headers:
        headers: Headers = [
            (b"content-type", self.content_type.encode("latin-1")),
            (b"cache-control", self.cache_control),
            (b"etag", self.etag.encode("latin-1")),
            (b"accept-ranges", b"bytes"),
        ]
        if self.modified is not None:
            headers.append((b"last-modified", http_date(self.modified).encode("ascii")))
        if self.coding != "identity":
            headers.append((b"content-encoding", self.coding.encode("ascii")))
        if self.vary:
            headers.append((b"vary", b"accept-encoding"))
        return headers


async def send_representation(
    scope: Scope, send: Send, representation: Representation, request: Mapping[str, str]
) -> None:
    """Answer a GET or HEAD with `representation`, or with 206, 304, 412 or 416 as the request demands."""
    try:
        await _answer(scope["method"], send, representation, request)
    finally:
        # closing a file that was only read does not wait for a disk
        representation.body.close()


async def _answer(method: str, send: Send, representation: Representation, request: Mapping[str, str]) -> None:
    headers = representation.headers()
    extra = representation.extra
    status = precondition(request, representation.etag, representation.modified)
    if status == 304:
        await _empty(send, 304, [*(header for header in headers if header[0] in _NOT_MODIFIED), *extra])
        return
    if status == 412:
        await send_error(send, 412, method)
        return
    whole = Span(0, representation.size)
    try:
        # a HEAD ignores Range (RFC 9110, 14.2)
        span = _span(request, representation) if method == "GET" else None
    except Unsatisfiable:
        await send_error(send, 416, method, [(b"content-range", b"bytes */%d" % representation.size)])
        return
    if span is not None:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (span.start, span.stop - 1, representation.size)))
    await _start(send, 200 if span is None else 206, [*headers, *extra], span or whole)
    if method == "HEAD":
        await send({"type": "http.response.body"})
    else:
        await _send_body(send, representation.body, span or whole)


def _span(request: Mapping[str, str], representation: Representation) -> Span | None:
    return choose_span(request, representation.size, representation.etag, representation.modified)


async def _start(send: Send, status: int, headers: Headers, span: Span) -> None:
    length = (b"content-length", b"%d" % (span.stop - span.start))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length, *SECURITY_HEADERS]})


async def _send_body(send: Send, body: BinaryIO, span: Span) -> None:
    left = span.stop - span.start
    position: int | None = span.start
    while left > 0:
        chunk = await _read(body, position, min(left, CHUNK_SIZE))
        position = None
        left -= len(chunk)
        if not chunk:
            # the file shrank under us; ending early makes the server cut the connection, which tells the client
            break
        await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
    else:
        if span.start == span.stop:
            await send({"type": "http.response.body"})


async def _read(body: BinaryIO, position: int | None, size: int) -> bytes:
    if isinstance(body, io.BytesIO):
        return _seek_and_read(body, position, size)
    return await to_thread.run_sync(_seek_and_read, body, position, size)


def _seek_and_read(body: BinaryIO, position: int | None, size: int) -> bytes:
    if position is not None:
        body.seek(position)
    return body.read(size)


async def _empty(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *SECURITY_HEADERS]})
    await send({"type": "http.response.body"})


_REASONS = {
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    412: b"Precondition Failed",
    416: b"Range Not Satisfiable",
    500: b"Internal Server Error",
}


async def send_error(send: Send, status: int, method: str, headers: Headers | None = None) -> None:
    """A short text; never stored by caches: what is missing now may be there after the next deployment."""
    body = _REASONS[status]
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"), *(headers or [])]
    await _start(send, status, plain, Span(0, len(body)))
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def send_redirect(send: Send, url: str) -> None:
    """A temporary redirect that is asked for again each hour."""
    headers = [(b"location", url.encode("ascii")), (b"cache-control", b"public, max-age=3600")]
    await _start(send, 302, headers, Span(0, 0))
    await send({"type": "http.response.body"})
