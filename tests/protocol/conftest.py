from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.serving import WEBSOCKETS, Served, serving

Serve = Callable[..., Any]


@pytest.fixture(params=[*WEBSOCKETS])
def ws(request: pytest.FixtureRequest) -> str:
    """The websocket implementation under uvicorn."""
    kind: str = request.param
    return kind


@pytest.fixture
async def serve(ws: str) -> AsyncIterator[Serve]:
    """`await serve(main, **limits)`: the app behind a real uvicorn, until the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(main: Any, **settings: Any) -> Served:
            return await stack.enter_async_context(serving(main, ws, **settings))

        yield start


@pytest.fixture
async def play() -> AsyncIterator[Serve]:
    """The same without a server: for what does not depend on one, and where sending must fail or stall at will."""
    async with AsyncExitStack() as stack:

        async def start(main: Any, **settings: Any) -> Served:
            return await stack.enter_async_context(serving(main, None, **settings))

        yield start
