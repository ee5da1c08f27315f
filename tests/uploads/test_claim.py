from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flet_fastapi.cluster import Cluster
from flet_fastapi.cluster.embedded import EmbeddedCluster
from flet_fastapi.uploads.claim import Claim
from flet_fastapi.uploads.refusal import UploadRefused
from flet_fastapi.uploads.urls import Grant
from tests.support.clock import Clock, clock

__all__ = ["clock"]  # a fixture

LEASE = 30


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = EmbeddedCluster(tmp_path / "keys.sqlite3")
    yield cluster
    await cluster.close()


def make_claim(cluster: Cluster, lease: float = LEASE) -> Claim:
    return Claim(cluster, Grant("/upload", "f", "s", time.time() + 60, None, "nonce"), lease)


async def error_of(claim: Claim) -> str:
    with pytest.raises(UploadRefused) as refused:
        await claim.take()
    return refused.value.error


async def test_claim_is_kept_beyond_its_lease(cluster: Cluster, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, renewals = make_claim(cluster, 0.03), asyncio.Semaphore(0)
    swap = cluster.swap

    async def swap_and_wait(*args: Any) -> bool:
        kept = await swap(*args)
        clock.now += 0.02
        renewals.release()
        return kept

    monkeypatch.setattr(cluster, "swap", swap_and_wait)
    await claim.take()
    keeping = asyncio.create_task(claim.keep())
    for _ in range(4):
        await renewals.acquire()
    keeping.cancel()
    assert await error_of(make_claim(cluster)) == "in_progress"


async def test_claim_that_nobody_keeps_ends(cluster: Cluster, clock: Clock) -> None:
    abandoned, next_try = make_claim(cluster), make_claim(cluster)
    await abandoned.take()
    clock.now += LEASE
    await next_try.take()
    with pytest.raises(UploadRefused, match="409"):
        await abandoned.renew()
    await abandoned.release()
    await next_try.renew()


async def test_finished_claim_stays_after_its_lease(cluster: Cluster, clock: Clock) -> None:
    claim = make_claim(cluster)
    await claim.take()
    await claim.finish()
    await claim.release()
    clock.now += LEASE
    assert await error_of(make_claim(cluster)) == "already_used"


async def test_store_that_fails_for_a_while_does_not_end_the_keeping(cluster: Cluster, tmp_path: Path) -> None:
    claim = make_claim(cluster, 0.06)
    await claim.take()
    (tmp_path / "keys.sqlite3").rename(tmp_path / "away")
    (tmp_path / "keys.sqlite3").mkdir()
    keeping = asyncio.create_task(claim.keep())
    await asyncio.sleep(0.1)
    claim.check()
    assert not keeping.done()
    keeping.cancel()
