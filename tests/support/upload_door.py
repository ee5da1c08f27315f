"""An upload endpoint over a fake server, and a browser that sends exactly what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from starlette.types import ASGIApp

from flet_fastapi.options import Options
from flet_fastapi.uploads import FletUpload, upload_url
from tests.support.fake_server import FakeServer

PATH = "/upload"
SESSION = "session-key"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str | None:
        return str(orjson.loads(self.body)["error"]) if self.body else None


@dataclass
class Body:
    """A request body in `chunks`; after them the browser stays silent for ever if it `stalls`, or `leaves`."""

    chunks: Iterable[bytes]
    stalls: bool = False
    leaves: bool = False
    before: dict[int, Callable[[], Awaitable[Any]]] = field(default_factory=dict)
    sent: int = 0

    def __post_init__(self) -> None:
        self.chunks = iter(self.chunks)

    async def receive(self) -> dict[str, Any]:
        if self.sent in self.before:
            await self.before.pop(self.sent)()
        chunk = next(iter(self.chunks), None)
        if chunk is not None:
            self.sent += 1
            return {"type": "http.request", "body": chunk, "more_body": True}
        if self.stalls:
            await asyncio.Event().wait()
        if self.leaves:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}


async def send(
    app: ASGIApp,
    url: str,
    body: bytes | Body = b"",
    headers: Iterable[tuple[str, str]] | None = None,
    method: str = "PUT",
    root_path: str = "",
) -> Answer:
    """One request; with `headers` None the right Content-Length alone is sent."""
    if isinstance(body, bytes):
        headers = [("content-length", str(len(body)))] if headers is None else headers
        body = Body([body] if body else [])
    parts = urlsplit(url)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "root_path": root_path,
        "query_string": parts.query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or ()],
        "server": ("127.0.0.1", 8000),
    }
    messages: list[Any] = []

    async def collect(message: Any) -> None:
        messages.append(message)

    await app(scope, body.receive, collect)
    answer = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return Answer(messages[0]["status"], answer, b"".join(message.get("body", b"") for message in messages[1:]))


@dataclass
class Door:
    """One app's upload endpoint in one worker."""

    server: FakeServer
    options: Options
    directory: Path

    @property
    def endpoint(self) -> FletUpload:
        return FletUpload.from_options(self.options, self.server)

    async def url(self, name: str = "f.bin", **arguments: Any) -> str:
        given = {"path": PATH, "session_key": SESSION, "expires_seconds": 600, **arguments}
        return upload_url(await self.server.keyring(self.options), file_name=name, **given)

    async def put(self, url: str, body: bytes | Body = b"", headers: Any = None, **request: str) -> Answer:
        return await send(self.endpoint, url, body, headers, **request)

    def files(self) -> dict[str, bytes]:
        """Everything in the upload directory, folders too."""
        found = self.directory.rglob("*")
        return {str(path.relative_to(self.directory)): b"" if path.is_dir() else path.read_bytes() for path in found}
