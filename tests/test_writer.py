from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flet_fastapi.tasks import Tasks
from flet_fastapi.writer import Writer


class Outbox:
    """What the writer sees of a connection."""

    def __init__(self, log: list[str], name: str, wait: asyncio.Event | None = None) -> None:
        self.log, self.name, self.wait = log, name, wait
        self.task: asyncio.Task[Any] | None = None

    async def flush(self) -> None:
        if self.wait is not None:
            await self.wait.wait()
        self.log.append(self.name)

    def blocked(self, flusher: asyncio.Task[Any]) -> None:
        self.task = flusher


@pytest.fixture
async def writer() -> Any:
    tasks = Tasks()
    writer = Writer(tasks)
    writer.start()
    await asyncio.sleep(0)
    yield writer
    await tasks.stop()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nothing_is_written_before_the_turn_ends(writer: Any) -> None:
    log: list[str] = []
    for name in "abc":
        writer.ask(Outbox(log, name))
    assert log == []
    await turns()
    assert log == ["a", "b", "c"]


async def test_who_waits_holds_up_nobody_and_keeps_the_order_of_the_others(writer: Any) -> None:
    log: list[str] = []
    gate = asyncio.Event()
    slow = Outbox(log, "slow", gate)
    for connection in (Outbox(log, "a"), slow, Outbox(log, "b"), Outbox(log, "c", gate), Outbox(log, "d")):
        writer.ask(connection)
    await turns()
    assert log == ["a", "b", "d"]
    assert slow.task is not None
    gate.set()
    await turns()
    assert sorted(log[3:]) == ["c", "slow"]


async def test_cancelled_flush_stops_nobody_else(writer: Any) -> None:
    log: list[str] = []
    slow = Outbox(log, "slow", asyncio.Event())
    writer.ask(slow)
    await turns()
    assert slow.task is not None
    slow.task.cancel()
    await turns()
    writer.ask(Outbox(log, "a"))
    await turns()
    assert log == ["a"]


async def test_asked_before_the_start() -> None:
    tasks, log = Tasks(), list[str]()
    writer = Writer(tasks)
    writer.ask(Outbox(log, "early"))  # type: ignore[arg-type]
    writer.start()
    await turns()
    assert log == ["early"]
    await tasks.stop()


async def test_many_that_wait_leave_one_writer() -> None:
    tasks, log, gate = Tasks(), list[str](), asyncio.Event()
    writer = Writer(tasks)
    writer.start()
    for n in range(50):
        writer.ask(Outbox(log, str(n), gate))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.sleep(0.01)
    assert len(log) == 50
    assert len(tasks) == 1
    await tasks.stop()
