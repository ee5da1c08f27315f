"""A minimum rate: a browser that sends a byte now and then must not hold an upload open for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from .refusal import UploadRefused


async def paced(chunks: AsyncIterator[bytes], bytes_per_second: int, grace_seconds: float) -> AsyncIterator[bytes]:
    """`chunks`, as long as waiting for them takes no more than `grace_seconds` beyond what the rate allows.

    Only the waiting counts, not what the server does with a chunk.

    Raises:
        UploadRefused: `too_slow`.
    """
    left = grace_seconds
    while True:
        started = time.monotonic()
        try:
            async with asyncio.timeout(left):
                chunk = await anext(chunks, b"")
        except TimeoutError:
            raise UploadRefused("too_slow", "The upload is too slow.") from None
        if not chunk:
            return
        left += len(chunk) / bytes_per_second - (time.monotonic() - started)
        # what was sent fast is no credit for a long stop
        left = min(left, grace_seconds)
        yield chunk
