import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The websocket protocol must behave the same on both loops that uvicorn runs on: their transports differ."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if "test_websockets" in item.nodeid:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
