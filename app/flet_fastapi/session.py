"""One user's running app: it outlives the connections over which the user sees it."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextvars import Context
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Protocol

from .errors import Disconnected, SessionClosed
from .generations.base import Call, Frame, Handler, Outgoing, Register, SessionPage
from .identity import new_ids, short_hash
from .logs import get_logger
from .suspended import begin
from .tasks import Tasks

if TYPE_CHECKING:
    from .cluster.relay import Relayed
    from .manager import AppManager

log = get_logger(__name__)

# Calls to an absent browser that wait for its return: an app makes a few (open a URL, read the clipboard), a runaway
# loop makes thousands.
_MAX_KEPT = 100
# A handler that never ends must not keep a closed session alive.
_CLOSE_SECONDS = 10
# Tracebacks are long; an app that fails at every event of a drag must not fill the disk.
_MAX_TRACEBACKS = 50
_PROBE_SECONDS = 2.0
# Who still sends after so many times that is there.
_PROBES = 3
# Refusals that honest clients cause too.
_SILENT = frozenset({"event_unheard", "client_error"})


class Attached(Protocol):
    """The connection of a session."""

    def wake(self) -> None:
        """Something waits in the outbox; from any thread."""

    def cut(self, code: int, reason: str) -> None:
        """End the connection soon; from any thread."""

    def ping(self) -> Awaitable[bool] | None:
        """Whether a websocket pong has come, once it has or never will; None if the server offers no ping."""


class Services(Protocol):
    """What the session's app offers beside the page: uploads and sign-in."""

    def upload_url(self, session: Session, file_name: str, expires_seconds: int) -> str: ...

    def begin_login(self, session: Session, attributes: Mapping[str, str]) -> None: ...

    async def serve_relayed(self, relayed: Relayed) -> None: ...


class Session:
    """A page, the user's running code, and what waits for the browser.

    Three names that are never mixed: `secret_id` is inside the credential that the browser keeps, `public_id` is
    `page.session_id` and opens nothing, `key` binds uploads and sign-ins.
    """

    __slots__ = (
        "_crashed", "_expiry", "_left", "_loop", "_loop_thread", "_lock", "_manager", "_outbox", "_outbox_bytes",
        "_outbox_largest", "_refused", "_running", "_tasks", "_tracebacks", "app", "browser", "closed",
        "connection", "ending", "heard", "issued_cookie", "key", "page", "public_id", "secret_id", "services",
        "started", "timeout_seconds", "upload_path", "__weakref__",
    )  # fmt: skip

    page: SessionPage
    upload_path: str | None

    def __init__(self, manager: AppManager, app: str, services: Services, timeout_seconds: int) -> None:
        self.app = app
        self.secret_id, self.public_id, self.key = new_ids(3)
        self.browser: str | None = None
        self.issued_cookie: str | None = None
        self.timeout_seconds = timeout_seconds
        self.connection: Attached | None = None
        self.closed = self.ending = False
        self.heard = 0
        self.started = time.monotonic()
        self._left = self.started
        self._manager = manager
        self.services = services
        self._loop = manager.loop
        self._loop_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._outbox: list[Outgoing] = []
        self._outbox_bytes = self._outbox_largest = 0
        self._tasks = Tasks(manager.loop)
        self._running = 0
        self._refused: set[str] = set()
        self._tracebacks = 0
        self._crashed = False
        self._expiry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Session({short_hash(self.secret_id)})"

    # --- the browser's side: connections come and go -----------------------------------------------------------------

    @property
    def crashed(self) -> bool:
        """The user's `main` failed: nothing is there to come back to."""
        return self._crashed

    def attach(self, connection: Attached) -> None:
        """From now on `connection` carries what the page has to say."""
        if self.connection is not None:
            self.connection.cut(1008, "the session was resumed elsewhere")
            self.detach(self.connection)
        self.connection = connection
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._manager.attached(self)

    async def resume(self, connection: Attached, register: Register, credential: str) -> Frame:
        """Give a new connection the whole current tree, and what was kept for it.

        Raises:
            SessionClosed: the session ends or has ended.
        """
        answers: list[Frame] = []

        def attach(answer: Frame) -> None:
            if self.ending:
                raise SessionClosed("the session ends")
            answers.append(answer)
            self._drop_updates()
            self.attach(connection)
            self._count_absence()

        await self.page.resume(register, credential, attach)
        self._start(self.page.connected(register), "on_connect")
        return answers[0]

    def _count_absence(self) -> None:
        self._manager.metrics.session_dark_seconds.observe(time.monotonic() - self._left)

    def detach(self, connection: Attached) -> None:
        """The connection has ended. The session waits for another one, until it expires."""
        if self.connection is not connection:
            return
        self.connection = None
        self._left = time.monotonic()
        if self.ending:
            return
        self._drop_updates()
        self._expiry = self._loop.call_later(self.timeout_seconds, self._expire)
        self._manager.detached(self)
        if (goodbye := self.page.disconnected()) is not None:
            self._start(goodbye, "on_disconnect")

    async def answers(self) -> bool:
        """Whether a browser is at the other end of the session's connection: it answers a probe within 2 seconds.

        A websocket ping asks the browser itself. Where the server offers none, a method call asks Flet's client in it.
        The answer comes after all that the browser has sent before. While that is handled it has longer; and what is
        handled may be from a browser that has left since, so by itself it is no answer.
        """
        connection = self.connection
        if connection is None:
            return False
        answer = asyncio.ensure_future(connection.ping() or self.page.probe())
        try:
            for _ in range(_PROBES):
                heard, deadline = self.heard, self._loop.time() + _PROBE_SECONDS
                while self._loop.time() < deadline:
                    if self.connection is not connection:
                        return False
                    if answer.done() and answer.result():
                        return True
                    await asyncio.sleep(0.02)
                if self.heard == heard:
                    return False
            return True
        finally:
            answer.cancel()

    def _expire(self) -> None:
        self._expiry = None
        self._manager.end(self, "expired")

    # --- what waits for the browser ----------------------------------------------------------------------------------

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Queue messages for the browser; from any thread."""
        connection = self.connection
        if connection is None:
            return self._keep(messages)
        size = 0
        for message in messages:
            size += len(message.body)
        limit = self._manager.limits.send_queue_size
        with self._lock:
            self._outbox.extend(messages)
            self._outbox_bytes += size
            if size > limit and size > self._outbox_largest:
                self._outbox_largest = size
            # One update may be as large as the app makes it: cut for that, its client would be cut at each such update,
            # however fast it reads.
            full = self._outbox_bytes - self._outbox_largest > limit
        if full:
            self._drop_updates()  # the next connection gets them with the tree
            self._manager.metrics.send_queue_drops.inc()
            connection.cut(1013, "the client reads too slowly")
        else:
            connection.wake()

    def _keep(self, messages: Sequence[Outgoing]) -> None:
        if self.closed:
            return
        kept = [message for message in messages if message.keep]
        size = sum(len(message.body) for message in kept)
        with self._lock:
            count, total = len(self._outbox) + len(kept), self._outbox_bytes + size
            full = bool(kept) and (count > _MAX_KEPT or total > self._manager.limits.send_queue_size)
            if not full:
                self._outbox += kept
                self._outbox_bytes = total
        if full:
            raise Disconnected("the browser is away, and too many calls wait for its return already")

    def take(self) -> list[Outgoing]:
        """All that waits, in order; on the loop's thread."""
        with self._lock:
            waiting = self._outbox
            self._outbox = []
            self._outbox_bytes = self._outbox_largest = 0
        return waiting

    @property
    def unread(self) -> int:
        """Bytes that wait to be written."""
        return self._outbox_bytes

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._outbox)

    def _drop_updates(self) -> None:
        # the tree that a resume delivers holds them
        with self._lock:
            self._outbox = [message for message in self._outbox if message.keep][:_MAX_KEPT]
            sizes = [len(message.body) for message in self._outbox]
            self._outbox_bytes, self._outbox_largest = sum(sizes), max(sizes, default=0)

    # --- the user's code ---------------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the session lives on."""
        return self._loop

    @property
    def executor(self) -> Executor:
        """The pool that plain functions of the user's code run in."""
        return self._manager.executor

    @property
    def running(self) -> int:
        """How many handlers of the user run."""
        return self._running

    def begin(self, main: Handler) -> None:
        """Start the app."""
        self._start(self._main(main), "main")

    def step(self, function: Handler, *args: Any) -> Awaitable[None] | None:
        """Run the user's handler in the current task up to its first wait: what is left of it, or None.

        What is left must be awaited in the same task.
        """
        try:
            return begin(self._guarded(function, args), self.page.context.copy())
        except (asyncio.CancelledError, GeneratorExit):
            return None

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The task now runs the user's code, and ends with the session."""
        self._tasks.add(task)

    def run(self, function: Handler, *args: Any) -> None:
        """Run the user's function in the background, a little later; from any thread."""
        if not self.closed:
            self._loop.call_soon_threadsafe(self._run, function, args)

    def _run(self, function: Handler, args: tuple[Any, ...]) -> None:
        self._start(self._guarded(function, args), "handler")

    def in_turn(self, function: Handler) -> Callable[..., None]:
        """What runs the user's function in the background whenever it is called, from any thread.

        A plain one runs for one call after the other: in threads of their own the calls would overtake each other, and
        those of one that is slow would take all threads of the pool.
        """
        return partial(self.run, function) if is_async(function) else partial(self._queue, function, deque())

    def _queue(self, function: Handler, waiting: deque[tuple[Any, ...]], *args: Any) -> None:
        if not self.closed:
            self._loop.call_soon_threadsafe(self._enqueue, function, waiting, args)

    def _enqueue(self, function: Handler, waiting: deque[tuple[Any, ...]], args: tuple[Any, ...]) -> None:
        waiting.append(args)
        if len(waiting) == 1:
            self._start(self._one_by_one(function, waiting), "handler")

    async def _one_by_one(self, function: Handler, waiting: deque[tuple[Any, ...]]) -> None:
        try:
            while waiting:
                await self._guarded(function, waiting[0])
                waiting.popleft()
        finally:
            waiting.clear()

    def run_task(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Future[Any]:
        """Run the user's coroutine function in the background; from any thread."""
        if self.closed:
            raise SessionClosed("the session has ended")
        if not is_async(function):
            raise TypeError("run_task takes a coroutine function; run_thread takes a plain one")
        coroutine = self._adopted(function)
        context = self.page.context.copy()
        return context.run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    async def call(self, function: Handler, *args: Any) -> None:
        """Run the user's function; its failure is reported."""
        await self._guarded(function, args)

    def _start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        if self.closed:
            coroutine.close()
        else:
            self._tasks.start(coroutine, name, context=self.page.context.copy())

    async def _main(self, main: Handler) -> None:
        try:
            await self._invoke(main, (self.page.argument,))
        except BaseException as error:
            if self._asked_to_end(error):
                raise
            self._crash(error)

    async def _guarded(self, function: Handler, args: tuple[Any, ...]) -> None:
        self._running += 1
        try:
            await self._invoke(function, args)
        except BaseException as error:
            if self._asked_to_end(error):
                raise
            self._failed("handler", error)
        finally:
            self._running -= 1

    async def _adopted(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        if (task := asyncio.current_task()) is not None:
            self.adopt(task)
        try:
            return await function()
        except BaseException as error:
            if self._asked_to_end(error):
                raise
            self._failed("task", error)
            if isinstance(error, Exception | asyncio.CancelledError):
                raise
            # asyncio would end the server for a SystemExit
            raise RuntimeError(f"{type(error).__name__} in a task") from error

    async def _invoke(self, function: Handler, args: tuple[Any, ...]) -> None:
        if is_async(function):
            await function(*args)
            return
        context = self.page.context.copy()
        await self._loop.run_in_executor(self.executor, partial(_in_thread, context, function, args))

    def _asked_to_end(self, error: BaseException) -> bool:
        """Whether `error` says that the task or the server is to end; what else the user's code raises is a failure.

        A cancellation that nobody has asked this task for comes from something else that the code awaited.
        """
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            task = asyncio.current_task(self._loop)
            return task is None or task.cancelling() > 0
        if isinstance(error, KeyboardInterrupt):
            # servers have a handler of their own for Ctrl-C, which raises nothing
            return signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return False

    # --- reports -----------------------------------------------------------------------------------------------------

    def refused(self, kind: str) -> None:
        """The client tried what the page does not offer: counted, and logged once per session and kind."""
        self._manager.metrics.refused.labels(kind).inc()
        if kind not in self._refused and kind not in _SILENT:
            self._refused.add(kind)
            log.info("refused", kind=kind, session=short_hash(self.secret_id))

    def _failed(self, where: str, error: BaseException) -> None:
        if self.closed:
            return  # the page is gone: whatever the handler still tries fails
        if not self.page.is_users(error):
            return self.refused("event_data")
        message = self._report(where, error)
        # To cancel what a handler waits for is a common way to debounce: the log says so, the user need not know.
        if not isinstance(error, asyncio.CancelledError):
            self._show(error, self.page.notify, message)

    def _crash(self, error: BaseException) -> None:
        if self.closed:
            return
        self._crashed = True
        message = self._report("main", error)
        self._show(error, self.page.crash, message)

    def _show(self, error: BaseException, show: Callable[[str], None], message: str) -> None:
        """Leave it to the app's own error handler, or tell the user."""
        handler = self.page.error_handler(_text(error))
        if handler is None:
            self._tell(show, message)
        else:
            self._start(self._handle_error(handler, show, message), "on_error")

    async def _handle_error(self, handler: Call, show: Callable[[str], None], message: str) -> None:
        # not as other handlers: its own failure must not call it again
        try:
            await self._invoke(handler[0], handler[1:])
        except BaseException as error:
            if self._asked_to_end(error):
                raise
            self._report("on_error", error)
            self._tell(show, message)

    def _tell(self, show: Callable[[str], None], message: str) -> None:
        try:
            show(message)
        except Exception:  # it is the user's code again: a control that cannot be updated, say
            log.exception("error_not_shown", session=short_hash(self.secret_id))

    def _report(self, where: str, error: BaseException) -> str:
        """Log an exception of the user's code; what the user's user may read of it."""
        error_id = secrets.token_hex(4)
        self._manager.metrics.errors.labels(where).inc()
        self._tracebacks += 1
        log.error(
            "app_error",
            error_id=error_id,
            where=where,
            session=short_hash(self.secret_id),
            exc_info=error if self._tracebacks <= _MAX_TRACEBACKS else None,
        )
        if self._manager.limits.debug:
            return f"Error {error_id}\n" + "".join(traceback.format_exception(error))
        return f"Something went wrong. If you report this, please tell the error id {error_id}."

    # --- services and the end ----------------------------------------------------------------------------------------

    def upload_url(self, file_name: str, expires_seconds: int) -> str:
        """A signed URL for one upload; from any thread."""
        return self.services.upload_url(self, file_name, expires_seconds)

    def begin_login(self, attributes: Mapping[str, str]) -> None:
        """Remember a sign-in that the page has started; from any thread."""
        self.services.begin_login(self, attributes)

    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        """A sign-in of this session came back: keys `state`, `code`, `error`, `error_description`."""
        self._start(self.page.authorize(answer), "authorize")

    async def close(self) -> None:
        """End the session: `on_close`, then its tasks, then its page."""
        if self.closed:
            return
        self.ending = True
        if self._expiry is not None:
            self._expiry.cancel()
        last_words = asyncio.Task(self.page.closing(), context=self.page.context.copy(), name="on_close")
        try:
            await asyncio.wait_for(last_words, _CLOSE_SECONDS)
        except TimeoutError:
            log.warning("on_close_timeout", session=short_hash(self.secret_id))
        finally:
            self.closed = True
            self._outbox.clear()
            await self._tasks.stop()
            self.page.dispose()


def _in_thread(context: Context, function: Handler, args: tuple[Any, ...]) -> None:
    try:
        context.run(function, *args)
    except (StopIteration, GeneratorExit, KeyboardInterrupt) as error:
        # a future cannot carry the first two, and the third is no Ctrl-C: that comes to the main thread
        raise RuntimeError(f"{type(error).__name__} in a plain function") from error


def _text(error: BaseException) -> str:
    """What the exception says, if it can say it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  the user's class
        return type(error).__name__


def is_async(function: Handler) -> bool:
    """Whether calling `function` gives a coroutine."""
    plain = function.__func__ if type(function) is MethodType else function
    if type(plain) is FunctionType:
        return bool(plain.__code__.co_flags & inspect.CO_COROUTINE) or inspect.iscoroutinefunction(plain)
    while isinstance(plain, partial):
        plain = plain.func
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(type(plain).__call__)
