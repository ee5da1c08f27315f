"""Many relayed websockets over one connection between two workers, each with a bound of its own.

Each event of a busy worker would otherwise cost two calls to the kernel more, on both sides; here what is sent in one
turn of the loop goes out in one. A channel may have `WINDOW` bytes under way that its receiver has not taken yet
(as HTTP/2 has it, RFC 9113, section 5.2): a client that does not read fills its own channel, and the others go on.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable

from ..logs import get_logger
from . import wire
from .wire import Handler, LinkError, Stream

log = get_logger(__name__)

WINDOW = 256 * 1024
# Larger frames go in pieces, with those of other channels between them.
PIECE = 64 * 1024
# What a frame counts for beside its bytes.
_COST = 64
_NUMBER = struct.Struct("!I")
_HEAD = struct.Struct("!IBI")
_LAST = 2**32 - 1
# What was sent last may wait so long for its receiver.
_LINGER_SECONDS = 5


class Channels:
    """One connection with the channels in it. `accept` takes those that the other worker opens, if it may."""

    def __init__(self, most: int, limit: int, accept: Callable[[Channel], Handler] | None = None) -> None:
        self.stream: Stream
        self.limit = limit
        self._most = most
        self._accept = accept
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._retired = False
        self._outgoing: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    @property
    def usable(self) -> bool:
        """Whether channels can be opened."""
        return not self._retired and not self.stream.ended

    def open(self, handler: Handler) -> Channel:
        """A new channel; the first frame that is sent over it must be `OPEN`.

        Raises:
            LinkError: the connection has ended.
        """
        if not self.usable:
            raise LinkError("the connection has ended")
        self._last += 1
        if self._last == _LAST:
            self._retired = True
        channel = self._channels[self._last] = Channel(self, self._last)
        channel.handler = handler
        return channel

    def send(self, number: int, kind: int, payload: bytes) -> None:
        """Send a frame of a channel at the end of this turn of the loop."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(_HEAD.pack(len(payload) + 5, kind, number) + payload)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        self.stream.write(b"".join(outgoing))

    def forget(self, number: int) -> None:
        """A channel has ended."""
        self._channels.pop(number, None)
        if self._retired:
            self.retire()

    def retire(self) -> None:
        """End the connection once no channel is left."""
        self._retired = True
        if not self._channels and not self.stream.ended:
            self._loop.call_soon(self.stream.close)  # after what was sent last

    # --- what comes --------------------------------------------------------------------------------------------------

    def frame(self, kind: int, payload: bytes) -> None:
        if len(payload) < 4:
            raise LinkError("no channel")
        number: int = _NUMBER.unpack_from(payload)[0]
        channel = self._channels.get(number)
        if channel is None:
            # what was under way when a channel ended comes to nobody
            channel = self._opened(number) if kind == wire.OPEN else None
        if channel is not None:
            channel.take(kind, payload[4:])

    def _opened(self, number: int) -> Channel | None:
        if self._accept is None or number <= self._last:
            raise LinkError("a channel may not be opened so")
        self._last = number
        if len(self._channels) >= self._most:
            self.send(number, wire.RESET, b"")
            return None
        channel = self._channels[number] = Channel(self, number)
        channel.handler = self._accept(channel)
        return channel

    def lost(self) -> None:
        for channel in list(self._channels.values()):
            channel.lost()


class Channel:
    """One of the channels: to those who use it, what a `Stream` of its own would be."""

    __slots__ = (
        "_backlog", "_channels", "_closing", "_credit", "_ended", "_number", "_parts", "_parts_size", "_paused",
        "_timer", "_unread", "_writable", "handler",
    )  # fmt: skip

    def __init__(self, channels: Channels, number: int) -> None:
        self.handler: Handler
        self._channels = channels
        self._number = number
        self._credit = WINDOW
        # what the other end may not yet send again
        self._unread = 0
        # frames that wait for credit, each as what is left of it
        self._backlog: deque[tuple[int, memoryview]] = deque()
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._writable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = self._ended = self._paused = False

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame, or keep it until there is credit for it.

        Raises:
            LinkError: the channel has ended.
        """
        if self._closing:
            raise LinkError("the channel has ended")
        if kind == wire.OPEN and len(payload) > PIECE:
            raise LinkError("what is said of the websocket is too large")
        if self._credit > 0 and not self._backlog and len(payload) <= PIECE:
            self._credit -= len(payload) + _COST
            self._channels.send(self._number, kind, payload)
        else:
            self._backlog.append((kind, memoryview(payload)))
            self._pump()

    def _pump(self) -> None:
        while self._backlog and self._credit > 0:
            kind, rest = self._backlog.popleft()
            piece = rest[:PIECE]
            self._credit -= len(piece) + _COST
            if len(rest) > PIECE:
                self._backlog.appendleft((kind, rest[PIECE:]))
                kind = wire.MORE
            self._channels.send(self._number, kind, bytes(piece))
        if self._closing and not self._backlog:
            self._end()

    @property
    def full(self) -> bool:
        """Whether the other end does not take what is sent."""
        return self._credit <= 0 or bool(self._backlog)

    async def drain(self) -> None:
        """Wait until it does.

        Raises:
            LinkError: the channel has ended.
        """
        while self.full and not self._closing:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)
        if self._closing:
            raise LinkError("the channel has ended")

    def _wake(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # --- in ----------------------------------------------------------------------------------------------------------

    def take(self, kind: int, payload: bytes) -> None:
        """A frame has come."""
        if kind == wire.GRANT:
            if len(payload) == 4:
                self._credit += _NUMBER.unpack(payload)[0]
                self._pump()
                if not self.full:
                    self._wake()
            return
        if kind == wire.RESET:
            self.lost()
            return
        self._unread += len(payload) + _COST
        if self._closing:  # it comes to nobody, but the other end cannot close before it is taken
            self._grant()
            return
        try:
            if self._unread > WINDOW + PIECE + _COST:
                raise LinkError("more was sent than was granted")
            self._give(kind, payload)
        except LinkError:
            self.abort()
            return
        except Exception:
            log.exception("relay_broke")  # and no other of this connection
            self.abort()
            return
        if self._unread > WINDOW // 2 and not self._paused:
            self._grant()

    def _give(self, kind: int, payload: bytes) -> None:
        if kind == wire.MORE or self._parts:
            self._parts_size += len(payload)
            if self._parts_size > self._channels.limit:
                raise LinkError("a frame is too large")
            self._parts.append(payload)
            if kind == wire.MORE:
                return
            payload = b"".join(self._parts)
            self._parts.clear()
            self._parts_size = 0
        self.handler.frame(kind, payload)

    def _grant(self) -> None:
        unread, self._unread = self._unread, 0
        if not self._ended:
            self._channels.send(self._number, wire.GRANT, _NUMBER.pack(unread))

    def pause(self) -> None:
        """Take no more than was granted already."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._paused = False
            if self._unread > WINDOW // 2:
                self._grant()

    # --- the end -----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing more will be sent or come."""
        return self._closing

    def close(self) -> None:
        """End the channel once what has been sent is under way."""
        if not self._closing:
            self._closing = True
            if self._backlog:
                self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)
                self._wake()
            else:
                self._end()

    def abort(self) -> None:
        """End the channel at once."""
        self._closing = True
        self._end()

    def _end(self) -> None:
        if not self._ended and not self._channels.stream.ended:
            self._channels.send(self._number, wire.RESET, b"")
        self.lost()

    def lost(self) -> None:
        """The other end, or the connection, has gone."""
        self._closing = True
        if not self._ended:
            self._ended = True
            self._backlog.clear()
            self._parts.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._channels.forget(self._number)
            self._wake()
            # as a transport does: not in the middle of what the handler is about
            asyncio.get_running_loop().call_soon(self.handler.lost)
