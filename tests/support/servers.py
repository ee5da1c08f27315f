"""Real servers in processes of their own, and a wire to them that can be cut."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
# How this project serves websockets, as uvicorn arguments.
WEBSOCKETS = ("--ws", "roost.websockets:WebSocketProtocol")
_START_SECONDS = 90
_STOP_SECONDS = 30
_LIBRARY = str(ROOT / "app")


@dataclass
class Server:
    """A uvicorn process that answers requests."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return self.url_at("127.0.0.1")

    def url_at(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def said(self) -> str:
        """What the process has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


# Below those that the system gives to connections: a port found here stays free until it is used.
_PORTS = range(10_000, 32_000)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens at."""
    while True:
        first = random.randrange(_PORTS.start, _PORTS.stop - count)
        if all(_is_free(first + offset) for offset in range(count)):
            return first


def free_port() -> int:
    """A port that nobody listens at."""
    return free_ports(1)


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


@contextmanager
def uvicorn_server(
    target: str, folder: Path, log: Path, *arguments: str, port: int = 0, **variables: str
) -> Iterator[Server]:
    """Serve `target` (`module:attribute` in `folder`) until the end of the block; `variables` are its environment.

    Raises:
        RuntimeError: it ended, or did not answer in time; with what it has written.
    """
    port = port or free_port()
    command = ["uvicorn", target, "--app-dir", str(folder), "--port", str(port), *arguments]
    with module_server(command, port, folder, log, **variables) as server:
        yield server


@contextmanager
def module_server(command: list[str], port: int, folder: Path, log: Path, **variables: str) -> Iterator[Server]:
    """The same of `python -m` any command that serves at `port`."""
    environment = {**os.environ, "PYTHONPATH": _LIBRARY, "PYTHONUNBUFFERED": "1", **variables}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    server = Server(port, process.pid, log)
    try:
        await_answer(server, process)
        yield server
    finally:
        stop(process)


def await_answer(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(server.url, timeout=30):
                return
        except urllib.error.HTTPError as error:
            return error.close()  # an answer, too
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"the server did not start:\n{server.said()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_SECONDS)


_REQUEST = re.compile(rb"\A([A-Z]+) (/[^ ]*) HTTP/1\.1\r\n")


@dataclass
class Wire:
    """A TCP relay between browsers and a server: what a network does to a connection, and what a small proxy does.

    `prefix` is stripped from the paths of requests, as proxies do that serve an app below a path. With
    `drop_cookies` no cookie gets through: the browser behind it is one that keeps none.
    """

    server: Server
    prefix: str = ""
    drop_cookies: bool = False
    port: int = 0
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _listener: asyncio.Server | None = None

    def url_at(self, host: str) -> str:
        return f"http://{host}:{self.port}{self.prefix}"

    @property
    def url(self) -> str:
        return self.url_at("127.0.0.1")

    async def mend(self) -> None:
        """Let connections through (again, at the same port)."""
        self.port = self.port or free_port()
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Reset all connections, and refuse new ones until `mend`."""
        if self._listener is not None:
            self._listener.close()
        await self.reset()

    async def reset(self) -> None:
        """Reset all connections; new ones are welcome."""
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self.server.port)
        pumps = [asyncio.create_task(self._pump(reader, downstream)), asyncio.create_task(self._pump(upstream, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            downstream.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(self._rewritten(data))
            await sink.drain()

    def _rewritten(self, data: bytes) -> bytes:
        # a browser's requests have no body here, so each begins a read of its own
        if self.prefix and (request := _REQUEST.match(data)):
            path = request[2].removeprefix(self.prefix.encode()) or b"/"
            data = b"%b %b HTTP/1.1\r\n" % (request[1], path) + data[request.end() :]
        if self.drop_cookies:
            # of the same length, for the content may follow
            data = re.sub(rb"\r\n(set-)?cookie: ", lambda found: b"\r\nx" + found[0][3:], data, flags=re.IGNORECASE)
        return data


@asynccontextmanager
async def wire_to(server: Server, *, prefix: str = "", drop_cookies: bool = False) -> AsyncIterator[Wire]:
    """A wire that lets connections through until it is cut."""
    wire = Wire(server, prefix, drop_cookies)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()
