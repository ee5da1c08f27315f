"""Frames between two workers: a length, a kind, a payload; over a Unix socket on one host, over TCP between hosts.

Nothing here reads a payload. What arrives is handed over frame by frame, as soon as it is whole, on the loop's thread;
what is sent goes into the socket's buffer, and `drain` waits while that is full, so a slow reader at the other end
slows down whoever writes here, and nobody else.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Protocol, cast

import orjson

from ..errors import FletFastAPIError

# How each connection begins. The numbers are part of the protocol: workers of two versions meet during a deploy.
HELLO, WELCOME, CHALLENGE, PROOF = 1, 2, 3, 4
# A relayed websocket; the first five as in RFC 6455, section 5.2.
TEXT, BINARY, CLOSE, PING, PONG = 0x11, 0x12, 0x18, 0x19, 0x1A
OPEN, WAIT, OFFER, REFUSE, GO = 0x21, 0x22, 0x23, 0x24, 0x25
# Of a channel: that it ends, that so many bytes were taken, and a piece of the frame that ends with the next other one.
RESET, GRANT, MORE = 0x26, 0x27, 0x28
# Publishes, and questions with an answer.
PUBLISH, BEAT, CALL, ANSWER = 0x31, 0x32, 0x41, 0x42

_HEADER = struct.Struct("!IB")
_CLOSE = struct.Struct("!H")
# The headers of a handshake with all its cookies: servers take 64 KB of them.
HANDSHAKE_SIZE = 256 * 1024
# What a session tells its browser is as large as its app makes it; the other end is one of our own workers.
ANY_SIZE = 1 << 30
# Below this, a copy is cheaper than a second call to the kernel.
_JOIN = 16 * 1024
# A TCP connection whose other host has been silent for 15 seconds ends.
_SILENCE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 15_000}
# What was sent last may wait so long for the other end to read it.
_LINGER_SECONDS = 5


class LinkError(FletFastAPIError, OSError):
    """Another worker cannot be reached, does not answer, or says what is against the protocol."""


class Handler(Protocol):
    """What takes a stream's frames."""

    def frame(self, kind: int, payload: bytes) -> None:
        """One frame has come; to raise `LinkError` ends the stream."""

    def lost(self) -> None:
        """The stream has ended, whoever ended it; called once."""


def _notice_silence(held: socket.socket) -> None:
    """Let the kernel end a connection whose other host does not answer any more: a relayed user may say nothing.

    A process that is stopped, or hangs, is no silence: its host answers, until what is sent no longer fits its socket.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SILENCE.items():
        if hasattr(socket, name):  # Linux
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Pipe(Protocol):
    """The way to another worker that one relayed websocket has for itself."""

    def send(self, kind: int, payload: bytes = b"") -> None: ...

    @property
    def full(self) -> bool: ...

    async def drain(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    @property
    def ended(self) -> bool: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Stream(asyncio.Protocol):
    """One connection to another worker. `limit` is the size of the largest frame that is taken."""

    __slots__ = (
        "_closing", "_loop", "_lost", "_need", "_paused", "_rest", "_timer", "_transport", "_writable", "handler",
        "limit",
    )  # fmt: skip

    def __init__(self, handler: Handler, limit: int) -> None:
        self.handler = handler
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest: bytearray | None = None
        self._need = 0
        self._writable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = self._closing = self._lost = False

    # --- in ----------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        held = transport.get_extra_info("socket")
        if held is not None and held.family != socket.AF_UNIX:
            _notice_silence(held)

    def data_received(self, data: bytes) -> None:
        rest = self._rest
        if rest is not None:
            rest += data
            if len(rest) < self._need:
                return
            data, self._rest = bytes(rest), None
        at, end = 0, len(data)
        try:
            while end - at >= 5 and not self._closing:
                size, kind = _HEADER.unpack_from(data, at)
                if not 0 < size <= self.limit:
                    raise LinkError("a frame is too large")
                stop = at + 4 + size
                if stop > end:
                    self._need = stop - at
                    break
                self.handler.frame(kind, data[at + 5 : stop])
                at = stop
            else:
                self._need = 5
        except LinkError:
            self.abort()
            return
        if at < end and not self._closing:
            self._rest = bytearray(data[at:] if at else data)

    def pause(self) -> None:
        """Leave what comes in the socket; what has been read already is still handed over."""
        if not self._paused and self._transport is not None and not self._closing:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport is not None and not self._closing:
            self._paused = False
            self._transport.resume_reading()

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Put one frame into the socket's buffer, whatever that holds already.

        Raises:
            LinkError: the stream has ended.
        """
        if self._closing or self._transport is None:
            raise LinkError("the stream has ended")
        header = _HEADER.pack(len(payload) + 1, kind)
        if len(payload) < _JOIN:
            self._transport.write(header + payload)
        else:
            self._transport.write(header)
            self._transport.write(payload)

    def write(self, data: bytes) -> None:
        """Put whole frames into the socket's buffer, unless the stream has ended."""
        if not self._closing and self._transport is not None:
            self._transport.write(data)

    @property
    def full(self) -> bool:
        """Whether the socket's buffer is, because the other end does not read."""
        return self._writable is not None

    async def drain(self) -> None:
        """Wait until it is not.

        Raises:
            LinkError: the stream has ended.
        """
        while self._writable is not None and not self._closing:
            await asyncio.shield(self._writable)
        if self._closing:
            raise LinkError("the stream has ended")

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # --- the end -----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing more will be sent or come."""
        return self._closing

    def close(self) -> None:
        """End the stream once what has been sent is in the socket."""
        if not self._closing:
            self._closing = True
            self._rest = None
            if self._transport is not None:
                self._transport.close()
                self._timer = self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """End the stream at once."""
        self._closing = True
        self._rest = None
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._rest = None
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()
        if not self._lost:
            self._lost = True
            self.handler.lost()


def dump(value: Any) -> bytes:
    """A payload that says something about the connection itself."""
    return orjson.dumps(value)


def load(payload: bytes) -> dict[str, Any]:
    """
    Raises:
        LinkError: it is no such payload.
    """
    try:
        value = orjson.loads(payload)
    except ValueError:
        raise LinkError("not JSON") from None
    if type(value) is not dict:
        raise LinkError("not an object")
    return value


def text_of(values: dict[str, Any], name: str, limit: int = 4096) -> str:
    """
    Raises:
        LinkError: there is no such text.
    """
    value = values.get(name)
    if type(value) is not str or len(value) > limit:
        raise LinkError(f"{name} must be a text")
    return value


def dump_close(code: int, reason: str) -> bytes:
    return _CLOSE.pack(code if 0 < code < 65536 else 1006) + reason.encode(errors="replace")[:1000]


def load_close(payload: bytes) -> tuple[int, str]:
    """
    Raises:
        LinkError: it is no code with a reason.
    """
    if len(payload) < 2:
        raise LinkError("no close code")
    return _CLOSE.unpack_from(payload)[0], payload[2:].decode(errors="replace")
