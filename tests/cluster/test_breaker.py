from __future__ import annotations

import asyncio

import pytest

from flet_fastapi.cluster import ClusterUnavailable
from flet_fastapi.cluster.again import WritingAgain
from flet_fastapi.cluster.breaker import Breaker
from flet_fastapi.tasks import Tasks

AWAY = ClusterUnavailable("redis://h", "is away", away=True)


class Store:
    """Something to look for; `times` says when it was looked for, with the clock of the loop."""

    def __init__(self) -> None:
        self.away = True
        self.times: list[float] = []

    async def look(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        if self.away:
            raise ClusterUnavailable("redis://h", f"is away, look {len(self.times)}")


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flet_fastapi.cluster.breaker._FIRST_SECONDS", 0.02)
    monkeypatch.setattr("flet_fastapi.cluster.breaker._LAST_SECONDS", 0.1)


async def test_nothing_is_looked_for_that_is_not_away() -> None:
    store = Store()
    breaker = Breaker(store.look)
    breaker.check()
    await breaker.close()
    assert store.times == []


@pytest.mark.usefixtures("_fast")
async def test_callers_fail_with_the_latest_problem_until_it_is_back() -> None:
    store = Store()
    breaker = Breaker(store.look)
    breaker.trip(AWAY)
    with pytest.raises(ClusterUnavailable, match="is away"):
        breaker.check()
    while len(store.times) < 2:
        await asyncio.sleep(0.001)
    with pytest.raises(ClusterUnavailable, match=r"look \d") as unavailable:
        breaker.check()
    assert unavailable.value.__traceback__ is not None
    store.away = False
    async with asyncio.timeout(5):
        while True:
            try:
                breaker.check()
                break
            except ClusterUnavailable:
                await asyncio.sleep(0.001)
    await breaker.close()


@pytest.mark.usefixtures("_fast")
async def test_pauses_grow_to_a_bound() -> None:
    store = Store()
    breaker = Breaker(store.look)
    breaker.trip(AWAY)
    breaker.trip(AWAY)
    while len(store.times) < 8:
        await asyncio.sleep(0.001)
    await breaker.close()
    pauses = [after - before for before, after in zip(store.times, store.times[1:], strict=False)]
    assert min(pauses) >= 0.01
    assert min(pauses[4:]) >= 0.05


async def test_closing_ends_the_look() -> None:
    breaker = Breaker(Store().look)
    breaker.trip(AWAY)
    await breaker.close()
    assert len(asyncio.all_tasks()) == 1


async def test_writing_again_goes_on_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flet_fastapi.cluster.again._PAUSE_SECONDS", 0.01)
    tasks, tries = Tasks(), list[int]()

    async def write() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise AWAY.again()

    again = WritingAgain(tasks, write)
    again.ask()
    again.ask()
    async with asyncio.timeout(5):
        while len(tries) < 3 or len(tasks):
            await asyncio.sleep(0.001)
    again.ask()
    async with asyncio.timeout(5):
        while len(tries) < 4:
            await asyncio.sleep(0.001)
    await tasks.stop()
