"""How the worker itself does: how late its event loop is, how much memory it takes, how long it collects garbage."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from .metrics import Metrics

_LOOK_SECONDS = 0.1
# The kernel walks through the page tables for it: milliseconds for a large worker.
_MEMORY_SECONDS = 10
_MEMORY = Path("/proc/self/smaps_rollup")
_PAGES = Path("/proc/self/statm")
# prometheus_client's own setting, for programs whose processes share their numbers.
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_OF_PROCESS = re.compile(r"gauge_live[a-z]+_(\d+)\.db")
_PROPORTIONAL = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)


async def watch_loop(metrics: Metrics) -> None:
    """Go on for ever: note how late the loop is. What it holds up for a second counts for every look in that second."""
    while True:
        due = perf_counter() + _LOOK_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)
        late = max(0.0, perf_counter() - due)
        metrics.lags.note(late)
        while (late := late - _LOOK_SECONDS) > 0:
            metrics.lags.note(late)


async def watch_process(metrics: Metrics) -> None:
    """Go on for ever: measure the memory, and the pauses that the garbage collector makes."""
    pauses = _Pauses(metrics)
    gc.callbacks.append(pauses)
    try:
        metrics.build_info.labels(*await asyncio.to_thread(_versions)).set(1)
        memory = metrics.worker_memory_bytes.labels(metrics.worker)
        while True:
            memory.set(await asyncio.to_thread(memory_bytes))
            if metrics.by_process:
                await asyncio.to_thread(forget_dead, Path(os.environ[_DIRECTORY]))
            await asyncio.sleep(_MEMORY_SECONDS)
    finally:
        gc.callbacks.remove(pauses)


class _Pauses:
    """Notes how long the collector runs. It may run anywhere, also while a lock is held: nothing here takes one."""

    def __init__(self, metrics: Metrics) -> None:
        self._note = metrics.pauses.note
        self._began = perf_counter()

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self._note(perf_counter() - self._began)


def forget_dead(directory: Path) -> None:
    """Remove what processes that have died said of the present, where it is kept in files named after processes.

    prometheus_client wants the server's own hook for that, which not every server has.
    """
    for file in directory.glob("gauge_live*.db"):
        found = _OF_PROCESS.fullmatch(file.name)
        if found is not None and not Path("/proc", found[1]).exists() and Path("/proc/self").exists():
            file.unlink(missing_ok=True)


def memory_bytes() -> int:
    """The memory that this process takes, its share of what it has in common with others included.

    Workers that were forked have much in common; their resident sizes would count that many times. Where the kernel
    does not say, it is the resident size less what is shared.
    """
    if (found := _PROPORTIONAL.search(_read(_MEMORY))) is not None:
        return int(found[1]) * 1024
    pages = _read(_PAGES).split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # not Linux, or not all of it
        return b""


def _versions() -> tuple[str, str, str]:
    """Of this library, of Python, of the Flet that apps are written with."""
    return _version("flet-fastapi"), platform.python_version(), _version("flet-core")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"
