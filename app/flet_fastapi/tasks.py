"""Background tasks: referenced, named, and their failures logged.

A task that nobody refers to may be collected while it runs
(https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import Context
from typing import Any

from .logs import get_logger

log = get_logger(__name__)


class Tasks:
    """The tasks of one owner (a session, a connection, the manager): all end when the owner says so."""

    __slots__ = ("_loop", "_stopped", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._stopped = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, coroutine: Coroutine[Any, Any, Any], name: str, *, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Run `coroutine` in the background; an exception that escapes it is logged under `name`."""
        task: asyncio.Task[Any] = asyncio.Task(
            coroutine, loop=self._loop or asyncio.get_running_loop(), name=name, context=context
        )
        task.add_done_callback(self._log_failure)
        self.add(task)
        return task

    def add(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that somebody else made, and whose failures they report.

        It ends at once if its owner has stopped its tasks already.
        """
        if self._stopped:
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Ask all tasks to end, except the one that asks."""
        for task in self._others():
            task.cancel()

    async def stop(self, timeout: float = 5) -> None:
        """Cancel all tasks and wait for them; those that do not end within `timeout` seconds are named in the log.

        No other task of this owner lives on from then on.
        """
        self._stopped = True
        self.cancel()
        waiting = self._others()
        if not waiting:
            return
        _, stuck = await asyncio.wait(waiting, timeout=timeout)
        if stuck:
            log.warning("tasks_ignore_cancellation", tasks=sorted(_names(stuck)))

    def _others(self) -> list[asyncio.Task[Any]]:
        if not self._tasks:
            return []
        current = asyncio.current_task()
        return [task for task in self._tasks if task is not current]

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), exc_info=error)


def _names(tasks: Iterable[asyncio.Task[Any]]) -> set[str]:
    return {task.get_name() for task in tasks}
