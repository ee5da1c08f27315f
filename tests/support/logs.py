"""The appliance's logs during a test: configured for it, read, and undone afterwards."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO

import structlog

from roost import logs
from roost.logs import Defaults
from roost.repeats import Repeats


class Said:
    """What was written since the last look."""

    def __init__(self, written: BinaryIO) -> None:
        self._written = written

    def text(self) -> str:
        assert logs.flush(10)
        return self._written.read().decode()

    def entries(self) -> list[dict[str, Any]]:
        # split as those do who know most line ends
        return [json.loads(line) for line in self.text().splitlines()]

    def entry(self) -> dict[str, Any]:
        """The only one."""
        (entry,) = self.entries()
        return entry

    def named(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries() if entry["event"] == event]


@contextmanager
def configured(slot: int | None = None, **settings: Any) -> Iterator[Said]:
    """`roost.logs.configure` for the block, with a file for stdout; all that it changes is put back."""
    root = logging.getLogger()
    before = root.handlers, root.level, warnings.showwarning, sys.excepthook, threading.excepthook, sys.unraisablehook
    handler = logs._handler
    handler.known, handler.repeats = set(), Repeats()
    with NamedTemporaryFile() as written, open(written.name, "rb") as read:
        logs.configure(replace(Defaults(), **settings), slot)
        assert handler.outlet is not None
        handler.outlet.redirect(written.fileno())
        try:
            yield Said(read)
        finally:
            handler.outlet.redirect(1)
            (
                root.handlers, root.level, warnings.showwarning, sys.excepthook, threading.excepthook,
                sys.unraisablehook,
            ) = before  # fmt: skip
            structlog.reset_defaults()
            structlog.contextvars.clear_contextvars()
