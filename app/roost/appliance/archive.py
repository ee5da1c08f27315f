"""`python -m roost.appliance.archive save|check|restore ROOT`: the appliance's volumes as one file, and back.

ROOT has a folder for each volume. The archive is a compressed tar on standard output or input, whose first member
lists what is in it. SQLite databases are copied as one moment had them, while they are written to.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .said import fail, say

MANIFEST = "roost-backup.json"
FORMAT = 1
_END = f"{MANIFEST}.end"
_SQLITE = b"SQLite format 3\0"
# They belong to a database's moment, which the copy already is.
_BESIDE = ("-wal", "-shm", "-journal")
_DRAFT = ".roost-backup-"
_UNPACKED = ".roost-restore"


class BadArchive(Exception):
    """It is no backup, or not a whole one."""


def main(arguments: list[str]) -> int:
    command, root = arguments
    try:
        match command:
            case "save":
                save(Path(root), sys.stdout.buffer)
            case "check":
                say(describe(check(sys.stdin.buffer)))
            case "restore":
                say(describe(restore(Path(root), sys.stdin.buffer)))
            case _:
                return fail(f"no such command: {command}")
    except (BadArchive, OSError, sqlite3.Error, tarfile.TarError, EOFError) as error:
        return fail(str(error) or type(error).__name__)
    return 0


def save(root: Path, out: IO[bytes]) -> None:
    """Write the archive of all volumes below `root`."""
    volumes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    manifest = {"format": FORMAT, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "volumes": volumes}
    with gzip.GzipFile("", "wb", 6, out) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        _add_bytes(tar, MANIFEST, json.dumps(manifest).encode())
        for volume in volumes:
            _add_tree(tar, root, root / volume)
        # whoever reads the archive finds out by it that nothing is cut off
        _add_bytes(tar, _END, b"")


def check(source: IO[bytes]) -> dict[str, object]:
    """Read the archive wholly and give its manifest.

    Raises:
        BadArchive: it could not be restored.
    """
    with _opened(source) as (tar, manifest):
        for _ in _members(tar, manifest):
            pass
    return manifest


def restore(root: Path, source: IO[bytes]) -> dict[str, object]:
    """Put the archive's contents in the place of what the volumes hold, when all of it has been unpacked beside.

    Raises:
        BadArchive: and the volumes are as they were.
    """
    with _opened(source) as (tar, manifest):
        volumes = [root / volume for volume in _volumes(manifest)]
        for volume in volumes:
            if not volume.is_dir():
                raise BadArchive(f"there is no volume {volume.name} to restore to")
            shutil.rmtree(volume / _UNPACKED, ignore_errors=True)
        folders = []
        for member in _members(tar, manifest):
            _unpack(tar, member, _place(root, member))
            folders += [member] if member.isdir() else []
    # from here on it changes things
    for volume in volumes:
        _exchange(volume)
    for member in reversed(folders):  # innermost first: a folder may forbid what its contents need
        _dress(root / member.name, member)
    return manifest


def describe(manifest: dict[str, object]) -> str:
    return f"a backup of {manifest['made']} with {', '.join(_volumes(manifest))}"


def _volumes(manifest: dict[str, object]) -> list[str]:
    volumes = manifest.get("volumes")
    return [str(volume) for volume in volumes] if isinstance(volumes, list) else []


def _add_tree(tar: tarfile.TarFile, root: Path, folder: Path) -> None:
    tar.add(folder, folder.relative_to(root).as_posix(), recursive=False)
    for entry in sorted(folder.iterdir()):
        name = entry.relative_to(root).as_posix()
        if entry.name.startswith((_DRAFT, _UNPACKED)):
            continue
        # a file that goes away meanwhile, as uploads in progress do, is none
        with contextlib.suppress(FileNotFoundError):
            if entry.is_symlink():
                tar.add(entry, name)
            elif entry.is_dir():
                _add_tree(tar, root, entry)
            elif entry.is_file() and not _is_beside(entry):
                _add_file(tar, entry, name)


def _add_file(tar: tarfile.TarFile, path: Path, name: str) -> None:
    with path.open("rb") as file:
        database = file.read(len(_SQLITE)) == _SQLITE
    if not database:
        tar.add(path, name)
        return
    with _moment(path) as copy:
        member = tar.gettarinfo(copy, name)
        status = path.stat()
        member.uid, member.gid, member.mode, member.mtime = (
            status.st_uid,
            status.st_gid,
            status.st_mode,
            status.st_mtime,
        )
        with copy.open("rb") as file:
            tar.addfile(member, file)


@contextlib.contextmanager
def _moment(path: Path) -> Iterator[Path]:
    """A copy of a database as it is now, whole by SQLite's own account; made as its owner, who goes on using it."""
    with _as_owner(path), tempfile.TemporaryDirectory(prefix=_DRAFT, dir=path.parent) as folder:
        copy = Path(folder) / "copy"
        with (
            contextlib.closing(sqlite3.connect(path, timeout=30)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            if (answer := target.execute("PRAGMA quick_check").fetchone()) != ("ok",):
                raise BadArchive(f"the database {path} is damaged: {answer}")
        yield copy


@contextlib.contextmanager
def _as_owner(path: Path) -> Iterator[None]:
    """What SQLite makes beside a database must be the owner's, not root's."""
    status, before = path.stat(), (os.geteuid(), os.getegid())
    if before[0] == 0:
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
    try:
        yield
    finally:
        if before[0] == 0:
            os.seteuid(before[0])
            os.setegid(before[1])


def _is_beside(path: Path) -> bool:
    return any(path.name.endswith(end) and path.with_name(path.name.removesuffix(end)).is_file() for end in _BESIDE)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
    tar.addfile(member, io.BytesIO(data))


@contextlib.contextmanager
def _opened(source: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, dict[str, object]]]:
    try:
        with tarfile.open(fileobj=source, mode="r|gz") as tar:
            first = tar.next()
            file = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
            if file is None:
                raise BadArchive("this is no backup of an appliance")
            manifest = json.loads(file.read())
            if manifest.get("format") != FORMAT:
                raise BadArchive(
                    f"this is a backup of format {manifest.get('format')}, and this version reads {FORMAT}"
                )
            yield tar, manifest
    except (tarfile.ReadError, EOFError, ValueError) as error:
        raise BadArchive(f"the archive cannot be read: {error}") from None


def _members(tar: tarfile.TarFile, manifest: dict[str, object]) -> Iterator[tarfile.TarInfo]:
    """What belongs into volumes, in the order of the archive, which ends with its end."""
    last = ""
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would remember all of them
        last = member.name
        if last != _END:
            _check_name(member, manifest)
            yield member
    if last != _END:
        raise BadArchive("the archive is cut off")


def _check_name(member: tarfile.TarInfo, manifest: dict[str, object]) -> None:
    parts = member.name.split("/")
    ordinary = member.isreg() or member.isdir() or member.issym()
    if parts[0] not in _volumes(manifest) or ".." in parts or not ordinary:
        raise BadArchive(f"the archive holds what no volume does: {member.name}")


def _place(root: Path, member: tarfile.TarInfo) -> Path:
    """Where it is unpacked."""
    volume, *rest = member.name.split("/")
    path = Path(root.resolve(), volume, _UNPACKED, *rest)
    if rest and path.parent.resolve() != path.parent:
        raise BadArchive(f"the archive leads through a link: {member.name}")
    return path


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(mode=0o700)
    elif member.issym():
        path.symlink_to(member.linkname)
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
    elif (content := tar.extractfile(member)) is not None:
        with content, open(path, "xb") as file:
            shutil.copyfileobj(content, file)
        _dress(path, member)


def _exchange(volume: Path) -> None:
    """What was unpacked for what is there."""
    unpacked = volume / _UNPACKED
    for entry in volume.iterdir():
        if entry != unpacked:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for entry in unpacked.iterdir():
        entry.rename(volume / entry.name)
    unpacked.rmdir()


def _dress(path: Path, member: tarfile.TarInfo) -> None:
    os.chown(path, member.uid, member.gid)
    os.chmod(path, member.mode & 0o7777)
    os.utime(path, (member.mtime, member.mtime))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
