"""A clock that stands still until it is set: the one by which the cluster's keys expire."""

from __future__ import annotations

import pytest


class Clock:
    """The time that keys expire by."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("flet_fastapi.cluster.embedded.time", clock)
    return clock
