"""What the workers of one server share: keys with expiry."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..errors import FletFastAPIError


class ClusterUnavailable(FletFastAPIError):
    """The shared store cannot be used now; a later call may succeed.

    `place` is where the store is and `problem` what the system said. `full` is set if the disk has no room.
    """

    def __init__(self, place: str, problem: str, *, full: bool = False) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem
        self.full = full


class Cluster(ABC):
    """Keys that every worker sees. Each operation is atomic; a key whose time is over does not exist.

    Every method raises `ClusterUnavailable` if the store cannot be used.
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
    async def close(self) -> None:
        """Let go of the store; the keys stay."""
