"""The private run directory that the workers of one server share without any configuration.

Workers find it by the inode of the listening socket they inherited: parent process ids are shared by unrelated
servers, ports by servers in other network namespaces, a socket's inode by nobody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
_UNIX_LISTENING = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
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
        self.path = _private(self._base / (f"socket-{inode}" if inode is not None else f"process-{os.getpid()}"))
        self._lock: int | None = _hold(self.path)
        _sweep(self._base)

    def key(self) -> str:
        """The secret key that all workers of this server find here; the first one makes it."""
        path = self.path / "secret_key"
        made = self.path / f".{secrets.token_hex(8)}"
        made.touch(mode=0o600, exist_ok=False)
        made.write_text(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            os.link(made, path)  # atomic: one worker wins, the others read what it wrote
        made.unlink()
        return path.read_text()

    def close(self) -> None:
        """Let go; the last one to do so leaves the directory to the next sweep."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def listening_inode() -> int | None:
    """The inode of the listening socket that this process inherited or made first, if it has one (Linux).

    Inherited sockets have the lowest descriptors; inode numbers do not tell, the kernel hands them out per CPU.
    """
    listening = _listening_inodes()
    return next((inode for _, inode in sorted(_held_inodes()) if inode in listening), None)


def _held_inodes() -> list[tuple[int, int]]:
    held = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{name}")
                if target.startswith("socket:["):
                    held.append((int(name), int(target[8:-1])))
    return held


def _listening_inodes() -> set[int]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        for fields in _table(table):
            if fields[3] == _LISTENING:
                inodes.add(int(fields[9]))
    for fields in _table("unix"):
        if int(fields[3], 16) & _UNIX_LISTENING:
            inodes.add(int(fields[6]))
    return inodes


def _table(name: str) -> list[list[str]]:
    try:
        lines = Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
    except OSError:
        return []
    return [line.split() for line in lines]


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
