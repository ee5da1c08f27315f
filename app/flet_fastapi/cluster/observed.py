"""A cluster whose operations are timed, counted and told of, whatever it is made of."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..logs import get_logger
from ..metrics import Metrics
from .base import Cluster, ClusterUnavailable, WorkerInfo

T = TypeVar("T")

log = get_logger(__name__)

# They say nothing of a store that is full: it can be read still.
_READS = frozenset({"get", "workers"})
# A store that comes and goes all the time is told of so often.
_QUIET_SECONDS = 10.0


class ObservedCluster(Cluster):
    """`cluster`, observed. `tell(problem)` hears what is wrong with it, None if nothing is any more.

    `lost()` is called when the store has lost this worker's announcement, and so perhaps everything: what is held here
    should be written again, for other workers may look for it.
    """

    def __init__(
        self,
        cluster: Cluster,
        metrics: Metrics,
        tell: Callable[[str | None], None] = lambda _: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.cluster = cluster
        self._seconds = metrics.store_seconds
        self._errors = metrics.store_errors
        self._up = metrics.store_up
        self._up.set(1)
        self._tell = tell
        self._lost = lost
        self._problem: ClusterUnavailable | None = None
        self._logged = False
        self._logged_at = -_QUIET_SECONDS
        self._announced = False

    async def put(self, key: str, value: bytes, ttl_seconds: float) -> None:
        await self._observe("put", self.cluster.put(key, value, ttl_seconds))

    async def get(self, key: str) -> bytes | None:
        return await self._observe("get", self.cluster.get(key))

    async def take(self, key: str) -> bytes | None:
        return await self._observe("take", self.cluster.take(key))

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        return await self._observe("add", self.cluster.add(key, value, ttl_seconds))

    async def swap(self, key: str, expected: bytes, value: bytes, ttl_seconds: float) -> bool:
        return await self._observe("swap", self.cluster.swap(key, expected, value, ttl_seconds))

    async def delete(self, key: str, expected: bytes | None = None) -> bool:
        return await self._observe("delete", self.cluster.delete(key, expected))

    async def increase(self, key: str, amount: int, ttl_seconds: float) -> int:
        return await self._observe("increase", self.cluster.increase(key, amount, ttl_seconds))

    async def announce(self, worker: WorkerInfo, ttl_seconds: float) -> bool:
        listed = await self._observe("announce", self.cluster.announce(worker, ttl_seconds))
        if self._announced and not listed:
            log.warning(
                "store_was_emptied", hint="or this worker was stopped for a while; it writes again what it holds"
            )
            self._lost()
        self._announced = True
        return listed

    async def withdraw(self, worker_id: str) -> None:
        self._announced = False
        await self._observe("withdraw", self.cluster.withdraw(worker_id))

    async def workers(self) -> list[WorkerInfo]:
        return await self._observe("workers", self.cluster.workers())

    async def check(self) -> None:
        await self._observe("check", self.cluster.check())

    async def close(self) -> None:
        await self.cluster.close()

    async def _observe(self, operation: str, work: Awaitable[T]) -> T:
        started = time.perf_counter()
        try:
            result = await work
        except ClusterUnavailable as error:
            self._errors.labels(operation).inc()
            self._note(error)
            raise
        finally:
            self._seconds.labels(operation).observe(time.perf_counter() - started)
        if self._problem is not None and not (operation in _READS and self._problem.full):
            self._note(None)
        return result

    def _note(self, problem: ClusterUnavailable | None) -> None:
        self._problem = problem
        self._up.set(problem is None)
        self._tell(None if problem is None else str(problem))
        if (problem is not None) == self._logged or (
            problem is not None and time.monotonic() - self._logged_at < _QUIET_SECONDS
        ):
            return
        self._logged, self._logged_at = problem is not None, time.monotonic()
        if problem is not None:
            log.warning("store_away", place=problem.place, problem=problem.problem)
        else:
            log.info("store_back")
