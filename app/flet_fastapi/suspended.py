"""Run a coroutine up to its first wait without a task for it, and the rest in the task that began it."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

Step = Callable[..., Any]


def begin(coroutine: Coroutine[Any, Any, None], context: Context) -> Awaitable[None] | None:
    """Run `coroutine` in the current task up to its first wait: what is left of it, or None if it has ended.

    It runs in `context` from its first line to its last. What is left must be awaited in the same task:
    `asyncio.timeout`, cancel scopes and the like have remembered it.
    """
    try:
        waits_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return _rest(coroutine, waits_for, context)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits_for: Any, context: Context) -> Generator[Any, Any, None]:
    step: Step
    argument: Any
    while True:
        try:
            argument = yield waits_for
            step = coroutine.send
        except BaseException as error:  # noqa: BLE001  the coroutine decides what becomes of it
            step, argument = coroutine.throw, error
        try:
            waits_for = context.run(step, argument)
        except StopIteration:
            return
