"""The numbers of all workers together: where they are kept, how Prometheus gets them, and those of plain requests.

Each worker writes its numbers to files of its slot, by prometheus_client's multiprocess mode, and whoever is asked adds
up the files of all. A slot outlives its workers: counters go on where the last one's ended, and there are never more
files than slots. What a dead worker said of the present, its gauges, goes with it.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import gzip
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fastapi
from prometheus_client import REGISTRY, values
from prometheus_client import exposition as text
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.routing import Host, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flet_fastapi.client.negotiation import choose_coding, fold
from flet_fastapi.errors import OptionError
from flet_fastapi.logs import get_logger
from flet_fastapi.manager import app_manager
from flet_fastapi.metrics import OTHER

log = get_logger(__name__)

# prometheus_client reads it wherever it makes a number.
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_MEMORY, _PREFIX = Path("/dev/shm"), "roost-metrics-"  # noqa: S108  directories there are made by mkdtemp
_FILE = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_\d+\.db")
# One that is younger may have been made just now, by a master that has not taken it yet.
_OLD_SECONDS = 60
# What a worker writes to, and the room that it needs: twice what it takes with twenty routes.
_ROOM = {
    "counter": 128 * 1024,
    "histogram": 256 * 1024,
    "gauge_livesum": 64 * 1024,
    "gauge_livemax": 64 * 1024,
    "gauge_livemin": 64 * 1024,
}

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
# More middleware around an application than this is none that we look through.
_LAYERS = 20
_REST = "/*"


# --- where the numbers are kept --------------------------------------------------------------------------------------


def begin(directory: Path | None = None) -> Path:
    """In the master, before there are workers: make the directory for their numbers, empty.

    Without `directory` it is a new one, in memory, which goes with the master; what killed masters have left goes now.
    Of a directory that was there only files of numbers go.

    Raises:
        OptionError: it cannot be used.
    """
    try:
        path = _new_directory() if directory is None else directory.absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _lock(path) is None:
            raise OptionError("ROOST_METRICS_DIR", f"another server keeps its numbers there ({path})")
        for file in path.iterdir():
            if _FILE.fullmatch(file.name):
                file.unlink()
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OptionError("ROOST_METRICS_DIR", f"cannot be used: {error.strerror} ({error.filename})") from None
    os.environ[_DIRECTORY] = str(path)
    return path


def _new_directory() -> Path:
    base = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    for left in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else has removed it
            _remove_left(left)
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    atexit.register(_remove, path, os.getpid())
    return path


def _remove_left(path: Path) -> None:
    status = path.lstat()
    if status.st_uid != os.getuid() or time.time() - status.st_mtime < _OLD_SECONDS:
        return
    if (lock := _lock(path)) is not None:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """Take the directory, unless somebody has it: for this process and those that it forks, until all are gone."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _remove(path: Path, master: int) -> None:
    if os.getpid() == master:  # workers have the same exit handlers
        shutil.rmtree(path, ignore_errors=True)


def begin_worker(slot: int) -> None:
    """In a worker, before the app is loaded: from now on its numbers are kept in the files of its slot."""
    app_manager.slot = slot
    directory = Path(os.environ[_DIRECTORY])
    try:
        end_worker(slot)
        for kind, size in _ROOM.items():
            _make_room(directory / f"{kind}_{slot}.db", size)
    except OSError as error:
        # rather a worker without numbers than none
        log.warning("metrics_not_kept", slot=slot, problem=str(error))
        return
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def end_worker(slot: int) -> None:
    """In the master, when a worker has died and before its slot is taken again: forget what it said of the present."""
    mark_process_dead(slot, os.environ[_DIRECTORY])  # type: ignore[no-untyped-call]


def _make_room(path: Path, size: int) -> None:
    """Take the disk's blocks now: a mapped file's write that finds the disk full would kill the process."""
    with path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, os.fstat(file.fileno()).st_size))


class _Workers(Collector):
    """The numbers of all workers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        return MultiProcessCollector.merge(list(self._files()))  # type: ignore[no-untyped-call, no-any-return]

    def _files(self) -> Iterator[str]:
        for entry in os.scandir(self._directory):
            try:
                # one that is just being made is empty, and cannot be read
                if _FILE.fullmatch(entry.name) and entry.stat().st_size:
                    yield entry.path
            except FileNotFoundError:  # its worker has just died
                continue


def _collector() -> Collector:
    """What is exposed: the numbers of all workers, or those of this process if it is the only one."""
    directory = os.environ.get(_DIRECTORY)
    if directory is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(_Workers(Path(directory)))
    return registry


# --- how Prometheus gets them ----------------------------------------------------------------------------------------

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST
_ENCODERS: dict[str, Callable[[Any], bytes]] = {_TEXT: text.generate_latest, _OPENMETRICS: openmetrics.generate_latest}


class Exposition:
    """The ASGI application that Prometheus asks. The event loop goes on meanwhile; who asks the same at the same time
    gets the same answer.
    """

    def __init__(self, collector: Callable[[], Collector] = _collector) -> None:
        self._collector = collector
        self._collecting: dict[tuple[str, bool], asyncio.Task[bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, [(b"allow", b"GET, HEAD")], b"")
            return
        request = fold(scope["headers"])
        kind = choose_format(request.get("accept", ""))
        packed = choose_coding(request.get("accept-encoding"), ("gzip",)) == "gzip"
        body = await self._collect(kind, packed)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        if packed:
            headers.append((b"content-encoding", b"gzip"))
        await _send(send, 200, headers, b"" if scope["method"] == "HEAD" else body)

    async def _collect(self, kind: str, packed: bool) -> bytes:
        key = (kind, packed)
        collecting = self._collecting.get(key)
        if collecting is None or collecting.get_loop() is not asyncio.get_running_loop():
            collecting = asyncio.create_task(asyncio.to_thread(self._encode, kind, packed), name="collect_metrics")
            self._collecting[key] = collecting
            collecting.add_done_callback(partial(self._collected, key))
        return await asyncio.shield(collecting)

    def _collected(self, key: tuple[str, bool], _: asyncio.Task[bytes]) -> None:
        self._collecting.pop(key, None)

    def _encode(self, kind: str, packed: bool) -> bytes:
        body = _ENCODERS[kind](self._collector())
        return gzip.compress(body, 5) if packed else body


exposition = Exposition()


def choose_format(accept: str) -> str:
    """The content type that an `Accept` header asks for: OpenMetrics where it comes first, else Prometheus' own."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights[name] = max(weights.get(name, 0.0), _quality(parameters))
    wanted = weights.get("application/openmetrics-text", 0.0)
    return _OPENMETRICS if wanted > 0 and wanted >= weights.get("text/plain", 0.0) else _TEXT


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# --- the numbers of plain requests -----------------------------------------------------------------------------------


class HttpMetrics:
    """ASGI middleware around the user's app: counts and times HTTP requests by the template of their route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked, started = dict(scope), time.perf_counter()  # routers change the scope as they go
        status = 500  # which is what the server answers if the app does not

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            self._count(asked, status, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        metrics = app_manager.metrics
        route = metrics.route(template(self._app, scope))
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        metrics.http_requests.labels(route, method, status if 100 <= status <= 599 else OTHER).inc()
        metrics.http_request_seconds.labels(route).observe(seconds)


def template(app: ASGIApp, scope: Scope) -> str:
    """The template of the route that an application takes for a request; `/*` stands for what no route takes."""
    try:
        return _template(app, scope)
    except Exception:  # noqa: BLE001  a route or a converter of the user's
        return OTHER


def _template(app: Any, scope: Scope) -> str:
    other_method: str | None = None
    for route in fastapi.routing.iter_route_contexts(_routes(app)):
        match, child = route.matches(scope)
        if match is Match.NONE:
            continue
        original = route.original_route
        path = (route.path if isinstance(original, Mount) else route.path_format) or ""
        if isinstance(original, Mount | Host):
            path += _template(route, {**scope, **child})
        if match is Match.FULL:
            return path
        other_method = other_method or path
    return other_method or _REST


def _routes(app: Any) -> list[Any]:
    """The routes of an application, looked for behind the middleware that is around it."""
    for _ in range(_LAYERS):
        if routes := getattr(app, "routes", None):
            return list(routes)
        app = getattr(app, "app", None)
        if app is None:
            break
    return []
