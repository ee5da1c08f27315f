"""Apps served for a test, by uvicorn in the test's own loop or by nothing but a pair of queues."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from flet_fastapi.flet_app import FletApp
from flet_fastapi.manager import AppManager
from flet_fastapi.options import Limits, Options
from flet_fastapi.session import Session
from tests.support.classic_client import ClassicClient
from tests.support.counted import undeclared
from tests.support.in_process import InProcessClient

KEY = "k" * 32
WEBSOCKETS = {"websockets": "auto", "roost": "roost.websockets:WebSocketProtocol"}


def make_manager(**limits: Any) -> AppManager:
    """A manager with metrics of its own, and these limits."""
    manager = AppManager(CollectorRegistry())
    manager.__dict__["limits"] = Limits.load(**limits)
    return manager


class Served:
    """One app and the manager that it is served with."""

    def __init__(self, manager: AppManager, endpoint: FletApp, url: str) -> None:
        self.manager = manager
        self.endpoint = endpoint
        self.url = url
        self._clients: list[ClassicClient] = []

    async def open(self, **settings: Any) -> ClassicClient:
        """A browser whose websocket is open, but which has not registered."""
        client = InProcessClient(self.endpoint, **settings) if not self.url else ClassicClient(self.url, **settings)
        await client.connect()
        self._clients.append(client)
        return client

    async def visit(self, **settings: Any) -> ClassicClient:
        """A browser whose session has started."""
        return await (await self.open(**settings)).register()

    async def come_back(self, client: ClassicClient, **settings: Any) -> ClassicClient:
        """A further connection of the same browser, registered with its credential."""
        return await (await self.reopen(client, **settings)).register()

    async def reopen(self, client: ClassicClient, **settings: Any) -> ClassicClient:
        """A further connection of the same browser, not yet registered."""
        other = await client.reconnect(**settings)
        self._clients.append(other)
        return other

    @property
    def sessions(self) -> list[Session]:
        return list(self.manager.sessions())

    @property
    def session(self) -> Session:
        """The only session."""
        (session,) = self.manager.sessions()
        return session

    def counted(self, name: str, **labels: str) -> float:
        """What the series with these labels say together."""
        samples = [sample for family in self.manager.metrics.registry.collect() for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    async def until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait for what the server does by itself, looking at every turn of the loop."""
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        try:
            for client in self._clients:
                with contextlib.suppress(ConnectionError):
                    await client.abort()
        finally:
            await self.manager.shutdown()
            await self.until(lambda: not self.manager.connections)

    def check_nothing_is_left(self) -> None:
        for name, labels in [
            ("flet_sessions", {"state": "connected"}),
            ("flet_sessions", {"state": "detached"}),
            ("flet_connections", {}),
        ]:
            assert self.counted(name, **labels) == 0, (name, labels)
        assert self.manager.unregistered == 0
        assert self.counted("flet_sessions_started_total") == self._ended()
        assert self.counted("flet_session_seconds_count") == self._ended()
        assert not undeclared(self.manager.metrics)

    def _ended(self) -> float:
        (family,) = self.manager.metrics.sessions_ended.collect()
        return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))


@contextlib.asynccontextmanager
async def uvicorn_in_process(app: Any, ws: str = "auto", lifespan: str = "off", **settings: Any) -> AsyncIterator[str]:
    """Serve `app` in this loop at a free port; `host:port`. It is listening when this returns."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, ws=ws, lifespan=lifespan, log_config=None, **settings)  # type: ignore[arg-type]
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for listening in server.servers:
            listening.close()
        state = server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        async with asyncio.timeout(20):
            while state.connections or state.tasks:
                await asyncio.sleep(0.001)
        await server.lifespan.shutdown()
        listener.close()


@contextlib.asynccontextmanager
async def serving(
    main: Any, ws: str | None = None, *, manager: AppManager | None = None, options: dict[str, Any] | None = None,
    path: str = "/ws", **limits: Any,
) -> AsyncIterator[Served]:  # fmt: skip
    """Serve an app's websocket; without `ws` there is no server, only queues. Afterwards nothing may be left."""
    manager = manager or make_manager(**limits)
    endpoint = FletApp.from_options(main, Options.load(**{"secret_key": KEY, **(options or {})}), manager)
    async with contextlib.AsyncExitStack() as stack:
        url = ""
        if ws is not None:
            app = Starlette(routes=[WebSocketRoute(path, endpoint)])
            url = f"ws://{await stack.enter_async_context(uvicorn_in_process(app, WEBSOCKETS[ws]))}{path}"
        served = Served(manager, endpoint, url)
        try:
            yield served
        finally:
            await served.close()
    served.check_nothing_is_left()
