"""The way of log lines to stdout: a bounded queue and a thread that writes, so that nobody else waits for a reader."""

from __future__ import annotations

import atexit
import fcntl
import os
import select
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

# Lines that wait for a reader that has stalled: some minutes of a busy worker's, and little of a worker's memory.
_MAX_WAITING = 4 * 1024 * 1024
# Written at once; a pipe holds as much.
_BATCH = 64 * 1024
# How long the end of a process waits for a reader that has stalled.
_FLUSH_SECONDS = 2.0
# How long a writer waits for another process's turn: longer ones mean that it was stopped in the middle of its own.
_TURN_SECONDS = 0.5
_POLL_SECONDS = 0.002
# A process that forks waits for so long at most for its thread to have written.
_FORK_SECONDS = 0.2
# How often the thread looks for what is due while something is.
_TICK_SECONDS = 0.25

_Item = bytes | threading.Event | None


class Outlet:
    """Writes lines to a copy of a file descriptor, in order, from any thread, signal handlers and finalizers included.

    `put` never waits and never raises. Lines for which there is no room, and those that cannot be written, are counted;
    `report(count)` makes the line that tells so as soon as there is room again. `due(False)` is asked for lines that
    time brings, after each line and after `wake`, and until it gives None; `due(True)` for all of them, at the end.
    """

    def __init__(
        self, fd: int, report: Callable[[int], bytes], due: Callable[[bool], list[bytes] | None], *,
        max_waiting: int = _MAX_WAITING,
    ) -> None:  # fmt: skip
        self._fd = _copy(fd)
        self._report = report
        self._due = due
        self._max_waiting = max_waiting
        self._torn = False
        self._closed = False
        self._renew()
        hooks = weakref.WeakMethod(self._pause), weakref.WeakMethod(self._renew)
        os.register_at_fork(before=lambda: _call(hooks[0]), after_in_child=lambda: _call(hooks[1]))
        self._at_exit = weakref.WeakMethod(self.close)
        atexit.register(_call, self._at_exit)

    def _renew(self) -> None:
        """Begin anew; after a fork the parent's thread is not here, and its lines are written there."""
        self._lock = threading.RLock()  # a finalizer may log while its thread logs
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self.dropped = 0  # since the last report
        self.dropped_in_total = 0

    # --- any thread --------------------------------------------------------------------------------------------------

    def put(self, line: bytes) -> None:
        """Write `line` soon."""
        with self._lock:
            if self._waiting + len(line) > self._max_waiting:
                self._drop(1)
                return
            self._waiting += len(line)
            self._queue.put(line)
            self._start()
        if self._closed:
            self._drain()

    def wake(self) -> None:
        """Ask `due` for lines."""
        with self._lock:
            self._queue.put(b"")
            self._start()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Wait until all lines are written that were put before; whether they are."""
        done = threading.Event()
        with self._lock:
            if self._thread is None:
                return True
            self._queue.put(done)
        return done.wait(seconds)

    def redirect(self, fd: int) -> None:
        """Write to `fd` from now on."""
        self.flush()
        with suppress(OSError):
            if self._fd < 0:
                self._fd = _copy(fd)
            else:
                os.dup2(fd, self._fd, inheritable=False)

    def close(self) -> None:
        """Write what waits. Later lines are written by who puts them, if stdout takes them at once."""
        if self._closed:
            return
        self._pause(_FLUSH_SECONDS)
        self._closed = True
        for line in self._due(True) or ():
            self.put(line)
        self._drain()

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, args=(self._queue,), name="log-writer", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends
                self._thread = None
                self._drain()

    def _pause(self, seconds: float = _FORK_SECONDS) -> None:
        """End the thread: a process with one thread forks without danger. The next line starts another."""
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self._queue.put(None)
        if thread is not threading.current_thread():
            thread.join(seconds)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self.dropped_in_total += lines

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self, queue: SimpleQueue[_Item]) -> None:
        try:
            ticking = True
            while self._write_from(queue, self._next(queue, _TICK_SECONDS if ticking else None)):
                ticking = self._tick()
        finally:
            with self._lock:
                self._thread = None
                if not queue.empty():  # put while this was on its way out
                    self._start()

    def _next(self, queue: SimpleQueue[_Item], seconds: float | None) -> _Item:
        try:
            return queue.get(timeout=seconds)
        except Empty:
            return b""

    def _tick(self) -> bool:
        """Write what time has brought; whether there may be more."""
        lines = self._due(False)
        for line in lines or ():
            self._write(line)
        return lines is not None

    def _write_from(self, queue: SimpleQueue[_Item], item: _Item) -> bool:
        """Write `item` and what waits behind it; False if the thread is to end."""
        batch: list[bytes] = []
        size = 0
        while isinstance(item, bytes):
            batch.append(item)
            size += len(item)
            if size >= _BATCH:
                item = b""
                break
            try:
                item = queue.get_nowait()
            except Empty:
                item = b""
                break
        self._write_batch(batch, size)
        if isinstance(item, threading.Event):
            item.set()
        return item is not None

    def _write_batch(self, batch: list[bytes], size: int) -> None:
        lines = sum(map(bool, batch))
        if lines:
            written = self._write(b"".join(batch))
            with self._lock:
                self._waiting -= size
                if not written:
                    self._drop(lines)
                dropped, self.dropped = (self.dropped, 0) if written else (0, self.dropped)
            if dropped and not self._write(self._report(dropped)):
                with self._lock:
                    self.dropped += dropped

    def _drain(self) -> None:
        """Write what waits here and now, if stdout takes it at once."""
        with self._lock:
            while not self._queue.empty() and self._is_writable(0.1):
                self._write_from(self._queue, self._queue.get())

    # --- the descriptor ----------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> bool:
        """Whether `data` was written whole."""
        if self._fd < 0:
            return False
        if self._torn:
            data = b"\n" + data
        rest = memoryview(data)
        locked = self._take_turn()
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # somebody has made the pipe so, for us too
                    self._is_writable(1.0)
        except OSError:  # nobody reads any more, or the disk is full
            self._torn = 0 < len(rest) < len(data) or (self._torn and len(rest) == len(data))
            return False
        finally:
            if locked:
                with suppress(OSError):
                    fcntl.lockf(self._fd, fcntl.LOCK_UN)
        self._torn = False
        return True

    def _take_turn(self) -> bool:
        """Lock stdout, which the workers share: the kernel keeps only writes of up to 4 KiB to a pipe together.

        Locks of records hold between processes, however they came by the pipe, and end with a process.
        """
        waited = 0.0
        while waited < _TURN_SECONDS:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
                # while there is no room, whoever has the turn waits for it
                waited = waited + _POLL_SECONDS if self._is_writable(0) else 0.0
            except OSError:  # whatever stdout is, it has no locks
                return False
            else:
                return True
        return False

    def _is_writable(self, seconds: float) -> bool:
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            return bool(poll.poll(seconds * 1000))
        except OSError:
            return True  # the write says what is wrong


def _call(method: weakref.WeakMethod[Callable[..., None]]) -> None:
    function = method()
    if function is not None:
        function()


def _copy(fd: int) -> int:
    """A descriptor of our own: the app may close its one, and open a database that gets the number."""
    try:
        return os.dup(fd)
    except OSError:  # it is closed: lines are counted as dropped
        return -1
