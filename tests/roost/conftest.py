import asyncio
import os
from collections.abc import Callable, Iterator

import pytest
import uvloop


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine() -> Iterator[None]:
    """No `ROOST_*` variable counts, and what a command sets for its workers is gone afterwards."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ROOST_")}
    yield
    for name in [name for name in os.environ if name.startswith("ROOST_")]:
        del os.environ[name]
    os.environ.update(before)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The websocket protocol must behave the same on both loops that uvicorn runs on: their transports differ."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if "test_websockets" in item.nodeid:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
