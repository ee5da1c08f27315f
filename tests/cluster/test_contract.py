"""What every cluster does, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flet_fastapi.cluster import Cluster, WorkerInfo
from tests.cluster.conftest import STORES, Store

T = TypeVar("T")

# A key that is to expire lives so long: every operation that the test makes before takes less.
SOON = 0.25

ONE = WorkerInfo("a" * 22, "unix:/run/x/1", "host one", 0, 1_700_000_000.5)
TWO = WorkerInfo("b" * 22, "tcp://[fd00::2]:7001", "höst", None, 1.0)


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    store: Store = request.getfixturevalue(request.param)
    yield store
    await store.close()


@pytest.fixture
def cluster(store: Store) -> Cluster:
    return store.open()


async def until(ask: Callable[[], Awaitable[T]], wanted: T) -> None:
    """Wait until `ask()` gives what is wanted."""
    async with asyncio.timeout(10):
        while await ask() != wanted:
            await asyncio.sleep(0.01)


async def gone(cluster: Cluster, key: str) -> None:
    await until(lambda: cluster.get(key), None)


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_key_holds_what_was_put(cluster: Cluster) -> None:
    await cluster.put("k", b"\0old", 60)
    await cluster.put("k", b"\0new", 60)
    assert (await cluster.get("k"), await cluster.get("other")) == (b"\0new", None)


async def test_key_expires(cluster: Cluster) -> None:
    for key in "abcd":
        await cluster.put(key, b"v", SOON)
    await gone(cluster, "d")
    assert [
        await cluster.take("a"),
        await cluster.swap("b", b"v", b"w", 60),
        await cluster.delete("c"),
        await cluster.delete("c", b"v"),
    ] == [None, False, False, False]


async def test_key_lives_as_long_as_was_said_last(cluster: Cluster) -> None:
    await cluster.put("clock", b"", SOON)
    await cluster.put("put", b"", SOON)
    await cluster.put("put", b"v", 60)
    await cluster.put("swapped", b"v", SOON)
    await cluster.swap("swapped", b"v", b"v", 60)
    await cluster.increase("number", 1, SOON)
    await cluster.increase("number", 1, 60)
    await gone(cluster, "clock")
    assert [await cluster.get(key) for key in ("put", "swapped", "number")] == [b"v", b"v", b"2"]


async def test_key_without_time_is_not_there(cluster: Cluster) -> None:
    """Sign-ins and upload URLs are kept for what is left of their time."""
    for key in "abc":
        await cluster.put(key, b"v", 60)
    await cluster.put("a", b"w", -1)
    assert [await cluster.add("new", b"w", 0), await cluster.add("b", b"w", 0)] == [True, False]
    assert [await cluster.swap("c", b"v", b"w", -0.5), await cluster.increase("n", 5, 0)] == [True, 5]
    assert [await cluster.get(key) for key in ("a", "new", "b", "c", "n")] == [None, None, b"v", None, None]


async def test_key_is_taken_once(store: Store) -> None:
    clusters = [store.open() for _ in range(3)]
    await clusters[0].put("k", b"v", 60)
    taken = await asyncio.gather(*(cluster.take("k") for cluster in clusters for _ in range(5)))
    assert sorted(taken, key=bool) == [None] * 14 + [b"v"]


async def test_add_leaves_what_is_there_unless_it_has_expired(cluster: Cluster) -> None:
    first, second = await cluster.add("k", b"1", SOON), await cluster.add("k", b"2", SOON)
    await gone(cluster, "k")
    third = await cluster.add("k", b"3", 60)
    assert ([first, second, third], await cluster.get("k")) == ([True, False, True], b"3")


async def test_one_of_several_workers_adds(store: Store) -> None:
    clusters = [store.open() for _ in range(3)]
    added = await asyncio.gather(*(cluster.add("k", b"v", 60) for cluster in clusters for _ in range(10)))
    assert added.count(True) == 1


async def test_swap_needs_the_value_that_is_there(cluster: Cluster) -> None:
    await cluster.put("k", b"1", 60)
    assert [await cluster.swap("k", b"0", b"2", 60), await cluster.swap("k", b"1", b"3", 60)] == [False, True]
    assert [await cluster.get("k"), await cluster.swap("other", b"", b"", 60)] == [b"3", False]


async def test_one_of_several_workers_swaps(store: Store) -> None:
    clusters = [store.open() for _ in range(3)]
    await clusters[0].put("k", b"1", 60)
    swapped = await asyncio.gather(*(cluster.swap("k", b"1", b"2", 60) for cluster in clusters for _ in range(10)))
    assert swapped.count(True) == 1


async def test_delete_may_name_the_value(cluster: Cluster) -> None:
    await cluster.put("k", b"1", 60)
    assert [await cluster.delete("k", b"0"), await cluster.delete("k", b"1"), await cluster.delete("k")] == [
        False, True, False,
    ]  # fmt: skip


async def test_number_starts_anew_when_it_has_expired(cluster: Cluster) -> None:
    numbers = [await cluster.increase("n", amount, SOON) for amount in (5, 10**18, -7)]
    assert numbers == [5, 10**18 + 5, 10**18 - 2]
    await gone(cluster, "n")
    assert await cluster.increase("n", 1, 60) == 1


async def test_workers_count_together(store: Store) -> None:
    clusters = [store.open() for _ in range(3)]
    numbers = await asyncio.gather(*(cluster.increase("n", 2, 60) for cluster in clusters for _ in range(20)))
    assert sorted(numbers) == list(range(2, 122, 2))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(key=st.text(st.characters(exclude_categories=["Cs"])), value=st.binary())
async def test_any_key_and_value_come_back(cluster: Cluster, key: str, value: bytes) -> None:
    await cluster.put(key, value, 60)
    assert await cluster.swap(key, value, value + b"!", 60)
    assert await cluster.get(key) == value + b"!"
    assert await cluster.take(key) == value + b"!"


async def test_large_value_comes_back(cluster: Cluster) -> None:
    """A completion page of a sign-in may have 256 K characters."""
    page = "ö".encode() * 256 * 1024
    await cluster.put("k", page, 60)
    assert await cluster.take("k") == page


async def test_loop_does_no_blocking_work(store: Store) -> None:
    with blockbuster_ctx():
        cluster = store.open()
        await cluster.put("k", b"v", 60)
        assert await cluster.take("k") == b"v"
        await cluster.announce(ONE, 60)
        assert await cluster.workers() == [ONE]


async def test_cancelled_operation_leaves_no_answer_for_the_next(cluster: Cluster) -> None:
    await cluster.put("a", b"a", 60)
    await cluster.put("b", b"b", 60)
    for turns in range(12):
        waiting = asyncio.create_task(cluster.get("a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        assert await cluster.get("b") == b"b"
        await asyncio.gather(waiting, return_exceptions=True)


async def test_many_operations_at_once(cluster: Cluster) -> None:
    await asyncio.gather(*(cluster.put(str(i), str(i).encode(), 60) for i in range(300)))
    assert await asyncio.gather(*(cluster.get(str(i)) for i in range(300))) == [str(i).encode() for i in range(300)]


async def test_store_that_can_be_used_passes_the_check(cluster: Cluster) -> None:
    await cluster.check()


# --- the directory ---------------------------------------------------------------------------------------------------


async def test_workers_are_listed_as_they_announced_themselves(cluster: Cluster) -> None:
    await cluster.announce(TWO, 60)
    await cluster.announce(ONE, 60)
    assert await cluster.workers() == [ONE, TWO]


async def test_announcement_replaces_the_one_before(cluster: Cluster) -> None:
    moved = replace(ONE, address="tcp://10.0.0.1:7000", slot=3)
    assert [await cluster.announce(ONE, 60), await cluster.announce(moved, 60)] == [False, True]
    assert await cluster.workers() == [moved]


async def test_worker_withdraws(cluster: Cluster) -> None:
    await cluster.announce(ONE, 60)
    await cluster.announce(TWO, 60)
    await cluster.withdraw(ONE.id)
    await cluster.withdraw("unknown")
    assert await cluster.workers() == [TWO]
    assert await cluster.announce(ONE, 60) is False


async def test_silent_worker_is_forgotten(cluster: Cluster) -> None:
    await cluster.announce(ONE, SOON)
    await cluster.announce(TWO, 60)
    await until(cluster.workers, [TWO])
    assert await cluster.announce(ONE, 60) is False


async def test_announcement_extends_the_one_before(cluster: Cluster) -> None:
    await cluster.put("clock", b"", SOON)
    await cluster.announce(ONE, SOON)
    await cluster.announce(ONE, 60)
    await until(lambda: cluster.get("clock"), None)
    assert await cluster.workers() == [ONE]


async def test_keys_are_not_workers(cluster: Cluster) -> None:
    for key in ("workers", "key:workers", "", "{x}"):
        await cluster.put(key, b"v", 60)
    await cluster.announce(ONE, 60)
    assert await cluster.workers() == [ONE]
    assert await cluster.get("workers") == b"v"


async def test_hundred_workers_are_listed(store: Store) -> None:
    clusters = [store.open() for _ in range(3)]
    infos = [replace(ONE, id=f"{i:022}") for i in range(100)]
    await asyncio.gather(*(clusters[i % 3].announce(info, 60) for i, info in enumerate(infos)))
    assert await clusters[0].workers() == infos
