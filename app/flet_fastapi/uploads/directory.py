"""Uploaded files in a local directory.

Every step goes from an open directory to a name in it (`openat`) and follows no link, so a link that somebody puts
into the directory, even meanwhile, leads nowhere.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..logs import get_logger
from ..uploaded import folders, is_marked, mark
from .names import MARK, TEMPORARY
from .refusal import UploadRefused
from .storage import Incoming, Storage

T = TypeVar("T")

log = get_logger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP})
_TAKEN = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST})
# Logs and the workers' shared keys go on being written.
_KEPT_FREE = 64 * 1024 * 1024
# Another upload that fails may remove a folder that this one has just entered.
_TRIES = 20
# fallocate(2): the blocks are the file's, its size stays what was written
_KEEP_SIZE = 1
_NO_RESERVING = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class LocalDirectory(Storage):
    """Files below `path`, which is made if it is missing.

    `quota` bounds the bytes of all files below it, unfinished ones counted in full; `min_free` bytes of the disk
    stay free, by default 64 MiB or a twentieth of a smaller disk. `removed` hears how many files of killed workers
    went to make room.
    """

    def __init__(
        self,
        path: Path,
        executor: Executor,
        *,
        quota: int | None = None,
        min_free: int | None = None,
        removed: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.path = path
        self._removed = removed
        self._executor = executor
        self._quota = quota
        self._min_free = min_free

    async def open(self, parts: tuple[str, ...], size: int) -> Incoming:
        return await self._run(self._open, parts, size)

    async def check(self) -> None:
        await self._run(self._check)

    async def sweep(self) -> int:
        return await self._run(self._sweep)

    async def clean(self, max_age_seconds: float) -> int:
        return await self._run(self._clean, time.time() - max_age_seconds)

    async def problem(self) -> str | None:
        return await self._run(self._problem)

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        return await _in_thread(self._executor, work, *args)

    def _problem(self) -> str | None:
        try:
            _make_root(self.path)
            if os.statvfs(self.path).f_flag & os.ST_RDONLY:
                return "is on a disk that cannot be written to"
            if not os.access(self.path, os.W_OK | os.X_OK):
                return "cannot be written to"
            self._check_free(0)
        except UploadRefused:
            return "is on a disk that is full"
        except OSError as error:
            return f"cannot be used: {error.strerror}"
        return None

    def _open(self, parts: tuple[str, ...], size: int) -> Incoming:
        try:
            return self._admit(parts, size)
        except UploadRefused as refusal:
            # a worker that was killed since the start may have left files, and others live on
            if refusal.error not in ("no_space", "quota") or not (swept := self._sweep()):
                raise
        self._removed(swept)
        return self._admit(parts, size)

    def _admit(self, parts: tuple[str, ...], size: int) -> Incoming:
        with _refusals():
            _make_root(self.path)
            self._check_free(size)
            incoming = self._start(parts, size)
        try:
            with _refusals():
                incoming.reserve(size)
                # what others were promised meanwhile is theirs, and no longer free
                self._check_free(0)
            self._check_quota()
        except BaseException:
            incoming.remove()
            raise
        return incoming

    def _start(self, parts: tuple[str, ...], size: int) -> _IncomingFile:
        for attempt in range(_TRIES):
            place = _Place(self.path, parts)
            try:
                place.enter()
                return _IncomingFile(self._executor, place, size)
            except BaseException as error:
                place.leave(clean=True)
                if not isinstance(error, FileNotFoundError) or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _check(self) -> None:
        with _refusals():
            _make_root(self.path)
            self._check_free(1)
        with _refusals():
            incoming = self._start((f"{TEMPORARY}check",), 1)
            try:
                incoming.reserve(1)
            finally:
                incoming.remove()

    def _check_free(self, size: int) -> None:
        disk = os.statvfs(self.path)
        kept = min(_KEPT_FREE, disk.f_blocks * disk.f_frsize // 20) if self._min_free is None else self._min_free
        if disk.f_bavail * disk.f_frsize - size < kept:
            raise UploadRefused("no_space", "The server has no room for this file.")

    def _check_quota(self) -> None:
        """Counted from the files themselves: no bookkeeping that a killed worker could leave wrong.

        The new file is among them with its full size, so of two uploads that race for the last room none goes over.
        """
        if self._quota is not None and sum(_size(entry) for entry in _files(self.path)) > self._quota:
            raise UploadRefused("quota", "The upload directory is full.")

    def _sweep(self) -> int:
        swept = 0
        for entry in _files(self.path):
            if entry.name.startswith(TEMPORARY) and _remove_abandoned(entry.path):
                swept += 1
                self._prune(Path(entry.path).parent)
        return swept

    def _clean(self, before: float) -> int:
        # where files cannot be marked, and the app's own are not among them, all are taken for uploaded
        unmarked = not folders.mixed(self.path)
        cleaned = 0
        for entry in _files(self.path):
            if not entry.name.startswith(TEMPORARY) and _remove_old(entry.path, before, unmarked):
                cleaned += 1
                self._prune(Path(entry.path).parent)
        return cleaned

    def _prune(self, folder: Path) -> None:
        """Remove `folder` and those above it, up to the upload directory, as far as they are empty."""
        with suppress(OSError):
            while folder != self.path:
                folder.rmdir()
                folder = folder.parent


def _make_root(path: Path) -> None:
    with _no_storage():
        path.mkdir(parents=True, exist_ok=True)


def _root_folder(path: Path) -> int:
    with _no_storage():
        return os.open(path, _FOLDER)


@contextmanager
def _no_storage() -> Iterator[None]:
    """Something else where the upload directory should be is nothing that a browser could mend with another name."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise OSError(errno.EIO, "the upload directory is none") from error


class _Place:
    """A folder below the upload directory, entered part by part, and the name of a file in it."""

    def __init__(self, root: Path, parts: tuple[str, ...]) -> None:
        *self._folders, self.name = parts
        self._root = root
        self._open: list[int] = []
        # positions in _folders, for a folder is removed by its parent
        self._made: set[int] = set()

    @property
    def folder(self) -> int:
        return self._open[-1]

    def enter(self) -> None:
        self._open.append(_root_folder(self._root))
        for depth, part in enumerate(self._folders):
            self._open.append(self._step(depth, part))
        self.taken()

    def taken(self) -> bool:
        """Whether there is a file of this name already.

        Raises:
            UploadRefused: there is something else of this name.
        """
        try:
            mode = os.lstat(self.name, dir_fd=self.folder).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode) or (stat.S_ISLNK(mode) and self._leads_to_folder()):
            raise _name_is_taken("There is a directory of this name.")
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise _name_is_taken("There is something else of this name.")
        return True

    def _leads_to_folder(self) -> bool:
        with suppress(OSError):
            return stat.S_ISDIR(os.stat(self.name, dir_fd=self.folder).st_mode)
        return False

    def leave(self, *, clean: bool) -> None:
        """Close the folders and, if `clean`, remove those that were made for this file and are empty."""
        while self._open:
            depth = len(self._open) - 1
            if clean and depth in self._made:
                with suppress(OSError):
                    os.rmdir(self._folders[depth], dir_fd=self.folder)
            os.close(self._open.pop())

    def _step(self, depth: int, part: str) -> int:
        try:
            os.mkdir(part, dir_fd=self.folder)
            self._made.add(depth)
        except FileExistsError:
            self._check_folder(part)
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=self.folder)

    def _check_folder(self, part: str) -> None:
        mode = os.lstat(part, dir_fd=self.folder).st_mode
        if stat.S_ISLNK(mode):
            raise UploadRefused("bad_name", "The file name leads through a link.")
        if not stat.S_ISDIR(mode):
            raise _name_is_taken("There is a file where the file name has a directory.")


class _IncomingFile(Incoming):
    """A temporary file beside its target, locked as long as its writer lives."""

    def __init__(self, executor: Executor, place: _Place, size: int) -> None:
        self._executor = executor
        self._place = place
        # a cancelled upload is discarded while its last write may still be under way in another thread
        self._lock = threading.Lock()
        self._name, self._file = _locked_file(place.folder, size)
        self._done = False

    def reserve(self, size: int) -> None:
        """Take the room now, so that nobody else is promised it."""
        if size:
            _reserve(self._file, size)

    async def write(self, chunk: bytes) -> None:
        await _in_thread(self._executor, self._write, chunk)

    async def flush(self) -> None:
        await _in_thread(self._executor, self._flush)

    async def commit(self) -> bool:
        return await _in_thread(self._executor, self._commit)

    async def discard(self) -> None:
        if self._done:
            return
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, self.remove))
        except RuntimeError:
            self.remove()  # the worker is shutting down and its threads are gone

    def remove(self) -> None:
        with self._lock:
            if self._done:
                return
            self._done = True
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._place.folder)
            os.close(self._file)
            self._place.leave(clean=True)

    def _write(self, chunk: bytes) -> None:
        with self._lock, _refusals():
            self._check_open()
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _flush(self) -> None:
        with self._lock, _refusals():
            self._check_open()
            os.fsync(self._file)

    def _commit(self) -> bool:
        with self._lock, _refusals():
            self._check_open()
            mark(self._file)
            folder = self._place.folder
            replaced = self._place.taken()
            os.rename(self._name, self._place.name, src_dir_fd=folder, dst_dir_fd=folder)
            self._done = True
            os.close(self._file)
            with suppress(OSError):  # the file is in its place; not every file system can sync a directory
                os.fsync(folder)
            self._place.leave(clean=False)
        return not replaced

    def _check_open(self) -> None:
        if self._done:
            raise OSError(errno.EBADF, "discarded")


def _locked_file(folder: int, size: int) -> tuple[str, int]:
    """A new file whose name tells how big it will be; the lock tells a sweep that its writer lives."""
    while True:
        name = f"{TEMPORARY}{size}-{secrets.token_hex(8)}"
        file = os.open(name, _NEW_FILE, 0o666, dir_fd=folder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_nlink:
                return name, file
        except BlockingIOError:
            pass  # a sweep was faster than the lock, and removes the file
        except OSError:
            os.unlink(name, dir_fd=folder)
            os.close(file)
            raise
        os.close(file)


def _reserve(file: int, size: int) -> None:
    """Give an open file the blocks for `size` bytes.

    Python has `posix_fallocate` only, which changes the file's size, and writes to every block where the file system
    has no such call; here that is left alone, and its disk may fill up meanwhile.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", None)
    if fallocate is None:
        return
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while fallocate(file, _KEEP_SIZE, 0, size):
        problem = ctypes.get_errno()
        if problem in _NO_RESERVING:
            return
        if problem != errno.EINTR:
            raise OSError(problem, os.strerror(problem))


def _remove_abandoned(path: str) -> bool:
    """Remove the temporary file at `path` unless its writer lives."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _remove_old(path: str, before: float, unmarked: bool) -> bool:
    """Remove the file at `path` if it was uploaded and not changed since `before`, a time in seconds."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        old = os.fstat(file)
        # another upload may have taken its place meanwhile
        if old.st_mtime >= before or not is_marked(file, unknown=unmarked) or not os.path.samestat(old, os.lstat(path)):
            return False
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _files(root: Path) -> Iterator[os.DirEntry[str]]:
    """All regular files below `root` but for its mark; links are not followed, what vanishes meanwhile is left out."""
    folders = [str(root)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith(MARK):
                    yield entry


def _size(entry: os.DirEntry[str]) -> int:
    try:
        size = entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
    promised = entry.name.removeprefix(TEMPORARY).partition("-")[0] if entry.name.startswith(TEMPORARY) else ""
    return max(size, int(promised)) if promised.isdecimal() else size


async def _in_thread(executor: Executor, work: Callable[..., T], *args: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work, *args)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the system says, as an answer to the browser; the log tells the operator more."""
    try:
        yield
    except OSError as error:
        raise _refusal(error) from error


def _refusal(error: OSError) -> UploadRefused:
    if error.errno in _FULL:
        return UploadRefused("no_space", "The server has no room for this file.")
    if error.errno == errno.EFBIG:
        return UploadRefused("too_large", "The file is larger than the server's disk allows.")
    if error.errno in _BAD_NAME:
        return UploadRefused("bad_name", "The server's disk does not allow this file name.")
    if error.errno in _TAKEN:
        return _name_is_taken("There is a directory of this name.")
    log.warning("upload_storage_failed", error=errno.errorcode.get(error.errno or 0), problem=error.strerror)
    return UploadRefused("storage", "The server cannot store files now.")


def _name_is_taken(text: str) -> UploadRefused:
    return UploadRefused("name_is_taken", text)
