"""One line for each request and each websocket, and the id that all lines of one of them share."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from flet_fastapi.logs import FACTS, get_logger

from .logs import ADDRESS, LogSettings, shown_client
from .websockets import Traffic

log = get_logger(__name__)

# What the listener dispatch says of a request: that its peer may name it, and that it came over the internal listener.
TRUSTED = "roost.trusted"
INTERNAL = "roost.internal"
# Where the app finds the id.
REQUEST_ID = "roost.request_id"

_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
# Unofficial, but what everybody writes for a client that left before it was answered.
_CLIENT_LEFT = 499


class AccessLog:
    """Plain ASGI, around the app: names each request, says so in the answer's `X-Request-ID`, and logs its end.

    The peer's own `X-Request-ID` counts where `scope["roost.trusted"]` is true. What has `scope["roost.internal"]`,
    health checks and metrics, is logged at DEBUG.
    """

    def __init__(self, app: ASGIApp, settings: LogSettings) -> None:
        self.app = app
        self._client = settings.log_client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(scope)
        make: Callable[..., _Exchange] = _Http if kind == "http" else _websocket
        exchange = make(scope, receive, send, (_HEADER, request_id.encode()))
        tokens = self._bind(scope, request_id)
        failed = True
        try:
            await self.app(scope, *exchange.channels())
            failed = False
        finally:
            exchange.log(failed)
            if not failed:  # what the server says of a failure belongs to the request, too
                reset_contextvars(**tokens)

    def _bind(self, scope: Scope, request_id: str) -> Any:
        client = scope.get("client")
        bound: dict[str, Any] = {"request_id": request_id}
        if (shown := shown_client(client, self._client)) is not None:
            bound["client"] = shown
        if client and self._client != "full":
            bound[ADDRESS] = client[0]  # the app may log it in its own words
        return bind_contextvars(**bound)


class _Exchange:
    """One request or websocket: `receive` and `send` for the app, and what goes through them."""

    __slots__ = (
        "_began",
        "_header",
        "_path",
        "_receive",
        "_root",
        "_scope",
        "_send",
        "bytes_in",
        "bytes_out",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._header = header
        # mounted apps change these
        self._path: str = scope["path"]
        self._root: str = scope.get("root_path", "")
        self.status = self.bytes_in = self.bytes_out = 0
        self._began = time.perf_counter()

    def channels(self) -> tuple[Receive, Send]:
        """What the app gets."""
        return self.receive, self.send

    async def receive(self) -> Message:
        raise NotImplementedError

    def send(self, message: Message) -> Awaitable[None]:
        raise NotImplementedError

    def log(self, failed: bool) -> None:
        """Write the line; `failed` if the app has raised something."""
        raise NotImplementedError

    def _milliseconds(self) -> float:
        return round((time.perf_counter() - self._began) * 1000, 1)

    def _route(self) -> str | None:
        """The template of the route that took the request, below what was mounted."""
        route = self._scope.get("route")
        path = getattr(route, "path", None)
        if not isinstance(path, str):
            return None
        mounted = str(self._scope.get("root_path", "")).removeprefix(self._root)
        return mounted if isinstance(route, Mount) else mounted + path

    def _answered(self, message: Message) -> Message:
        headers = [(name, value) for name, value in message.get("headers") or () if name.lower() != self._header[0]]
        return {**message, "headers": [*headers, self._header]}


class _Http(_Exchange):
    __slots__ = ("_left", "_length")

    def __init__(self, scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]) -> None:
        super().__init__(scope, receive, send, header)
        self._left = False
        self._length = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body") or b"")
        elif message["type"] == "http.disconnect":
            self._left = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            self.bytes_out += len(message.get("body") or b"")
        elif kind == "http.response.start":
            message = self._answered(message)
            self.status = message["status"]
            self._length = _length(message["headers"])
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self.bytes_out = self._length  # the server reads the file
        return self._send(message)

    def log(self, failed: bool) -> None:
        scope = self._scope
        log.log(
            logging.DEBUG if scope.get(INTERNAL) else logging.INFO,
            "request",
            method=scope["method"],
            path=self._path,
            route=self._route(),
            status=self.status or (_CLIENT_LEFT if self._left and not failed else 500),
            duration_ms=self._milliseconds(),
            bytes_in=self.bytes_in,
            bytes_out=0 if scope["method"] == "HEAD" else self.bytes_out,
        )


class _Websocket(_Exchange):
    """A websocket of any server: what goes through it is counted here."""

    __slots__ = ("_closed_by", "_code", "_facts", "frames_in", "frames_out")

    def __init__(self, scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]) -> None:
        super().__init__(scope, receive, send, header)
        self.frames_in = self.frames_out = 0
        self._code: int | None = None
        self._closed_by = ""
        self._facts: dict[str, str | None] = scope.setdefault(FACTS, {})

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.frames_in += 1
            self.bytes_in += _size(message)
        elif message["type"] == "websocket.disconnect" and self._code is None:
            self._code = int(message.get("code") or 1005)  # uvicorn gives some as text
            # the server's own codes: no pong came, or it stops
            self._closed_by = "server" if self._code in (1011, 1012) else "client"
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "websocket.send":
            self.frames_out += 1
            self.bytes_out += _size(message)
        elif kind == "websocket.accept":
            self.status, message = 101, self._answered(message)
        elif kind == "websocket.http.response.start":
            self.status, message = message["status"], self._answered(message)
        elif kind == "websocket.close" and self._code is None:
            self.status = self.status or 403
            self._code, self._closed_by = message.get("code", 1000), "app"
        return self._send(message)

    def traffic(self) -> Traffic:
        """What was carried so far."""
        return Traffic(
            self.status, self.frames_in, self.bytes_in, self.frames_out, self.bytes_out, self._code, self._closed_by
        )

    def log(self, failed: bool) -> None:
        traffic = self.traffic()
        refused = traffic.status != 101
        ending = None if refused else traffic.code
        if not refused and ending is None:  # the app has left it to the server
            ending = 1011 if failed else 1000
        left = traffic.closed_by == "client" and not failed
        log.info(
            "websocket",
            path=self._path,
            route=self._route(),
            status=traffic.status or (_CLIENT_LEFT if left else 500),
            duration_ms=self._milliseconds(),
            frames_in=traffic.frames_in,
            frames_out=traffic.frames_out,
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            code=ending,
            closed_by=None if refused else traffic.closed_by or "app",
            session=self._facts.get("session"),
            app=self._facts.get("app"),
        )


class _CountedWebsocket(_Websocket):
    """A websocket of Roost's server, which counts by itself: the app gets the server's own `receive` and `send`."""

    __slots__ = ("_read",)

    def __init__(self, scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]) -> None:
        super().__init__(scope, receive, send, header)
        offer = scope["extensions"]["roost.websocket.traffic"]
        offer["headers"].append(header)
        self._read: Callable[[], Traffic] = offer["read"]

    def channels(self) -> tuple[Receive, Send]:
        return self._receive, self._send

    def traffic(self) -> Traffic:
        return self._read()


def _websocket(scope: Scope, receive: Receive, send: Send, header: tuple[bytes, bytes]) -> _Websocket:
    counts = "roost.websocket.traffic" in (scope.get("extensions") or {})
    return (_CountedWebsocket if counts else _Websocket)(scope, receive, send, header)


def _request_id(scope: Scope) -> str:
    """The id that a trusted peer gives, if it gives one, else one of our own."""
    if scope.get(TRUSTED):
        given = [value for name, value in scope["headers"] if name == _HEADER]
        if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
            return str(given[0].decode())
    return secrets.token_hex(8)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    stated = next((value for name, value in headers if name.lower() == b"content-length"), b"")
    return int(stated) if stated.isdigit() else 0


def _size(message: Message) -> int:
    """Bytes of a message; of a text, those of its UTF-8."""
    text = message.get("text")
    if text is None:
        return len(message.get("bytes") or b"")
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
