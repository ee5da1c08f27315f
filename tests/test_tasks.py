from __future__ import annotations

import asyncio
import gc

from flet_fastapi.tasks import Tasks
from tests.conftest import Logs


async def test_failure_is_logged_by_name(logs: Logs) -> None:
    async def fails() -> None:
        raise LookupError("why")

    tasks = Tasks()
    task = tasks.start(fails(), "worker")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = logs.named("task_failed")
    assert logs.fields("task_failed")[0]["task"] == "worker"
    assert record.exc_info
    assert len(tasks) == 0


async def test_task_that_nobody_holds_is_not_collected() -> None:
    done = asyncio.Event()

    async def waits() -> None:
        await asyncio.sleep(0.01)
        done.set()

    tasks = Tasks()
    tasks.start(waits(), "x")
    gc.collect()
    await asyncio.wait_for(done.wait(), 5)


async def test_stop_waits_for_the_end_of_all() -> None:
    ended: list[int] = []

    async def waits(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    tasks = Tasks()
    for number in range(5):
        tasks.start(waits(number), "x")
    await asyncio.sleep(0)
    await tasks.stop()
    assert sorted(ended) == list(range(5))
    assert len(tasks) == 0


async def test_stop_does_not_wait_for_the_task_that_calls_it() -> None:
    tasks = Tasks()
    await asyncio.wait_for(tasks.start(tasks.stop(), "x"), 5)


async def test_task_that_ignores_its_end_is_named(logs: Logs) -> None:
    go_on = asyncio.Event()

    async def stubborn() -> None:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    tasks = Tasks()
    tasks.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await tasks.stop(timeout=0.01)
    assert logs.fields("tasks_ignore_cancellation") == [{"tasks": ["stubborn"]}]
    go_on.set()
    await asyncio.sleep(0.01)


async def test_cancellation_is_no_failure(logs: Logs) -> None:
    tasks = Tasks()
    tasks.start(asyncio.sleep(3600), "x")
    await asyncio.sleep(0)
    await tasks.stop()
    assert not logs.named("task_failed")
