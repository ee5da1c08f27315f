"""The user's assets directory: live, and closed to everything outside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..uploaded import folders, is_marked

# O_NONBLOCK: opening a pipe that somebody put there must not wait for a writer
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Asset:
    """An open file; `uploaded` if it lies where users put files."""

    file: BinaryIO
    uploaded: bool


class Assets:
    """The files below `folder`; `uploads` is where users put files. Its methods block and belong in a thread.

    Uploads that others take (a `FletUpload` of its own, another app) are known as such, too.
    """

    def __init__(self, folder: Path, uploads: Path | None = None) -> None:
        self.folder = folder
        self._uploads = uploads
        folders.add_assets(folder)

    def open(self, names: Iterable[str]) -> Asset | None:
        """The regular file at `names` below the folder, or None; a link that leads out of the folder counts as none."""
        try:
            root = os.path.realpath(self.folder, strict=True)
            path = os.path.realpath(os.path.join(root, *names), strict=True)
            if os.path.commonpath([root, path]) != root:
                return None
            file = _open_regular(path)
            return None if file is None else Asset(file, is_marked(file.fileno()) or self._is_upload(path))
        except (OSError, ValueError):
            # missing, unreadable, a name too long or not encodable: to the browser all the same
            return None

    def read(self, name: str, limit: int) -> bytes | None:
        """At most `limit` bytes of a file at the top of the folder, or None, also if a user put it there."""
        asset = self.open([name])
        if asset is None:
            return None
        with asset.file as file:
            return None if asset.uploaded else file.read(limit)

    def _is_upload(self, path: str) -> bool:
        if self._uploads is None:
            return folders.hold_upload(path)
        uploads = os.path.realpath(self._uploads)
        return os.path.commonpath([uploads, path]) == uploads or folders.hold_upload(path)


def _open_regular(path: str) -> BinaryIO | None:
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb", buffering=0)
