"""Durations, errors and the state of the store are told, whatever it is made of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.cluster import Cluster, ClusterUnavailable, WorkerInfo
from flet_fastapi.cluster.embedded import EmbeddedCluster
from flet_fastapi.cluster.observed import ObservedCluster
from flet_fastapi.metrics import Metrics
from tests.conftest import Logs

ONE = WorkerInfo("a" * 22, "unix:/run/1", "one", 0, 1.0)


class Failing(EmbeddedCluster):
    """Fails as long as it is told to."""

    problem: ClusterUnavailable | None = None

    async def _run(self, work):  # type: ignore[no-untyped-def]
        if self.problem is not None:
            raise self.problem.again()
        return await super()._run(work)


class Observed:
    def __init__(self, path: Path) -> None:
        self.failing = Failing(path)
        self.metrics = Metrics(CollectorRegistry())
        self.told: list[str | None] = []
        self.lost = 0
        self.cluster: Cluster = ObservedCluster(self.failing, self.metrics, self.told.append, self._lose)

    def _lose(self) -> None:
        self.lost += 1

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def observed(tmp_path: Path):  # type: ignore[no-untyped-def]
    observed = Observed(tmp_path / "keys.sqlite3")
    yield observed
    await observed.cluster.close()


AWAY = ClusterUnavailable("redis://h", "is away", away=True)
FULL = ClusterUnavailable("redis://h", "is full", full=True)


async def test_every_operation_is_timed_under_its_name(observed: Observed) -> None:
    cluster = observed.cluster
    await cluster.put("k", b"v", 60)
    await cluster.get("k")
    await cluster.swap("k", b"v", b"w", 60)
    await cluster.take("k")
    await cluster.add("k", b"v", 60)
    await cluster.delete("k")
    await cluster.increase("n", 1, 60)
    await cluster.announce(ONE, 60)
    await cluster.workers()
    await cluster.withdraw(ONE.id)
    await cluster.check()
    names = ["put", "get", "swap", "take", "add", "delete", "increase", "announce", "workers", "withdraw", "check"]
    assert [observed.value("flet_store_seconds_count", operation=name) for name in names] == [1] * 11
    assert [observed.value("flet_store_errors_total", operation=name) for name in names] == [0] * 11
    assert observed.value("flet_store_up") == 1


async def test_failures_are_counted_and_told(observed: Observed, logs: Logs) -> None:
    observed.failing.problem = AWAY
    for _ in range(3):
        with pytest.raises(ClusterUnavailable):
            await observed.cluster.get("k")
    assert observed.value("flet_store_errors_total", operation="get") == 3
    assert observed.value("flet_store_seconds_count", operation="get") == 3
    assert observed.value("flet_store_up") == 0
    assert observed.told[-1] == "redis://h: is away"
    observed.failing.problem = None
    await observed.cluster.get("k")
    assert (observed.value("flet_store_up"), observed.told[-1]) == (1, None)
    assert logs.fields("store_away") == [{"place": "redis://h", "problem": "is away"}]
    assert len(logs.named("store_back")) == 1


async def test_store_that_comes_and_goes_does_not_fill_the_log(observed: Observed, logs: Logs) -> None:
    for problem in [AWAY, None] * 10:
        observed.failing.problem = problem
        with suppress(ClusterUnavailable):
            await observed.cluster.get("k")
    assert (len(logs.named("store_away")), len(logs.named("store_back"))) == (1, 1)


async def test_full_store_is_not_well_because_it_can_be_read(observed: Observed) -> None:
    observed.failing.problem = FULL
    with pytest.raises(ClusterUnavailable):
        await observed.cluster.put("k", b"v", 60)
    observed.failing.problem = None
    await observed.cluster.get("k")
    assert observed.value("flet_store_up") == 0
    await observed.cluster.put("k", b"v", 60)
    assert observed.value("flet_store_up") == 1


async def test_lost_announcement_is_told_once(observed: Observed, logs: Logs) -> None:
    for _ in range(2):
        await observed.cluster.announce(ONE, 60)
    assert observed.lost == 0
    await observed.failing.withdraw(ONE.id)
    for _ in range(2):
        await observed.cluster.announce(ONE, 60)
    assert (observed.lost, len(logs.named("store_was_emptied"))) == (1, 1)


async def test_withdrawal_is_no_loss(observed: Observed) -> None:
    await observed.cluster.announce(ONE, 60)
    await observed.cluster.withdraw(ONE.id)
    await observed.cluster.announce(ONE, 60)
    assert observed.lost == 0
