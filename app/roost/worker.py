"""A worker process: uvicorn in gunicorn's care, with a slot, and what it says of itself on the internal listener."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from uvicorn.lifespan.on import LifespanOn
from uvicorn_worker import UvicornWorker

from flet_fastapi import checks
from flet_fastapi.errors import OptionError
from flet_fastapi.logs import get_logger
from flet_fastapi.manager import app_manager
from flet_fastapi.tasks import Tasks

from . import asgi, logs, metrics
from .access import AccessLog
from .admission import Admission
from .health import Door, Health, Internal
from .lobby import Lobby
from .process import largest_frame, tune

log = get_logger(__name__)

_HEARTBEAT_SECONDS = 1.0
# How soon the others learn that this worker has started.
_START_LOOK_SECONDS = 0.05
# Of the time for a stop, this much is left for the app's own shutdown when requests have taken the rest.
_LAST_SECONDS = 5
_DRAIN_LOOK_SECONDS = 0.25
# The master wants a sign of life; where a blocked worker is, a few lines of its stack say.
_STACK_LINES = 8
# The master kills a second after it has asked.
_FLUSH_SECONDS = 0.5


class StartFailed(Exception):
    """The app did not start; the text says why, in one line."""


class Lifespan(LifespanOn):
    """uvicorn's, whose failures are one line for whoever starts the server, and whose end has a deadline."""

    deadline: float | None = None
    _problem = ""

    async def startup(self) -> None:
        """Start the app.

        Raises:
            StartFailed: it said why it cannot start.
        """
        self._running = asyncio.create_task(self.main(), name="lifespan")
        await self.receive_queue.put({"type": "lifespan.startup"})
        await self.startup_event.wait()
        if self.startup_failed:
            raise StartFailed(self._problem)

    async def send(self, message: Any) -> None:
        if message["type"] == "lifespan.startup.failed":
            lines = str(message.pop("message", "")).strip().splitlines()
            self._problem = logs.masked(lines[-1]) if lines else "its lifespan failed"
            log.debug("app_start_failed", traceback=lines)
        await super().send(message)

    async def shutdown(self) -> None:
        try:
            async with asyncio.timeout_at(self.deadline):
                await super().shutdown()
        except TimeoutError:
            log.error("app_shutdown_cut", hint="the app's own shutdown took longer than ROOST_GRACEFUL_TIMEOUT")


class Server(uvicorn.Server):
    """uvicorn's server, which leaves the process alone, and can wait for its users before it stops.

    `drain` is awaited when no new connections are taken any more and those that are there still live. `hurried` is set
    as soon as there is no time for that.
    """

    lifespan: Lifespan

    def __init__(self, config: uvicorn.Config, drain: Callable[[Server], Awaitable[None]], seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self.hurried = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._drain(self)
        self.lifespan.deadline = asyncio.get_running_loop().time() + self._seconds
        # the listeners are closed already; uvicorn would close descriptors that may be somebody else's by now
        await super().shutdown(None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: after the users by SIGHUP, without waiting even for requests by SIGQUIT and a second SIGINT."""
        self.force_exit = self.force_exit or sig == signal.SIGQUIT or (self.should_exit and sig == signal.SIGINT)
        self.hurried = self.hurried or sig != signal.SIGHUP
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own ends the process by the signal that it got, before gunicorn's hooks and atexit run."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, self.handle_exit)
        yield


class Worker(UvicornWorker):  # type: ignore[misc]
    """gunicorn's worker class. The master gives it `slot` before the process is forked."""

    slot: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.settings = settings = args[3].settings
        self.CONFIG_KWARGS = {
            "loop": "uvloop",
            "http": "httptools",
            "ws": "roost.websockets:WebSocketProtocol",
            "ws_max_size": largest_frame(),
            "ws_ping_interval": settings.ws_ping_interval,
            "ws_ping_timeout": settings.ws_ping_timeout,
            "root_path": settings.root_path,
            "proxy_headers": False,
            "server_header": False,
            "access_log": False,
            # we tell the master that we live ourselves, also while the app starts and while it stops
            "callback_notify": None,
            "timeout_graceful_shutdown": max(1, settings.graceful_timeout - _LAST_SECONDS),
        }
        super().__init__(*args, **kwargs)

    # --- the start ---------------------------------------------------------------------------------------------------

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGABRT, self._say_where)

    def load_wsgi(self) -> None:
        settings = self.settings
        self.began = time.monotonic()
        self.slot_port = None if settings.slot_port is None else settings.slot_port + self.slot
        self.health = Health(self.slot, self.app.board, settings.slot_port, parts=lambda: checks.look(app_manager))
        self.door = Door(settings.internal_token)
        self.public, self.internal = (listener.sock for listener in self.sockets)
        logs.configure(settings, self.slot)
        metrics.begin_worker(self.slot)
        with Lobby(self.internal, self.health, self.door):
            try:
                app = self.app.load()
            except OptionError as error:
                log.debug("app_load_failed", exc_info=True)
                self._give_up(str(error))
        self.wsgi = asgi.compose(app, settings, self.slot_port)
        tune()

    def _give_up(self, problem: str) -> NoReturn:
        """End before the app has started. The master says why; gunicorn would log any other exit code as an error."""
        self.app.failures.tell(self.slot, problem)
        sys.exit(0)

    def _say_where(self, _: int, frame: FrameType | None) -> None:
        """The master has not heard of us for too long: SIGABRT, and SIGKILL if this does not end us."""
        stack = traceback.format_stack(frame)[-_STACK_LINES:]
        where = [" ".join(line.split()) for line in stack]
        if self.health.loaded:
            log.critical("worker_blocked", seconds=self.settings.worker_timeout, stack=where)
            logs.flush(_FLUSH_SECONDS)
            os._exit(1)
        else:
            seconds, place = self.settings.start_timeout, "in its lifespan" if self.booted else f"at {where[-1]}"
            self.app.failures.tell(
                self.slot, f"the app has not started in {seconds} seconds (ROOST_START_TIMEOUT), it is {place}"
            )
            os._exit(0)

    # --- the life ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.load()
        self.config.lifespan_class = Lifespan
        server = Server(self.config, self._drained, self.settings.graceful_timeout - 1)
        self.tasks = Tasks()
        try:
            async with self._internal_server(server):
                self.tasks.start(self._beat(server), "heartbeat")
                self.tasks.start(Admission(self.settings, self.health, app_manager).watch(), "watch_admission")
                own = self._slot_listener()
                _keep_from_children(self.public, self.internal, *own)
                await server.serve(sockets=[self.public, *own])
        except StartFailed as failure:
            self._give_up(f"{self.settings.app} did not start: {failure}")
        finally:
            await self.tasks.stop()

    async def _beat(self, server: Server) -> None:
        """Tell the master that the event loop turns, and everybody what this worker can do."""
        beaten = 0.0
        while True:
            if server.started and not self.health.loaded:
                log.info("worker_ready", slot_port=self.slot_port, seconds=round(time.monotonic() - self.began, 2))
                self.health.loaded = True
            if time.monotonic() - beaten >= _HEARTBEAT_SECONDS:
                beaten = time.monotonic()
                self.notify()
                if os.getppid() != self.ppid:
                    log.critical("master_gone")
                    server.handle_exit(signal.SIGTERM, None)
            self.app.board[self.slot] = self.health.state
            await asyncio.sleep(_HEARTBEAT_SECONDS if server.started else _START_LOOK_SECONDS)

    def _slot_listener(self) -> list[socket.socket]:
        if self.slot_port is None:
            return []
        try:
            return [_listener_above(self.settings.host, self.slot_port, self.public.fileno())]
        except OSError as error:
            raise StartFailed(f"port {self.slot_port} (ROOST_SLOT_PORT) cannot be had: {error.strerror}") from None

    @asynccontextmanager
    async def _internal_server(self, server: Server) -> AsyncIterator[None]:
        """The internal listener answers before the app has started, and until it has stopped."""
        app = AccessLog(Internal(self.health, self.door, metrics.exposition), self.settings)
        config = uvicorn.Config(
            app, loop="none", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False,
        )  # fmt: skip
        config.load()
        internal = uvicorn.Server(config)
        internal.lifespan = config.lifespan_class(config)
        internal.servers = []
        self._internal = internal
        opening = self.tasks.start(self._open_internal(internal, server), "open_internal_listener")
        try:
            yield
        finally:
            opening.cancel()
            self._close_internal()

    async def _open_internal(self, internal: uvicorn.Server, server: Server) -> None:
        # as long as a sibling serves, it has more to say than a worker that starts
        while self._others_serve() and not server.started:
            await asyncio.sleep(_START_LOOK_SECONDS)
        await internal.startup(sockets=[self.internal])

    def _close_internal(self) -> None:
        for listening in self._internal.servers:
            listening.close()
        for connection in list(self._internal.server_state.connections):
            connection.shutdown()

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _drained(self, server: Server) -> None:
        """Let users finish, as long as that is of use to them: if there is time, and others serve meanwhile."""
        self.health.draining = True
        app_manager.refusing = "draining"
        self.app.board[self.slot] = self.health.state
        log.info("worker_draining", hurried=server.hurried, sessions=_sessions())
        latest = time.monotonic() + self.settings.graceful_timeout
        while not server.hurried and _sessions() and time.monotonic() < latest and self._others_serve():
            self._close_internal()  # they have more to say
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)

    def _others_serve(self) -> bool:
        return self.health.board.serving(besides=self.slot) > 0


def _sessions() -> int:
    return sum(1 for _ in app_manager.sessions())


def _keep_from_children(*listeners: socket.socket) -> None:
    """A process that the app forks may outlive this one, and would keep its ports from the worker that comes after."""

    def close() -> None:
        for listener in listeners:
            if listener.fileno() >= 0:
                os.close(listener.fileno())  # the event loop keeps the object itself from closing it

    os.register_at_fork(after_in_child=close)


def _listener_above(host: str, port: int, descriptor: int) -> socket.socket:
    """A listener at `port` with a higher descriptor than `descriptor`.

    The library tells servers apart by the lowest one, which has to be that of the listener that all workers share.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as made:
        return socket.socket(fileno=fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, descriptor + 1))
