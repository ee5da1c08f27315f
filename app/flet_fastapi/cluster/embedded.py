"""The cluster of one host: keys and the directory of workers in an SQLite file that all its workers open.

SQLite's write-ahead log survives SIGKILL of any worker (https://sqlite.org/wal.html); after a power cut the last
commits may be missing, which the users of these keys can bear.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from .base import Cluster, ClusterUnavailable, WorkerInfo

T = TypeVar("T")
_Work = Callable[[sqlite3.Connection], T]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_by_expiry ON keys (expires);
CREATE TABLE IF NOT EXISTS workers (
    id TEXT PRIMARY KEY, address TEXT NOT NULL, node TEXT NOT NULL, slot INTEGER, started REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
"""
# Another worker's commit takes a millisecond; one that holds the lock for seconds sits on a dying disk.
_LOCK_SECONDS = 5.0
_SWEEP_SECONDS = 60.0
# A sweep holds the write lock, so it takes small bites: the rest goes with the next one.
_SWEEP_ROWS = 1000


class EmbeddedCluster(Cluster):
    """Keys in the SQLite file at `path`, mode 0600; all file work is done in one thread of its own.

    The file and its folder are made with the first operation, and again if somebody removed them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flet-cluster")
        self._store = _Store(path)

    async def put(self, key: str, value: bytes, ttl_seconds: float) -> None:
        await self._run(lambda db: _put(db, key, value, ttl_seconds))

    async def get(self, key: str) -> bytes | None:
        return await self._run(lambda db: _get(db, key))

    async def take(self, key: str) -> bytes | None:
        return await self._run(lambda db: _take(db, key))

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        return await self._run(lambda db: _add(db, key, value, ttl_seconds))

    async def swap(self, key: str, expected: bytes, value: bytes, ttl_seconds: float) -> bool:
        return await self._run(lambda db: _swap(db, key, expected, value, ttl_seconds))

    async def delete(self, key: str, expected: bytes | None = None) -> bool:
        return await self._run(lambda db: _delete(db, key, expected))

    async def increase(self, key: str, amount: int, ttl_seconds: float) -> int:
        return await self._run(lambda db: _increase(db, key, amount, ttl_seconds))

    async def announce(self, worker: WorkerInfo, ttl_seconds: float) -> bool:
        return await self._run(lambda db: _announce(db, worker, ttl_seconds))

    async def withdraw(self, worker_id: str) -> None:
        await self._run(lambda db: _withdraw(db, worker_id))

    async def workers(self) -> list[WorkerInfo]:
        return await self._run(_workers)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: _Work[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._store.run, work)


class _Store:
    """The open file; used by one thread only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._swept = 0.0

    def run(self, work: _Work[T]) -> T:
        try:
            db = self._opened()
            self._sweep(db)
            return work(db)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        if self._db is not None:
            # the last one out folds the log into the file, which a full disk may forbid
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        # A cleaner of /tmp may remove the file under us; the workers would then no longer see the same keys.
        if self._db is not None and _identity(self._path) != self._file:
            # SQLite sees that its file is gone and leaves the log alone, which by then may be the new file's
            # (databaseIsUnmoved in its pager.c).
            self.close()
        if self._db is None:
            _prepare(self._path)
            self._db = _connect(self._path)
            self._file = _identity(self._path)
        return self._db

    def _sweep(self, db: sqlite3.Connection) -> None:
        if time.monotonic() - self._swept < _SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        with suppress(sqlite3.OperationalError):  # a full disk is no reason to fail a read
            db.execute(
                "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE expires <= ? LIMIT ?)",
                (time.time(), _SWEEP_ROWS),
            )

    def _unavailable(self, error: Exception) -> ClusterUnavailable:
        self.close()  # what went wrong may be the connection itself; the next call opens the file anew
        full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        )
        return ClusterUnavailable(str(self._path), str(error), full=full)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _prepare(path: Path) -> None:
    """Make the file before SQLite does, so that nobody else can read it; the log gets the same mode.

    Raises:
        PermissionError: the file belongs to somebody else or is none.
    """
    # not `parents=True`, which leaves those above to the umask: the run directory's base may be among them
    for folder in reversed([folder for folder in path.parents if not folder.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(f"{path} must be a file of this user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
    try:
        _switch_to_log(db)
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _switch_to_log(db: sqlite3.Connection) -> None:
    """Workers that start at once exclude each other here, and SQLite does not wait for this lock by itself."""
    deadline = time.monotonic() + _LOCK_SECONDS
    pause = threading.Event()
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            pause.wait(0.01)


def _put(db: sqlite3.Connection, key: str, value: bytes, ttl: float) -> None:
    db.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", (key, value, time.time() + ttl))


def _get(db: sqlite3.Connection, key: str) -> bytes | None:
    row = db.execute("SELECT value FROM keys WHERE key = ? AND expires > ?", (key, time.time())).fetchone()
    return None if row is None else bytes(row[0])


def _take(db: sqlite3.Connection, key: str) -> bytes | None:
    # fetchall: a statement that is not read to its end has not been committed
    rows = db.execute("DELETE FROM keys WHERE key = ? RETURNING value, expires > ?", (key, time.time())).fetchall()
    return bytes(rows[0][0]) if rows and rows[0][1] else None


def _add(db: sqlite3.Connection, key: str, value: bytes, ttl: float) -> bool:
    now = time.time()
    changed = db.execute(
        "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE"
        " SET value = excluded.value, expires = excluded.expires WHERE keys.expires <= ?",
        (key, value, now + ttl, now),
    )
    return changed.rowcount == 1


def _swap(db: sqlite3.Connection, key: str, expected: bytes, value: bytes, ttl: float) -> bool:
    now = time.time()
    changed = db.execute(
        "UPDATE keys SET value = ?, expires = ? WHERE key = ? AND value = ? AND expires > ?",
        (value, now + ttl, key, expected, now),
    )
    return changed.rowcount == 1


def _delete(db: sqlite3.Connection, key: str, expected: bytes | None) -> bool:
    changed = db.execute(
        "DELETE FROM keys WHERE key = ? AND expires > ? AND (? IS NULL OR value = ?)",
        (key, time.time(), expected, expected),
    )
    return changed.rowcount == 1


def _increase(db: sqlite3.Connection, key: str, amount: int, ttl: float) -> int:
    now = time.time()
    rows = db.execute(
        "INSERT INTO keys VALUES (?, CAST(? AS BLOB), ?) ON CONFLICT (key) DO UPDATE SET"
        " value = CAST(CASE WHEN keys.expires <= ? THEN 0 ELSE CAST(keys.value AS INTEGER) END + ? AS BLOB),"
        " expires = excluded.expires RETURNING CAST(value AS INTEGER)",
        (key, str(amount), now + ttl, now, amount),
    ).fetchall()
    return int(rows[0][0])


def _announce(db: sqlite3.Connection, worker: WorkerInfo, ttl: float) -> bool:
    now = time.time()
    with _transaction(db):
        # those that died are few, and nobody else removes them
        db.execute("DELETE FROM workers WHERE expires <= ?", (now,))
        listed = db.execute("SELECT 1 FROM workers WHERE id = ?", (worker.id,)).fetchone() is not None
        values = (worker.id, worker.address, worker.node, worker.slot, worker.started, now + ttl)
        db.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?, ?)", values)
    return listed


def _withdraw(db: sqlite3.Connection, worker_id: str) -> None:
    db.execute("DELETE FROM workers WHERE id = ?", (worker_id,))


def _workers(db: sqlite3.Connection) -> list[WorkerInfo]:
    rows = db.execute(
        "SELECT id, address, node, slot, started FROM workers WHERE expires > ? ORDER BY id", (time.time(),)
    )
    return [WorkerInfo(*row) for row in rows.fetchall()]


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
