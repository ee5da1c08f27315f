"""A websocket whose session lives in another worker: its frames go there and back as they are.

The worker that has the websocket holds a `Remote`, the session's owner a `Relayed`. Each relayed websocket has a
channel of its own between the two, so a client that does not read fills that one only, and the owner waits for it as it
would for a client of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import Message as ASGIMessage
from starlette.types import Receive, Scope, Send

from ..errors import CloseConnection, InvalidFrame
from ..generations.base import Frame
from ..logs import carried
from ..tasks import Tasks
from . import wire
from .wire import LinkError, Pipe

# An owner from which nothing is heard for so long while it should answer counts as gone. It says every second that it
# still looks, so this is for a process that was stopped, or that an app blocks: a session that is lost costs its user
# more than to wait a little.
SILENCE_SECONDS = 5.0
_WAIT_SECONDS = 1.0
# To look at a credential takes two probes at most, each of six seconds.
_PATIENCE_SECONDS = 20.0
# A timer that comes so much too late says that this worker's own loop was busy.
_LATE_SECONDS = 0.2
# Bytes that may wait for the client, or for the session, before nothing more is taken from the other worker.
_HIGH_WATER = 64 * 1024
# What a waiting message costs beside its bytes.
_COST = 320
# Of the handshake's headers the owner gets those that say where the app is, and who is there.
_HEADERS = frozenset({b"host", b"user-agent", b"x-request-id"})

_MAX_HEADER = 1024

OFFERED, REFUSED = "offered", "refused"


class Browser(Protocol):
    """The connection that has the websocket."""

    def wake(self) -> None: ...

    @property
    def sending_since(self) -> float: ...

    def cut(self, code: int, reason: str) -> None: ...

    def fail(self, error: CloseConnection) -> None: ...

    def ping(self) -> Awaitable[bool] | None: ...


class Bypass(Protocol):
    """A server's own end of a websocket, which can be asked for more than ASGI has words for (Roost's)."""

    @property
    def full(self) -> bool: ...

    def bypass(self, take: Callable[[bool, bytes], None]) -> None: ...

    def put(self, is_text: bool, data: bytes) -> None: ...

    def hold(self) -> None: ...

    def go_on(self) -> None: ...


class Remote:
    """A session in another worker, as the connection sees it that has its browser's websocket.

    What the owner has written waits in it, as in a session's outbox.
    """

    __slots__ = (
        "_browser", "_bytes", "_changed", "_closing", "_ended", "_frames", "_going", "_lost", "_max_frame_size",
        "_holding", "_news", "_pinging", "_stream", "_tasks", "_way", "from_owner", "refusal", "to_owner",
    )  # fmt: skip

    def __init__(self, browser: Browser, tasks: Tasks, max_frame_size: int, ended: Callable[[Remote], None]) -> None:
        self._browser = browser
        self._ended = ended
        self._tasks = tasks
        self._max_frame_size = max_frame_size
        self._stream: Pipe
        self._frames: list[Frame] = []
        self._bytes = 0
        self._closing: tuple[int, str] | None = None
        self._changed = asyncio.Event()
        self._news: str | None = None
        self._going = self._lost = self._pinging = self._holding = False
        self._way: Bypass | None = None
        self.refusal = ""
        self.to_owner = self.from_owner = 0

    # --- before the owner has taken it -------------------------------------------------------------------------------

    async def taken(self, stream: Pipe) -> bool:
        """Whether the owner lets the connection into its session; if not, `refusal` says why.

        The owner offers first and acts only when it is told to go on: one that was stopped and wakes up later finds
        that nobody waits any more, and does nothing.

        Raises:
            LinkError: it is gone, or says nothing.
        """
        self._stream = stream
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._news is None:
                    await self._next()
                if self._news == OFFERED:
                    self._stream.send(wire.GO)
                    while not self._frames and self._news != REFUSED:
                        await self._next()
        except TimeoutError:
            raise LinkError("the owner does not answer") from None
        if self._news == REFUSED:
            return False
        self._going = True
        return True

    async def _next(self) -> None:
        if self._lost:
            raise LinkError("the owner is gone")
        self._changed.clear()
        loop = asyncio.get_running_loop()
        late = loop.time() + SILENCE_SECONDS + _LATE_SECONDS
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            # if it was this worker that was busy, what has come meanwhile is read only now
            if not self._changed.is_set() and loop.time() < late:
                raise

    # --- what the owner says -----------------------------------------------------------------------------------------

    def frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.TEXT or kind == wire.BINARY:
            way = self._way
            if way is None or self._frames or self._browser.sending_since or way.full or self._closing is not None:
                self._keep(kind, payload)
            else:
                self.from_owner += len(payload)
                way.put(kind == wire.TEXT, payload)
                return
        elif kind == wire.CLOSE:
            self._closing = wire.load_close(payload)
            if self._going:
                self._browser.wake()
        elif kind == wire.PING:
            self._ping()
        elif kind == wire.OFFER:
            self._news = OFFERED
        elif kind == wire.REFUSE:
            self._news, self.refusal = REFUSED, wire.text_of(wire.load(payload), "result", 50)
        elif kind != wire.WAIT:
            raise LinkError("no frame of a relay")
        if not self._going:
            self._changed.set()

    def _keep(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        try:
            self._frames.append(payload.decode(errors="surrogatepass") if kind == wire.TEXT else payload)
        except UnicodeDecodeError:
            raise LinkError("text is not UTF-8") from None
        self.from_owner += size
        self._bytes += size + _COST
        if self._bytes > _HIGH_WATER:
            self._stream.pause()
        if self._going:
            self._browser.wake()

    def lost(self) -> None:
        self._lost = True
        if self._going and self._closing is None:
            self._browser.cut(1012, "the session's worker has gone")
        self._changed.set()

    def _ping(self) -> None:
        if not self._pinging and (asked := self._browser.ping()) is not None:
            self._pinging = True
            self._tasks.start(self._pong(asked), "relayed_ping")

    async def _pong(self, asked: Awaitable[bool]) -> None:
        try:
            if await asked and not self._stream.ended:
                self._stream.send(wire.PONG)
        finally:
            self._pinging = False

    # --- as a session's outbox ---------------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Bytes that wait to be written."""
        return self._bytes

    @property
    def waiting(self) -> bool:
        """Whether anything is to be written, or to be ended after all has been written."""
        return bool(self._frames) or self._closing is not None

    def take(self) -> list[Frame]:
        """All that waits, in order; after the last of it the connection ends as its owner has ended it."""
        if not self._frames and self._closing is not None:
            code, reason = self._closing
            self._browser.cut(code, reason)
            return []
        frames, self._frames = self._frames, []
        self._bytes = 0
        self._stream.resume()
        return frames

    # --- what the client says ----------------------------------------------------------------------------------------

    async def listen(self, receive: Receive, send: Send) -> bool:
        """Pass on frames until the client leaves: True. `receive` and `send` are those of the websocket.

        Raises:
            InvalidFrame: one is larger than a session takes.
        """
        stream, limit = self._stream, self._max_frame_size
        if (way := _server_of(receive, send)) is not None:
            self._way = way
            way.bypass(self._pass_on)  # after this, only the end is received here
        try:
            while (message := await receive())["type"] == "websocket.receive":
                text: str | None = message.get("text")
                if text is None:
                    kind, payload = wire.BINARY, message["bytes"]
                else:
                    kind, payload = wire.TEXT, text.encode(errors="surrogatepass")
                if len(payload) > limit:
                    raise _too_big()
                self.to_owner += len(payload)
                stream.send(kind, payload)
                if stream.full:
                    await stream.drain()
            stream.send(wire.CLOSE, wire.dump_close(message.get("code") or 1006, message.get("reason") or ""))
        except LinkError:
            # `lost` says why it ends, or what the owner has sent before does
            await asyncio.Event().wait()
        return True

    def _pass_on(self, is_text: bool, payload: bytes) -> None:
        if len(payload) > self._max_frame_size:
            self._browser.fail(_too_big())
            return
        stream = self._stream
        if not stream.ended:
            self.to_owner += len(payload)
            stream.send(wire.TEXT if is_text else wire.BINARY, payload)
            if stream.full and not self._holding and self._way is not None:
                self._holding = True
                self._way.hold()
                self._tasks.start(self._wait_for_owner(self._way), "relay")

    async def _wait_for_owner(self, way: Bypass) -> None:
        """Leave what the client sends in its socket until the owner reads."""
        try:
            await self._stream.drain()
        except LinkError:
            return
        finally:
            self._holding = False
        way.go_on()

    def detach(self, connection: object) -> None:
        """The websocket has ended."""
        self._stream.close()
        self._ended(self)


def _too_big() -> InvalidFrame:
    return InvalidFrame("too_big", "the frame is too big", 1009)


def _server_of(receive: Receive, send: Send) -> Any:
    """The server's own end of the websocket, if it can be bypassed, and nobody stands in between."""
    server = getattr(receive, "__self__", None)
    return server if server is getattr(send, "__self__", None) and hasattr(server, "bypass") else None


class Relayed:
    """A websocket that another worker has, as the owner of its session sees it: ASGI's `receive` and `send`.

    `opening` is what that worker says of it; the register frame is the first that comes.
    """

    __slots__ = (
        "_gone", "_loop", "_messages", "_paused", "_pending", "_pong", "_stream", "_ticking", "_waiter", "app",
        "browser", "log", "scope", "secret_id",
    )  # fmt: skip

    def __init__(self, stream: Pipe, opening: dict[str, Any]) -> None:
        self.secret_id = wire.text_of(opening, "session", 64)
        self.app = wire.text_of(opening, "app")
        browser = opening.get("browser")
        self.browser = None if browser is None else wire.text_of(opening, "browser", 64)
        self.scope = _scope(opening)
        self.log = opening.get("log")
        if opening.get("ping") is True:
            self.scope["extensions"] = {"roost.websocket.ping": {"ping": self.ping}}
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._messages: deque[ASGIMessage] = deque()
        self._pending = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[bool] | None = None
        self._pong: asyncio.Future[bool] | None = None
        self._ticking: asyncio.TimerHandle | None = self._loop.call_later(_WAIT_SECONDS, self._tick)

    # --- admission ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Say that the credential is still looked at."""
        if not self._stream.ended:
            self._stream.send(wire.WAIT)
            self._ticking = self._loop.call_later(_WAIT_SECONDS, self._tick)

    def _stop_ticking(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def refuse(self, result: str) -> None:
        """The other worker is to start a new session."""
        self._stop_ticking()
        if not self._stream.ended:
            self._stream.send(wire.REFUSE, wire.dump({"result": result}))
        self._stream.close()

    async def offered(self) -> bool:
        """Whether the other worker, and the client behind it, still wait for the session."""
        if self._stream.ended:
            return False
        self._gone = self._loop.create_future()
        self._stream.send(wire.OFFER)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._gone
        except TimeoutError:
            return False

    # --- what the other worker says ----------------------------------------------------------------------------------

    def frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.TEXT:
            try:
                self._give({"type": "websocket.receive", "text": payload.decode(errors="surrogatepass")}, len(payload))
            except UnicodeDecodeError:
                raise LinkError("text is not UTF-8") from None
        elif kind == wire.BINARY:
            self._give({"type": "websocket.receive", "bytes": payload}, len(payload))
        elif kind == wire.CLOSE:
            self._end(*wire.load_close(payload))
        elif kind == wire.PONG:
            self._settle_ping(True)
        elif kind == wire.GO and self._gone is not None:
            if not self._gone.done():
                self._gone.set_result(True)
        else:
            raise LinkError("no frame of a relay")

    def lost(self) -> None:
        self._stop_ticking()
        self._end(1006, "")
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(False)

    def _give(self, message: ASGIMessage, size: int) -> None:
        self._messages.append(message)
        self._pending += size + _COST
        if self._pending > _HIGH_WATER and not self._paused:
            self._paused = True
            self._stream.pause()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, code: int, reason: str) -> None:
        if not self._messages or self._messages[-1]["type"] != "websocket.disconnect":
            self._messages.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
        self._settle_ping(False)

    # --- ASGI --------------------------------------------------------------------------------------------------------

    async def receive(self) -> ASGIMessage:
        while not self._messages:
            self._waiter = self._loop.create_future()
            await self._waiter
        message = self._messages[0]
        if message["type"] == "websocket.disconnect":
            return message  # again and again
        self._messages.popleft()
        payload = message.get("text")
        self._pending -= len(message["bytes"] if payload is None else payload) + _COST
        if self._paused and self._pending <= _HIGH_WATER // 4:
            self._paused = False
            self._stream.resume()
        return message

    async def send(self, message: ASGIMessage) -> None:
        """
        Raises:
            LinkError, an OSError: the other worker is gone.
        """
        kind, stream = message["type"], self._stream
        if kind == "websocket.send":
            if self._ticking is not None:
                self._stop_ticking()
            text = message.get("text")
            if text is None:
                stream.send(wire.BINARY, message["bytes"])
            else:
                stream.send(wire.TEXT, text.encode(errors="surrogatepass"))
            if stream.full:
                await stream.drain()
        elif kind == "websocket.close":
            stream.send(wire.CLOSE, wire.dump_close(message.get("code", 1000), message.get("reason") or ""))

    async def ping(self) -> bool:
        """As a server's own: whether a pong has come, once it has or never will."""
        if self._stream.ended:
            return False
        if self._pong is None:
            self._pong = self._loop.create_future()
            self._stream.send(wire.PING)
        return await asyncio.shield(self._pong)

    def _settle_ping(self, answered: bool) -> None:
        if self._pong is not None:
            self._pong.set_result(answered)
            self._pong = None

    def close(self) -> None:
        """Nothing more is to be said."""
        self._stop_ticking()
        self._stream.close()


def opening(scope: Scope, *, session: str, app: str, browser: str | None, pings: bool) -> dict[str, Any]:
    """What the owner has to know of a websocket."""
    client = scope.get("client")
    kept = [(name, value[:_MAX_HEADER]) for name, value in scope["headers"] if name in _HEADERS]
    essentials = {
        "scheme": scope.get("scheme", "ws"),
        "path": scope["path"],
        "root_path": scope.get("root_path", ""),
        "client": [str(client[0]), int(client[1] or 0)] if client else None,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in kept],
    }
    return {
        "session": session, "app": app, "browser": browser, "ping": pings, "scope": essentials, "log": carried(),
    }  # fmt: skip


def _scope(opening: dict[str, Any]) -> Scope:
    try:
        given = opening["scope"]
        client = given["client"]
        return {
            "type": "websocket",
            "scheme": str(given["scheme"]),
            "path": str(given["path"]),
            "root_path": str(given["root_path"]),
            "query_string": b"",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given["headers"]],
            "client": None if client is None else (str(client[0]), int(client[1])),
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise LinkError("no scope of a websocket") from None
