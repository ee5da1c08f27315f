from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from flet_fastapi import suspended


async def run(coroutine: Any) -> Any:
    waiting = suspended.begin(coroutine, copy_context())
    return None if waiting is None else await waiting


async def test_what_does_not_wait_is_done_at_once() -> None:
    seen = []

    async def quick() -> None:
        seen.append(1)

    assert suspended.begin(quick(), copy_context()) is None
    assert seen == [1]


async def test_first_part_runs_at_once_and_the_rest_when_awaited() -> None:
    seen = []

    async def waits() -> None:
        seen.append("before")
        seen.append(await asyncio.sleep(0, "between"))  # type: ignore[arg-type]
        await asyncio.wait_for(asyncio.sleep(0), 1)
        seen.append("after")

    waiting = suspended.begin(waits(), copy_context())
    assert seen == ["before"]
    assert waiting is not None
    await waiting
    assert seen == ["before", "between", "after"]


async def test_error_before_the_first_wait() -> None:
    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        suspended.begin(fails(), copy_context())


async def test_error_after_the_first_wait() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        await run(fails())


async def test_error_of_what_it_waits_for_comes_inside() -> None:
    future = asyncio.get_running_loop().create_future()
    caught = []

    async def waits() -> None:
        try:
            await future
        except LookupError as error:
            caught.append(error)
            await asyncio.sleep(0)

    waiting = suspended.begin(waits(), copy_context())
    future.set_exception(LookupError())
    assert waiting is not None
    await waiting
    assert len(caught) == 1


async def test_cancellation_comes_inside_and_may_be_handled() -> None:
    handled = []

    async def waits() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            handled.append(1)
            await asyncio.sleep(0)
            handled.append(2)

    task = asyncio.create_task(run(waits()))
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert handled == [1, 2]


async def test_cancellation_that_is_not_handled_ends_the_task() -> None:
    task = asyncio.create_task(run(asyncio.sleep(3600)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_timeout_begun_before_the_first_wait_works_after_it() -> None:
    async def waits() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        await run(waits())


async def test_context_is_the_given_one_from_the_first_line_to_the_last() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")
    context = copy_context()
    context.run(variable.set, "inside")
    seen = []

    async def waits() -> None:
        seen.append(variable.get())
        await asyncio.sleep(0)
        seen.append(variable.get())
        variable.set("changed")

    waiting = suspended.begin(waits(), context)
    assert waiting is not None
    await waiting
    assert seen == ["inside", "inside"]
    assert variable.get() == "outside"
    assert context[variable] == "changed"
