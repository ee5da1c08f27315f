"""The servers that are compared: one worker each, in a process group and on a port of its own."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.upstream import upstream_python

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0

SHIPPED = ("--ws", "roost.websockets:WebSocketProtocol")
COMMON = ("--loop", "uvloop", "--http", "httptools", "--log-level", "error", "--lifespan")


@dataclass(frozen=True)
class Kind:
    """A server to compare: what it is called in the tables, what it loads, and how uvicorn is told to serve it."""

    title: str
    factory: str
    options: tuple[str, ...] = ()
    lifespan: str = "on"
    workers: int = 1

    @property
    def python(self) -> str:
        return upstream_python() if self.factory == "upstream" else sys.executable


KINDS = {
    "ours": Kind("this library", "shipped", SHIPPED),
    "ours-stock": Kind("this library, stock uvicorn", "ours"),
    "upstream": Kind("upstream", "upstream"),
    "echo": Kind("echo", "echo", SHIPPED, "off"),
    "echo-stock": Kind("echo, stock uvicorn", "echo", lifespan="off"),
}


@dataclass(frozen=True)
class Server:
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


@contextlib.contextmanager
def running(kind: Kind, app: str) -> Iterator[Server]:
    """The server, answering; it and whatever it started are gone afterwards."""
    port = free_port()
    process = subprocess.Popen(
        command(kind, port),
        cwd=ROOT,
        env=environment(app),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    use_core(process.pid, first=True)
    try:
        wait_until_it_answers(process, port)
        yield Server(process.pid, port)
    finally:
        stop(process)


def command(kind: Kind, port: int) -> list[str]:
    where = ("--host", "127.0.0.1", "--port", str(port))
    target = ("--factory", f"bench.serve:{kind.factory}")
    workers = ("--workers", str(kind.workers)) if kind.workers > 1 else ()
    return [kind.python, "-m", "uvicorn", *target, *where, *COMMON, kind.lifespan, *kind.options, *workers]


def environment(app: str) -> dict[str, str]:
    """Nothing of the caller's settings may change what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLET_", "ROOST_", "UVICORN_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "app")])
    return kept | {"BENCH_APP": app, "PYTHONPATH": path, "FLET_SECRET_KEY": "only-for-measuring-" * 3}


def use_core(pid: int, first: bool) -> None:
    """Server and driver each have a core, where there are two: they must not take turns on one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cores[0] if first else cores[-1]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    """Ask for a page until there is an answer, whatever it says."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"server ended with {process.returncode}: {' '.join(map(str, process.args))}")  # type: ignore[arg-type]
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return
        time.sleep(0.05)
    raise TimeoutError(f"server does not answer: {process.args!r}")


def stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
