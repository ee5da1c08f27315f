"""Real Redis servers: alone, as a Redis Cluster, and behind a Sentinel. None of them writes to the disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_START_SECONDS = 20.0


def free_port() -> int:
    """A free port; a Redis Cluster takes the one 10,000 above it, too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        if port < 50_000:
            with suppress(OSError), socket.create_server(("127.0.0.1", port + 10_000)):
                return port
        # the system hands out high ports only, on some machines: below them there is room
        port = 20_000 + port % 10_000
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 10_000)),
        ):
            return port


class RedisServer:
    """One `redis-server` in `folder`, started with `settings` and at the same port each time."""

    def __init__(self, folder: Path, *settings: str, host: str = "127.0.0.1", wrap: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.host = host
        self.port = free_port()
        self.settings = settings
        self.password: str | None = None
        self._wrap = wrap
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def start(self, *more: str) -> RedisServer:
        command = [
            *self._wrap, _program(), "--port", str(self.port), "--bind", self.host, "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", "--logfile", "redis.log", *self.settings, *more,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
        until(lambda: self.answers() or self._process is None or self._process.poll() is not None)
        if not self.answers():
            raise RuntimeError((self.folder / "redis.log").read_text())
        return self

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as peer:
            peer.sendall(b"PING\r\n")
            return bool(peer.recv(100))
        return False

    def ask(self, *command: str) -> str:
        """What `redis-cli` gets; raises RuntimeError if it is an error."""
        login = ["-a", self.password, "--no-auth-warning"] if self.password else []
        asking = ["redis-cli", "-h", self.host, "-p", str(self.port), "-e", *login, *command]
        done = subprocess.run([*self._wrap, *asking], capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise RuntimeError(done.stderr or done.stdout)
        return done.stdout.strip()

    def names(self) -> list[str]:
        """All keys."""
        return sorted(self.ask("KEYS", "*").split())

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(20)

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self.thaw()
                self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


def until(condition: Callable[[], Any], seconds: float = _START_SECONDS) -> None:
    """Wait for what a process does by itself.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it does not come")
        time.sleep(0.02)


def _program() -> str:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server: scripts/install-tools installs it")
        pytest.skip("NOT TESTED: no redis-server here; scripts/install-tools installs it")
    return program


@contextmanager
def redis_server(folder: Path, *settings: str, **more: Any) -> Iterator[RedisServer]:
    """A Redis that answers."""
    server = RedisServer(folder, *settings, **more)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """A Redis Cluster of three, without replicas."""
    with ExitStack() as stack:
        timeout = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
        nodes = [stack.enter_context(redis_server(folder / f"node{i}", *timeout)) for i in range(3)]
        for node, slots in zip(nodes, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True):
            node.ask("CLUSTER", "ADDSLOTSRANGE", *map(str, slots))
            # two nodes that both are at 0 have to settle that first
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(nodes.index(node) + 1))
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
        for node in nodes:
            until(lambda node=node: "cluster_state:ok" in node.ask("CLUSTER", "INFO"))  # type: ignore[misc]
            until(lambda node=node: len(node.ask("CLUSTER", "NODES").splitlines()) == 3)  # type: ignore[misc]
        yield nodes


class Watched:
    """A master, its replica, and a Sentinel that watches both as `ours`."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinel: RedisServer) -> None:
        self.master, self.replica, self.sentinel = master, replica, sentinel

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/ours"


@contextmanager
def watched_redis(folder: Path) -> Iterator[Watched]:
    """A Redis with a replica and a Sentinel that lets the replica take over after a second."""
    with ExitStack() as stack:
        master = stack.enter_context(redis_server(folder / "master", "--repl-diskless-sync-delay", "0"))
        copying = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = stack.enter_context(redis_server(folder / "replica", *copying))
        until(lambda: "master_link_status:up" in replica.ask("INFO", "replication"))
        watcher = folder / "sentinel"
        watcher.mkdir()
        configuration = watcher / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor ours 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds ours 1000\nsentinel failover-timeout ours 5000\n"
        )
        sentinel = RedisServer(watcher)
        sentinel._process = subprocess.Popen(
            [_program(), str(configuration), "--sentinel", "--port", str(sentinel.port), "--dir", str(watcher),
             "--logfile", "redis.log", "--bind", "127.0.0.1"],
            start_new_session=True,
        )  # fmt: skip
        stack.callback(sentinel.stop)
        until(sentinel.answers)
        until(lambda: "slaves=1" in sentinel.ask("INFO", "sentinel"))
        yield Watched(master, replica, sentinel)
