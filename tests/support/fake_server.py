"""The part of `app_manager` that uploads and sign-ins need, without sessions: those are named here by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from flet_fastapi.cluster import Cluster, from_url
from flet_fastapi.cluster.embedded import EmbeddedCluster
from flet_fastapi.identity import Keyring
from flet_fastapi.metrics import Metrics
from flet_fastapi.options import Limits, Options
from flet_fastapi.tasks import Tasks
from tests.support.counted import undeclared

T = TypeVar("T")


class FakeSession:
    """A session that remembers what a sign-in brought."""

    def __init__(self) -> None:
        self.answers: list[Mapping[str, str | None]] = []

    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        self.answers.append(answer)


class FakeServer:
    """One worker; several with the same `directory` are the workers of one server."""

    def __init__(self, directory: Path, **limits: Any) -> None:
        self.limits = Limits.load(**{"upload_min_free": 0, **limits})
        self.metrics = Metrics(CollectorRegistry())
        self.tasks = Tasks()
        self.loop = asyncio.get_running_loop()
        self.sessions: dict[str, FakeSession] = {}
        self.worker_id = "worker"
        self.node = "node"
        self.elsewhere: dict[tuple[str, str], FakeSession] = {}
        self.keys: list[str] = ["k1" * 16]
        url = self.limits.cluster_url
        self.cluster: Cluster = (
            from_url(url.get_secret_value()) if url is not None else EmbeddedCluster(directory / "cluster.sqlite3")
        )
        self.asked_to_write_again = 0
        self._parts: dict[Any, Any] = {}

    def options(self, **arguments: Any) -> Options:
        return Options.load(**arguments)

    async def keyring(self, options: Options | None = None) -> Keyring:
        given = options.secret_key if options is not None else None
        return Keyring(given or self.keys)

    async def open_cluster(self) -> Cluster:
        return self.cluster

    def write_again(self) -> None:
        self.asked_to_write_again += 1

    def tell_health(self, part: str, place: str, problem: str | None) -> None:
        pass

    def find_session(self, session_key: str) -> FakeSession | None:
        return self.sessions.get(session_key)

    async def find_session_elsewhere(self, owner: str, session_key: str) -> FakeSession | None:
        return self.elsewhere.get((owner, session_key))

    def part(self, kind: Callable[[Any], T]) -> T:
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return self._parts[kind]  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self.tasks.stop()
        for part in self._parts.values():
            await part.close()
        await self.cluster.close()
        assert not undeclared(self.metrics)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0
