"""Which file names are taken, and where below the upload directory they lead."""

from __future__ import annotations

import re
import unicodedata

from .refusal import UploadRefused

# Files under this name are unfinished; no upload may be called so.
TEMPORARY = ".flet-upload-"
# What tells an upload directory from another one of the same path, and what becomes that; neither may an upload be.
MARK = ".flet-directory"

_PART_BYTES = 255  # NAME_MAX of every usual file system
_NAME_BYTES = 1000
_DEPTH = 32
# Windows gives these to devices, whatever the extension (learn.microsoft.com, "Naming Files, Paths, and Namespaces");
# files travel, so they are refused everywhere.
_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])[ ]*(?:[.:]|$)", re.IGNORECASE
)
# Control characters, lone surrogates, line separators, and what nobody sees: direction marks ("gpj.exe" looks like
# "exe.jpg") and characters of no width make a name look like another one (Unicode TR 36).
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Persian, Indian scripts and emoji are written with them.
_JOINERS = frozenset("\u200c\u200d")


def parts_of(name: str) -> tuple[str, ...]:
    """The way from the upload directory to the file: `/user/f.png` and `user/f.png` both give `("user", "f.png")`.

    Raises:
        UploadRefused: `bad_name`.
    """
    _check_characters(name)
    if len(name.encode()) > _NAME_BYTES:
        raise _bad("is too long")
    if name.endswith("/"):
        raise _bad("is a directory's")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if not parts or name.endswith("/."):
        raise _bad("is empty")
    if len(parts) > _DEPTH:
        raise _bad("has too many parts")
    for part in parts:
        _check_part(part)
    return parts


def _check_characters(name: str) -> None:
    for character in name:
        if unicodedata.category(character) in _CATEGORIES and character not in _JOINERS:
            raise _bad("has control characters")
    if "\\" in name or ":" in name:
        # to Windows a separator, and the sign of a drive or of a stream in a file
        raise _bad("has a backslash or a colon")


def _check_part(part: str) -> None:
    # ". ." and ".. " are the parent directory to Windows
    if part.startswith(".") and not part.strip(". "):
        raise _bad("leads out of the upload directory")
    if part.endswith((".", " ")):
        # Windows drops them: it would be another file's name
        raise _bad("ends with a dot or a space")
    if len(part.encode()) > _PART_BYTES:
        raise _bad("has a part that is too long")
    if part.startswith((TEMPORARY, MARK)):
        raise _bad("is reserved")
    if _DEVICES.match(part):
        raise _bad("is a device's")


def _bad(problem: str) -> UploadRefused:
    return UploadRefused("bad_name", f"The file name {problem}.")
