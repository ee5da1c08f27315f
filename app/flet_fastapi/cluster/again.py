"""What a store has lost, or never got, is written again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..tasks import Tasks
from .base import ClusterUnavailable

# Between two tries while the store is away; that it is, costs nothing to find out.
_PAUSE_SECONDS = 1.0


class WritingAgain:
    """Runs `write()` when asked to, in the background, and until the store has taken everything."""

    def __init__(self, tasks: Tasks, write: Callable[[], Awaitable[None]]) -> None:
        self._tasks = tasks
        self._write = write
        self._asked = False
        self._writing: asyncio.Task[None] | None = None

    def ask(self) -> None:
        self._asked = True
        if self._writing is None or self._writing.done():
            self._writing = self._tasks.start(self._run(), "write_again")

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            try:
                await self._write()
            except ClusterUnavailable:
                self._asked = True
                await asyncio.sleep(_PAUSE_SECONDS)
