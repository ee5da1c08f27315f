"""Whether a worker takes new sessions: not with too little memory left, not with as many as it may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from flet_fastapi.logs import get_logger
from flet_fastapi.manager import AppManager
from flet_fastapi.vitals import memory_bytes

from . import cgroup
from .board import State
from .health import Health
from .settings import MaxMemory, Settings

log = get_logger(__name__)

_LOOK_SECONDS = 1.0
_DEFAULT_SHARE = 0.9
# Once full, there has to be so much less before sessions are taken again, so that it does not change every second.
_AGAIN = 0.97
_MiB = 1024 * 1024


class Admission:
    """Looks every second, and tells the manager and the health checks."""

    def __init__(self, settings: Settings, health: Health, manager: AppManager) -> None:
        self._health = health
        self._manager = manager
        self._usage = usage_of(settings.max_memory)
        self._out_of_memory = False

    async def watch(self) -> None:
        """Go on for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Look once."""
        used, limit = await asyncio.to_thread(self._usage) if self._usage is not None else (0, 0)
        out_of_memory = limit > 0 and used > limit * (_AGAIN if self._out_of_memory else 1)
        if out_of_memory != self._out_of_memory:
            self._out_of_memory = out_of_memory
            if out_of_memory:
                log.warning("memory_is_short", used_bytes=used, limit_bytes=limit)
            else:
                log.info("memory_is_enough", used_bytes=used, limit_bytes=limit)
        if not self._health.draining:
            self._manager.refusing = "memory" if out_of_memory else None
        if out_of_memory:
            self._health.full = f"{used // _MiB} MiB of memory are used, ROOST_MAX_MEMORY is {limit // _MiB} MiB"
        elif self._manager.is_full:
            self._health.full = f"there are {self._manager.limits.max_sessions} sessions, which is FLET_MAX_SESSIONS"
        else:
            self._health.full = None
        metrics = self._manager.metrics
        metrics.worker_memory_used_ratio.labels(metrics.worker).set(used / limit if limit else 0)
        metrics.worker_ready.labels(metrics.worker).set(self._health.state is State.READY)


def usage_of(max_memory: MaxMemory | None) -> Callable[[], tuple[int, int]] | None:
    """A function for the bytes in use and how many may be; None if nothing bounds them. It blocks."""
    if max_memory is not None and (size := max_memory.bytes) is not None:
        return lambda: (memory_bytes(), size)
    if max_memory is None and cgroup.memory() is None:
        return None
    share = _DEFAULT_SHARE if max_memory is None or max_memory.share is None else max_memory.share

    def usage() -> tuple[int, int]:
        found = cgroup.memory() or cgroup.host_memory()
        return (0, 0) if found is None else (found.used, int(found.limit * share))

    return usage
