"""Whether what the sessions of this worker need besides it is there: the shared store, the upload directories.

Sessions go on without either, so this says how a worker does, and never that it should be restarted.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .cluster import ClusterUnavailable
from .health import Part
from .uploads.refusal import UploadRefused
from .uploads.worker import Uploads

if TYPE_CHECKING:
    from .manager import AppManager

# A health check waits for no more than this; a disk or a store that takes longer is as good as gone.
_PATIENCE_SECONDS = 2.0
# Who asks all the time asks the store no more often than this.
_FRESH_SECONDS = 1.0
_KEY_SECONDS = 60


async def look(manager: AppManager) -> list[Part]:
    """How the store and the upload directories are; nothing while the manager does not run.

    They are tried now; what is known of a part that works is told, too.
    """
    if not manager.is_running:
        return []
    tried = await manager.part(Checks).look()
    failed = {part.name: part for part in tried if not part.ok}
    return [failed.get(known.name, known) for known in manager.health()]


class Checks:
    """The checks of one worker. Each runs at most once at a time, however many ask and however long it hangs."""

    def __init__(self, manager: AppManager) -> None:
        self._manager = manager
        self._running: dict[str, asyncio.Task[Part]] = {}
        self._known: dict[str, tuple[float, Part]] = {}

    async def look(self) -> list[Part]:
        """How the store and the upload directories are, within some two seconds."""
        return list(await asyncio.gather(self._look("store", self._store), self._look("uploads", self._uploads)))

    async def close(self) -> None:
        """The manager ends the tasks."""

    async def _look(self, name: str, check: Callable[[], Awaitable[None]]) -> Part:
        checked, part = self._known.get(name, (-_FRESH_SECONDS, Part(name, True)))
        if self._manager.loop.time() - checked < _FRESH_SECONDS:
            return part
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = self._manager.tasks.start(self._check(name, check), f"check_{name}")
        await asyncio.wait((running,), timeout=_PATIENCE_SECONDS)
        return running.result() if running.done() and not running.cancelled() else Part(name, False, "does not answer")

    async def _check(self, name: str, check: Callable[[], Awaitable[None]]) -> Part:
        try:
            await check()
            part = Part(name, True)
        except UploadRefused as refusal:
            part = Part(name, False, refusal.text)
        except ClusterUnavailable as error:
            part = Part(name, False, error.problem)
        except Exception as error:  # noqa: BLE001  whatever it is, it is told, and fails nothing else
            part = Part(name, False, type(error).__name__)
        self._known[name] = self._manager.loop.time(), part
        return part

    async def _store(self) -> None:
        cluster = await self._manager.open_cluster()
        await cluster.put(f"health:{os.getpid()}", b"", _KEY_SECONDS)

    async def _uploads(self) -> None:
        await self._manager.part(Uploads).check()
