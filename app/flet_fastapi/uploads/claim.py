"""A URL works once: the claim on its nonce.

A claim is a lease, renewed while the upload goes on: a new try works after a broken transfer at once, and after a
killed worker when the lease is over. After success the nonce is marked as used until the URL expires.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..cluster import Cluster, ClusterUnavailable
from ..identity import new_id
from ..logs import get_logger
from .refusal import UploadRefused
from .urls import Grant

log = get_logger(__name__)

_USED = b"used"
# The clocks of two workers may differ by this much.
_SKEW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Used:
    """A URL that has been used, until it expires anyway: a time in seconds since 1970."""

    key: str
    expires: float

    async def mark(self, cluster: Cluster) -> None:
        """Let all workers know, whoever has begun to use it since."""
        await cluster.put(self.key, _USED, self.expires - time.time())


class Claim:
    """One upload's hold on one URL.

    After a success `used` is what is to be remembered, and `unmarked` tells that the store has not heard of it.
    """

    def __init__(self, cluster: Cluster, grant: Grant, lease_seconds: float) -> None:
        self._cluster = cluster
        self._key = f"upload:{grant.nonce}"
        self._mine = new_id().encode()
        self._expires = grant.expires
        self._lease = lease_seconds
        self._held_until = 0.0
        self._lost = False
        self.used: Used | None = None
        self.unmarked = False

    async def take(self) -> None:
        """
        Raises:
            UploadRefused: `already_used` or `in_progress`.
        """
        started = time.monotonic()
        if await self._cluster.add(self._key, self._mine, self._lease):
            self._held_until = started + self._lease
            return
        if await self._cluster.get(self._key) == _USED:
            raise UploadRefused("already_used", "The upload URL has been used already.")
        raise UploadRefused("in_progress", "An upload to this URL is in progress.")

    async def renew(self) -> None:
        """
        Raises:
            UploadRefused: the lease was over and somebody else took the URL.
            ClusterUnavailable: that may be so.
        """
        try:
            self._lost = not await self._held()
        except ClusterUnavailable:
            if time.monotonic() >= self._held_until:
                raise
        self.check()

    async def _held(self) -> bool:
        """Renew the lease; one that nobody holds, because it was over or the store lost it, is taken once more."""
        started = time.monotonic()
        held = await self._cluster.swap(self._key, self._mine, self._mine, self._lease) or await self._cluster.add(
            self._key, self._mine, self._lease
        )
        if held:
            self._held_until = started + self._lease
        return held

    def check(self) -> None:
        """
        Raises:
            UploadRefused: a renewal has failed.
        """
        if self._lost:
            raise UploadRefused("in_progress", "Another upload to this URL has taken over.")

    async def keep(self) -> None:
        """Renew until cancelled or lost."""
        while not self._lost:
            await asyncio.sleep(self._lease / 3)
            try:
                self._lost = not await self._held()
            except ClusterUnavailable as error:
                log.warning("upload_lease_not_renewed", problem=error.problem)

    async def finish(self) -> None:
        """The file is in its place: nobody may use this URL again."""
        self.used = Used(self._key, max(self._expires, time.time()) + _SKEW_SECONDS)
        try:
            await self.used.mark(self._cluster)
        except ClusterUnavailable as error:
            # the file cannot be taken back, so the browser must hear that it is there
            log.warning("upload_not_marked_as_used", problem=error.problem)
            self.unmarked = True

    async def release(self) -> None:
        """Let the URL be used again, unless it was used up."""
        if self.used is None:
            try:
                await self._cluster.delete(self._key, self._mine)
            except ClusterUnavailable as error:
                log.warning("upload_claim_not_released", problem=error.problem)
