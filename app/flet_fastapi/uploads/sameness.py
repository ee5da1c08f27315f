"""Whether an upload directory is the same one on all hosts: its mark is compared with what the others say of theirs.

A file that one host has taken must be found by the session, which may live on another. Workers that name a directory
by the same path and sign its URLs with the same key serve the same app; what is compared is an id in a file there.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from ..cluster import Cluster
from ..identity import Keyring
from .names import MARK

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
# What is said of a directory outlives a few looks; the word of a worker that is gone counts no longer anyway.
_SAID_SECONDS = 90
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker says: the id of its directory, and who it is itself."""

    directory: str
    worker: str
    node: str

    def dump(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def load(cls, value: bytes) -> Said:
        return cls(**orjson.loads(value))


class Sameness:
    """One worker's view of one directory. `name_of` tells which directories should be the same."""

    def __init__(self, cluster: Cluster, name: str, worker: str, node: str) -> None:
        self._cluster = cluster
        self._key = f"upload-directory:{name}"
        self._worker, self._node = worker, node

    async def other(self, directory: str) -> Said | None:
        """Who uses another directory in place of the one with this id, if somebody does who lives.

        Raises:
            ClusterUnavailable: that is not known now.
        """
        mine = Said(directory, self._worker, self._node)
        if await self._cluster.add(self._key, mine.dump(), _SAID_SECONDS):
            return None
        held = await self._cluster.get(self._key)
        said = None if held is None else Said.load(held)
        if held is not None and (said is None or said.directory == directory or not await self._contradicts(said)):
            await self._cluster.swap(self._key, held, mine.dump(), _SAID_SECONDS)
            said = None
        if said is not None:
            # whoever is first to say something would not learn that it is contradicted
            await self._cluster.put(f"{self._key}:other", mine.dump(), _SAID_SECONDS)
            return said
        return await self._contradiction(directory)

    async def _contradiction(self, directory: str) -> Said | None:
        key = f"{self._key}:other"
        held = await self._cluster.get(key)
        said = None if held is None else Said.load(held)
        if held is None or said is None or said.directory == directory:
            return None
        if said.node == self._node:
            await self._cluster.delete(key, held)
        return said if await self._contradicts(said) else None

    async def _contradicts(self, said: Said) -> bool:
        """Whether another host says so now: of this one, who looked last knows best."""
        if said.node == self._node:
            return False
        return said.worker in {worker.id for worker in await self._cluster.workers()}


def name_of(path: Path, keyring: Keyring) -> str:
    """The name of a directory in the cluster: another one for the same path of another app, with another key."""
    return keyring.fingerprint(f"upload directory {path}")


def directory_id(path: Path) -> str | None:
    """The id in the mark of the directory at `path`, which is made if it is missing; None if it cannot be. Blocks."""
    with suppress(OSError):
        found = _read(path / MARK)
        if found is None:
            _write(path / MARK)
            found = _read(path / MARK)
        return found
    return None


def _read(mark: Path) -> str | None:
    try:
        file = os.open(mark, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(file, 100).decode("ascii", "replace").strip()
    finally:
        os.close(file)
    return text if _ID.fullmatch(text) else None


def _write(mark: Path) -> None:
    """Of several hosts that do this at once one wins; what is there and is no mark is replaced."""
    made = mark.with_name(f"{MARK}-{secrets.token_hex(8)}")
    with open(made, "x") as file:
        file.write(secrets.token_urlsafe(16))
    try:
        os.link(made, mark)
    except FileExistsError:
        if _read(mark) is None:
            os.replace(made, mark)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(made, mark)
    finally:
        with suppress(OSError):
            made.unlink()
