"""How often an event may be logged: what repeats is counted, so that one failure does not bury all others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Key = tuple[str, str, str]
"""Logger, level and event."""

# What goes wrong at each event of a busy app is known after so many lines; whoever reads them looks at the last minute.
_LIMIT, _SECONDS = 100, 10.0
# Events that are told apart. A program has some hundreds; texts that somebody else chooses are without number.
_MAX_KEYS = 2_000


class Repeats:
    """Counts events in windows of time, each from an event's first on."""

    def __init__(
        self, limit: int = _LIMIT, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.RLock()  # a finalizer may log while its thread logs
        self._windows: dict[Key, tuple[float, int]] = {}
        self._over: set[Key] = set()
        self._forgotten: list[tuple[Key, int]] = []

    def see(self, key: Key) -> tuple[int, int]:
        """How often `key` has come in its window, this time included, and by how much it was over the limit in its
        last one, if that was not told yet."""
        with self._lock:
            now = self._clock()
            ends, count = self._windows.get(key, (0.0, 0))
            if count and now < ends:
                self._windows[key] = (ends, count + 1)
                if count == self.limit:
                    self._over.add(key)
                return count + 1, 0
            missed = self._forget(key)
            if len(self._windows) >= _MAX_KEYS:
                oldest = next(iter(self._windows))
                self._forgotten += [(oldest, count)] if (count := self._forget(oldest)) else []
            self._windows[key] = (now + self._seconds, 1)
            return 1, missed

    def ended(self, everything: bool) -> list[tuple[Key, int]] | None:
        """By how much events were over the limit in windows that have ended, or in all; None if there are none."""
        with self._lock:
            if not self._over and not self._forgotten:
                return None
            now = self._clock()
            told, self._forgotten = self._forgotten, []
            told += [(key, self._forget(key)) for key in list(self._over) if everything or self._windows[key][0] <= now]
            return told

    def _forget(self, key: Key) -> int:
        self._over.discard(key)
        _, count = self._windows.pop(key, (0.0, 0))
        return max(0, count - self.limit)
