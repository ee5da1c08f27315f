"""A real Redis that dies, hangs, forgets, refuses or is full: callers hear it soon, and it is found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.cluster import Cluster, ClusterUnavailable, WorkerInfo
from flet_fastapi.cluster.observed import ObservedCluster
from flet_fastapi.cluster.redis import SharedCluster
from flet_fastapi.metrics import Metrics
from tests.cluster.conftest import shared
from tests.conftest import Logs
from tests.support.certificates import Certificates, make_certificates
from tests.support.redis_server import RedisServer, redis_cluster, redis_server, until, watched_redis

T = TypeVar("T")

# An operation takes no longer, whatever Redis does: the two limits of its address, and a busy machine.
LIMIT = 4.0
# One that fails because Redis is known to be away.
AT_ONCE = 0.2
ONE = WorkerInfo("a" * 22, "tcp://10.0.0.1:7000", "one", 0, 1.0)
PASSWORD = "p@ss/word#1 %ü"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def cluster(server: RedisServer) -> AsyncIterator[SharedCluster]:
    cluster = shared(server.url)
    yield cluster
    await cluster.close()


async def back(cluster: Cluster, seconds: float = 20) -> float:
    """How long it takes until the store can be used."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while True:
            try:
                await cluster.put("back", b"", 60)
            except ClusterUnavailable:
                await asyncio.sleep(0.01)
            else:
                return time.monotonic() - started


async def failure(work: Awaitable[object], within: float = LIMIT) -> ClusterUnavailable:
    started = time.monotonic()
    with pytest.raises(ClusterUnavailable) as unavailable:
        await work
    assert time.monotonic() - started < within
    return unavailable.value


async def failed(cluster: Cluster, says: str) -> ClusterUnavailable:
    """The failure that says this; connections from before may say something else first."""
    async with asyncio.timeout(20):
        while True:
            error = await failure(cluster.put("k", b"v", 60))
            if says in error.problem:
                return error
            await asyncio.sleep(0.01)


class Busy:
    """Workers that count without a pause, and bear that the store is away."""

    def __init__(self, cluster: Cluster, tasks: int = 20) -> None:
        self.longest = 0.0
        self.failures = self.successes = 0
        self._cluster = cluster
        self._tasks = [asyncio.create_task(self._count()) for _ in range(tasks)]

    async def _count(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self._cluster.increase("n", 1, 600)
                self.successes += 1
            except ClusterUnavailable:
                self.failures += 1
                await asyncio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - started)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_killed_redis_is_found_again(server: RedisServer, cluster: SharedCluster) -> None:
    busy = Busy(cluster)
    await busy.until(lambda: busy.successes > 100)
    server.kill()
    await busy.until(lambda: busy.failures > 200)
    server.start()
    before = busy.successes
    await busy.until(lambda: busy.successes > before + 100)
    await busy.stop()
    assert busy.longest < LIMIT


async def test_frozen_redis_holds_nobody_up(server: RedisServer, cluster: SharedCluster) -> None:
    await cluster.put("k", b"v", 60)
    server.freeze()
    started = time.monotonic()
    first = await asyncio.gather(*(failure(cluster.get("k")) for _ in range(50)))
    assert time.monotonic() - started < LIMIT
    assert {error.problem for error in first} == {"does not answer within 2 s"}
    for _ in range(20):
        await failure(cluster.get("k"), AT_ONCE)
        await asyncio.sleep(0.02)
    server.thaw()
    assert await back(cluster) < LIMIT
    assert await cluster.get("k") == b"v"


async def test_frozen_under_load_and_thawed_loses_no_answer(server: RedisServer, cluster: SharedCluster) -> None:
    """What was sent before may be done later; nobody gets the answer to another one's question."""
    busy = Busy(cluster)
    await busy.until(lambda: busy.successes > 100)
    server.freeze()
    await busy.until(lambda: busy.failures > 100)
    server.thaw()
    await back(cluster)
    before = busy.successes
    await busy.until(lambda: busy.successes > before + 100)
    await busy.stop()
    assert busy.longest < LIMIT
    number = await cluster.increase("n", 0, 60)
    assert busy.successes <= number <= busy.successes + busy.failures + 20


async def test_redis_that_is_not_there_is_looked_for_with_pauses(server: RedisServer, cluster: SharedCluster) -> None:
    looks: list[float] = []
    execute = cluster._execute

    async def counted(command: tuple[Any, ...], again: bool) -> Any:
        looks.append(time.monotonic())
        return await execute(command, again)

    cluster._execute = counted  # type: ignore[method-assign]
    server.kill()
    for _ in range(100):
        await failure(cluster.get("k"), LIMIT)
        await asyncio.sleep(0.01)
    assert 2 <= len(looks) <= 12
    server.start()
    assert await back(cluster) < LIMIT


async def test_connections_from_before_a_restart_do_no_harm(server: RedisServer, cluster: SharedCluster) -> None:
    await asyncio.gather(*(cluster.get(str(i)) for i in range(50)))
    server.kill()
    server.start()
    # what only reads is sent again at once; the loop has had no time to notice that the connections are closed
    await asyncio.gather(*(cluster.get(str(i)) for i in range(50)))
    server.kill()
    server.start()
    await asyncio.sleep(0.01)
    await asyncio.gather(*(cluster.put(str(i), b"v", 60) for i in range(50)))


async def test_emptied_redis_is_noticed_by_who_announced_itself(server: RedisServer, cluster: SharedCluster) -> None:
    lost: list[int] = []
    observed = ObservedCluster(cluster, Metrics(CollectorRegistry()), lost=lambda: lost.append(1))
    for _ in range(2):
        await observed.announce(ONE, 60)
    assert not lost
    server.kill()
    server.start()
    await back(cluster)
    await observed.announce(ONE, 60)
    server.ask("FLUSHALL")
    await observed.announce(ONE, 60)
    await observed.announce(ONE, 60)
    assert (len(lost), await cluster.workers()) == (2, [ONE])


async def test_changed_password_is_told_and_gets_over(server: RedisServer, logs: Logs) -> None:
    server.ask("CONFIG", "SET", "requirepass", PASSWORD)
    server.password = PASSWORD
    cluster = shared(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}")
    await cluster.put("k", b"v", 60)
    server.ask("CONFIG", "SET", "requirepass", "other")
    server.password = "other"
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    error = await failed(cluster, "does not accept")
    assert error.denied and error.away
    assert PASSWORD not in f"{error!r} {error} {cluster.address!r} {logs.text}"
    server.ask("CONFIG", "SET", "requirepass", PASSWORD)
    await back(cluster)
    assert await cluster.get("k") == b"v"
    await cluster.close()


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
async def test_wrong_password_is_denied(server: RedisServer, login: str) -> None:
    server.ask("CONFIG", "SET", "requirepass", PASSWORD)
    cluster = shared(f"redis://{login}127.0.0.1:{server.port}")
    error = await failure(cluster.check())
    assert error.denied
    assert "wrong" not in str(error).replace("WRONGPASS", "")
    await cluster.close()


async def test_user_who_may_not_do_what_is_needed_is_denied(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get", "+set")
    cluster = shared(f"redis://reader:secret@127.0.0.1:{server.port}")
    assert (await failure(cluster.check())).denied
    await cluster.close()


async def test_user_of_the_documents_may_do_all_that_is_needed(server: RedisServer) -> None:
    commands = "set get getdel del hdel eval incrby pexpire pttl time hget hset hgetall"
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~flet:*", *(f"+{command}" for command in commands.split()))
    cluster = shared(f"redis://app:secret@127.0.0.1:{server.port}")
    await cluster.check()
    assert await cluster.add("k", b"v", 60)
    assert await cluster.swap("k", b"v", b"w", 60)
    assert await cluster.delete("k", b"w")
    assert await cluster.increase("n", 1, 60) == 1
    assert not await cluster.announce(ONE, 60)
    assert await cluster.workers() == [ONE]
    await cluster.withdraw(ONE.id)
    await cluster.close()


async def test_renamed_command_is_told_without_what_was_sent(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--rename-command", "SET", "", "--rename-command", "GETDEL", "") as server:
        one, two = shared(server.url), shared(server.url)
        checked, told = await failure(one.check()), await failure(two.put("k", b"secret", 60))
        await one.close()
        await two.close()
    assert checked.denied
    assert "unknown command" in told.problem
    assert "secret" not in str(told)


async def test_full_redis_can_be_read(server: RedisServer, cluster: SharedCluster) -> None:
    observed = ObservedCluster(cluster, Metrics(CollectorRegistry()))
    await observed.put("k", b"v", 60)
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    for write in (
        observed.put("new", b"x" * 100_000, 60),
        observed.add("new", b"v", 60),
        observed.swap("k", b"v", b"w", 60),
        observed.increase("n", 1, 60),
        observed.announce(ONE, 60),
    ):
        error = await failure(write, AT_ONCE + 1)
        assert (error.full, error.away, error.problem) == (True, False, "has no memory left (maxmemory)")
    assert await observed.get("k") == b"v"
    assert await observed.take("k") == b"v"
    server.ask("CONFIG", "SET", "maxmemory", "0")
    await observed.put("k", b"v", 60)


async def test_replica_is_told_and_left(server: RedisServer, cluster: SharedCluster) -> None:
    await cluster.put("k", b"v", 60)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    error = await failure(cluster.put("k", b"w", 60))
    assert "replica" in error.problem
    assert error.away
    server.ask("REPLICAOF", "NO", "ONE")
    await back(cluster)


async def test_name_that_leads_to_a_new_master_is_asked_again(server: RedisServer, tmp_path: Path) -> None:
    """Providers let a name lead to the new master; here a port does."""
    with redis_server(tmp_path / "new") as new:
        leads_to = server

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", leads_to.port)
            await asyncio.gather(pump(reader, downstream), pump(upstream, writer))

        name = await asyncio.start_server(forward, "127.0.0.1", 0)
        cluster = shared(f"redis://127.0.0.1:{name.sockets[0].getsockname()[1]}")
        await asyncio.gather(*(cluster.put(str(i), b"v", 60) for i in range(20)))
        server.ask("REPLICAOF", "127.0.0.1", str(new.port))
        leads_to = new
        await back(cluster)
        await asyncio.gather(*(cluster.put(str(i), b"w", 60) for i in range(20)))
        assert new.ask("GET", "flet:key:3") == "w"
        await cluster.close()
        name.close()
        await name.wait_closed()


async def test_cancellation_that_the_library_loses_is_heard(cluster: SharedCluster) -> None:
    reached = asyncio.Event()

    async def deaf(command: tuple[Any, ...], again: bool) -> bytes:
        reached.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return b"v"

    cluster._execute = deaf  # type: ignore[method-assign]
    asking = asyncio.create_task(cluster.get("k"))
    await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_replica_without_its_master_is_told(server: RedisServer, cluster: SharedCluster) -> None:
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.ask("REPLICAOF", "127.0.0.1", "1")
    error = await failure(cluster.get("k"))
    assert "MASTER is down" in error.problem
    assert error.away
    server.ask("REPLICAOF", "NO", "ONE")
    await back(cluster)


@pytest.mark.parametrize(
    "answer", [b"-LOADING Redis is loading the dataset in memory\r\n", b"", b"HTTP/1.1 400\r\n\r\n"]
)
async def test_strange_answers_are_told(answer: bytes) -> None:
    """No real Redis loads for long enough here, so that one is played."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        writer.close()

    speaking = await asyncio.start_server(speak, "127.0.0.1", 0)
    cluster = shared(f"redis://127.0.0.1:{speaking.sockets[0].getsockname()[1]}")
    error = await failure(cluster.get("k"))
    assert error.away
    assert ("loading" in error.problem) is answer.startswith(b"-LOADING")
    await cluster.close()
    speaking.close()
    await speaking.wait_closed()


async def test_no_more_connections_than_allowed(server: RedisServer) -> None:
    cluster = shared(f"{server.url}?max_connections=3")
    await asyncio.gather(*(cluster.increase("n", 1, 60) for _ in range(200)))
    clients = [line for line in server.ask("CLIENT", "LIST").splitlines() if "redis-cli" not in line]
    assert sum("cmd=eval" in line for line in clients) == 3
    await cluster.close()


async def test_apps_with_prefixes_of_their_own_do_not_meet(server: RedisServer) -> None:
    one, two = (shared(f"{server.url}?prefix={prefix}") for prefix in ("one", "two"))
    await one.put("k", b"v", 60)
    await one.announce(ONE, 60)
    assert (await two.get("k"), await two.workers()) == (None, [])
    assert all(key.startswith("one:") for key in server.names())
    await one.close()
    await two.close()


async def test_everything_expires(server: RedisServer, cluster: SharedCluster) -> None:
    await cluster.put("put", b"v", 60)
    await cluster.add("add", b"v", 60)
    await cluster.swap("add", b"v", b"w", 60)
    await cluster.increase("n", 1, 60)
    await cluster.announce(ONE, 60)
    await cluster.check()
    assert all(0 < int(server.ask("TTL", key)) <= 60 for key in server.names())


async def test_clocks_of_workers_do_not_matter(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = shared(server.url), shared(server.url)
    await here.put("k", b"v", 60)
    await here.announce(ONE, 60)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert (await there.get("k"), await there.workers()) == (b"v", [ONE])
    assert await there.announce(ONE, 60)
    await here.close()
    await there.close()


# --- by Sentinel, and in a Redis Cluster -----------------------------------------------------------------------------


def said(server: RedisServer, *command: str) -> str:
    """Its answer, if it gives one."""
    with suppress(RuntimeError):
        return server.ask(*command)
    return ""


async def test_fail_over_is_followed(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        cluster = shared(watched.url)
        await cluster.put("k", b"v", 600)
        until(lambda: watched.replica.ask("GET", "flet:key:k") == "v")
        watched.master.kill()
        dark = await back(cluster, 40)
        assert await cluster.get("k") == b"v"
        assert watched.replica.ask("INFO", "replication").count("role:master") == 1
        await cluster.close()
    print(f"fail-over: {dark:.1f} s dark")


async def test_master_that_became_a_replica_is_left(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        cluster = shared(watched.url)
        await asyncio.gather(*(cluster.put(str(i), b"v", 600) for i in range(20)))
        # Sentinel refuses while it has not heard of the replica for a while, and roles change by cutting connections
        until(lambda: said(watched.sentinel, "SENTINEL", "FAILOVER", "ours") == "OK")
        until(lambda: "role:master" in said(watched.replica, "INFO", "replication"))
        until(lambda: "role:slave" in said(watched.master, "INFO", "replication"))
        await back(cluster)
        await asyncio.gather(*(cluster.put(str(i), b"w", 600) for i in range(20)))
        assert watched.replica.ask("GET", "flet:key:3") == "w"
        await cluster.close()


async def test_frozen_sentinel_is_passed_over(tmp_path: Path) -> None:
    with watched_redis(tmp_path / "one") as watched, redis_server(tmp_path / "two") as frozen:
        frozen.freeze()
        cluster = shared(f"redis+sentinel://127.0.0.1:{frozen.port},127.0.0.1:{watched.sentinel.port}/ours")
        await back(cluster)
        await cluster.close()


async def test_sentinel_may_want_a_password(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        watched.sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">hidden")
        refused, allowed = shared(watched.url), shared(f"{watched.url}?sentinel_password=hidden")
        assert (await failure(refused.check())).denied
        await allowed.check()
        await refused.close()
        await allowed.close()


async def test_unknown_master_is_told(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        cluster = shared(watched.url.replace("/ours", "/theirs"))
        assert "theirs" in (await failure(cluster.get("k"))).problem
        await cluster.close()


async def test_node_of_a_redis_cluster_is_found_again(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        cluster = shared("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes))
        keys = [str(number) for number in range(30)]
        await asyncio.gather(*(cluster.put(key, b"v", 600) for key in keys))
        nodes[1].kill()
        outcomes = await asyncio.gather(*(cluster.get(key) for key in keys), return_exceptions=True)
        assert any(isinstance(outcome, ClusterUnavailable) for outcome in outcomes)
        nodes[1].start()
        async with asyncio.timeout(40):
            while True:
                try:
                    await asyncio.gather(*(cluster.put(key, b"w", 600) for key in keys))
                    break
                except ClusterUnavailable:
                    await asyncio.sleep(0.05)
        await cluster.close()


async def test_redis_that_is_no_cluster_is_told(server: RedisServer) -> None:
    cluster = shared(f"redis+cluster://127.0.0.1:{server.port}")
    assert "luster" in (await failure(cluster.get("k"))).problem
    await cluster.close()


# --- over TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_port(tmp_path: Path, certificates: Certificates) -> Iterator[int]:
    from tests.support.redis_server import free_port

    port = free_port()
    files = ("--tls-cert-file", certificates.certificate, "--tls-key-file", certificates.key)
    with redis_server(
        tmp_path / "redis", "--tls-port", str(port), *map(str, files), "--tls-ca-cert-file", str(certificates.authority)
    ):
        yield port


async def test_tls_with_certificates_on_both_sides(tls_port: int, certificates: Certificates) -> None:
    cluster = shared(
        f"rediss://localhost:{tls_port}?ssl_ca_certs={certificates.authority}"
        f"&ssl_certfile={certificates.certificate}&ssl_keyfile={certificates.key}"
    )
    await asyncio.gather(*(cluster.put(str(i), b"v", 60) for i in range(30)))
    assert await cluster.get("3") == b"v"
    await cluster.close()


async def test_unknown_authority_is_told(tls_port: int) -> None:
    cluster = shared(f"rediss://localhost:{tls_port}")
    assert "certificate" in (await failure(cluster.get("k"))).problem.lower()
    await cluster.close()


async def test_plain_connection_to_a_tls_port_is_told(tls_port: int) -> None:
    cluster = shared(f"redis://localhost:{tls_port}")
    assert (await failure(cluster.get("k"))).away
    await cluster.close()
