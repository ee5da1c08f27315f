"""What the container may use: CPUs and memory of its cgroup, version 1 or 2, in place of the host's.

Sources: cgroup-v1/memory.rst and cgroup-v2.rst of the kernel's documentation, and proc(5) for mountinfo.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# Version 1 says "no limit" by the largest number of whole pages, which depends on the page size.
_UNLIMITED = 1 << 60


class Memory(NamedTuple):
    """Bytes in use, without what the kernel can drop (its cache of files), and the most there may be."""

    used: int
    limit: int


class _Level(NamedTuple):
    """One directory of a hierarchy."""

    path: Path
    version: int


def cpus(root: Path = Path("/")) -> int:
    """How many CPUs this process may keep busy, at least one: those it may run on, or what its quota pays for."""
    return max(1, min(_usable(), math.ceil(quota) if (quota := cpu_quota(root)) is not None else _usable()))


def _usable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The CPUs that the tightest quota of the process's cgroup and those above it pays for; None without any."""
    quotas = [_quota(level) for level in _levels(root, "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(level: _Level) -> float | None:
    if level.version == 2:
        limit, _, period = _text(level.path / "cpu.max").partition(" ")
    else:
        limit, period = _text(level.path / "cpu.cfs_quota_us"), _text(level.path / "cpu.cfs_period_us")
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None


def memory(root: Path = Path("/")) -> Memory | None:
    """What the tightest limit bounds; None without any."""
    found = [found for level in _levels(root, "memory") if (found := _memory(level)) is not None]
    return min(found, key=lambda memory: memory.limit, default=None)


def host_memory(root: Path = Path("/")) -> Memory | None:
    """The whole machine's."""
    lines = (line.split() for line in _text(root / "proc/meminfo").splitlines())
    sizes = {line[0]: int(line[1]) * 1024 for line in lines if len(line) == 3 and line[1].isdigit()}
    try:
        return Memory(sizes["MemTotal:"] - sizes["MemAvailable:"], sizes["MemTotal:"])
    except KeyError:
        return None


def _memory(level: _Level) -> Memory | None:
    two = level.version == 2
    try:
        limit = int(_text(level.path / ("memory.max" if two else "memory.limit_in_bytes")))
        used = int(_text(level.path / ("memory.current" if two else "memory.usage_in_bytes")))
    except ValueError:  # "max", or no such file
        return None
    if limit >= _UNLIMITED:
        return None
    cache = _statistic(level.path / "memory.stat", "inactive_file" if two else "total_inactive_file")
    return Memory(max(0, used - cache), limit)


def _statistic(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


@lru_cache(8)
def _levels(root: Path, controller: str) -> tuple[_Level, ...]:
    """The process's own directory in the hierarchy of `controller` and those above it, as far as they can be seen."""
    return tuple(_found_levels(root, controller))


def _found_levels(root: Path, controller: str) -> Iterator[_Level]:
    mount = _mount(root, controller)
    if mount is None:
        return
    point, inner, version = mount
    own = _own_path(root, controller if version == 1 else "")
    # a container sees its own cgroup as the root, whatever its name is outside
    relative = os.path.relpath(own, inner) if own == inner or own.startswith(inner.rstrip("/") + "/") else "."
    place = Path(os.path.normpath(point / relative))
    while place.is_relative_to(point):
        if place.is_dir():
            yield _Level(place, version)
        if place == point:
            return
        place = place.parent


def _mount(root: Path, controller: str) -> tuple[Path, str, int] | None:
    """Where the hierarchy is mounted, which of its directories is there, and its version."""
    unified = None
    for line in _text(root / "proc/self/mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        parts, kinds = fields.split(), kind.split()
        if len(parts) < 5 or not kinds:
            continue
        place, inner = root / parts[4].lstrip("/"), parts[3]
        if kinds[0] == "cgroup" and controller in kinds[-1].split(","):
            return place, inner, 1
        if kinds[0] == "cgroup2":
            unified = place, inner, 2
    return unified


def _own_path(root: Path, controller: str) -> str:
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and (controller or number == "0"):
            return path
    return "/"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
