"""Two hosts, each with workers of its own, and a Redis on a third: users move between them, and things fail.

The hosts are network namespaces with wires that can be cut; the servers are gunicorn on one and uvicorn on the other.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.classic_client import ClassicClient
from tests.support.network import Host, Network, network
from tests.support.redis_server import RedisServer, redis_server
from tests.support.servers import ROOT, Server, await_answer, stop
from tests.support.workers import PROGRAMS, click, owner_of, shape, visit, worker_of

# How long Redis is away; less is enough while one works on something else.
AWAY_SECONDS = float(os.environ.get("REDIS_AWAY_SECONDS", "60"))
PORT = 8000
WORKERS = 2
SERVERS = {
    "one": ["gunicorn", "--bind", "{host}:{port}", "-w", str(WORKERS), "-k", "uvicorn.workers.UvicornWorker"],
    "two": ["uvicorn", "--host", "{host}", "--port", "{port}", "--workers", str(WORKERS)],
}
# From a click to the page's answer: what nobody would call an interruption, on a machine that is busy with tests.
NOTICED_SECONDS = 5.0

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("nodes")]


@dataclass
class HostServer(Server):
    """A server on one of the hosts."""

    host: Host

    @property
    def url(self) -> str:
        return self.url_at(self.host.address)


@contextmanager
def serve(host: Host, folder: Path, redis: RedisServer, *before: str, **variables: str) -> Iterator[HostServer]:
    """The program of tests/cluster/programs on `host`; `before` is shell to be run there in advance."""
    command = [part.format(host=host.address, port=PORT) for part in SERVERS[host.name]]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "app"), "PYTHONUNBUFFERED": "1", "FLET_SECRET_KEY": "k" * 32,
        "FLET_CLUSTER_URL": redis.url, "FLET_NODE": host.name, "FLET_RUN_DIR": str(folder / f"run-{host.name}"),
        "FLET_LIMIT_PRIVATE_ADDRESSES": "false", **variables,
    }  # fmt: skip
    shell = "".join(f"{line} && " for line in before) + 'exec "$0" "$@"'
    log = folder / f"{host.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*host.run, "sh", "-c", shell, sys.executable, "-m", *command, "workers:app"], cwd=PROGRAMS,
            env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    server = HostServer(PORT, process.pid, log, host)
    try:
        await_answer(server, process)
        yield server
    finally:
        stop(process)


@dataclass
class Nodes:
    """Two hosts that serve, and one with Redis."""

    network: Network
    redis: RedisServer
    one: HostServer
    two: HostServer

    def elsewhere(self, client: ClassicClient) -> HostServer:
        """The host that the browser is not connected to."""
        return self.two if self.one.host.address in client.url else self.one

    def listed(self) -> int:
        return int(self.redis.ask("HLEN", "flet:workers"))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        net = stack.enter_context(network("one", "two", "store"))
        store = net.hosts["store"]
        settings = ("--protected-mode", "no")
        # reached from the test's own process, as from the hosts
        redis = RedisServer(folder / "redis", *settings, host=store.address, wrap=store.run)
        stack.callback(redis.stop)
        redis.start()
        one, two = (stack.enter_context(serve(net.hosts[name], folder, redis)) for name in ("one", "two"))
        yield Nodes(net, redis, one, two)


@pytest.fixture
async def browsers() -> AsyncIterator[list[ClassicClient]]:
    """Browsers that are closed in the end."""
    opened: list[ClassicClient] = []
    yield opened
    for client in opened:
        with suppress(ConnectionError, OSError):
            await client.abort()


async def until(condition: Any, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def ready(nodes: Nodes) -> None:
    """All workers of both hosts know each other."""
    await until(lambda: nodes.listed() == 2 * WORKERS)


async def visits(browsers: list[ClassicClient], number: int, *servers: HostServer) -> list[ClassicClient]:
    """So many browsers, on these hosts in turn, each with a click behind it."""
    clients = await asyncio.gather(*(visit(servers[i % len(servers)]) for i in range(number)))
    browsers += clients
    await asyncio.gather(*map(click, clients))
    return list(clients)


async def move(client: ClassicClient, to: HostServer) -> ClassicClient:
    """The browser's next connection, at another host; a proxy that balances would do that."""
    other = ClassicClient(f"ws://{to.host.address}:{PORT}/ws", cookies=client.cookies, timeout=60)
    other.session_id = client.session_id
    await other.connect()
    return await other.register()


async def moved(
    clients: list[ClassicClient], browsers: list[ClassicClient], nodes: Nodes
) -> tuple[list[ClassicClient], int]:
    """All of them at the respective other host, and how many of them have lost their page."""
    before = [(owner_of(client), shape(client)) for client in clients]
    await asyncio.gather(*(client.abort() for client in clients))
    others = await asyncio.gather(*(move(client, nodes.elsewhere(client)) for client in clients))
    browsers += others
    lost = sum(
        not other.controls or not other.all("text") or (owner_of(other), shape(other)) != kept
        for other, kept in zip(others, before, strict=True)
    )
    await asyncio.gather(*map(click, others))
    return list(others), lost


async def test_every_reconnect_at_the_other_host_is_resumed(nodes: Nodes, browsers: list[ClassicClient]) -> None:
    await ready(nodes)
    clients = await visits(browsers, 60, nodes.one, nodes.two)
    assert len({owner_of(client) for client in clients}) == 2 * WORKERS
    for turn in range(3):
        clients, lost = await moved(clients, browsers, nodes)
        print(f"moved to the other host, turn {turn + 1}: {lost} of {len(clients)} lost their page")
        assert lost == 0
    relayed = sum(owner_of(client) != worker_of(client) for client in clients)
    assert relayed == len(clients)


class Users:
    """Users who click all the time; what they notice is kept."""

    def __init__(self, clients: list[ClassicClient]) -> None:
        self.longest = 0.0
        self.clicks = 0
        self.trouble: Counter[str] = Counter()
        self._tasks = [asyncio.create_task(self._use(client)) for client in clients]

    async def _use(self, client: ClassicClient) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.1, 0.5))
            started = time.monotonic()
            try:
                await click(client)
            except (ConnectionError, TimeoutError) as error:
                self.trouble[repr(error)] += 1
                return
            self.clicks += 1
            self.longest = max(self.longest, time.monotonic() - started)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_users_do_not_notice_that_redis_is_away_and_comes_back_empty(
    nodes: Nodes, browsers: list[ClassicClient]
) -> None:
    await ready(nodes)
    users = Users(await visits(browsers, 40, nodes.one, nodes.two))
    movers = await visits(browsers, 10, nodes.one, nodes.two)
    nodes.redis.kill()
    ends, lost = time.monotonic() + AWAY_SECONDS, 0
    while time.monotonic() < ends:
        # those who come back find their sessions, wherever they come to
        movers, missed = await moved(movers, browsers, nodes)
        lost += missed
        newcomer = await visit(nodes.one)
        await click(newcomer)
        await newcomer.abort()
        await asyncio.sleep(min(3.0, AWAY_SECONDS / 5))
    nodes.redis.start()
    assert nodes.redis.names() == [] or nodes.listed() <= 2 * WORKERS
    started = time.monotonic()
    await ready(nodes)
    rewritten = time.monotonic() - started
    movers, missed = await moved(movers, browsers, nodes)
    await asyncio.sleep(1)
    await users.stop()
    print(
        f"Redis away for {AWAY_SECONDS:g} s: {users.clicks} clicks, the slowest {users.longest:.2f} s,"
        f" {sum(users.trouble.values())} connections lost, {lost + missed} pages lost by who came back meanwhile;"
        f" the directory was whole again after {rewritten:.1f} s"
    )
    assert not users.trouble
    assert lost + missed == 0
    assert users.longest < NOTICED_SECONDS
    assert rewritten < 15


async def test_network_between_the_hosts_is_cut_and_healed(nodes: Nodes, browsers: list[ClassicClient]) -> None:
    await ready(nodes)
    users = Users(await visits(browsers, 20, nodes.one, nodes.two))
    relayed, lost = await moved(await visits(browsers, 10, nodes.one, nodes.two), browsers, nodes)
    assert lost == 0
    stays = await visits(browsers, 10, nodes.one, nodes.two)
    nodes.network.part("one", "two")
    started = time.monotonic()
    # a session that cannot be reached is not waited for
    strangers = await asyncio.gather(*(move(client, nodes.elsewhere(client)) for client in stays))
    browsers += strangers
    waited = time.monotonic() - started
    await asyncio.gather(*(client.wait_for_control("elevatedbutton") for client in strangers))
    assert {owner_of(client) for client in strangers} <= {worker_of(client) for client in strangers}
    await asyncio.gather(*map(click, strangers))
    # who is relayed over the wire that was cut hears of it, and finds the session where it is
    for client in relayed:
        client.timeout = 60
    codes = Counter(await asyncio.gather(*(client.wait_closed() for client in relayed)))
    cut = time.monotonic() - started
    at_home = await asyncio.gather(*(move(client, nodes.elsewhere(client)) for client in relayed))
    browsers += at_home
    back = sum(owner_of(client) == owner_of(before) for client, before in zip(at_home, relayed, strict=True))
    nodes.network.heal()
    healed = time.monotonic()
    await asyncio.gather(*(client.abort() for client in stays))
    resumed = await _all_resumed(stays, browsers, nodes)
    await users.stop()
    print(
        f"network cut: new sessions after {waited:.1f} s; relayed connections ended after {cut:.1f} s ({dict(codes)}),"
        f" {back} of {len(relayed)} resumed at home; healed: all {len(stays)} resumed across after"
        f" {resumed - healed:.1f} s; {users.clicks} clicks of others, the slowest {users.longest:.2f} s"
    )
    assert not users.trouble
    assert back == len(relayed)
    assert waited < 15
    assert cut < 30


async def _all_resumed(clients: list[ClassicClient], browsers: list[ClassicClient], nodes: Nodes) -> float:
    """When all of them have found their sessions from the respective other host."""
    waiting = list(clients)
    async with asyncio.timeout(60):
        while waiting:
            others = await asyncio.gather(*(move(client, nodes.elsewhere(client)) for client in waiting))
            browsers += others
            await asyncio.gather(*(other.wait_for_control("text", key="pid") for other in others))
            waiting = [
                client for client, other in zip(waiting, others, strict=True) if owner_of(other) != owner_of(client)
            ]
            await asyncio.gather(*(other.abort() for other in others))
            await asyncio.sleep(0.2)
    return time.monotonic()


# --- uploads ---------------------------------------------------------------------------------------------------------


def _says(nodes: list[HostServer], event: str) -> bool:
    return any(event in server.said() for server in nodes)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "not shared"])
async def test_start_says_whether_the_upload_directory_is_shared(tmp_path: Path, shared: bool) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    with ExitStack() as stack:
        net = stack.enter_context(network("one", "two", "store"))
        store = net.hosts["store"]
        redis = stack.enter_context(
            redis_server(tmp_path / "redis", "--protected-mode", "no", host=store.address, wrap=store.run)
        )
        servers = []
        for name in ("one", "two"):
            disk = tmp_path / ("disk" if shared else f"disk-{name}")
            disk.mkdir(exist_ok=True)
            before = f"mount --bind {disk} {uploads}"
            servers.append(
                stack.enter_context(serve(net.hosts[name], tmp_path, redis, before, FLET_UPLOAD_DIR=str(uploads)))
            )
        await until(lambda: int(redis.ask("HLEN", "flet:workers")) == 2 * WORKERS)
        if shared:
            await asyncio.sleep(8)
            assert not _says(servers, "upload_dir_not_shared")
        else:
            await until(lambda: _says(servers, "upload_dir_not_shared"), 30)
            await until(lambda: all(_says([server], "upload_dir_not_shared") for server in servers), 60)
        assert list(uploads.iterdir()) == []
