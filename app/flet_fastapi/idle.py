"""Ends the sessions of browsers that have been silent for too long, if that is set: for desks that anybody may pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

# How many times within the timeout it is looked for; a session lives that much longer at most.
_LOOKS = 10


class Heard(Protocol):
    """What is known of a session here: `heard` counts its browser's frames."""

    @property
    def heard(self) -> int: ...

    @property
    def connection(self) -> object | None: ...


class Silence:
    """Since when which session's browser has said nothing. Detached sessions have a timeout of their own."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._since: dict[Any, tuple[int, float]] = {}

    def too_long(self, sessions: Iterable[Heard], now: float) -> list[Any]:
        """Look at all living sessions; those that have been silent for the timeout."""
        before = self._since
        self._since = {
            session: self._mark(before, session, now) for session in sessions if session.connection is not None
        }
        return [session for session, (_, since) in self._since.items() if now - since >= self._timeout]

    @staticmethod
    def _mark(before: dict[Any, tuple[int, float]], session: Heard, now: float) -> tuple[int, float]:
        mark = before.get(session)
        return mark if mark is not None and mark[0] == session.heard else (session.heard, now)


async def end_idle_sessions(
    timeout_seconds: float, sessions: Callable[[], Iterable[Any]], end: Callable[[Any, str], None]
) -> None:
    """Go on for ever: `end(session, "idle")` for each of `sessions()` that has been silent for the timeout."""
    silence = Silence(timeout_seconds)
    while True:
        await asyncio.sleep(timeout_seconds / _LOOKS)
        for session in silence.too_long(sessions(), asyncio.get_running_loop().time()):
            end(session, "idle")
