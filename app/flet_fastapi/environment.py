"""Environment variables as an operator gives them: directly or, what is secret, as the name of a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from .errors import OptionError

# Nobody has a longer list of keys; a path that leads to a log or a disk is a mistake.
_MAX_BYTES = 64 * 1024
_FILE = "_FILE"


class Given(NamedTuple):
    """What a variable says, and which one says it: `FLET_SECRET_KEY` or `FLET_SECRET_KEY_FILE`."""

    value: str
    variable: str


def given(variable: str, *, secret: bool = False) -> Given | None:
    """What `variable` says; an empty one counts as not set. A `secret` one may name a file by `variable` + `_FILE`.

    Raises:
        OptionError: both are set, or the file cannot be used.
    """
    value = os.environ.get(variable)
    path = os.environ.get(variable + _FILE) if secret else None
    if value and path:
        raise OptionError(variable, f"is set, and {variable + _FILE} too: only one of them may be")
    if path:
        return Given(_content(variable + _FILE, path), variable + _FILE)
    return Given(value, variable) if value else None


def _content(variable: str, path: str) -> str:
    """The text of a file of secrets: lines are parts of a list, and what an editor puts at its end does not count."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise OptionError(variable, f"cannot be read: {error.strerror} (got {path!r})") from None
    except ValueError:  # NUL in the path, or no text in the file
        raise OptionError(variable, f"must name a file of text (got {path!r})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise OptionError(variable, f"the file is empty (got {path!r})")
    if len(raw) > _MAX_BYTES:
        raise OptionError(variable, f"the file is too large for a secret (got {path!r})")
    return ",".join(lines)
