"""Nobody waits for a store that is known to be away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from ..tasks import Tasks
from .base import ClusterUnavailable

# The first look comes after a tenth of a second: a fail-over or a restart may be over by then. Later ones are for a
# store that stays away; it is noticed to be back within this time, and workers that lost it at once spread over it.
_FIRST_SECONDS = 0.1
_LAST_SECONDS = 2.0


class Breaker:
    """Remembers that the store is away, and looks by itself, in the background, whether it is back.

    `look()` raises `ClusterUnavailable` as long as it is not.
    """

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._away: ClusterUnavailable | None = None
        self._tasks = Tasks()

    def check(self) -> None:
        """
        Raises:
            ClusterUnavailable: the store is known to be away.
        """
        if self._away is not None:
            raise self._away.again()

    def trip(self, error: ClusterUnavailable) -> None:
        """The store is away."""
        if self._away is None:
            self._tasks.start(self._watch(), "look_for_store")
        self._away = error

    async def close(self) -> None:
        """Look no more."""
        await self._tasks.stop()

    async def _watch(self) -> None:
        longest = _FIRST_SECONDS
        while True:
            await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311  spreads workers, protects nothing
            try:
                await self._look()
            except ClusterUnavailable as error:
                self._away = error
                longest = min(longest * 2, _LAST_SECONDS)
            else:
                self._away = None
                return
