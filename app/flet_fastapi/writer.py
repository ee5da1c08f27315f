"""One task writes for all connections of a worker.

What the handlers of one turn of the loop have changed is written at its end, back to back: each write may wake a
process at the other end, and a write in between two handlers would wake it for each. A connection that has to wait
for its client keeps the task, and another one goes on with the others.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING

from .suspended import begin
from .tasks import Tasks

if TYPE_CHECKING:
    from .connection import Connection


class Writer:
    """Writes what waits in the outboxes of the connections that ask for it."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._asking: list[Connection] = []
        self._idle: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin to write; the task is one of those that the writer was made with."""
        self._tasks.start(self._write(), "writer")

    def ask(self, connection: Connection) -> None:
        """Write for `connection` at the end of this turn of the loop; on the loop's thread."""
        self._asking.append(connection)
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _write(self) -> None:
        loop, context = asyncio.get_running_loop(), copy_context()
        while True:
            if not self._asking:
                self._idle = loop.create_future()
                await self._idle
            asking, self._asking = self._asking, []
            for at, connection in enumerate(asking, 1):
                waiting = begin(connection.flush(), context)  # raises nothing: `flush` ends its connection instead
                if waiting is not None:
                    self._asking[:0] = asking[at:]
                    task = asyncio.current_task(loop)
                    assert task is not None
                    connection.blocked(task)
                    self.start()
                    await waiting
                    return
