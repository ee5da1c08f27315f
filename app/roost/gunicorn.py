"""The master process: gunicorn's, with workers that have slots, and whose failures do not end their siblings."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter as _Arbiter
from gunicorn.errors import HaltServer
from gunicorn.sock import TCP6Socket, TCPSocket
from starlette.types import ASGIApp

from flet_fastapi.errors import OptionError
from flet_fastapi.logs import get_logger

from . import metrics
from .board import SERVING, Board, State
from .loader import folder_of, load
from .settings import Settings

log = get_logger(__name__)

# The exit code if the app could not be started at all.
BOOT_FAILED = 3
# Longer than a proxy keeps its connections to us, so that it is the one to close them.
_KEEP_ALIVE_SECONDS = 75
# Workers that are replaced after so many requests should not be so all at once.
_JITTER = 10
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
# Who dies younger than this has not served.
_YOUNG_SECONDS = 10.0
# A pipe takes so much in one piece (POSIX: PIPE_BUF is 512 at least, on Linux 4096).
_MAX_MESSAGE = 4000
# A worker that got one of these ends because we want it: SIGHUP lets its users finish.
_DISMISSALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
# Below the app's folder, and not the app's.
_FOREIGN = frozenset({"node_modules", "site-packages", "venv"})
_MAX_WATCHED = 5000


class Failures:
    """A pipe through which workers tell the master why they could not start; the first to come is the first read."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._unread: dict[int, str] = {}
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def tell(self, slot: int, message: str) -> None:
        line = f"{slot} {' '.join(message.split())}".encode(errors="replace")[:_MAX_MESSAGE]
        try:
            os.write(self._writer, line + b"\n")
        except OSError:  # nobody has read for long
            log.error("worker_start_failed", problem=message)

    def take(self, slot: int) -> str | None:
        """The first message of a slot since the last look, if there is one."""
        text = ""
        try:
            while part := os.read(self._reader, 65536):
                text += part.decode(errors="replace")
        except BlockingIOError:
            pass
        for line in text.splitlines():
            sender, _, message = line.partition(" ")
            self._unread.setdefault(int(sender), message)
        return self._unread.pop(slot, None)


@dataclass
class Wait:
    """How long a slot stays empty after its worker has failed."""

    failures: int = 0
    until: float = 0.0

    def failed(self, *, served: bool) -> float:
        """One more failure; the seconds to wait now. Who had served comes back at once the first time."""
        self.failures += 1
        exponent = self.failures - (2 if served else 1)
        seconds = 0.0 if exponent < 0 else min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**exponent)
        seconds *= random.uniform(0.75, 1.0)  # noqa: S311  slots that fail together should not do so again
        self.until = time.monotonic() + seconds
        return seconds


class Watched:
    """The Python files below a folder, looked at again and again: not every mounted folder tells of its changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._look()

    def changed(self) -> bool:
        """Whether one of them has changed since the last look."""
        before, self._known = self._known, self._look()
        return before != self._known

    def _look(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__")) and name not in _FOREIGN]
            for path in (os.path.join(folder, name) for name in names if name.endswith(".py")):
                with suppress(OSError):
                    found[path] = os.stat(path).st_mtime_ns
            if len(found) > _MAX_WATCHED:
                break
        return found


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn's application object: configuration from our settings, the app from the loader."""

    def __init__(self, settings: Settings, *, reload: bool = False) -> None:
        self.settings = settings
        self.watched = Watched(folder_of(settings.app)) if reload else None
        self.board = Board(settings.worker_count)
        self.failures = Failures()
        super().__init__()

    def load_config(self) -> None:
        for name, value in configuration(self.settings).items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        """The user's app; each worker loads its own.

        Raises:
            AppNotFound: it cannot be loaded.
        """
        return load(self.settings.app)

    def serve(self) -> None:
        """Run until a signal ends it; does not return.

        Raises:
            OptionError: an address or a directory cannot be had.
        """
        metrics.begin(self.settings.metrics_dir)
        Arbiter(self).run()


def configuration(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings, by its names."""
    return {
        "bind": [_address(settings.host, settings.port), _address(settings.internal_host, settings.internal_port)],
        "workers": settings.worker_count,
        "worker_class": "roost.worker.Worker",
        "worker_tmp_dir": memory_directory(),
        "preload_app": False,
        "control_socket_disable": True,
        "timeout": settings.worker_timeout,
        "graceful_timeout": settings.graceful_timeout,
        "keepalive": _KEEP_ALIVE_SECONDS,
        "max_requests": settings.max_requests,
        "max_requests_jitter": settings.max_requests // _JITTER,
        "accesslog": None,
        "loglevel": settings.log_level,
        "logger_class": "roost.logs.GunicornLogger",
        "proc_name": "roost",
        "forwarded_allow_ips": "",
        "pre_fork": lambda arbiter, worker: arbiter.begins(worker),
        "child_exit": lambda arbiter, worker: arbiter.ended(worker),
    }


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def memory_directory() -> str:
    """Where small files that change all the time are: in memory, if the system has such a place."""
    shared = Path("/dev/shm")  # noqa: S108  files there are made by mkstemp
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK | os.X_OK) else tempfile.gettempdir()


class Arbiter(_Arbiter):  # type: ignore[misc]
    """Keeps a worker in each slot.

    While no worker has been ready yet, one that cannot start ends everything, with exit code 3 and one error. Later it
    is tried again, after a while that grows, and its siblings go on.
    """

    # gunicorn halts if any worker ends with these codes, which the app can do at any time: none is like them
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = 256

    def __init__(self, app: Application) -> None:
        self.settings = app.settings
        self.board = app.board
        self.failures = app.failures
        self.watched = app.watched
        self._waits: dict[int, Wait] = {}
        self._next_slot = 0
        self._stopping = False
        self._outdated: list[int] = []
        super().__init__(app)

    def start(self) -> None:
        """Listen, and what gunicorn does else.

        Raises:
            OptionError: an address cannot be had.
        """
        settings = self.settings
        self.LISTENERS = [
            self._listener(settings.host, settings.port, "ROOST_"),
            self._listener(settings.internal_host, settings.internal_port, "ROOST_INTERNAL_"),
        ]
        super().start()

    def _listener(self, host: str, port: int, prefix: str) -> TCPSocket:
        try:
            return (TCP6Socket if ":" in host else TCPSocket)((host, port), self.cfg, self.log)
        except OSError as error:
            foreign = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
            variable = f"{prefix}{'HOST' if foreign else 'PORT'}"
            raise OptionError(variable, f"{_address(host, port)} cannot be had: {error.strerror}") from None

    # --- workers come and go -----------------------------------------------------------------------------------------

    def spawn_workers(self) -> None:
        taken = {worker.slot for worker in self.WORKERS.values()}
        for slot in range(self.num_workers):
            if slot not in taken and self._waits.get(slot, Wait()).until <= time.monotonic():
                self._next_slot = slot
                self.spawn_worker()

    def begins(self, worker: Any) -> None:
        """gunicorn's `pre_fork`."""
        worker.slot = self._next_slot
        worker.began = time.monotonic()
        worker.dismissed = False
        self.board[worker.slot] = State.STARTING

    def ended(self, worker: Any) -> None:
        """gunicorn's `child_exit`."""
        state, self.board[worker.slot] = self.board[worker.slot], State.NONE
        with suppress(OSError):  # somebody may have removed their directory
            metrics.end_worker(worker.slot)
        problem = self.failures.take(worker.slot)
        if self._stopping or worker.dismissed:
            return
        if state is State.STARTING:
            self._not_started(worker, problem or "a worker ended while it started the app: was it killed?")
        elif state in SERVING and time.monotonic() - worker.began < _YOUNG_SECONDS:
            self._wait(worker.slot).failed(served=True)
        else:
            self._waits.pop(worker.slot, None)

    def _not_started(self, worker: Any, problem: str) -> None:
        if not self.board.booted:
            raise HaltServer(problem, BOOT_FAILED)
        seconds = self._wait(worker.slot).failed(served=False)
        log.error("worker_start_failed", slot=worker.slot, problem=problem, next_try_seconds=round(seconds, 1))

    def _wait(self, slot: int) -> Wait:
        return self._waits.setdefault(slot, Wait())

    def manage_workers(self) -> None:
        if self.watched is not None and self.watched.changed():
            log.info("app_changed")
            self._waits.clear()
            self.reload()
        self.board.slots = self.num_workers
        self.spawn_workers()
        for pid, worker in list(self.WORKERS.items()):
            if worker.slot >= self.num_workers and not worker.dismissed:
                self.kill_worker(pid, signal.SIGHUP)
        self._roll()

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig in _DISMISSALS and pid in self.WORKERS:
            self.WORKERS[pid].dismissed = True
        super().kill_worker(pid, sig)

    def murder_workers(self) -> None:
        super().murder_workers()
        for pid, worker in list(self.WORKERS.items()):
            if self.board[worker.slot] is State.STARTING and not worker.dismissed:
                late = time.monotonic() - worker.began - self.settings.start_timeout
                if late > 0:
                    # the first lets it say where it is, the second ends it
                    self.kill_worker(pid, signal.SIGKILL if worker.aborted else signal.SIGABRT)
                    worker.aborted = True

    # --- signals -----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """SIGHUP: replace the workers one after the other, each by one in the same slot."""
        self._outdated = list(self.WORKERS)

    def _roll(self) -> None:
        self._outdated = [pid for pid in self._outdated if pid in self.WORKERS]
        if self._outdated and all(self.board[slot] in SERVING for slot in range(self.num_workers)):
            # who develops does not want to wait for the sessions of the version before
            self.kill_worker(self._outdated.pop(0), signal.SIGHUP if self.watched is None else signal.SIGTERM)

    def handle_usr2(self) -> None:
        """gunicorn would start a second master, which could not have the ports of the slots."""
        log.warning("signal_ignored", signal="USR2")

    def stop(self, graceful: bool = True) -> None:
        self._stopping = True
        super().stop(graceful)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if exit_status == 0:
            super().halt()
        self.stop()
        click.echo(f"roost: {reason}", err=True)
        sys.exit(exit_status)
