"""What all upload endpoints of one worker share: bounds, directories, and the threads that do the file work."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..cluster import Cluster, ClusterUnavailable
from ..identity import Keyring
from ..logs import get_logger
from ..metrics import Metrics
from ..options import Limits, Options
from ..tasks import Tasks
from ..uploaded import folders
from .claim import Claim, Used
from .directory import LocalDirectory
from .refusal import UploadRefused
from .sameness import Sameness, directory_id, name_of
from .storage import Storage
from .urls import Grant

T = TypeVar("T")

log = get_logger(__name__)

# File work waits for the disk; more threads than this only make its queue longer.
_THREADS = 8
_DAY = 24 * 3600
# URLs that were used here and are remembered; a megabyte or two.
_USED = 10_000
_CLEANING_SECONDS = 3600
# Other hosts may start at the same time, and tell of their directories then.
_FIRST_LOOKS = (2.0, 4.0, 8.0)
_LOOKS_SECONDS = 20.0
_UNUSABLE, _NOT_SHARED = "unusable", "not shared"
_CLOSE_SECONDS = 3
_LOOK_SECONDS = 0.01


class Manager(Protocol):
    """What uploads need of the manager."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def tasks(self) -> Tasks: ...

    @property
    def worker_id(self) -> str:
        """The id of this worker in the cluster."""

    @property
    def node(self) -> str:
        """The name of this host."""

    async def keyring(self, options: Options | None) -> Keyring:
        """The keys that `options` give, else those that the workers share."""

    async def open_cluster(self) -> Cluster:
        """The cluster, opened if it is not."""

    def write_again(self) -> None:
        """Let all parts write what the cluster may have lost, in the background."""

    def tell_health(self, part: str, place: str, problem: str | None) -> None:
        """This is wrong with `place`, of `part`; None: nothing is any more."""

    def part(self, kind: Callable[[Any], T]) -> T:
        """The one `kind(manager)` of this worker, made at first use; its `close()` is called at shutdown."""


class Uploads:
    """The uploads of one worker."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="flet-uploads")
        self._storages: dict[Path, asyncio.Task[Storage]] = {}
        self._active: Counter[str] = Counter()
        self._watched: set[Path] = set()
        self._told: dict[str, str | None] = {}
        # should the store lose them
        self._used: dict[str, Used] = {}
        # what an upload does when it ends, also while the server stops
        self._endings = Tasks()

    async def storage(self, path: Path) -> Storage:
        """The storage at `path`, swept before its first use."""
        opening = self._storages.get(path)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            opening = self._storages[path] = self._manager.tasks.start(self._open(path), "open_upload_dir")
        return await asyncio.shield(opening)

    async def check(self) -> None:
        """Whether each upload directory of this worker takes files now.

        Raises:
            UploadRefused: one of them does not.
        """
        for path in list(self._storages):
            await (await self.storage(path)).check()

    @contextmanager
    def place(self, session: str) -> Iterator[None]:
        """One of the uploads that may be in progress at once.

        Raises:
            UploadRefused: `session_uploads` or `too_many_uploads`.
        """
        limits, later = self._manager.limits, {"Retry-After": "5"}
        if self._active[session] >= limits.max_concurrent_uploads_per_session:
            raise UploadRefused("session_uploads", "This session has too many uploads in progress.", later)
        if self._active.total() >= limits.max_concurrent_uploads:
            raise UploadRefused("too_many_uploads", "The server is busy with other uploads.", later)
        self._active[session] += 1
        self._manager.metrics.uploads_active.inc()
        try:
            yield
        finally:
            self._active -= Counter([session])  # one that falls to zero goes
            self._manager.metrics.uploads_active.dec()

    @asynccontextmanager
    async def claimed(self, grant: Grant, size: int) -> AsyncIterator[Claim]:
        """The URL's only upload, counted against its session as long as it does not fail.

        Raises:
            UploadRefused: `already_used`, `in_progress`, `session_files` or `session_bytes`.
        """
        cluster = await self._manager.open_cluster()
        claim = Claim(cluster, grant, self._manager.limits.upload_lease_seconds)
        await claim.take()
        keeping = self._manager.tasks.start(claim.keep(), "keep_upload_claim")
        try:
            async with self._counted(cluster, grant, size):
                yield claim
        finally:
            keeping.cancel()
            self._remember(claim)
            await asyncio.shield(self._endings.start(claim.release(), "release_upload_claim"))

    def watch(self, options: Options) -> None:
        """From now on look at the upload directory now and then: whether it can be used, and is that of all hosts."""
        if options.upload_dir is not None and options.upload_dir not in self._watched:
            self._watched.add(options.upload_dir)
            self._manager.tasks.start(self._watch(options.upload_dir, options), "watch_uploads")

    async def _watch(self, path: Path, options: Options) -> None:
        storage = await self.storage(path)
        name = name_of(path, await self._manager.keyring(options))
        pauses = chain(_FIRST_LOOKS, repeat(_LOOKS_SECONDS))
        while True:
            self._tell(path, _UNUSABLE, await storage.problem())
            with suppress(ClusterUnavailable):
                self._tell(path, _NOT_SHARED, await self._elsewhere(path, name))
            await asyncio.sleep(next(pauses) * random.uniform(0.8, 1.2))  # noqa: S311  spreads workers

    async def _elsewhere(self, path: Path, name: str) -> str | None:
        manager = self._manager
        if not manager.limits.has_shared_cluster:
            return None
        directory = await asyncio.get_running_loop().run_in_executor(self._threads, directory_id, path)
        if directory is None:
            return None  # on a disk that can only be read there is no telling, and no uploads
        sameness = Sameness(await manager.open_cluster(), name, manager.worker_id, manager.node)
        other = await sameness.other(directory)
        return None if other is None else f"is not the same directory on {manager.node} and on {other.node}"

    def _tell(self, path: Path, kind: str, problem: str | None) -> None:
        """To the readiness always, to the log when it has changed."""
        place = f"{path} {kind}"
        self._manager.tell_health("uploads", place, None if problem is None else f"{path} {problem}")
        if self._told.get(place) == problem:
            return
        self._told[place] = problem
        if problem is None:
            log.info("upload_dir_recovered", upload_dir=str(path))
        elif kind == _NOT_SHARED:
            log.warning("upload_dir_not_shared", upload_dir=str(path), problem=problem, hint="give all hosts the same")
        else:
            log.warning("upload_dir_unusable", upload_dir=str(path), problem=problem)

    def _remember(self, claim: Claim) -> None:
        if claim.used is None:
            return
        now = time.time()
        while self._used and (len(self._used) >= _USED or next(iter(self._used.values())).expires <= now):
            del self._used[next(iter(self._used))]
        self._used[claim.used.key] = claim.used
        if claim.unmarked:
            self._manager.write_again()

    async def write_again(self) -> None:
        """URLs that were used here stay used. Claims are held anew by their renewal; counts begin anew."""
        cluster = await self._manager.open_cluster()
        for used in list(self._used.values()):
            if used.expires > time.time():
                await used.mark(cluster)

    async def close(self) -> None:
        """Uploads that the server has cut off give back what they took; not for long, should others go on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._active:
                    await asyncio.sleep(_LOOK_SECONDS)
        await self._endings.stop()
        self._threads.shutdown(wait=False)

    async def _open(self, path: Path) -> Storage:
        limits = self._manager.limits
        left_over = self._manager.metrics.upload_files_removed.labels("left_over")
        await asyncio.to_thread(_warn_if_mixed, path)
        storage = LocalDirectory(
            path,
            self._threads,
            quota=limits.upload_dir_quota,
            min_free=limits.upload_min_free,
            removed=left_over.inc,
        )
        left_over.inc(await storage.sweep())
        if limits.upload_max_age_seconds is not None:
            self._manager.tasks.start(self._keep_clean(storage, limits.upload_max_age_seconds), "clean_uploads")
        return storage

    async def _keep_clean(self, storage: Storage, max_age_seconds: int) -> None:
        while True:
            cleaned = await storage.clean(max_age_seconds)
            self._manager.metrics.upload_files_removed.labels("age").inc(cleaned)
            await asyncio.sleep(min(_CLEANING_SECONDS, max_age_seconds))

    @asynccontextmanager
    async def _counted(self, cluster: Cluster, grant: Grant, size: int) -> AsyncIterator[None]:
        """Count a file against its session and day, before it comes: two at once cannot both take the last room."""
        limits = self._manager.limits
        prefix = f"uploads:{grant.session}:{int(time.time()) // _DAY}"
        files, total = f"{prefix}:files", f"{prefix}:bytes"
        try:
            if await cluster.increase(files, 1, _DAY) > limits.max_uploads_per_session:
                raise UploadRefused("session_files", "Too many files were uploaded from this session today.")
            if await cluster.increase(total, size, _DAY) > limits.max_upload_bytes_per_session:
                await cluster.increase(total, -size, _DAY)
                raise UploadRefused("session_bytes", "Too much was uploaded from this session today.")
        except UploadRefused:
            await cluster.increase(files, -1, _DAY)
            raise
        try:
            yield
        except BaseException:
            await asyncio.shield(self._endings.start(_uncount(cluster, files, total, size), "uncount_upload"))
            raise


def _warn_if_mixed(uploads: Path) -> None:
    for event, assets in folders.mixed(uploads):
        upload_dir, assets_dir = str(uploads), str(assets)
        if event == "uploads_inside_assets":
            hint = "what users upload is served, as attachments"
            log.warning("uploads_inside_assets", upload_dir=upload_dir, assets_dir=assets_dir, hint=hint)
        else:
            hint = "uploads may replace the app's assets"
            log.warning("assets_inside_uploads", upload_dir=upload_dir, assets_dir=assets_dir, hint=hint)


async def _uncount(cluster: Cluster, files: str, total: str, size: int) -> None:
    await cluster.increase(files, -1, _DAY)
    await cluster.increase(total, -size, _DAY)
