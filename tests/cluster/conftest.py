"""The stores that a cluster may be made of, each empty at first. Servers start once for all tests of a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from flet_fastapi.cluster import Cluster
from flet_fastapi.cluster.embedded import EmbeddedCluster
from flet_fastapi.cluster.redis import SharedCluster
from flet_fastapi.cluster.urls import RedisAddress, parse
from tests.support.redis_server import redis_cluster, redis_server, watched_redis

STORES = ["embedded", "redis", "redis_socket", "redis_cluster", "redis_sentinel"]

_prefixes = (f"test{number}" for number in count())


class Store:
    """One store; each `open()` is another worker's view of it."""

    def __init__(self, make: Callable[[], Cluster]) -> None:
        self._make = make
        self._opened: list[Cluster] = []

    def open(self) -> Cluster:
        cluster = self._make()
        self._opened.append(cluster)
        return cluster

    async def close(self) -> None:
        for cluster in self._opened:
            await cluster.close()


def shared(url: str) -> SharedCluster:
    address = parse(url)
    assert isinstance(address, RedisAddress)
    return SharedCluster(address)


def _shared_store(url: str) -> Store:
    # a prefix of its own, in place of a server of its own
    url += ("&" if "?" in url else "?") + f"prefix={next(_prefixes)}"
    return Store(lambda: shared(url))


@pytest.fixture
def make_embedded(tmp_path: Path) -> Callable[[], Store]:
    def make() -> Store:
        path = tmp_path / f"{next(_prefixes)}.sqlite3"
        return Store(lambda: EmbeddedCluster(path))

    return make


@pytest.fixture
def embedded(make_embedded: Callable[[], Store]) -> Store:
    return make_embedded()


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("redis")
    with redis_server(folder, "--unixsocket", str(folder / "redis.sock")) as server:
        yield server.url, f"unix://{folder}/redis.sock"


@pytest.fixture
def make_redis(_redis: tuple[str, str]) -> Callable[[], Store]:
    return lambda: _shared_store(_redis[0])


@pytest.fixture
def redis(make_redis: Callable[[], Store]) -> Store:
    return make_redis()


@pytest.fixture
def redis_socket(_redis: tuple[str, str]) -> Store:
    return _shared_store(_redis[1])


@pytest.fixture(scope="session")
def _redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])


@pytest.fixture(name="redis_cluster")
def _redis_cluster_store(_redis_cluster: str) -> Store:
    return _shared_store(_redis_cluster)


@pytest.fixture(scope="session")
def _redis_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with watched_redis(tmp_path_factory.mktemp("sentinel")) as watched:
        yield watched.url


@pytest.fixture
def redis_sentinel(_redis_sentinel: str) -> Store:
    return _shared_store(_redis_sentinel)
