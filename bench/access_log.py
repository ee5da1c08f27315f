"""What the access log costs a websocket's message and a request: `python -m bench.access_log`.

No sockets: the protocol class gets bytes and writes to a transport that forgets them, so that what is measured is
Python's own time and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from roost import logs
from roost.access import AccessLog
from roost.logs import Defaults
from roost.websockets import WebSocketProtocol

ROUNDS, MESSAGES = 25, 20_000
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CLICK = b'["pageEventFromWeb",{"eventTarget":"_5","eventName":"click","eventData":""}]'
FRAME = bytes((0x81, 0x80 + len(CLICK))) + bytes(4) + CLICK


class Transport(asyncio.Transport):
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def counted_elsewhere(app: ASGIApp) -> ASGIApp:
    """`app` behind a server that does not count."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {}
        await app(scope, receive, send)

    return plain


async def message_seconds(app: ASGIApp) -> float:
    """The time of one echoed message."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_ping_interval=None)
    config.load()
    protocol = WebSocketProtocol(config, ServerState(), {})
    protocol.connection_made(Transport())
    protocol.data_received(UPGRADE)
    await asyncio.sleep(0.01)
    began = time.perf_counter()
    for _ in range(MESSAGES // 100):
        for _ in range(100):
            protocol.data_received(FRAME)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    took = time.perf_counter() - began
    assert protocol.traffic().frames_out >= MESSAGES - 100
    protocol.connection_lost(None)
    await asyncio.sleep(0.01)
    return took / MESSAGES


async def request_seconds(app: ASGIApp) -> float:
    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(_: Message) -> None:
        pass

    began = time.perf_counter()
    for _ in range(MESSAGES // 10):
        await app({"type": "http", "method": "GET", "path": "/a", "headers": [], "client": ("::1", 1)}, receive, send)
    return (time.perf_counter() - began) / (MESSAGES // 10)


async def main(report: int) -> None:
    access = AccessLog(echo, Defaults())
    rows: dict[str, tuple[Any, ASGIApp]] = {
        "message, bare app": (message_seconds, echo),
        "message, access log, Roost's websockets": (message_seconds, access),
        "message, access log, another server's": (message_seconds, counted_elsewhere(access)),
        "request, bare app": (request_seconds, hello),
        "request, access log": (request_seconds, AccessLog(hello, Defaults())),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, (measure, app) in rows.items():
            taken[name].append(await measure(app))
    for name, seconds in taken.items():
        line = f"{name:<42}{statistics.median(seconds) * 1e6:8.2f} µs (least {min(seconds) * 1e6:.2f})\n"
        os.write(report, line.encode())


if __name__ == "__main__":
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the lines go
    logs.configure(Defaults())
    asyncio.run(main(out))
