import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.uri import parse_uri
from websockets.utils import apply_mask

from roost import websockets
from roost.websockets import HIGH_WATER, Violation, WebSocketProtocol, deflate, frame_header, inflate, read_header

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
BROWSER_OFFER = ClientPerMessageDeflateFactory(client_max_window_bits=True)


class Served:
    """An app behind `WebSocketProtocol` on a free port, and what the app was told."""

    def __init__(self, app: App, options: dict[str, Any]) -> None:
        self.config = Config(
            self.run, ws=WebSocketProtocol, interface="asgi3", lifespan="off", log_config=None, **options
        )
        self.config.load()
        self.state = ServerState()
        self.app = app
        self.received: list[dict[str, Any]] = []
        self.returned = asyncio.Event()
        self.url = ""

    async def run(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def recorded() -> dict[str, Any]:
            self.received.append(await receive())
            return self.received[-1]

        try:
            await self.app(scope, recorded, send)
        finally:
            self.returned.set()

    def protocol(self) -> HttpToolsProtocol:
        return HttpToolsProtocol(self.config, self.state, {})

    async def disconnect(self) -> dict[str, Any]:
        """The last event that the app received, once it has returned."""
        async with asyncio.timeout(5):
            await self.returned.wait()
        return self.received[-1]

    @property
    def held(self) -> WebSocketProtocol:
        """The one connection, once it is a websocket."""
        (connection,) = self.state.connections
        assert isinstance(connection, WebSocketProtocol)
        return connection

    async def until(self, true: Callable[[WebSocketProtocol], object]) -> None:
        async with asyncio.timeout(5):
            while not true(self.held):
                await asyncio.sleep(0.005)

    async def gone(self) -> None:
        """Until the server holds no connection."""
        async with asyncio.timeout(5):
            while self.state.connections or self.state.tasks:
                await asyncio.sleep(0.005)


def abort(connection: Any) -> None:
    transport = connection._transport if isinstance(connection, WebSocketProtocol) else connection.transport
    transport.abort()


@contextlib.asynccontextmanager
async def serve(app: App, **options: Any) -> AsyncIterator[Served]:
    served = Served(app, options)
    server = await asyncio.get_running_loop().create_server(served.protocol, "127.0.0.1", 0)
    served.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/room?secret=1"
    try:
        yield served
    finally:
        server.close()
        for connection in list(served.state.connections):
            abort(connection)
        await served.gone()


class Raw:
    """A client that sends any octets: handshake by `websockets`, frames by hand."""

    def __init__(self, served: Served, extension: ClientPerMessageDeflateFactory | None) -> None:
        self.served = served
        self.protocol = ClientProtocol(parse_uri(served.url), extensions=[extension] if extension else None)
        self.frames: list[Frame] = []
        self.octets = b""

    async def open(self) -> "Raw":
        host, port = self.protocol.uri.host, self.protocol.uri.port
        self.reader, self.writer = await asyncio.open_connection(host, port)
        self.protocol.send_request(self.protocol.connect())
        self.writer.writelines(self.protocol.data_to_send())
        await self.until(lambda: self.protocol.state is not State.CONNECTING)
        return self

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not done():
                data = await self.reader.read(65536)
                self.octets += data
                self.protocol.receive_data(data) if data else self.protocol.receive_eof()
                self.frames += [event for event in self.protocol.events_received() if isinstance(event, Frame)]
                if not data:
                    break

    async def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def frame(self, number: int = 1) -> Frame:
        await self.until(lambda: len(self.frames) >= number)
        return self.frames[number - 1]

    async def close_code(self) -> int | None:
        await self.until(lambda: False)
        return None if self.protocol.close_rcvd is None else self.protocol.close_rcvd.code


@contextlib.asynccontextmanager
async def raw(served: Served, extension: ClientPerMessageDeflateFactory | None = None) -> AsyncIterator[Raw]:
    client = await Raw(served, extension).open()
    try:
        yield client
    finally:
        client.writer.close()


def frame(opcode: int, data: bytes = b"", fin: bool = True, rsv1: bool = False, mask: bool = True) -> bytes:
    """A client's frame, whether it is right or not."""
    header = bytearray(frame_header(fin << 7 | rsv1 << 6 | opcode, len(data)))
    header[1] |= mask << 7
    return bytes(header) + (b"\x01\x02\x03\x04" + apply_mask(data, b"\x01\x02\x03\x04") if mask else data)


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})


async def listen(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def connected(served: Served, **options: Any) -> ClientConnection:
    return await connect(served.url, proxy=None, max_size=None, **options)


# Messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_texts_and_bytes_of_every_length_come_back(size: int, compression: str | None) -> None:
    async with serve(echo) as served, await connected(served, compression=compression) as client:
        await client.send("é" * size)
        assert await client.recv() == "é" * size
        await client.send(os.urandom(1) * size)
        assert len(await client.recv()) == size


async def test_messages_keep_their_order() -> None:
    async with serve(echo) as served, await connected(served) as client:
        for number in range(500):
            await client.send(str(number))
        assert [await client.recv() for _ in range(500)] == [str(number) for number in range(500)]


async def test_who_takes_messages_past_asgi_can_hold_them_back_from_the_first_on() -> None:
    taken: list[int] = []
    go_on = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        served.held.bypass(take)
        await receive()

    def take(is_text: bool, payload: bytes) -> None:
        if not taken:
            served.held.hold()
        taken.append(len(payload))

    async with serve(app) as served, await connected(served, compression=None) as client:
        sending = asyncio.create_task(_send_all(client, [b"x" * 100_000] * 200))
        await asyncio.sleep(0.1)  # until the server reads no more
        go_on.set()
        await asyncio.sleep(0.3)
        assert taken
        assert sum(taken) < 1_000_000
        assert not sending.done()
        served.held.go_on()
        await served.until(lambda _: len(taken) == 200)
        await sending


async def _send_all(client: ClientConnection, messages: list[bytes]) -> None:
    for message in messages:
        await client.send(message)


async def test_fragments_are_joined_with_control_frames_in_between() -> None:
    async with serve(echo) as served, raw(served) as client:
        await client.send(frame(1, "né".encode()[:2], fin=False), frame(9, b"p"), frame(0, "né".encode()[2:]))
        assert (await client.frame(1)).opcode is Opcode.PONG
        assert (await client.frame(2)).data == "né".encode()


async def test_frames_may_arrive_octet_by_octet() -> None:
    async with serve(echo) as served, raw(served) as client:
        for octet in frame(1, b"x" * 300) + frame(1, b"y"):
            await client.send(bytes((octet,)))
            await asyncio.sleep(0)
        assert (await client.frame(1)).data == b"x" * 300
        assert (await client.frame(2)).data == b"y"


async def test_many_frames_may_arrive_in_one_piece() -> None:
    async with serve(echo) as served, raw(served) as client:
        await client.send(*(frame(1, b"%d" % number) for number in range(100)))
        await client.frame(100)
        assert [sent.data for sent in client.frames] == [b"%d" % number for number in range(100)]


async def test_a_ping_is_answered_with_its_payload() -> None:
    async with serve(echo) as served, raw(served) as client:
        await client.send(frame(9, b"p" * 125))
        assert await client.frame() == Frame(Opcode.PONG, b"p" * 125)


async def test_an_unsolicited_pong_is_ignored() -> None:
    async with serve(echo) as served, raw(served) as client:
        await client.send(frame(10, b"?"), frame(1, b"on"))
        assert (await client.frame()).data == b"on"


# Pings of the application


def pinging(answers: list[bool]) -> App:
    """Pings at each message, and says what came of it."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        ping = scope["extensions"]["roost.websocket.ping"]["ping"]
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            answers.append(await ping())
            await send({"type": "websocket.send", "text": str(answers[-1])})

    return app


async def test_the_application_learns_of_the_pong() -> None:
    answers: list[bool] = []
    async with serve(pinging(answers)) as served, await connected(served) as client:
        for _ in range(2):
            await client.send("?")
            assert await client.recv() == "True"


async def test_only_the_pong_to_the_applications_ping_counts() -> None:
    answers: list[bool] = []
    async with serve(pinging(answers)) as served, raw(served) as client:
        await client.send(frame(1, b"?"))
        asked = await client.frame()
        assert asked.opcode is Opcode.PING
        await client.send(frame(10), frame(10, b"other"), frame(9, b"mine"))
        assert (await client.frame(2)).opcode is Opcode.PONG
        assert not answers
        await client.send(frame(10, bytes(asked.data)))
        assert (await client.frame(3)).data == b"True"


async def test_the_end_of_the_connection_ends_the_wait_for_a_pong() -> None:
    answers: list[bool] = []
    async with serve(pinging(answers)) as served:
        async with raw(served) as client:
            await client.send(frame(1, b"?"))
            await client.frame()
        async with asyncio.timeout(5):
            await served.returned.wait()
    assert answers == [False]


async def test_who_gives_up_waiting_for_a_pong_takes_it_from_nobody() -> None:
    """However many ask, one ping is under way."""
    results: list[bool] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        ping = scope["extensions"]["roost.websocket.ping"]["ping"]
        await receive()
        await send({"type": "websocket.accept"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ping(), 0.01)
        await send({"type": "websocket.send", "text": "gave up"})
        results.extend(await asyncio.gather(ping(), ping()))
        await send({"type": "websocket.send", "text": "done"})

    async with serve(app) as served, raw(served) as client:
        await client.frame(2)
        await client.send(frame(10, bytes(client.frames[0].data)))
        await client.frame(3)
        assert [sent.opcode for sent in client.frames[:3]] == [Opcode.PING, Opcode.TEXT, Opcode.TEXT]
        assert results == [True, True]


# What is against the protocol


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(frame(1, b"x", mask=False), 1002, id="not masked"),
        pytest.param(b"\xa1\x80\0\0\0\0", 1002, id="rsv2"),
        pytest.param(b"\x91\x80\0\0\0\0", 1002, id="rsv3"),
        pytest.param(b"\xc1\x80\0\0\0\0", 1002, id="rsv1 without compression"),
        pytest.param(b"\x83\x80\0\0\0\0", 1002, id="opcode 3"),
        pytest.param(b"\x8b\x80\0\0\0\0", 1002, id="opcode 11"),
        pytest.param(b"\x09\x80\0\0\0\0", 1002, id="fragmented ping"),
        pytest.param(b"\x89\xfe\0\x7e\0\0\0\0", 1002, id="long ping"),
        pytest.param(frame(0, b"x"), 1002, id="continuation of nothing"),
        pytest.param(frame(1, b"x", fin=False) + frame(1, b"y"), 1002, id="message inside a message"),
        pytest.param(frame(8, b"\x03"), 1002, id="close code of one octet"),
        pytest.param(frame(8, b"\x03\xed"), 1002, id="close code 1005"),
        pytest.param(frame(8, b"\x03\xe8\xff"), 1007, id="close reason not utf-8"),
        pytest.param(frame(1, b"\xff"), 1007, id="short text not utf-8"),
        pytest.param(frame(1, b"x" * 200 + b"\xe2\x82"), 1007, id="long text cut inside a character"),
        pytest.param(frame(1, b"\xed\xa0\x80"), 1007, id="surrogate"),
        pytest.param(frame(1, b"\xe2", fin=False) + frame(0, b"\x28\xa1"), 1007, id="fragments not utf-8"),
        pytest.param(frame(2, b"x" * 2001), 1009, id="frame too big"),
        pytest.param(b"\x82\xff" + b"\x7f" * 8 + b"\0\0\0\0", 1009, id="announced too big"),
        pytest.param(frame(2, b"x" * 1500, fin=False) + frame(0, b"x" * 501), 1009, id="fragments too big"),
    ],
)
async def test_a_violation_closes_with_its_code(octets: bytes, code: int) -> None:
    async with serve(echo, ws_max_size=2000) as served, raw(served) as client:
        await client.send(octets)
        assert await client.close_code() == code
        assert (await served.disconnect())["code"] == code


async def test_a_limit_below_the_short_frames_holds_too() -> None:
    async with serve(echo, ws_max_size=10) as served, await connected(served) as client:
        await client.send("x" * 11)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009


async def test_what_follows_a_violation_is_not_delivered() -> None:
    async with serve(listen) as served, raw(served) as client:
        await client.send(frame(1, b"before"), frame(0, b"wrong"), frame(1, b"after"))
        assert await client.close_code() == 1002
        await served.disconnect()
        assert [event.get("text") for event in served.received] == [None, "before", None]


# Closing


async def test_the_clients_close_code_and_reason_reach_the_app_and_come_back() -> None:
    async with serve(echo) as served:
        client = await connected(served)
        await client.close(4001, "bye")
        assert client.close_code == 4001
        assert await served.disconnect() == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


async def test_a_close_without_code_is_1005() -> None:
    async with serve(echo) as served, raw(served) as client:
        await client.send(frame(8))
        await client.close_code()
        assert (await served.disconnect())["code"] == 1005


async def test_a_lost_connection_is_1006() -> None:
    async with serve(echo) as served:
        client = await connected(served)
        client.transport.abort()
        assert (await served.disconnect())["code"] == 1006


async def test_messages_before_the_close_are_delivered_first() -> None:
    async with serve(listen) as served, raw(served) as client:
        await client.send(frame(1, b"a"), frame(1, b"b"), frame(8, b"\x03\xe8"))
        await served.disconnect()
        assert [event.get("text") for event in served.received[1:]] == ["a", "b", None]


async def close_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4321, "reason": "é" * 100})
    await receive()
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def test_the_apps_close_reaches_the_client_with_a_reason_that_fits() -> None:
    async with serve(close_app) as served, await connected(served) as client:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4321, "é" * 61)
        await served.gone()


async def test_data_after_the_apps_close_is_read_over_until_the_clients_close() -> None:
    async with serve(close_app) as served, raw(served) as client:
        await client.send(frame(1, b"a", fin=False), frame(0, b"late"), frame(1, b"x"), frame(8, b"\x03\xe8"))
        assert await client.close_code() == 4321
        await served.gone()


async def test_a_client_that_does_not_answer_the_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "CLOSE_TIMEOUT", 0.05)
    async with serve(close_app) as served, raw(served) as client:
        await served.disconnect()
        await served.gone()
        with contextlib.suppress(ConnectionResetError):
            assert await client.close_code() == 4321


async def test_an_app_that_returns_closes() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async with serve(app) as served, await connected(served) as client:
        await client.wait_closed()
        assert client.close_code == 1000


async def test_an_app_that_fails_closes_with_1011_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise LookupError("here")

    async with serve(app) as served, await connected(served) as client:
        await client.wait_closed()
        assert client.close_code == 1011
    assert "LookupError: here" in caplog.text


async def test_shutdown_says_1012_to_both_sides() -> None:
    async with serve(echo) as served, await connected(served) as client:
        for connection in list(served.state.connections):
            connection.shutdown()
        await client.wait_closed()
        assert client.close_code == 1012
        assert (await served.disconnect())["code"] == 1012


async def test_receive_after_the_disconnect_gives_it_again() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await receive()

    async with serve(app) as served:
        await (await connected(served)).close()
        assert (await served.disconnect())["type"] == "websocket.disconnect"


async def test_send_to_a_client_that_is_gone_raises() -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "?"})
        except OSError as error:
            raised.append(error)

    async with serve(app) as served:
        await (await connected(served)).close()
        await served.disconnect()
    assert isinstance(raised[0], ClientDisconnected)


# The handshake


async def test_the_scope_says_what_was_asked_for() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"set-cookie", b"a=1")]})

    async with serve(app, root_path="/app") as served:
        client = await connected(served, subprotocols=["a", "b"], additional_headers={"X-A": "\xe9"})
        assert client.subprotocol == "b"
        assert client.response
        assert client.response.headers["Set-Cookie"] == "a=1"
    scope = scopes[0]
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "ws", "1.1")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/app/room", b"/app/room", b"secret=1")
    assert scope["subprotocols"] == ["a", "b"]
    assert (b"x-a", b"\xe9") in scope["headers"]


async def test_two_cookies_in_the_accept_stay_two_headers() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]})

    async with serve(app) as served, await connected(served) as client:
        assert client.response
        assert client.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]


async def test_close_before_accept_is_403() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async with serve(app) as served:
        with pytest.raises(InvalidStatus) as refused:
            await connected(served)
        assert refused.value.response.status_code == 403


async def test_a_denial_response_reaches_the_client_whole() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 429, "headers": [(b"retry-after", b"3")]})
        await send({"type": "websocket.http.response.body", "body": b"slow ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"down"})

    async with serve(app) as served:
        with pytest.raises(InvalidStatus) as refused:
            await connected(served)
        response = refused.value.response
        assert (response.status_code, response.body, response.headers["retry-after"]) == (429, b"slow down", "3")


@pytest.mark.parametrize("fails", [True, False])
async def test_an_app_that_never_answers_the_handshake_gives_500(fails: bool) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert not fails

    async with serve(app) as served:
        with pytest.raises(InvalidStatus) as refused:
            await connected(served)
        assert refused.value.response.status_code == 500


async def test_an_unexpected_first_message_is_an_error_of_the_app() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError, match="accepted or refused"):
            await send({"type": "websocket.send", "text": "early"})
        await send({"type": "websocket.accept"})

    async with serve(app) as served, await connected(served) as client:
        await client.wait_closed()


@pytest.mark.parametrize(
    ("change", "status"),
    [({"Sec-WebSocket-Version": "12"}, 400), ({"Sec-WebSocket-Key": "short"}, 400), ({}, 403)],
)
async def test_a_bad_handshake_is_refused(change: dict[str, str], status: int) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    fields = {
        "Host": "x",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    } | change
    async with serve(app) as served:
        uri = parse_uri(served.url)
        reader, writer = await asyncio.open_connection(uri.host, uri.port)
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        assert (await reader.readline()).split()[1] == b"%d" % status
        writer.close()


async def test_frames_sent_with_the_handshake_unanswered_wait_for_the_accept() -> None:
    go = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await go.wait()
        await echo(scope, receive, send)

    async with serve(app) as served:
        client = Raw(served, None)
        client.reader, client.writer = await asyncio.open_connection(client.protocol.uri.host, client.protocol.uri.port)
        client.protocol.send_request(client.protocol.connect())
        await client.send(*client.protocol.data_to_send())
        async with asyncio.timeout(5):
            while not served.state.tasks:
                await asyncio.sleep(0.005)
        await client.send(*(frame(2, b"x" * 1000) for _ in range(200)))
        go.set()
        assert (await client.frame(200)).data == b"x" * 1000
        client.writer.close()


async def test_the_query_string_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an earlier test may have had uvicorn set up its own logging
    for name in ("uvicorn", "uvicorn.error"):
        caplog.set_level("INFO", logger=name)
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
    async with serve(echo) as served, await connected(served):
        pass
    assert '"WebSocket /room" [accepted]' in caplog.text
    assert "secret" not in caplog.text


# Flow


async def test_a_flood_the_app_does_not_read_pauses_the_socket() -> None:
    go = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()
        await echo(scope, receive, lambda message: asyncio.sleep(0))

    async with serve(app) as served, raw(served) as client:
        sending = asyncio.create_task(client.send(*[frame(2, b"x" * 1000)] * 20_000))
        await served.until(lambda held: held._paused)
        assert served.held._pending <= HIGH_WATER + 2000
        assert not sending.done()
        go.set()
        await sending
        await client.send(frame(8))
        assert (await served.disconnect())["code"] == 1005
        assert len(served.received) == 20_002


async def test_a_burst_of_tiny_compressed_messages_is_not_inflated_ahead_of_the_app() -> None:
    go = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()
        await echo(scope, receive, lambda message: asyncio.sleep(0))

    bomb = frame(2, deflate(bytes(1_000_000), 15), rsv1=True)
    async with serve(app, ws_max_size=1_000_000) as served, raw(served, BROWSER_OFFER) as client:
        await client.send(*[bomb] * 30, frame(8))
        await served.until(lambda held: held._paused)
        assert len(served.held._messages) <= 3
        go.set()
        assert (await served.disconnect())["code"] == 1005
        assert len(served.received) == 32


async def flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    with contextlib.suppress(OSError):
        for _ in range(1000):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            scope["state"]["sent"] = scope["state"].get("sent", 0) + 1
    await receive()
    await receive()


async def test_send_waits_for_a_reader_that_is_slow_and_ends_with_it() -> None:
    sent: list[int] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def counted(message: dict[str, Any]) -> None:
            await send(message)
            sent.append(1)

        await flood(scope, receive, counted)

    async with serve(app, ws_per_message_deflate=False) as served, raw(served) as client:
        await served.until(lambda held: held._writable)
        assert len(sent) < 200
        client.writer.transport.abort()
        assert (await served.disconnect())["code"] == 1006


async def test_an_app_can_close_a_reader_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "CLOSE_TIMEOUT", 0.05)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await flood(scope, receive, send)
        await send({"type": "websocket.close", "code": 1013})

    async with serve(app, ws_per_message_deflate=False) as served, raw(served):
        async with asyncio.timeout(5):
            await served.returned.wait()
        await served.gone()


async def test_pings_that_are_not_read_get_no_pongs() -> None:
    async with serve(flood, ws_per_message_deflate=False) as served, raw(served) as client:
        await served.until(lambda held: held._writable)
        size = served.held._transport.get_write_buffer_size()
        served.held._heard = False
        await client.send(*[frame(9, b"p" * 125)] * 1000)
        await served.until(lambda held: held._heard)
        assert served.held._transport.get_write_buffer_size() <= size


async def test_a_cancelled_receive_loses_no_message() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        while (message := await receive())["type"] == "websocket.receive":
            await send(message | {"type": "websocket.send"})

    async with serve(app) as served, await connected(served) as client:
        await client.send("kept")
        assert await client.recv() == "kept"


# Keepalive


async def test_a_silent_peer_is_cut() -> None:
    async with serve(echo, ws_ping_interval=0.02, ws_ping_timeout=0.02) as served, raw(served):
        disconnect = await served.disconnect()
        assert (disconnect["code"], disconnect["reason"]) == (1011, "keepalive ping timeout")


@pytest.mark.parametrize("timeout", [0.01, 0.02, 0.05, None])
async def test_a_peer_that_answers_pings_stays(timeout: float | None) -> None:
    async with serve(echo, ws_ping_interval=0.02, ws_ping_timeout=timeout) as served, raw(served) as client:
        for number in range(1, 6):
            assert (await client.frame(number)).opcode is Opcode.PING
            await client.send(frame(10))
        await client.send(frame(1, b"still here"))
        await client.until(lambda: client.frames[-1].opcode is Opcode.TEXT)
        assert client.frames[-1].data == b"still here"


async def test_no_ping_is_sent_without_an_interval() -> None:
    async with serve(echo, ws_ping_interval=None) as served, raw(served) as client:
        assert served.held._timer is None
        await client.send(frame(1, b"x"))
        assert (await client.frame()).opcode is Opcode.TEXT


# Compression


async def test_the_offer_of_browsers_is_answered_without_context_takeover() -> None:
    async with serve(echo) as served:
        client = await connected(served, extensions=[BROWSER_OFFER], compression=None)
        assert client.response
        agreed = client.response.headers["Sec-WebSocket-Extensions"]
        assert agreed == "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


async def test_long_texts_are_compressed_and_short_ones_are_not() -> None:
    async with serve(echo) as served, raw(served, BROWSER_OFFER) as client:
        await client.send(frame(1, b"short"), frame(1, deflate(b"long" * 1000, 15), rsv1=True))
        assert (await client.frame(2)).data == b"long" * 1000
        _, short, long = client.octets.partition(b"\x81\x05short")
        assert short
        assert long[0] == 0xC1
        assert len(long) < 400


async def test_what_does_not_shrink_is_sent_as_it_is() -> None:
    noise = os.urandom(5000)
    async with serve(echo) as served, raw(served, BROWSER_OFFER) as client:
        await client.send(frame(2, noise))
        await client.frame()
        assert client.octets.endswith(b"\x82\x7e\x13\x88" + noise)


async def test_a_smaller_window_that_the_client_asks_for_is_kept() -> None:
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=None)
    text = "".join(chr(97 + number % 26) * (number % 7) for number in range(3000))
    async with serve(echo) as served, await connected(served, extensions=[offer], compression=None) as client:
        await client.send(text)
        assert await client.recv() == text


async def test_compression_can_be_switched_off() -> None:
    async with serve(echo, ws_per_message_deflate=False) as served, await connected(served) as client:
        assert client.response
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_a_compression_bomb_is_1009_and_never_inflated() -> None:
    bomb = deflate(bytes(100_000_000), 15)
    async with serve(echo, ws_max_size=200_000) as served, raw(served, BROWSER_OFFER) as client:
        await client.send(frame(2, bomb, rsv1=True))
        assert await client.close_code() == 1009


async def test_a_compressed_message_may_come_in_fragments() -> None:
    data = deflate(b"word " * 1000, 15)
    async with serve(echo) as served, raw(served, BROWSER_OFFER) as client:
        await client.send(frame(1, data[:5], fin=False, rsv1=True), frame(9), frame(0, data[5:]))
        assert (await client.frame(2)).data == b"word " * 1000


@pytest.mark.parametrize("octets", [frame(1, b"\xff" * 20, rsv1=True), frame(1, b"", False) + frame(0, b"", rsv1=True)])
async def test_broken_compression_is_1002(octets: bytes) -> None:
    async with serve(echo) as served, raw(served, BROWSER_OFFER) as client:
        await client.send(octets)
        assert await client.close_code() == 1002


async def test_no_zlib_state_stays_with_a_connection() -> None:
    async with serve(echo) as served, await connected(served) as client:
        await client.send("x" * 100_000)
        await client.recv()
        held = served.held
        values = [getattr(held, name) for name in WebSocketProtocol.__slots__]
        assert not any("ompress" in type(value).__name__ for value in values)


# The functions, against the `websockets` library


@given(st.binary(max_size=3000), st.integers(9, 15))
def test_deflate_and_inflate_are_inverse(data: bytes, bits: int) -> None:
    assert inflate(deflate(data, bits), len(data)) == data


@given(st.binary(min_size=1, max_size=3000))
def test_inflate_refuses_one_byte_too_many(data: bytes) -> None:
    with pytest.raises(Violation) as refused:
        inflate(deflate(data, 15), len(data) - 1)
    assert refused.value.code == 1009


@given(st.binary(max_size=200))
def test_inflate_takes_any_octets(data: bytes) -> None:
    with contextlib.suppress(Violation):
        assert len(inflate(data, 1000)) <= 1000


@given(st.sampled_from([1, 2, 8, 9, 10]), st.one_of(st.integers(0, 300), st.integers(65_000, 66_000)))
def test_our_frames_are_those_of_the_library(opcode: int, length: int) -> None:
    expected = Frame(Opcode(opcode), bytes(min(length, 125) if opcode > 2 else length))
    assert frame_header(0x80 | opcode, len(expected.data)) + expected.data == expected.serialize(mask=False)


class Recorder(WebSocketProtocol):
    """A protocol without a server: what its application would receive, and its verdict."""

    __slots__ = ("got", "verdict")

    def __init__(self) -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        super().__init__(Config(echo, ws_max_size=1000), ServerState(), {}, loop)
        self._state = websockets.OPEN
        self._transport = Discard()  # type: ignore[assignment]
        self.got: list[tuple[int, bytes]] = []
        self.verdict: int | None = None

    def _give(self, message: dict[str, Any], size: int) -> None:
        text = message.get("text")
        self.got.append((2, message["bytes"]) if text is None else (1, text.encode()))

    def _fail(self, code: int, reason: str) -> None:
        self.verdict = code
        self._state = websockets.CLOSED

    def _hang_up(self) -> None:
        self.verdict = 0
        self._state = websockets.CLOSED


class Discard:
    def write(self, data: bytes) -> None:
        pass


def oracle(octets: bytes) -> tuple[list[tuple[int, bytes]], int | None]:
    """What the library makes of the same octets."""
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=1000)
    protocol.receive_data(octets)
    got: list[tuple[int, bytes]] = []
    opcode, parts = 0, b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if event.opcode is not Opcode.CONT:
                opcode, parts = event.opcode, b""
            parts += bytes(event.data)
            if event.fin:
                try:
                    got.append((opcode, parts.decode().encode() if opcode == 1 else parts))
                except UnicodeDecodeError:
                    return got, 1007
    if protocol.close_rcvd is not None:
        return got, 0
    return got, None if protocol.close_sent is None else protocol.close_sent.code


def oracle_of_the_whole_frame(octets: bytes) -> tuple[list[tuple[int, bytes]], int | None]:
    """The library looks at most rules when it has the payload; we refuse by the header."""
    for missing in range(1100):
        got, verdict = oracle(octets + bytes(missing))
        if verdict is not None:
            break
    # A control frame that announces more than the limit breaks two rules.
    return got, 1002 if verdict == 1009 else verdict


valid_frames = st.builds(
    frame,
    st.sampled_from([0, 1, 2, 9, 10]),
    st.one_of(st.binary(max_size=130), st.text(max_size=40).map(str.encode)),
    st.booleans(),
)
octets = st.one_of(
    valid_frames,
    st.builds(lambda text: frame(1, text.encode()), st.text(max_size=60)),
    st.builds(lambda code, reason: frame(8, code.to_bytes(2) + reason), st.integers(0, 5000), st.binary(max_size=5)),
    st.binary(max_size=12),
)


@given(st.lists(octets, max_size=8).map(b"".join), st.data())
def test_any_octets_in_any_pieces_mean_what_they_mean_to_the_library(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    recorder = Recorder()
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if start < end and recorder._state == websockets.OPEN:
            recorder.data_received(data[start:end])
    got, verdict = oracle(data)
    if recorder.verdict == 1002:
        got, verdict = oracle_of_the_whole_frame(data)
    assert (recorder.got, recorder.verdict) == (got, verdict)


@given(st.binary(max_size=20))
def test_a_header_is_read_from_any_octets_or_refused(data: bytes) -> None:
    with contextlib.suppress(Violation):
        header = read_header(data, 0)
        assert header is None or header[1] <= len(data)
