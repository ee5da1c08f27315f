"""`FastAPI`: a FastAPI application whose lifespan starts and stops `app_manager`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import fastapi
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from .identity import hide_query
from .manager import app_manager
from .uploads import UploadRefused, asked_paths

# FastAPI's own lifespan of a router that was given none.
_RUNS_HOOKS: Any = getattr(fastapi.routing, "_DefaultLifespan", ())


class FastAPI(fastapi.FastAPI):
    """Takes everything that the installed `fastapi.FastAPI` takes.

    Inside the life of `app_manager` run `on_startup`, then what `on_event("startup")` was given, then `lifespan`; at
    the end `lifespan`, `on_event("shutdown")` and `on_shutdown`. All go together, and work even where the installed
    FastAPI drops them.
    """

    def __init__(
        self,
        *,
        lifespan: Callable[[Any], Any] | None = None,
        on_startup: Sequence[Callable[[], Any]] | None = None,
        on_shutdown: Sequence[Callable[[], Any]] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(lifespan=_managed(lifespan, on_startup or (), on_shutdown or ()), **extra)
        # an upload endpoint in a route of this application answers as it does alone
        self.add_exception_handler(UploadRefused, _refusal)

    def include_router(self, router: fastapi.APIRouter, *args: Any, **keywords: Any) -> None:
        """As FastAPI does it, but the router's handlers run once: by the router's own lifespan, if it runs them."""
        before = [list(hooks) for hooks in _hooks(self)]
        super().include_router(router, *args, **keywords)
        if isinstance(router.lifespan_context, _RUNS_HOOKS):
            for hooks, own in zip(_hooks(self), before, strict=True):
                hooks[:] = own


class AppFastAPI(FastAPI):
    """What `app()` returns. Without middleware of its own, its websocket goes straight to its endpoint.

    FastAPI's own layers do nothing for it, and each would stand in memory for as long as the connection does.
    """

    def __init__(self) -> None:
        super().__init__(docs_url=None, redoc_url=None, openapi_url=None)
        self.websockets: dict[str, WebSocketRoute] = {}
        self.secret_paths: set[str] = set()
        self.proxy_path: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = _whole_path(scope)
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and self._is_secret(scope, path):
            hide_query(scope)  # whatever the answer will be, also of a request that reaches no endpoint
            # starlette's redirect to the path without the slash would lose the query
            scope["path"] = scope["path"].rstrip("/")
        if scope["type"] == "websocket" and not self.user_middleware:
            route = self.websockets.get(path)
            if route is not None:
                scope["app"], scope["route"] = self, route
                await route.app(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _is_secret(self, scope: Scope, path: str) -> bool:
        asked = (path, *asked_paths(scope, self.proxy_path))
        return not self.secret_paths.isdisjoint(each.rstrip("/") for each in asked)


def _whole_path(scope: Scope) -> Scope:
    """`FastAPI(root_path=…)` names a prefix that a proxy has taken away; starlette's mounts want it in the path."""
    root, outer = scope.get("root_path", ""), scope.get("app_root_path", "")
    if not outer or "path" not in scope or scope["path"].startswith(root):
        return scope
    return {**scope, "path": outer + scope["path"]}


def _managed(
    lifespan: Callable[[Any], Any] | None,
    on_startup: Sequence[Callable[[], Any]],
    on_shutdown: Sequence[Callable[[], Any]],
) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def managed(app: Any) -> AsyncIterator[Any]:
        await app_manager.start()
        try:
            for hook in (*on_startup, *_hooks(app)[0]):
                await _call(hook)
            if lifespan is None:
                yield
            else:
                async with lifespan(app) as state:
                    yield state
            for hook in (*_hooks(app)[1], *on_shutdown):
                await _call(hook)
        finally:
            await app_manager.shutdown()

    return managed


def _hooks(app: fastapi.FastAPI) -> tuple[list[Callable[[], Any]], list[Callable[[], Any]]]:
    """What `on_event` was given for the start and for the end."""
    return getattr(app.router, "on_startup", []), getattr(app.router, "on_shutdown", [])


async def _refusal(_: Any, error: Exception) -> Response:
    assert isinstance(error, UploadRefused)
    return error.response()


async def _call(hook: Callable[[], Any]) -> None:
    result = hook()
    if inspect.isawaitable(result):
        await result
