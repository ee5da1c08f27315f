"""What the workers of one server share: keys with expiry, and the directory of the workers that live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..errors import FletFastAPIError


class ClusterUnavailable(FletFastAPIError):
    """The shared store cannot be used now; a later call may succeed.

    `place` is where the store is, never with a password, and `problem` what the system said. `full` is set if the disk,
    or the store's memory, has no room; `away` if nothing else can be done there either, and `denied` if that is because
    the store does not accept our password, or is one that cannot be used.
    """

    def __init__(
        self, place: str, problem: str, *, full: bool = False, away: bool = False, denied: bool = False
    ) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem
        self.full = full
        self.away = away
        self.denied = denied

    def again(self) -> ClusterUnavailable:
        """The same, to be raised once more: an exception keeps the traceback of who raised it."""
        return ClusterUnavailable(self.place, self.problem, full=self.full, away=self.away, denied=self.denied)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself in the directory.

    `id` is random for each start of a process. `address` is where other workers reach it: `unix:/path` or
    `tcp://host:port`. `node` names its machine or container, `slot` its place among the workers there if it has one,
    and `started` is a time in seconds since 1970 by its own clock.
    """

    id: str
    address: str
    node: str
    slot: int | None
    started: float


class Cluster(ABC):
    """Keys that every worker sees. Each operation is atomic; a key whose time is over does not exist.

    Every method raises `ClusterUnavailable` if the store cannot be used: within seconds, and at once as long as it is
    known to be away. Whether a change was made that ended like this is unknown.

    The directory lists what announced itself less than its `ttl_seconds` ago, by the store's clock, however those of
    the workers differ. Who cannot read it goes on with what it read last: that the store is away says nothing of the
    workers. A store that lost everything has an empty directory until each worker announces itself again.
    """

    @abstractmethod
    async def put(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Set `key` for `ttl_seconds`, whatever it held."""

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """What `key` holds."""

    @abstractmethod
    async def take(self, key: str) -> bytes | None:
        """Remove `key` and return what it held: of several callers one gets it, the others None."""

    @abstractmethod
    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        """Set `key` if it does not exist; of several callers one gets True."""

    @abstractmethod
    async def swap(self, key: str, expected: bytes, value: bytes, ttl_seconds: float) -> bool:
        """Set `key` if it holds `expected`; False, and nothing done, if it does not."""

    @abstractmethod
    async def delete(self, key: str, expected: bytes | None = None) -> bool:
        """Remove `key`, if `expected` is given only if it holds that; whether it was removed."""

    @abstractmethod
    async def increase(self, key: str, amount: int, ttl_seconds: float) -> int:
        """Add `amount` (it may be negative) to a number that starts at 0 and lives `ttl_seconds` from now on."""

    @abstractmethod
    async def announce(self, worker: WorkerInfo, ttl_seconds: float) -> bool:
        """List `worker` for `ttl_seconds`, in place of what it said before; to be called again well within that time.

        Whether it was listed: False at first, and if the store has lost it since, or the worker was silent for too
        long.
        """

    @abstractmethod
    async def withdraw(self, worker_id: str) -> None:
        """Take a worker off the list; not an error if it is not there."""

    @abstractmethod
    async def workers(self) -> list[WorkerInfo]:
        """The workers that are listed, in the order of their ids. The one that asks is among them."""

    async def check(self) -> None:
        """Nothing, if the store can be used; for the start, which is not to wait for the first user to find out."""
        await self.get("")

    @abstractmethod
    async def close(self) -> None:
        """Let go of the store; the keys stay."""
