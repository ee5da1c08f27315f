from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.manager import AppManager
from roost import admission, cgroup
from roost.admission import Admission, usage_of
from roost.board import Board
from roost.cgroup import Memory
from roost.health import Health
from roost.settings import MaxMemory, Settings

MiB = 1024 * 1024


def make(monkeypatch: pytest.MonkeyPatch, max_memory: str | None, used: list[int]) -> tuple[Admission, Health, Any]:
    monkeypatch.setattr(cgroup, "memory", lambda: Memory(used[0] * MiB, 100 * MiB))
    monkeypatch.setattr(admission, "memory_bytes", lambda: used[0] * MiB)
    health, manager = Health(0, Board(1), loaded=True), AppManager(CollectorRegistry())
    return Admission(Settings.load(app="x", max_memory=max_memory), health, manager), health, manager


@pytest.mark.parametrize(
    ("setting", "used", "full"),
    [
        (None, 89, False), (None, 91, True), ("50%", 51, True), ("0.5", 49, False), ("60MB", 61, True),
        ("1GiB", 99, False),
    ],
)  # fmt: skip
async def test_memory_above_the_bound_takes_no_new_sessions(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, used: int, full: bool
) -> None:
    watch, health, manager = make(monkeypatch, setting, [used])
    await watch.look()
    assert (health.full is not None) is full
    assert manager.make_room(None) is not full
    assert manager.metrics.registry.get_sample_value("flet_worker_ready", {"worker": "0"}) == (not full)


async def test_it_takes_them_again_once_there_is_some_room(monkeypatch: pytest.MonkeyPatch) -> None:
    used = [91]
    watch, health, manager = make(monkeypatch, "90%", used)
    seen = []
    for used[0] in (91, 89, 87, 89):
        await watch.look()
        seen.append(health.full is None)
    assert seen == [False, False, True, True]
    assert manager.refusing is None


async def test_a_worker_that_drains_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, health, manager = make(monkeypatch, "90%", [1])
    health.draining, manager.refusing = True, "draining"
    await watch.look()
    assert not manager.make_room(None)


async def test_a_worker_with_all_its_sessions_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, health, _ = make(monkeypatch, "90%", [1])
    monkeypatch.setattr(AppManager, "is_full", True)
    await watch.look()
    assert health.full is not None
    assert "FLET_MAX_SESSIONS" in health.full


def test_without_a_limit_of_the_container_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory", lambda: None)
    assert usage_of(None) is None


def test_a_share_that_is_asked_for_is_of_the_machine_if_there_is_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory", lambda: None)
    monkeypatch.setattr(cgroup, "host_memory", lambda: Memory(5, 1000))
    usage = usage_of(MaxMemory(0.5, None))
    assert usage is not None
    assert usage() == (5, 500)
