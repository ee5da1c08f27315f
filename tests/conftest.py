"""What every test gets: an environment without `FLET_*`, a fresh `app_manager`, a check of what it leaves."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings
from prometheus_client import CollectorRegistry

from flet_fastapi.manager import AppManager, app_manager

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No variable of the machine counts, and run directories are made where pytest cleans up."""
    for name in [name for name in os.environ if name.startswith("FLET_")]:
        monkeypatch.delenv(name)
    run_dir = tmp_path_factory.getbasetemp() / "run"
    run_dir.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("FLET_RUN_DIR", str(run_dir))
    return run_dir


@pytest.fixture(autouse=True)
def _fresh_app_manager(_clean_environment: Path) -> Iterator[None]:
    _renew(app_manager)
    yield
    _renew(app_manager)


def _renew(manager: AppManager) -> None:
    manager.__dict__.pop("metrics", None)
    AppManager.__init__(manager, CollectorRegistry())


@pytest.fixture(autouse=True)
def _loop_is_left_clean(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_ends_its_tasks")


@pytest.fixture
async def _ends_its_tasks() -> AsyncIterator[None]:
    """A task that outlives its test, or was never waited for, fails it; so does the library blocking the loop."""
    failures: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    with blockbuster_ctx("flet_fastapi") as blockbuster:
        # Apps are made inside the loop here, and check that their directories can be used. A lock that the loop shares
        # with the app's threads is held for microseconds, but now and then the loop has to wait for it.
        for name in ("os.stat", "os.access", "os.scandir", "threading.Lock.acquire", "threading.Lock.acquire_lock"):
            blockbuster.functions[name].deactivate()
        yield
    for _ in range(20):  # tasks that were cancelled need turns of the loop to end
        await asyncio.sleep(0)
    leaked = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leaked, f"tasks are left over: {leaked}"
    gc.collect(0)
    assert not failures, f"the event loop complained: {failures}"


class Logs:
    """What this library logs during a test."""

    def __init__(self, captured: pytest.LogCaptureFixture) -> None:
        self._captured = captured

    def named(self, event: str) -> list[logging.LogRecord]:
        return [record for record in self._captured.records if getattr(record, "event", None) == event]

    def fields(self, event: str) -> list[dict[str, Any]]:
        return [vars(record)["fields"] for record in self.named(event)]

    @property
    def text(self) -> str:
        return self._captured.text


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Logs:
    caplog.set_level(logging.INFO, logger="flet_fastapi")
    return Logs(caplog)
