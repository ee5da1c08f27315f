from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from flet_fastapi.uploads.pace import paced
from flet_fastapi.uploads.refusal import UploadRefused


async def drip(chunk: bytes, pause: float) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(pause)
        yield chunk


async def count(chunks: AsyncIterator[bytes]) -> int:
    """How many chunks come before the browser is found too slow."""
    number = 0
    try:
        async for _ in chunks:
            number += 1
    except UploadRefused as refused:
        return number if refused.error == "too_slow" else -1
    return -1


async def test_drops_that_never_stop_are_too_slow() -> None:
    number = await count(paced(drip(b"x", 0.01), 1000, 0.2))
    assert 1 <= number <= 30


async def test_credit_for_speed_is_bounded() -> None:
    async def fast_then_silent() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        await asyncio.Event().wait()

    assert await count(paced(fast_then_silent(), 1, 0.05)) == 1


async def test_rate_above_the_minimum_is_enough() -> None:
    chunks = paced(drip(b"x" * 1000, 0.001), 1000, 0.5)
    received = [await anext(chunks) for _ in range(100)]
    assert len(received) == 100


async def test_time_that_the_server_takes_does_not_count() -> None:
    async def ready() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x"

    number = 0
    async for _ in paced(ready(), 1_000_000, 0.1):
        await asyncio.sleep(0.05)
        number += 1
    assert number == 5
