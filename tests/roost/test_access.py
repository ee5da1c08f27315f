"""One line for each request and websocket, whatever becomes of it, and an id that cannot be forged."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from structlog.contextvars import get_contextvars
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import flet_fastapi
from flet_fastapi.logs import get_logger
from roost.access import INTERNAL, REQUEST_ID, TRUSTED, AccessLog
from roost.logs import Defaults
from tests.support.logs import Said, configured
from tests.support.serving import WEBSOCKETS, uvicorn_in_process

OWN_ID = re.compile(r"[0-9a-f]{16}")


@pytest.fixture
def said() -> Iterator[Said]:
    with configured(slot=3) as said:
        logging.getLogger().setLevel(logging.DEBUG)
        yield said


def scope(**changes: Any) -> Scope:
    made = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "client": ("203.0.113.7", 1),
        "query_string": b"",
    }
    return {**made, **changes}


async def call(app: ASGIApp, request: Scope, *received: Message) -> list[Message]:
    """What `app` sends."""
    sent: list[Message] = []
    waiting = list(received) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(request, receive, send)
    return sent


async def hello(_: Scope, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hel", "more_body": True})
    await send({"type": "http.response.body", "body": b"lo"})


def logged(app: ASGIApp, **settings: Any) -> AccessLog:
    return AccessLog(app, replace(Defaults(), **settings))


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_request_has_one_line(said: Said) -> None:
    body = [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.request", "body": b"de"}]
    await call(logged(hello), scope(method="POST", path="/a", query_string=b"t=SECRET"), *body)
    entry = said.entry()
    assert OWN_ID.fullmatch(entry.pop("request_id"))
    assert entry.pop("duration_ms") >= 0
    assert {name: entry[name] for name in list(entry)[6:]} == {
        "client": "203.0.113.7", "method": "POST", "path": "/a", "route": None, "status": 200, "bytes_in": 5,
        "bytes_out": 5,
    }  # fmt: skip
    assert (entry["event"], entry["level"], entry["logger"]) == ("request", "info", "roost.access")


async def no_answer(_: Scope, __: Receive, ___: Send) -> None:
    pass


async def waits_for_the_client(_: Scope, receive: Receive, __: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def fails(_: Scope, __: Receive, ___: Send) -> None:
    raise ValueError("before the answer")


async def fails_late(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 206, "headers": []})
    raise ValueError("in the answer")


async def is_cancelled(_: Scope, __: Receive, ___: Send) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("app", "status"),
    [(hello, 200), (no_answer, 500), (waits_for_the_client, 499), (fails, 500), (fails_late, 206), (is_cancelled, 500)],
)
async def test_every_end_of_a_request_has_its_line(said: Said, app: ASGIApp, status: int) -> None:
    try:
        await call(logged(app), scope())
    except (ValueError, asyncio.CancelledError):
        get_logger("uvicorn.error").error("Exception in ASGI application")
    access, *servers = said.entries()
    assert (access["event"], access["status"]) == ("request", status)
    # what the server says of the failure is of this request, too
    assert all(entry["request_id"] == access["request_id"] for entry in servers)


async def test_a_finished_request_leaves_no_context(said: Said) -> None:
    await call(logged(hello), scope())
    assert get_contextvars() == {}


async def test_lines_of_a_request_have_its_id_and_client(said: Said) -> None:
    async def app(asked: Scope, receive: Receive, send: Send) -> None:
        get_logger("app").info("within", same=asked[REQUEST_ID])
        await asyncio.create_task(elsewhere())
        await hello(asked, receive, send)

    async def elsewhere() -> None:
        await asyncio.to_thread(logging.getLogger("lib").info, "within")

    sent = await call(logged(app, log_client="truncated"), scope())
    first, second, access = said.entries()
    assert first["request_id"] == second["request_id"] == access["request_id"] == first["same"]
    assert first["client"] == access["client"] == "203.0.113.0"
    assert (b"x-request-id", access["request_id"].encode()) in sent[0]["headers"]


SPOOFING = [
    # trusted, the headers that came, the id that counts: None is one of our own
    (True, [b"abcdefgh"], b"abcdefgh"),
    (True, [b"A-Za_z0-9" * 7], b"A-Za_z0-9" * 7),
    (True, [], None),
    (True, [b""], None),
    (True, [b"short"], None),
    (True, [b"x" * 65], None),
    (True, [b"abcdefgh\n"], None),
    (True, [b"abcdefgh "], None),
    (True, [b"abcdefgh\r\nSet-Cookie: a=b"], None),
    (True, [b'abcdefgh","level":"critical'], None),
    (True, [b"abcdefgh\xff"], None),
    (True, [b"abcdefgh", b"ijklmnop"], None),
    (True, [b"abcdefgh", b"abcdefgh"], None),
    (False, [b"abcdefgh"], None),
    (None, [b"abcdefgh"], None),
]


@pytest.mark.parametrize(("trusted", "given_ids", "counts"), SPOOFING)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_only_a_trusted_peer_names_a_request(
    said: Said, kind: str, trusted: bool | None, given_ids: list[bytes], counts: bytes | None
) -> None:
    asked = scope(type=kind, headers=[(b"x-request-id", each) for each in given_ids])
    if trusted is not None:
        asked[TRUSTED] = trusted
    app, event = (hello, None) if kind == "http" else (_accepts, {"type": "websocket.connect"})
    sent = await call(logged(app), asked, *([event] if event else []))
    answered = [value for name, value in sent[0]["headers"] if name == b"x-request-id"]
    assert answered == [said.entry()["request_id"].encode()]
    if counts is None:
        assert OWN_ID.fullmatch(answered[0].decode())
    else:
        assert answered == [counts]


async def _accepts(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def test_the_apps_own_header_is_replaced_and_its_message_left_alone(said: Said) -> None:
    message = {"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"mine"), (b"a", b"b")]}

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send(message)
        await send({"type": "http.response.body"})

    sent = await call(logged(app), scope())
    assert [name for name, _ in sent[0]["headers"]] == [b"a", b"x-request-id"]
    assert message["headers"] == [(b"X-Request-Id", b"mine"), (b"a", b"b")]


async def test_extensions_pass_and_files_that_the_server_sends_are_counted(said: Said) -> None:
    messages: list[Message] = [
        {"type": "http.response.debug", "info": {"a": 1}},
        {"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"1234")], "trailers": True},
        {"type": "http.response.pathsend", "path": "/x"},
        {"type": "http.response.trailers", "headers": []},
    ]

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    sent = await call(logged(app), scope())
    assert [message["type"] for message in sent] == [message["type"] for message in messages]
    assert sent[1]["trailers"] is True
    assert said.entry()["bytes_out"] == 1234


@pytest.mark.parametrize(("internal", "level"), [(True, "debug"), (False, "info"), (None, "info")])
async def test_health_and_metrics_are_for_debugging(said: Said, internal: bool | None, level: str) -> None:
    await call(logged(hello), scope(path="/metrics", **({} if internal is None else {INTERNAL: internal})))
    assert said.entry()["level"] == level


async def test_other_scopes_pass(said: Said) -> None:
    seen = []

    async def app(asked: Scope, _: Receive, __: Send) -> None:
        seen.append(asked)

    await call(logged(app), {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]
    assert said.text() == ""


@given(path=st.text(), query=st.binary(), headers=st.lists(st.tuples(st.binary(), st.binary())), trusted=st.booleans())
async def test_whatever_is_asked_for_is_one_line(
    path: str, query: bytes, headers: list[tuple[bytes, bytes]], trusted: bool
) -> None:
    with configured() as said:
        asked = scope(path=path, query_string=query, headers=headers, client=(path, 1), **{TRUSTED: trusted})
        await call(logged(hello), asked)
        assert said.entry()["event"] == "request"


def routed() -> Starlette:
    async def item(request: Request) -> Response:
        await request.body()
        return PlainTextResponse("x")

    return Starlette(
        routes=[
            Route("/items/{name}", item, methods=["GET", "PUT"]),
            Mount("/sub", routes=[Route("/{number:int}", item)]),
            Mount("/static", app=hello),
        ]
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/items/secret-name", "/items/{name}"), ("/sub/12", "/sub/{number:int}"), ("/static/x.js", "/static"),
        ("/nothing", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("root_path", ["", "/prefix"])
async def test_the_route_is_its_template(said: Said, root_path: str, path: str, route: str | None) -> None:
    await call(logged(routed()), scope(path=root_path + path, root_path=root_path))
    entry = said.entry()
    assert (entry["route"], entry["path"]) == (route, root_path + path)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [("PUT", "/upload?t=x", "/upload"), ("GET", "/oauth_callback?code=x", "/oauth_callback"), ("GET", "/any", None)],
)
async def test_routes_of_a_flet_app_are_known(
    said: Said, tmp_path: Any, method: str, path: str, route: str | None
) -> None:
    app = flet_fastapi.app(lambda page: None, upload_dir=str(tmp_path), secret_key="k" * 32)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(logged(app)), base_url="http://test") as client:
        await client.request(method, path)
    (entry,) = said.named("request")
    assert entry["route"] == route


# --- websockets ------------------------------------------------------------------------------------------------------


async def echo(websocket: WebSocket) -> None:
    get_logger("app").info("within")
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            if text == "close":
                await websocket.close(4000, "as asked")
                return
            if text == "return":
                return
            if text == "fail":
                raise ValueError
            await websocket.send_text(text)
            await websocket.send_bytes(b"12")
    except WebSocketDisconnect:
        pass


async def refuses(websocket: WebSocket) -> None:
    await websocket.close(1008)


async def denies(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no", 429, {"X-Request-ID": "mine"}))


@asynccontextmanager
async def served(ws: str, **changes: Any) -> AsyncIterator[str]:
    app = Starlette(routes=[WebSocketRoute(f"/{each.__name__}", each) for each in (echo, refuses, denies)])

    async def outer(asked: Scope, receive: Receive, send: Send) -> None:
        asked.update(changes)
        await access(asked, receive, send)

    access = logged(app)
    async with uvicorn_in_process(outer, ws=WEBSOCKETS[ws]) as place:
        yield f"ws://{place}"


async def websocket_line(said: Said) -> dict[str, Any]:
    """The line of the only websocket, once it is there."""
    entries: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not (found := [entry for entry in entries if entry["event"] == "websocket"]):
            await asyncio.sleep(0.01)
            entries += said.entries()
    (entry,) = found
    servers = [each for each in entries if each["logger"].startswith("uvicorn") and each["level"] == "info"]
    assert not [each for each in servers if "WebSocket" in each["event"] or each["event"].startswith("connection ")]
    return entry


BOTH = pytest.mark.parametrize("ws", ["roost", "websockets"])
Ending = Callable[[Any], Awaitable[Any]]
ENDINGS: list[tuple[str, Ending, int, str]] = [
    ("the client closes", lambda client: client.close(3000), 3000, "client"),
    ("the client leaves", lambda client: _abort(client), 1006, "client"),
    ("the app closes", lambda client: client.send("close"), 4000, "app"),
    ("the app returns", lambda client: client.send("return"), 1000, "app"),
    ("the app fails", lambda client: client.send("fail"), 1011, "app"),
    ("the client breaks the rules", lambda client: _break(client), 1002, "server"),
]


async def _abort(client: Any) -> None:
    client.transport.abort()


async def _break(client: Any) -> None:
    client.transport.write(b"\xff\x80\x00\x00\x00\x00")


@BOTH
@pytest.mark.parametrize(
    ("end", "code", "closed_by"), [each[1:] for each in ENDINGS], ids=[each[0] for each in ENDINGS]
)
async def test_a_websocket_has_one_line_however_it_ends(
    said: Said, ws: str, end: Ending, code: int, closed_by: str
) -> None:
    async with served(ws) as place:
        async with connect(f"{place}/echo?token=SECRET") as client:
            for text in ("one", "zwölf"):
                await client.send(text)
                assert await client.recv() == text
                assert await client.recv() == b"12"
            await end(client)
            with pytest.raises(ConnectionClosed):
                await client.recv()
        entry = await websocket_line(said)
    if ws == "websockets" and code in (1002, 1006):  # uvicorn's own class tells of both as if the client had closed
        code, closed_by = entry["code"], "client"
    assert (entry["code"], entry["closed_by"]) == (code, closed_by)
    counted = {name: entry[name] for name in ("status", "frames_out", "bytes_out", "path", "route")}
    assert counted == {"status": 101, "frames_out": 4, "bytes_out": 13, "path": "/echo", "route": "/echo"}
    extra = {4000: "close", 1000: "return", 1011: "fail"}.get(code, "")
    assert (entry["frames_in"], entry["bytes_in"]) == (2 + bool(extra), 9 + len(extra))
    assert entry["duration_ms"] > 0 and entry["client"] == "127.0.0.1"


@BOTH
async def test_the_handshakes_answer_names_the_websocket(said: Said, ws: str) -> None:
    async with served(ws, **{TRUSTED: True}) as place:
        async with connect(f"{place}/echo", additional_headers={"X-Request-ID": "from-nginx-1"}) as client:
            assert client.response is not None
            assert client.response.headers.get_all("X-Request-ID") == ["from-nginx-1"]
        entry = await websocket_line(said)
    assert entry["request_id"] == "from-nginx-1"


@BOTH
@pytest.mark.parametrize(("path", "status"), [("refuses", 403), ("denies", 429), ("unknown", 403)])
async def test_a_refused_websocket_has_one_line_and_an_id(said: Said, ws: str, path: str, status: int) -> None:
    async with served(ws) as place:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{place}/{path}"):
                pass
        entry = await websocket_line(said)
    assert refused.value.response.status_code == entry["status"] == status
    assert (entry["code"], entry["closed_by"]) == (None, None)
    if ws == "roost" or path == "denies":  # ASGI has no place for headers in a plain refusal
        assert refused.value.response.headers.get_all("X-Request-ID") == [entry["request_id"]]


async def test_roosts_websockets_go_to_the_app_unwrapped(said: Said) -> None:
    given: list[Any] = []

    async def app(asked: Scope, receive: Receive, send: Send) -> None:
        given.extend((asked["extensions"], receive, send))
        await receive()
        await send({"type": "websocket.accept"})

    async with uvicorn_in_process(logged(app), ws=WEBSOCKETS["roost"]) as place, connect(f"ws://{place}/"):
        pass
    extensions, receive, send = given
    assert receive.__self__ is send.__self__ is extensions["roost.websocket.ping"]["ping"].__self__
    assert "websocket.http.response" in extensions


async def test_a_server_that_stops_has_closed(said: Said) -> None:
    async with served("roost") as place:
        client = await connect(f"{place}/echo")
        await client.send("x")
        await client.recv()
    entry = await websocket_line(said)
    assert (entry["code"], entry["closed_by"]) == (1012, "server")
    await client.close()


def test_streams_and_their_disconnects_work_through_it() -> None:
    """Starlette's own machinery gets what it expects: `receive` a coroutine function, `send` awaitable."""

    async def stream(_: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * 10

        return StreamingResponse(parts())

    async def run() -> None:
        app = Starlette(routes=[Route("/", stream)])
        with configured() as said:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(logged(app)), base_url="http://test") as client:
                assert len((await client.get("/")).content) == 30
            assert said.named("request")[0]["bytes_out"] == 30

    asyncio.run(run())
