"""Servers with several workers, and browsers that come back to whichever of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.classic_client import ClassicClient
from tests.support.servers import ROOT, Server, free_port, module_server

PROGRAMS = ROOT / "tests" / "cluster" / "programs"
SERVERS = {
    "gunicorn": ["gunicorn", "--bind", "127.0.0.1:{port}", "-w", "{workers}", "-k", "uvicorn.workers.UvicornWorker"],
    "gunicorn with uvicorn-worker": [
        "gunicorn", "--bind", "127.0.0.1:{port}", "-w", "{workers}", "-k", "uvicorn_worker.UvicornWorker",
    ],
    "uvicorn": ["uvicorn", "--port", "{port}", "--workers", "{workers}"],
    "uvicorn with Roost's websockets": [
        "uvicorn", "--port", "{port}", "--workers", "{workers}", "--ws", "roost.websockets:WebSocketProtocol",
    ],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", "-w", "{workers}"],
}  # fmt: skip


@contextmanager
def workers(
    log: Path, server: str = "gunicorn", *, number: int = 4, program: str = "workers", **variables: str
) -> Iterator[Server]:
    """`program` (of tests/cluster/programs) served by so many workers, until the end of the block."""
    port = free_port()
    command = [part.format(port=port, workers=number) for part in SERVERS[server]]
    with module_server([*command, f"{program}:app"], port, PROGRAMS, log, **variables) as running:
        yield running


def browser(server: Server, path: str = "/ws", **settings: Any) -> ClassicClient:
    return ClassicClient(server.url.replace("http", "ws") + path, **settings)


async def visit(server: Server, **settings: Any) -> ClassicClient:
    """A browser whose session has started and whose page is there."""
    client = await (await browser(server, **settings).connect()).register()
    return await client.wait_for(started)


async def all_workers(server: Server, number: int = 4, path: str = "/ws", **settings: Any) -> set[int]:
    """The process ids of the workers, once so many serve. Those that start first would get all connections."""
    seen: set[int] = set()
    async with asyncio.timeout(90):
        while len(seen) < number:
            # held together, so that they do not all go to the same
            clients = await asyncio.gather(*(browser(server, path, **settings).connect() for _ in range(8)))
            seen |= {worker_of(client) for client in clients}
            await asyncio.gather(*(client.abort() for client in clients))
    return seen


def worker_of(client: ClassicClient) -> int:
    """The process id of the worker that the websocket has come to."""
    assert client.socket.response is not None
    return int(client.socket.response.headers["x-worker"])


def owner_of(client: ClassicClient) -> int:
    """The process id of the worker in which the session lives, as its page says."""
    return int(client.one("text", key="pid")["value"])


async def reach(client: ClassicClient, *, other_than: set[int], tries: int = 200) -> ClassicClient:
    """A further connection of the same browser, not yet registered, at another worker than these."""
    for _ in range(tries):
        other = await client.reconnect()
        if worker_of(other) not in other_than:
            return other
        await other.abort()
    raise LookupError("the kernel gives all connections to the same workers")


async def reach_worker(client: ClassicClient, pid: int, tries: int = 300) -> ClassicClient:
    """The same, at this worker."""
    for _ in range(tries):
        other = await client.reconnect()
        if worker_of(other) == pid:
            return other
        await other.abort()
    raise LookupError(f"the kernel gives no connection to {pid}")


def shape(client: ClassicClient) -> dict[str, Any]:
    """The page as its browser has it; `at` is about the message that brought a control."""
    return {i: {k: v for k, v in control.items() if k != "at" and v} for i, control in client.controls.items()}


async def click(client: ClassicClient) -> None:
    """Click the page's button, and wait until its counter has gone up."""
    count = int(counter(client)["value"])
    await client.click(client.one("elevatedbutton")["i"])
    await client.wait_for(lambda client: int(counter(client)["value"]) == count + 1)


def counter(client: ClassicClient) -> dict[str, Any]:
    """The control that counts clicks."""
    return client.one("text", key="count")


def started(client: ClassicClient) -> bool:
    """Whether the page is there."""
    return bool(client.all("text", key="count") and client.all("elevatedbutton"))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
