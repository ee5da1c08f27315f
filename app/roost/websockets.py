"""The websocket protocol class of Roost's server: `uvicorn --ws roost.websockets:WebSocketProtocol`.

ASGI as uvicorn's own classes have it, made for many mostly idle connections that exchange small texts:

- No zlib state outlives a message: permessage-deflate is agreed with no context takeover on both sides, and only
  messages that gain from it are compressed.
- Most of what comes from a browser is one whole small text frame, so that has a path of its own.
- Reading pauses when the application is `HIGH_WATER` behind, not after every message; `send` waits while the peer is.

Extension negotiation, unmasking and close frames are those of the `websockets` library; `upgrade` has the handshake.
"""

import asyncio
import contextvars
import logging
import struct
import zlib
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import quote, unquote

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_client_addr, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.http11 import Response

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled extension
    from websockets.utils import apply_mask

from .upgrade import Upgrade, read_upgrade, refusal

Message = dict[str, Any]

# Frame octets of RFC 6455, section 5.2.
FIN, RSV1, RSV23, CONTROL = 0x80, 0x40, 0x30, 0x08
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
WHOLE_TEXT = FIN | TEXT

# How far the application may be behind before reading pauses. A message counts for its bytes and for what Python spends
# on it, so a flood of empty messages is bounded too (some 200 of them).
HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024
MESSAGE_COST = 320

# Below this, compression costs more time than it saves on any network: one TCP segment holds it as it is.
COMPRESS_FROM = 1024
# On a page of 2,000 controls (170 KB of JSON) levels 1, 3 and 6 all leave 6.5 %, and 6 takes 2.4 times as long as 1, on
# the event loop.
COMPRESS_LEVEL = 1

# What the pings for `ping()` carry; those of keepalive are empty.
PROBE = b"roost"

# Parts of small messages, two for each.
MAX_HELD = 16

CLOSE_TIMEOUT = 10.0  # for the peer's half of the closing handshake; uvicorn's own classes wait as long
SHUTDOWN_TIMEOUT = 3.0  # the same when the server stops: whoever has not answered by then is cut

# States of a connection, in the order in which it goes through them.
CONNECTING, OPEN, CLOSING, LINGERING, CLOSED = range(5)

SHORT_TEXT = tuple(bytes((WHOLE_TEXT, length)) for length in range(126))


class Violation(Exception):
    """What the peer sent is against the protocol or our limits: `code` and `reason` go into the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Traffic(NamedTuple):
    """What a websocket has carried, messages in each direction and the bytes in them, and how it ended.

    `status` is the handshake's, 0 while it has none. `code` is None while nobody has closed; `closed_by` is `client`
    (whose connection may just have ended: 1006), `app`, or `server`, which stops or was told nonsense.
    """

    status: int
    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    code: int | None
    closed_by: str


def read_header(buffer: bytes | bytearray, at: int) -> tuple[int, int, int] | None:
    """First octet, position of the mask and payload length of the frame at `at`; None while its header is not whole."""
    available = len(buffer) - at
    if available < 2:
        return None
    first, length = buffer[at], buffer[at + 1] - 0x80
    check_octets(first, length)
    if length < 126:
        return first, at + 2, length
    end = at + (4 if length == 126 else 10)
    if end > len(buffer):
        return None
    return first, end, int.from_bytes(buffer[at + 2 : end])


def check_octets(first: int, length: int) -> None:
    if length < 0:
        raise Violation(1002, "frame is not masked")
    if first & RSV23 or first & 0x0F not in OPCODES:
        raise Violation(1002, "reserved bit or opcode")
    if first & CONTROL and (length > 125 or first & (FIN | RSV1) != FIN):
        raise Violation(1002, "control frame is long, fragmented or compressed")


def frame_header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 0x10000:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def inflate(data: bytes, limit: int) -> bytes:
    """Decompress one message (RFC 7692, section 7.2.2), never making more than `limit` bytes and one of it."""
    decoder = zlib.decompressobj(wbits=-15)
    try:
        message = decoder.decompress(data + b"\x00\x00\xff\xff", limit + 1)
    except zlib.error:
        raise Violation(1002, "decompression failed") from None
    if len(message) > limit:
        raise Violation(1009, f"decompressed message exceeds {limit} bytes")
    return message


def deflate(data: bytes, window_bits: int) -> bytes:
    encoder = zlib.compressobj(COMPRESS_LEVEL, wbits=-window_bits)
    return (encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]


class WebSocketProtocol(asyncio.Protocol):
    """One websocket of a uvicorn server, from the upgrade request on.

    `ws_max_size`, `ws_ping_interval`, `ws_ping_timeout` and `ws_per_message_deflate` of uvicorn's configuration apply;
    `ws_max_queue` does not (the bound is in bytes). A `send` to a peer that is gone raises `ClientDisconnected`, an
    `OSError`, as ASGI 2.4 asks.

    The scope's extension `roost.websocket.ping` holds `ping`: a coroutine function that tells whether a pong came.
    `roost.websocket.traffic` is for an access log: `read` gives the `Traffic`, and what is appended to `headers` is in
    the handshake's answer; the server then logs none of it itself.
    """

    __slots__ = (
        "_app_state",
        "_buffer",
        "_bytes_in",
        "_bytes_out",
        "_closed_by",
        "_config",
        "_deadline",
        "_denial",
        "_disconnect",
        "_fragments",
        "_frames_in",
        "_frames_out",
        "_heard",
        "_held",
        "_logged",
        "_loop",
        "_messages",
        "_need",
        "_paused",
        "_pending",
        "_ping_due",
        "_pong",
        "_scope",
        "_server",
        "_state",
        "_taker",
        "_status",
        "_timer",
        "_transport",
        "_upgrade",
        "_waiter",
        "_window",
        "_writable",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._server = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._state = CONNECTING

        # Towards the application
        self._messages: list[Message] = []
        self._pending = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._disconnect: Message | None = None
        self._taker: Callable[[bool, bytes], None] | None = None

        # For an access log
        self._frames_in = self._bytes_in = self._frames_out = self._bytes_out = self._status = 0
        self._closed_by = ""
        self._logged: list[tuple[bytes, bytes]] = []  # headers of the answer; not empty if there is such a log

        # From the peer
        self._buffer: bytearray | None = None
        self._need = 0
        self._fragments: list[bytes] | None = None

        # To the peer
        self._writable: asyncio.Event | None = None
        self._window = 0  # the bits of our compression window; 0 is no compression
        self._held: list[bytes] | None = []  # the first messages; None from the end of their turn on

        # One timer: pings while open, the deadline while closing.
        self._timer: asyncio.TimerHandle | None = None
        self._heard = True
        self._ping_due = 0.0
        self._deadline = 0.0
        self._pong: asyncio.Future[bool] | None = None  # what `ping` waits for

        # Until the handshake is answered
        self._upgrade: Upgrade | None = None
        self._denial: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None
        self._scope: Message = {}

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._state = CLOSED
        self._stop_timer()
        self._buffer = self._fragments = None
        self._end(1006, by="client")
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def shutdown(self) -> None:
        """The server stops: tell both sides (uvicorn calls this)."""
        if self._state == CONNECTING:
            self._respond(HTTPStatus.SERVICE_UNAVAILABLE, [], b"")
        elif self._state == OPEN:
            self._close(1012, "", SHUTDOWN_TIMEOUT)
        self._end(1012, by="server")

    def data_received(self, data: bytes) -> None:
        self._heard = True
        # One whole text of under 126 bytes: a click, a property, a method's result.
        if (
            data[0] == WHOLE_TEXT
            and self._state == OPEN
            and self._buffer is None
            and self._fragments is None
            and len(data) >= 6
            and len(data) == data[1] - 0x80 + 6
            and data[1] < 0xFE
            and len(data) <= self._config.ws_max_size + 6
        ):
            payload = apply_mask(data[6:], data[2:6])
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                self._fail(1007, "text is not UTF-8")
                return
            self._frames_in += 1
            self._bytes_in += len(data) - 6
            if self._taker is None:
                self._give({"type": "websocket.receive", "text": text}, len(text))
            else:
                self._taker(True, payload)
        elif self._state == LINGERING:
            pass
        elif self._upgrade is None and self._state == CONNECTING:
            self._handshake(data)
        else:
            self._keep(data)
            if self._state != CONNECTING:
                self._advance()

    # Frames

    def _keep(self, data: bytes) -> None:
        if self._buffer is None:
            self._buffer = bytearray(data)
        else:
            self._buffer += data
        if self._state == CONNECTING and len(self._buffer) > HIGH_WATER:
            self._pause()

    def _advance(self) -> None:
        """Take whole frames off the buffer until it is short of one or the application is behind."""
        buffer = self._buffer
        if buffer is None or len(buffer) < self._need:
            return
        try:
            at = self._take_frames(buffer)
        except Violation as violation:
            self._fail(violation.code, violation.reason)
            return
        del buffer[:at]
        self._need = max(0, self._need - at)
        if not buffer:
            self._buffer = None

    def _take_frames(self, buffer: bytearray) -> int:
        at = self._need = 0
        while self._state in (OPEN, CLOSING) and not self._paused:
            header = read_header(buffer, at)
            if header is None:
                break
            first, mask, length = header
            self._check(first, length)
            end = mask + 4 + length
            if end > len(buffer):
                self._need = end
                break
            payload = apply_mask(buffer[mask + 4 : end], buffer[mask : mask + 4])
            at = end
            self._take_frame(first, payload)
        return at

    def _check(self, first: int, length: int) -> None:
        """Refuse a data frame by its header, before its payload is waited for."""
        if first & CONTROL:
            return
        continues = first & 0x0F == CONTINUATION
        if continues != (self._fragments is not None) and self._state == OPEN:
            raise Violation(1002, "fragment out of order")
        if first & RSV1 and (continues or not self._window):
            raise Violation(1002, "compression was not agreed")
        size = length + sum(map(len, self._fragments or ()))
        if size > self._config.ws_max_size:
            raise Violation(1009, f"message exceeds {self._config.ws_max_size} bytes")

    def _take_frame(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if opcode == PING:
            # A peer that pings and does not read gets no pongs: they would only pile up.
            if self._writable is None and self._state == OPEN:
                self._release()
                self._transport.write(frame_header(FIN | PONG, len(payload)) + payload)
        elif opcode == CLOSE:
            self._take_close(payload)
        elif opcode == PONG:
            if payload == PROBE:
                self._settle_ping(True)
        elif self._state == OPEN:
            self._take_data(first, payload)

    def _take_data(self, first: int, payload: bytes) -> None:
        if self._fragments is None and first & FIN:
            self._take_message(first, payload)
            return
        # The first octet of the message stands before its fragments.
        fragments = self._fragments = self._fragments or [bytes((first,))]
        fragments.append(payload)
        if first & FIN:
            self._fragments = None
            self._take_message(fragments[0][0], b"".join(fragments[1:]))

    def _take_message(self, first: int, payload: bytes) -> None:
        if first & RSV1:
            payload = inflate(payload, self._config.ws_max_size)
        self._frames_in += 1
        self._bytes_in += len(payload)
        taker, is_text = self._taker, first & 0x0F != BINARY
        if not is_text and taker is None:
            self._give({"type": "websocket.receive", "bytes": payload}, len(payload))
            return
        try:
            text = payload.decode() if is_text else ""
        except UnicodeDecodeError:
            raise Violation(1007, "text is not UTF-8") from None
        if taker is None:
            self._give({"type": "websocket.receive", "text": text}, len(text))
        else:
            taker(is_text, payload)

    def _take_close(self, payload: bytes) -> None:
        try:
            close = Close.parse(payload)
        except UnicodeDecodeError:
            raise Violation(1007, "close reason is not UTF-8") from None
        except ProtocolError:
            raise Violation(1002, "close frame is malformed") from None
        if self._state == OPEN:
            self._write_close(payload[:2])
            self._end(close.code, close.reason, by="client")
        self._hang_up()

    # Messages to the application

    def _give(self, message: Message, size: int) -> None:
        """`size` is the length of the text or bytes, as `receive` will subtract it."""
        self._messages.append(message)
        self._pending += size + MESSAGE_COST
        if self._pending > HIGH_WATER:
            self._pause()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, code: int, reason: str = "", *, by: str) -> None:
        """The last message to the application; the first cause given is the one it sees."""
        if self._disconnect is None:
            self._closed_by = by
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._wake()
        self._settle_ping(False)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        self._advance()
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    async def receive(self) -> Message:
        while not self._messages:
            if self._disconnect is not None:
                return self._disconnect
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("another task waits for this websocket already")
            self._waiter = self._loop.create_future()
            await self._waiter
        message = self._messages.pop(0)
        # What is not a "receive" is the "connect", which was never counted.
        payload = message.get("text", message.get("bytes"))
        if payload is not None:
            self._pending -= len(payload) + MESSAGE_COST
            if self._paused and self._pending <= LOW_WATER:
                self._resume()
        return message

    # Past ASGI: for who passes messages on as they are

    def bypass(self, take: Callable[[bool, bytes], None]) -> None:
        """From now on messages go to `take(is_text, payload)` as they come; `receive` still tells of the end.

        A text is valid UTF-8. What has come already is handed over at once.
        """
        self._taker = take
        messages, self._messages, self._pending = self._messages, [], 0
        behind, self._paused = self._paused, False
        for message in messages:
            text = message.get("text")
            take(text is not None, message["bytes"] if text is None else text.encode())
        if behind and not self._paused:  # else `take` has asked to hold
            self._resume()

    def hold(self) -> None:
        """Read no more until `go_on`: what the peer sends stays in the socket."""
        self._pause()

    def go_on(self) -> None:
        """Read on."""
        if self._paused:
            self._resume()

    @property
    def full(self) -> bool:
        """Whether the peer does not read: only `send` can wait for it."""
        return self._writable is not None

    def put(self, is_text: bool, data: bytes) -> None:
        """Send a message without waiting, unless the connection has ended."""
        if self._state != OPEN:
            return
        self._frames_out += 1
        self._bytes_out += len(data)
        first = WHOLE_TEXT if is_text else FIN | BINARY
        if self._held is not None:
            self._hold(first, data)
        else:
            self._transport.write(b"".join(self._framed(first, data)))

    # Messages from the application

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send" and self._state != CONNECTING:
            while self._writable is not None and self._state == OPEN:
                await self._writable.wait()
            self._send(message)
        elif self._state == CONNECTING:
            self._send_handshake(message)
        else:
            self._send_close(message)

    def _send(self, message: Message) -> None:
        if self._state != OPEN:
            self._refuse(message)
        data = message.get("bytes")
        first = FIN | BINARY
        if data is None:
            data = message["text"].encode()
            first = WHOLE_TEXT
        length = len(data)
        self._frames_out += 1
        self._bytes_out += length
        if self._held is not None:
            self._hold(first, data)
        elif length < 126 and first == WHOLE_TEXT:
            self._transport.write(SHORT_TEXT[length] + data)
        else:
            # joined: `writelines` of asyncio in Python 3.12.0 to 3.13.0 never pauses us (CVE-2024-12254)
            self._transport.write(b"".join(self._framed(first, data)))

    def _framed(self, first: int, data: bytes) -> tuple[bytes, bytes]:
        if self._window and len(data) >= COMPRESS_FROM:
            smaller = deflate(data, self._window)
            if len(smaller) < len(data):
                first, data = first | RSV1, smaller
        return frame_header(first, len(data)), data

    def _hold(self, first: int, data: bytes) -> None:
        """An application greets with several messages at once: they go out together at the end of the loop's turn."""
        assert self._held is not None
        if not self._held:
            self._loop.call_soon(self._release)
        self._held += self._framed(first, data)
        if len(data) > COMPRESS_FROM or len(self._held) > MAX_HELD:
            self._release()  # enough for a packet of its own, and nothing to keep in memory

    def _release(self) -> None:
        held, self._held = self._held, None
        if held:
            self._transport.write(b"".join(held))

    def _send_close(self, message: Message) -> None:
        if message["type"] != "websocket.close" or self._state != OPEN:
            self._refuse(message)
        code, reason = message.get("code", 1000), message.get("reason") or ""
        self._close(code, reason, CLOSE_TIMEOUT)
        self._end(code, reason, by="app")

    def _refuse(self, message: Message) -> None:
        if self._state == OPEN or self._disconnect is None:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")
        raise ClientDisconnected

    def traffic(self) -> Traffic:
        """What was carried so far."""
        ended = self._disconnect
        return Traffic(
            self._status, self._frames_in, self._bytes_in, self._frames_out, self._bytes_out,
            None if ended is None else ended["code"], self._closed_by,
        )  # fmt: skip

    # The handshake

    def _handshake(self, data: bytes) -> None:
        """`data` is the whole request: uvicorn's HTTP protocols parse it first and hand it on in one piece."""
        upgrade = read_upgrade(data, compress=self._config.ws_per_message_deflate)
        if isinstance(upgrade, Response):
            self._write_response(upgrade)
            return
        self._upgrade = upgrade
        self._window = upgrade.window
        self._scope = self._make_scope(upgrade)
        self._messages.append({"type": "websocket.connect"})
        context = contextvars.Context() if getattr(self._config, "reset_contextvars", False) else None
        task = self._loop.create_task(self._run(self._scope), context=context)
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _make_scope(self, upgrade: Upgrade) -> Message:
        path, _, query = upgrade.target.partition("?")
        root = self._config.root_path
        offers = [value.decode("latin-1") for name, value in upgrade.fields if name == b"sec-websocket-protocol"]
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root,
            "path": root + unquote(path),
            "raw_path": (root + path).encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": upgrade.fields,
            "subprotocols": [token.strip() for offer in offers for token in offer.split(",")],
            "state": self._app_state.copy(),
            "extensions": {
                "websocket.http.response": {},
                "roost.websocket.ping": {"ping": self.ping},
                "roost.websocket.traffic": {"read": self.traffic, "headers": self._logged},
            },
        }

    def _send_handshake(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.http.response.body" and self._denial is not None:
            self._deny(message)
        elif self._denial is not None:
            raise RuntimeError(f"expected 'websocket.http.response.body', not {kind!r}")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._log(HTTPStatus.FORBIDDEN)
            self._respond(HTTPStatus.FORBIDDEN, [], b"")
        elif kind == "websocket.http.response.start":
            self._log(message["status"])
            self._denial = message["status"], list(message.get("headers", [])), bytearray()
        else:
            raise RuntimeError(f"expected the websocket to be accepted or refused, not {kind!r}")

    def _accept(self, message: Message) -> None:
        assert self._upgrade is not None
        fields = self._answered(101, message.get("headers", ()))
        if message.get("subprotocol"):
            fields.append((b"Sec-WebSocket-Protocol", message["subprotocol"].encode()))
        self._log("[accepted]")
        self._state = OPEN
        self._transport.write(self._upgrade.answer(fields))
        self._upgrade, self._scope = None, {}
        self._keep_alive()
        if self._paused:
            self._resume()
        else:
            self._advance()

    def _deny(self, message: Message) -> None:
        assert self._denial is not None
        status, headers, body = self._denial
        body += message.get("body", b"")
        if not message.get("more_body", False):
            self._respond(status, headers, bytes(body))

    def _respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Refuse the handshake with this response."""
        self._write_response(refusal(status, self._answered(status, headers), body))

    def _answered(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The header fields of the handshake's answer."""
        self._status = int(status)
        added, self._logged = self._logged, []
        names = {name for name, _ in added}
        return [*self._server.default_headers, *(field for field in headers if field[0].lower() not in names), *added]

    def _write_response(self, response: Response) -> None:
        self._transport.write(response.serialize())
        self._denial, self._scope = None, {}
        self._end(1006, by="server")
        self._hang_up()

    def _log(self, outcome: object) -> None:
        if self._logged:
            return
        # Without the query string: it may hold what must not be logged.
        logger = logging.getLogger("uvicorn.error")
        scope = cast(Any, self._scope)
        logger.info('%s - "WebSocket %s" %s', get_client_addr(scope), quote(scope["path"]), outcome)

    async def _run(self, scope: Message) -> None:
        try:
            await self._config.loaded_app(scope, self.receive, self.send)
        except ClientDisconnected:
            self._finish(1000)
        except BaseException as error:
            self._finish(1011)
            if not isinstance(error, Exception):
                raise
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
        else:
            self._finish(1000)

    def _finish(self, code: int) -> None:
        """The application has returned: nothing it began stays open."""
        if self._state == CONNECTING:
            self._respond(HTTPStatus.INTERNAL_SERVER_ERROR, [], b"")
        elif self._state == OPEN:
            self._close(code, "", CLOSE_TIMEOUT)
            self._end(code, by="app")

    # Ends

    def _close(self, code: int, reason: str, timeout: float) -> None:
        """Begin the closing handshake; after `timeout` seconds the peer is cut."""
        reason = reason.encode()[:123].decode(errors="ignore")  # what a control frame holds
        self._write_close(Close(code, reason).serialize())
        self._state = CLOSING
        self._stop_timer()
        self._timer = self._loop.call_later(timeout, self._transport.abort)
        if self._paused:
            self._resume()  # the peer's answer stands behind what the application will not read

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke the protocol. It keeps a while to read why: closing at once could reset the connection."""
        if self._state == OPEN:
            self._write_close(Close(code, reason).serialize())
        self._state = LINGERING
        self._buffer = self._fragments = None
        self._end(code, reason, by="server")
        self._stop_timer()
        self._timer = self._loop.call_later(SHUTDOWN_TIMEOUT, self._transport.abort)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _hang_up(self) -> None:
        self._release()
        self._state = LINGERING
        self._buffer = self._fragments = None
        self._stop_timer()
        self._timer = self._loop.call_later(SHUTDOWN_TIMEOUT, self._transport.abort)
        self._transport.close()

    def _write_close(self, payload: bytes) -> None:
        self._release()
        self._transport.write(frame_header(FIN | CLOSE, len(payload)) + payload)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Keepalive

    async def ping(self) -> bool:
        """Ask the peer for a pong: True when it has come, False when the connection ends without one.

        The caller bounds the time. Whoever asks meanwhile waits for the same pong: only one ping is under way.
        """
        while self._writable is not None and self._state == OPEN:
            await self._writable.wait()
        if self._state != OPEN:
            return False
        if self._pong is None:
            self._pong = self._loop.create_future()
            self._release()
            self._transport.write(frame_header(FIN | PING, len(PROBE)) + PROBE)
        return await asyncio.shield(self._pong)

    def _settle_ping(self, answered: bool) -> None:
        if self._pong is not None:
            self._pong.set_result(answered)
            self._pong = None

    def _keep_alive(self) -> None:
        interval = self._config.ws_ping_interval
        if interval:
            self._ping_due = self._loop.time() + interval
            self._timer = self._loop.call_at(self._ping_due, self._tick)

    def _tick(self) -> None:
        """Send the ping that is due, or cut a peer of whom nothing was heard since the last."""
        now = self._loop.time()
        if self._heard or self._paused:  # while we do not read, its silence is ours
            self._deadline = 0.0
        elif self._deadline and now >= self._deadline:
            self._fail(1011, "keepalive ping timeout")
            return
        if not self._deadline and now >= self._ping_due:
            self._ping(now)
        due = min(moment for moment in (self._ping_due, self._deadline) if moment > now)
        self._timer = self._loop.call_at(due, self._tick)

    def _ping(self, now: float) -> None:
        timeout = self._config.ws_ping_timeout
        self._heard = False
        self._ping_due = now + cast(float, self._config.ws_ping_interval)
        self._deadline = now + timeout if timeout else 0.0
        if self._writable is None:
            self._release()
            self._transport.write(b"\x89\x00")
