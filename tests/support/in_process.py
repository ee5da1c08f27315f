"""A browser that talks to an ASGI application through queues: no socket, no server, thousands of them in a second."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from starlette.types import ASGIApp, Message, Scope
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from tests.support.classic_client import ClassicClient


def websocket_scope(path: str = "/ws", **extra: Any) -> Scope:
    return {
        "type": "websocket", "scheme": "ws", "path": path, "root_path": "", "query_string": b"",
        "headers": [(b"host", b"test")], "client": ("192.0.2.1", 1234), "server": ("test", 80), **extra,
    }  # fmt: skip


class _Response:
    def __init__(self, headers: Headers) -> None:
        self.headers = headers


class QueueSocket:
    """What `ClassicClient` needs of a websocket, and a server's side that can be made to fail.

    `stalled` is what the server waits for when it sends; `broken` is what its sending raises.
    """

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.response = _Response(Headers())
        self.transport = self
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.stalled = asyncio.Event()
        self.stalled.set()
        self.broken: BaseException | None = None
        self.sending = 0
        self._in: asyncio.Queue[Message] = asyncio.Queue()
        self._out: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._left = False
        self._in.put_nowait({"type": "websocket.connect"})
        self.server = asyncio.create_task(self._serve(app, scope), name="server")

    async def _serve(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._in.get, self._send)
        finally:
            self._closed(self.close_code or 1006, self.close_reason or "")

    async def _send(self, message: Message) -> None:
        if self.broken is not None:
            raise self.broken
        if not self.stalled.is_set():
            self.sending += 1
            await self.stalled.wait()
            self.sending -= 1
        if self._left:
            raise OSError("the client has left")
        match message["type"]:
            case "websocket.accept":
                for name, value in message.get("headers", ()):
                    self.response.headers[name.decode()] = value.decode()
                self._answered.set()
            case "websocket.send":
                text = message.get("text")
                self._out.put_nowait(message["bytes"] if text is None else text)
            case "websocket.close":
                self._closed(message.get("code", 1000), message.get("reason", ""))

    def _closed(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
        self._answered.set()
        self._out.put_nowait(None)

    # the browser's side

    async def opened(self) -> None:
        await self._answered.wait()
        if self.close_code is not None:
            raise ConnectionRefusedError(self.close_code, self.close_reason)

    async def send(self, frame: str | bytes) -> None:
        kind = "text" if isinstance(frame, str) else "bytes"
        self._in.put_nowait({"type": "websocket.receive", kind: frame})

    async def recv(self) -> str | bytes:
        frame = await self._out.get()
        if frame is None:
            self._out.put_nowait(None)
            raise ConnectionClosedError(Close(self.close_code or 1006, self.close_reason or ""), None)
        return frame

    def abort(self) -> None:
        self._left = True
        self.stalled.set()
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.abort()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait for the server's side to end.

        Raises:
            RuntimeError: it does not; it was cancelled then.
        """
        _, pending = await asyncio.wait([self.server], timeout=30)
        if pending:
            self.server.cancel()
            await asyncio.wait([self.server], timeout=30)
            raise RuntimeError("the server has not noticed the end of the connection")


class InProcessClient(ClassicClient):
    """A `ClassicClient` of an ASGI application in this process."""

    socket: Any

    def __init__(
        self, app: ASGIApp, *, path: str = "/ws", scope: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        super().__init__("", **settings)
        self.app = app
        self.path = path
        self.scope = scope or {}

    async def connect(self) -> Self:
        scope = websocket_scope(self.path, **self.scope)
        origin = self._origin(f"{scope['scheme']}://{dict(scope['headers']).get(b'host', b'').decode()}/")
        headers = self.headers if origin is None else {"Origin": origin, **self.headers}
        scope["headers"] = [*scope["headers"], *((n.lower().encode(), v.encode()) for n, v in headers.items())]
        if self.cookies:
            pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            scope["headers"].append((b"cookie", pairs.encode()))
        self.socket = QueueSocket(self.app, scope)
        await self.socket.opened()
        self._keep_cookies()
        self._reading.set()
        self._reader = asyncio.create_task(self._read(), name="classic client reader")
        return self

    async def reconnect(self, **changes: Any) -> InProcessClient:
        settings: dict[str, Any] = {
            "path": self.path, "scope": self.scope, "headers": self.headers, "cookies": self.cookies,
            "origin": self.origin, "timeout": self.timeout,
        }  # fmt: skip
        other = InProcessClient(self.app, **(settings | changes))
        other.session_id = self.session_id
        other.methods = self.methods
        return await other.connect()

    async def abort(self) -> None:
        self.socket.abort()
        self.resume_reading()
        try:
            await self.socket.wait_closed()
        finally:
            await self._join()
