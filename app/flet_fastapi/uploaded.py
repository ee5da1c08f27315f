"""Which files users have put there: the static client must tell them from the app's own, whoever takes the uploads.

A file that was uploaded carries a mark, which also other workers and later servers see; a directory is known to the
process that takes uploads for it, should its file system have no room for marks.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

# An extended attribute; it goes along when the file is renamed.
_MARK = "user.flet.uploaded"


class Folders:
    """The folders with uploads and with assets that the code of the process's apps has named.

    Adding one is for the event loop; the rest looks at the disk and belongs in a thread.
    """

    def __init__(self) -> None:
        self._uploads: set[Path] = set()
        self._assets: set[Path] = set()

    def add_uploads(self, path: Path) -> None:
        """Users put files below `path`."""
        self._uploads.add(path)

    def add_assets(self, path: Path) -> None:
        """Files below `path` are served."""
        self._assets.add(path)

    def hold_upload(self, path: str) -> bool:
        """Whether the file at `path`, which has no links in it, is below a folder with uploads."""
        return any(Path(path).is_relative_to(folder.resolve()) for folder in tuple(self._uploads))

    def mixed(self, uploads: Path) -> list[tuple[str, Path]]:
        """The folders with assets that `uploads` is in, or that are in it: an event's name and the folder."""
        here, found = uploads.resolve(), []
        for assets in sorted({assets.resolve() for assets in tuple(self._assets)}):
            if here.is_relative_to(assets):
                found.append(("uploads_inside_assets", assets))
            elif assets.is_relative_to(here):
                found.append(("assets_inside_uploads", assets))
        return found


# The guide's endpoints have nothing else in common: a FletUpload of each request, a FletStaticFiles with assets only.
folders = Folders()


def mark(file: int) -> None:
    """Say of an open file that it was uploaded, if its file system can remember that."""
    with suppress(OSError, AttributeError):  # attributes of this kind are Linux's
        os.setxattr(file, _MARK, b"1")


def is_marked(file: int, *, unknown: bool = False) -> bool:
    """Whether `mark` was called for this file; `unknown` where its file system could not remember that."""
    try:
        return bool(os.getxattr(file, _MARK))
    except AttributeError:
        return unknown
    except OSError as error:
        return unknown and error.errno == errno.ENOTSUP
