"""An app that tells what it heard, and answers as it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


def heard(scope: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "client": scope["client"][0] if scope["client"] else None,
        "scheme": scope["scheme"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
    }


async def echo(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({**heard(request.scope), "body": size})


async def answer(request: Request) -> Response:
    """A body that never comes twice, with the headers of the query."""
    headers = dict(request.query_params)
    size = int(headers.pop("size", "0"))
    status = int(headers.pop("status", "200"))
    await asyncio.sleep(float(headers.pop("seconds", "0")))
    token = secrets.token_hex(8).encode()
    return Response(token.ljust(size, b"."), status, headers, "text/plain")


async def doubled(request: Request) -> Response:
    """Headers that come twice: of each value in the query, one."""
    response = PlainTextResponse(secrets.token_hex(8))
    for name, value in request.query_params.multi_items():
        response.headers.append(name, value)
    return response


async def stream(_: Request) -> Response:
    """A line at once, a second one never."""

    async def lines() -> Any:
        yield b"data: first\n\n"
        await asyncio.sleep(3600)

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def build_file(request: Request) -> Response:
    """A file of a web client's build, in the coding that was asked for."""
    accepted = request.headers.get("accept-encoding", "")
    coding = next((name for name in ("br", "gzip") if name in accepted), None)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    headers["Accept-Ranges"] = "bytes"
    if coding:
        headers["Content-Encoding"] = coding
    await asyncio.sleep(0.2)
    return Response(f"{secrets.token_hex(8)} {coding} {accepted}", headers=headers, media_type="text/javascript")


async def die(_: Request) -> Response:
    os._exit(1)


async def websocket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(json.dumps(heard(websocket.scope)))
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
app = Starlette(
    routes=[
        Route("/answer", answer, methods=METHODS),
        Route("/doubled", doubled),
        Route("/stream", stream),
        Route("/die", die, methods=METHODS),
        Route("/_b/0123456789abcdef/{name}", build_file),
        WebSocketRoute("/ws", websocket),
        Route("/{path:path}", echo, methods=METHODS),
    ]
)
