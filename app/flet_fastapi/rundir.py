"""The private run directory that the workers of one server share without any configuration.

Workers find it by the inode of the listening socket they inherited: parent process ids are shared by unrelated
servers, ports by servers in other network namespaces, a socket's inode by nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_STALE_SECONDS = 24 * 3600


class RunDirectory:
    """A directory of mode 0700 that belongs to this user; `path` is its place.

    Raises:
        PermissionError: somebody else owns the place, or others may enter it.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = _private(base or _default_base())
        inode = listening_inode()
        self.shared = inode is not None
        self.path = _private(self._base / (f"socket-{inode}" if inode is not None else _own_name()))
        self._lock: int | None = _hold(self.path)
        self._key: str | None = None
        _sweep(self._base)

    def key(self) -> str:
        """The secret key that all workers of this server find here; the first one makes it."""
        self._key = self._shared(secrets.token_urlsafe(32))
        return self._key

    def _shared(self, key: str) -> str:
        """The key that is here; `key` if there was none."""
        path = self.path / "secret_key"
        made = self.path / f".{secrets.token_hex(8)}"
        made.touch(mode=0o600, exist_ok=False)
        made.write_text(key)
        with contextlib.suppress(FileExistsError):
            os.link(made, path)  # atomic: one worker wins, the others read what it wrote
        made.unlink()
        return path.read_text()

    def renew(self) -> None:
        """Put back what somebody, a cleaner of /tmp say, has removed: a worker that starts later must find the key.

        Raises:
            OSError: this cannot be done now.
        """
        if not (self.path / "lock").exists():
            _private(self._base)
            lock = _hold(_private(self.path))
            self.close()
            self._lock = lock
        if self._key is not None and not (self.path / "secret_key").exists():
            self._shared(self._key)

    def close(self) -> None:
        """Let go; the last one to do so leaves the directory to the next sweep."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def listening_inode() -> int | None:
    """The inode of the listening socket that this process inherited or made first, if it has one (Linux).

    A socket counts that is bound and has no peer: uvicorn's workers start their application before they listen.
    Inherited sockets have the lowest descriptors; inode numbers do not tell, the kernel hands them out per CPU.
    """
    return next((os.fstat(descriptor).st_ino for descriptor in _descriptors() if _is_listener(descriptor)), None)


def _descriptors() -> list[int]:
    try:
        return sorted(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return []


def _is_listener(descriptor: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as held:
            return held.type == socket.SOCK_STREAM and _is_bound(held) and not _has_peer(held)
    except OSError:  # closed meanwhile
        return False


def _is_bound(held: socket.socket) -> bool:
    name = held.getsockname()
    return bool(name) if held.family == socket.AF_UNIX else held.family in _INTERNET and name[1] != 0


def _has_peer(held: socket.socket) -> bool:
    try:
        held.getpeername()
    except OSError as error:
        return error.errno != errno.ENOTCONN
    return True


def _own_name() -> str:
    """A name that no other process has had: the numbers of processes come again, in each container from 1 on."""
    try:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = secrets.token_hex(4)
    return f"process-{os.getpid()}-{started}"


def _default_base() -> Path:
    return Path(tempfile.gettempdir()) / f"flet-{os.getuid()}"


def _private(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{path} must be a directory of this user with mode 0700")
    return path


def _hold(path: Path) -> int:
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _sweep(base: Path) -> None:
    """Remove directories of servers that ended: nobody holds their lock and nobody touched them for a day."""
    for entry in base.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _STALE_SECONDS and _unheld(entry):
                shutil.rmtree(entry)


def _unheld(entry: Path) -> bool:
    lock = os.open(entry / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
