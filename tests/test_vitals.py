from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi import vitals
from flet_fastapi.metrics import Metrics
from flet_fastapi.vitals import forget_dead, memory_bytes, watch_loop, watch_process

MEGABYTE = 1024 * 1024


@pytest.fixture
async def metrics() -> AsyncIterator[Metrics]:
    metrics = Metrics(CollectorRegistry(), "0")
    watching = [asyncio.create_task(watch(metrics)) for watch in (watch_loop, watch_process)]
    await asyncio.sleep(0)
    yield metrics
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


def value(metrics: Metrics, name: str, **labels: Any) -> float:
    metrics.settle()
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_loop_that_is_held_up_is_late_for_as_long_as_it_is(metrics: Metrics) -> None:
    await asyncio.sleep(0)
    time.sleep(1)
    await until(lambda: value(metrics, "flet_event_loop_lag_seconds_count"))
    late = value(metrics, "flet_event_loop_lag_seconds_count")
    quick = value(metrics, "flet_event_loop_lag_seconds_bucket", le="0.1")
    # each of the looks that fell into that second
    assert 7 <= late - quick <= 11
    assert 3.5 <= value(metrics, "flet_event_loop_lag_seconds_sum") <= 7


async def test_idle_loop_is_hardly_late(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    await until(lambda: value(metrics, "flet_event_loop_lag_seconds_count") >= 3)
    assert value(metrics, "flet_event_loop_lag_seconds_sum") < 0.5


async def test_memory_is_what_the_process_takes(metrics: Metrics) -> None:
    await until(lambda: value(metrics, "flet_worker_memory_bytes", worker="0"))
    assert 10 * MEGABYTE < value(metrics, "flet_worker_memory_bytes", worker="0") < 4096 * MEGABYTE


def test_memory_grows_by_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (vitals._MEMORY, Path("/no/such/file")):
        monkeypatch.setattr(vitals, "_MEMORY", source)
        before = memory_bytes()
        taken = bytearray(b"x") * (64 * MEGABYTE)
        assert 50 * MEGABYTE < memory_bytes() - before < 90 * MEGABYTE
        del taken


def test_gauges_of_dead_processes_are_forgotten_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    dead = [f"gauge_livesum_{gone.pid}.db", f"gauge_livemax_{gone.pid}.db"]
    stay = [
        f"counter_{gone.pid}.db", f"gauge_all_{gone.pid}.db", f"gauge_livesum_{os.getpid()}.db", "gauge_livesum_x.db",
        f"gauge_livesum_{gone.pid}.db.bak",
    ]  # fmt: skip
    for name in dead + stay:
        (tmp_path / name).touch()
    forget_dead(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(stay)


def test_memory_is_none_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "_MEMORY", Path("/no/such/file"))
    monkeypatch.setattr(vitals, "_PAGES", Path("/no/such/file"))
    assert memory_bytes() == 0


async def test_runs_of_the_garbage_collector_are_counted_and_timed(metrics: Metrics) -> None:
    before = value(metrics, "flet_gc_collections_total", generation="2")
    paused = value(metrics, "flet_gc_pause_seconds_count")
    for _ in range(5):
        gc.collect()
    assert value(metrics, "flet_gc_collections_total", generation="2") - before == 5
    assert value(metrics, "flet_gc_pause_seconds_count") - paused >= 5
    assert value(metrics, "flet_gc_pause_seconds_sum") > 0


async def test_collector_is_left_as_it_was() -> None:
    before = list(gc.callbacks)
    task = asyncio.create_task(watch_process(Metrics(CollectorRegistry())))
    await asyncio.sleep(0)
    assert len(gc.callbacks) == len(before) + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gc.callbacks == before


async def test_versions_are_said(metrics: Metrics) -> None:
    await until(lambda: metrics.build_info._metrics)
    ((version, python, flet),) = metrics.build_info._metrics
    assert flet == "0.24.1" and python.startswith("3.") and version
