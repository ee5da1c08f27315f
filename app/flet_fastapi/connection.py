"""One websocket: frames in, a bounded queue out, and one `finally` for every way it can end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from sys import getrefcount
from time import perf_counter
from typing import Any

from starlette.types import Message as ASGIMessage
from starlette.types import Receive, Scope, Send

from .cluster.relay import Remote
from .errors import CloseConnection, InvalidFrame, Unsettled
from .generations.base import Event, Frame, Generation, Register, Updates
from .identity import Header, browser_cookie, new_id
from .logs import get_logger
from .manager import AppManager
from .metrics import Traffic
from .session import Session

log = get_logger(__name__)

# A close frame for a client that does not read is not worth more time than this.
_GOODBYE_SECONDS = 2
# How often a connection whose session has too many running handlers looks again.
_BUSY_SECONDS = 0.01
# Frames that such a connection reads ahead, to see its client leave; more are left in the socket.
_MAX_AHEAD = 100
# Frames of one client that are handled one after the other, before others have their turn.
_TURN_SECONDS = 0.01


Admit = Callable[["Connection"], Awaitable[Session | Remote | None]]


class Connection:
    """A websocket and, once it has registered, the session that it shows.

    The server's task only waits for the end. Frames are read by a task of our own, which also runs the handlers that
    they call: one that has to wait keeps the task, and another one reads on. So a handler costs a task only if it
    waits, and still has one of its own from its first line to its last, as `asyncio.timeout` and others need.
    """

    __slots__ = (
        "_ahead", "_answer", "_answered", "_cut", "_deadline", "_done", "_encode", "_flusher", "_fresh",
        "_generation", "_loop", "_loop_thread", "_manager", "_open", "_reader", "_receive", "_send", "_traffic",
        "_turn_ends", "_turns", "_woken", "_writing", "browser", "first", "issued_cookie", "scope", "sending_since",
        "session",
    )  # fmt: skip

    def __init__(
        self, manager: AppManager, generation: Generation, browser: str | None,
        scope: Scope, receive: Receive, send: Send,
    ) -> None:  # fmt: skip
        self.scope = scope
        self.browser = browser
        self.issued_cookie: str | None = None
        self.session: Session | Remote | None = None
        self.first: Frame = ""
        self.sending_since = 0.0
        self._manager = manager
        self._traffic = manager.metrics.traffic
        self._generation = generation
        self._encode: Callable[[Any], list[Frame]] = generation.encode
        self._receive = receive
        self._send = send
        self._loop = manager.loop
        self._loop_thread = threading.get_ident()
        self._done: asyncio.Future[CloseConnection] = self._loop.create_future()
        self._reader: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[Any] | None = None
        self._woken = self._open = self._cut = False
        self._answer: Frame | None = None
        self._answered = self._fresh = False
        self._writing = 0
        self._ahead: list[ASGIMessage] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._turns = manager.limits.events_per_second
        self._turn_ends = self._loop.time() + 1

    async def run(self, admit: Admit) -> None:
        """Serve the websocket until it ends; `admit` finds the session that it is for."""
        try:
            await self._accept()
        except OSError:  # the client has left already
            return
        self._deadline = self._loop.call_later(
            self._manager.limits.register_timeout_seconds, self._end, CloseConnection(1008, "no register frame in time")
        )
        self._reader = self._loop.create_task(self._reading(partial(self._converse, admit)), name="converse")
        ending = await self._done
        await self._close(ending)

    # --- in ----------------------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        """Complete the handshake, giving the browser its cookie if it has none."""
        headers: list[Header] = []
        if self.browser is None:
            self.issued_cookie = new_id()
            headers.append(browser_cookie(self.scope, self.issued_cookie))
        await self._send({"type": "websocket.accept", "headers": headers})

    async def _reading(self, read: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Read until the client leaves or breaks the protocol, or until another task reads on."""
        try:
            if await read():
                self._end(CloseConnection(1006, "the client left"))
        except CloseConnection as error:
            self.fail(error)
        except asyncio.CancelledError:
            # `let_go` does so when all is over; anybody else is the user's code, which knows this task from a handler
            if self._reader is not asyncio.current_task(self._loop) or not isinstance(self.session, Session):
                raise
            self._start_listening(self.session)
        except Exception:
            log.exception("connection_failed")
            self._end(CloseConnection(1011, "internal error"))

    async def _converse(self, admit: Admit) -> bool:
        session = await admit(self)
        self.first = ""
        if session is None:
            return True
        if isinstance(session, Remote):
            return await session.listen(self._receive, self._send)
        return await self._listen(session)

    async def register(self) -> Register | None:
        """The first frame; None if the client left without one.

        Raises:
            InvalidFrame: it is something else.
        """
        message: ASGIMessage = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text: str | None = message.get("text")
        self.first = message["bytes"] if text is None else text
        first = self._decode(self.first)
        if not isinstance(first, Register):
            raise InvalidFrame("unregistered", "the first frame must register")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return first

    async def _listen(self, session: Session) -> bool:
        """Handle frames: True when the client leaves, False when a new task listens on."""
        page, receive, decode = session.page, self._receive, self._decode
        max_running = self._manager.limits.max_pending_handlers
        note = self._manager.metrics.events.note
        task = asyncio.current_task(self._loop)
        assert task is not None
        turn_ends = perf_counter() + _TURN_SECONDS
        while True:
            if perf_counter() > turn_ends:
                await asyncio.sleep(0)  # where many frames wait, `receive` does not let others have a turn
                turn_ends = perf_counter() + _TURN_SECONDS
            self._turns -= 1
            if self._turns < 0:
                await self._wait_for_turn()
            hurry = session.running < max_running and not self._ahead
            message = await (receive() if hurry else self._next(session))
            if message["type"] != "websocket.receive":
                return True
            came = perf_counter()
            session.heard += 1
            frame = message.get("text")
            decoded = decode(message["bytes"] if frame is None else frame)
            if type(decoded) is Event:
                try:
                    call = page.dispatch(decoded)
                except Unsettled:
                    await page.settled()
                    call = page.dispatch(decoded)
                if call is None:
                    continue
                known = getrefcount(task)
                waiting = session.step(*call)
                if waiting is not None:
                    self._listen_elsewhere(session)
                    try:
                        await waiting
                    finally:
                        note(perf_counter() - came)
                    return False
                note(perf_counter() - came)
                if getrefcount(task) > known or task.cancelling():
                    # the handler has kept its task, perhaps to cancel it later, or has cancelled it: it is the
                    # handler's from now on
                    self._listen_elsewhere(session)
                    return False
            elif type(decoded) is Updates:
                try:
                    page.apply(decoded)
                except Unsettled:
                    await page.settled()
                    page.apply(decoded)
            else:
                raise InvalidFrame("registered", "already registered")

    def _listen_elsewhere(self, session: Session) -> None:
        """This task now belongs to a handler that waits; another one reads on."""
        if self._reader is not None:
            session.adopt(self._reader)
            self._start_listening(session)

    def _start_listening(self, session: Session) -> None:
        self._reader = asyncio.Task(self._reading(partial(self._listen, session)), loop=self._loop, name="listen")

    def _decode(self, frame: Frame) -> Register | Event | Updates:
        size = len(frame) if isinstance(frame, bytes) or frame.isascii() else len(_utf8(frame))
        traffic = self._traffic
        traffic.frames_received += 1
        traffic.received_bytes += size
        if size > self._manager.limits.max_frame_size:
            raise InvalidFrame("too_big", "the frame is too big", 1009)
        return self._generation.decode(frame)

    async def _wait_for_turn(self) -> None:
        """Not more than so many frames in a second: the socket is read more slowly, nothing is dropped."""
        if (early := self._turn_ends - self._loop.time()) > 0:
            self._manager.metrics.throttled.inc()
            await asyncio.sleep(early)
        self._turns = self._manager.limits.events_per_second
        self._turn_ends = self._loop.time() + 1

    async def _next(self, session: Session) -> ASGIMessage:
        """The next message, once fewer handlers run. It is read ahead meanwhile, to see the client leave.

        Raises:
            CloseConnection: not one of so many handlers has ended for too long.
        """
        deadline = self._loop.time() + self._manager.limits.send_timeout_seconds
        while session.running >= self._manager.limits.max_pending_handlers:
            if self._loop.time() > deadline:
                raise CloseConnection(1013, "too many handlers are running")
            if len(self._ahead) < _MAX_AHEAD and (message := await self._read_for(_BUSY_SECONDS)) is not None:
                if message["type"] != "websocket.receive":
                    return message
                self._ahead.append(message)
            else:
                await asyncio.sleep(_BUSY_SECONDS)
        return self._ahead.pop(0) if self._ahead else await self._receive()

    async def _read_for(self, seconds: float) -> ASGIMessage | None:
        reading = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((reading,), timeout=seconds)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()

    # --- out ---------------------------------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Bytes that wait for the client to read: those of the frame under way, and the session's."""
        writing = self._writing if self.sending_since else 0
        return writing + (0 if self.session is None else self.session.unread)

    @property
    def unclaimed(self) -> bool:
        """A session was started for this client, which has not got to know it."""
        return self._fresh and not self._answered

    def open(self, answer: Frame, *, fresh: bool) -> None:
        """Answer the register frame. What the session has to say goes out after that."""
        self._fresh = fresh
        self._answer = answer
        self._open = True
        self._woken = False
        self.wake()

    def pass_on(self, remote: Remote) -> None:
        """The session lives in another worker: what that says goes out as it comes."""
        self.session = remote
        self._encode = list
        self._traffic = Traffic()  # the owner counts
        self._open = True
        self._woken = False
        self.wake()

    async def refuse(self, message: str, seconds: float) -> None:
        """Answer the register frame with what the user may read of why there is no session, for so long."""
        with suppress(TimeoutError, OSError):
            await self._write([self._generation.refuse(message)])
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] == "websocket.receive":
                    pass

    def wake(self) -> None:
        """Something waits in the session's outbox; from any thread."""
        if not self._woken:
            self._woken = True
            if threading.get_ident() == self._loop_thread:
                self._manager.writer.ask(self)
            else:
                self._loop.call_soon_threadsafe(self._manager.writer.ask, self)

    def blocked(self, flusher: asyncio.Task[Any]) -> None:
        """`flusher` waits for the client to read; it ends with the connection at the latest."""
        self._flusher = flusher

    async def flush(self) -> None:
        """Write what waits in the session's outbox; called by the writer only, once after each `wake`."""
        self._woken = False  # before the look: what comes after it wakes again
        session = self.session
        if self.sending_since or not self._open or session is None:
            return  # who is sending looks again afterwards; `open` wakes
        self.sending_since = self._loop.time()
        try:
            if self._answer is not None:
                answer, self._answer = self._answer, None
                await self._write([answer])
                self._answered = True
            while session.waiting and not self._cut and not self._done.done():
                await self._write(self._encode(session.take()))
        except (Exception, asyncio.CancelledError):  # noqa: BLE001  each server has its own way to say it
            self._end(CloseConnection(1006, "cannot send"))
        finally:
            self._flusher = None
            self.sending_since = 0.0

    async def _write(self, frames: list[Frame]) -> None:
        send, traffic = self._send, self._traffic
        for frame in frames:
            self._writing = size = len(frame) if isinstance(frame, bytes) or frame.isascii() else len(_utf8(frame))
            await send({"type": "websocket.send", "text" if type(frame) is str else "bytes": frame})
            traffic.frames_sent += 1
            traffic.sent_bytes += size

    # --- the end -----------------------------------------------------------------------------------------------------

    @property
    def pings(self) -> bool:
        """Whether the server offers a ping."""
        return "roost.websocket.ping" in (self.scope.get("extensions") or ())

    def ping(self) -> Awaitable[bool] | None:
        """Whether a websocket pong has come, once it has or never will; None if the server offers no ping.

        Of the servers that we know only Roost's does: ASGI has no word for it.
        """
        offer = (self.scope.get("extensions") or {}).get("roost.websocket.ping")
        return None if offer is None else offer["ping"]()

    def cut(self, code: int, reason: str) -> None:
        """End the connection soon, writing nothing more; from any thread."""
        if not self._cut:
            self._cut = True
            self._loop.call_soon_threadsafe(self._end, CloseConnection(code, reason))

    @property
    def is_cut(self) -> bool:
        """Whether it ends soon."""
        return self._cut

    def fail(self, error: CloseConnection) -> None:
        """The client has broken the protocol."""
        if isinstance(error, InvalidFrame):
            self._manager.metrics.invalid_frames.labels(error.kind).inc()
        self._end(error)

    def _end(self, ending: CloseConnection) -> None:
        if not self._done.done():
            self._done.set_result(ending)

    async def _close(self, ending: CloseConnection) -> None:
        self._manager.metrics.connections_closed.labels(ending.code).inc()
        await self._say_goodbye(ending)

    async def _say_goodbye(self, ending: CloseConnection) -> None:
        """Tell the client why it ends, if it still listens."""
        if ending.code != 1006:
            with suppress(Exception):
                message = {"type": "websocket.close", "code": ending.code, "reason": ending.reason}
                await asyncio.wait_for(self._send(message), _GOODBYE_SECONDS)

    def let_go(self) -> None:
        """End what still reads and writes, and detach the session."""
        reader, flusher, session = self._reader, self._flusher, self.session
        self._reader = self.session = None
        if self._deadline is not None:
            self._deadline.cancel()
        if session is not None:
            session.detach(self)
        for task in (reader, flusher):
            if task is not None and task is not asyncio.current_task(self._loop):
                task.cancel()


class RelayedConnection(Connection):
    """A websocket that another worker has, which has accepted it and will close it, and counts it."""

    __slots__ = ()

    async def _accept(self) -> None:
        pass

    async def register(self) -> Register | None:
        traffic, self._traffic = self._traffic, Traffic()  # the other worker has read it, and counted it
        try:
            return await super().register()
        finally:
            self._traffic = traffic

    async def _close(self, ending: CloseConnection) -> None:
        await self._say_goodbye(ending)


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
