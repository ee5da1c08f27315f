"""`app()`: an app's endpoints, put together."""

from __future__ import annotations

from typing import Any

import fastapi
from flet_core.types import WebRenderer
from starlette.routing import Match, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .client import FletStaticFiles
from .errors import OptionError
from .fastapi import AppFastAPI
from .flet_app import FletApp, check_handler
from .handshake import HostGuard
from .identity import page_headers
from .manager import AppManager, app_manager
from .oauth import FletOAuth
from .openapi import describe
from .options import Options
from .uploads import FletUpload, asked_paths


def app(
    session_handler: Any,
    proxy_path: str | None = None,
    assets_dir: str | None = None,
    app_name: str | None = None,
    app_short_name: str | None = None,
    app_description: str | None = None,
    web_renderer: WebRenderer = WebRenderer.CANVAS_KIT,
    use_color_emoji: bool = False,
    route_url_strategy: str = "path",
    upload_dir: str | None = None,
    upload_endpoint_path: str | None = None,
    max_upload_size: int | None = None,
    secret_key: str | None = None,
    session_timeout_seconds: int = 3600,
    oauth_state_timeout_seconds: int = 600,
    *,
    fastapi_app: fastapi.FastAPI | None = None,
) -> fastapi.FastAPI:
    """A Flet app as an ASGI application: `/ws`, `/upload`, `/oauth_callback`, and the web client everywhere else.

    Sizes are in bytes, timeouts in seconds; `None` for `max_upload_size` means no limit. With `upload_dir` the app
    takes uploads at `upload_endpoint_path`, if that is given; without, that is where somebody else does. With
    `fastapi_app` the endpoints are put on that application, behind its own routes, and it is what is returned; its
    lifespan must start and stop `app_manager`. Source: the Flet guide "Running Flet with FastAPI".

    Raises:
        OptionError: a parameter or a `FLET_*` variable is wrong; the error names it.
    """
    given = {name: value for name, value in locals().items() if name not in ("session_handler", "fastapi_app")}
    check_handler(session_handler)
    if fastapi_app is not None and not isinstance(fastapi_app, fastapi.FastAPI):
        raise OptionError("fastapi_app", f"must be a FastAPI application (got {type(fastapi_app).__name__})")
    return assemble(session_handler, Options.load(**given), fastapi_app, app_manager)


def assemble(
    session_handler: Any, options: Options, target: fastapi.FastAPI | None, manager: AppManager
) -> fastapi.FastAPI:
    """Put the endpoints of one app on `target`, or on a new application."""
    manager.limits  # noqa: B018  a wrong variable stops the start, not the first connection
    target = target if target is not None else AppFastAPI()
    websocket = FletApp.from_options(session_handler, options, manager, takes_uploads=True)
    path = f"/{options.websocket_endpoint}"
    route = WebSocketRoute(path, websocket)
    target.router.routes.append(route)
    if isinstance(target, AppFastAPI):
        target.websockets[path] = route
        target.secret_paths = {options.upload_path, f"/{options.oauth_endpoint}"}
        target.proxy_path = options.proxy_path
    upload = FletUpload.from_options(options, manager)
    door = HostGuard(upload, manager)
    target.router.routes.append(_Endpoint(options.upload_path, door, "PUT", options.proxy_path))
    oauth = HostGuard(FletOAuth.for_manager(manager), manager)
    target.router.routes.append(_Endpoint(f"/{options.oauth_endpoint}", oauth, "GET"))
    # what no route takes; a route of its own would hide those that are added later
    client = FletStaticFiles.from_options(options, page_headers=page_headers, manager=manager)
    target.router.default = client
    describe(target, options)
    manager.prepare(websocket.prepare)
    manager.prepare(client.prepare)
    manager.prepare(upload.prepare)
    return target


class _Endpoint(Route):
    """An endpoint for one method; reading is left to the client, whose pages may have the same path.

    What remains is the endpoint's to refuse, if no other route takes it. `path` may be the one below the mount of the
    app or, as `upload_endpoint_path` may be written, the one that the browser asks for.
    """

    def __init__(self, path: str, endpoint: ASGIApp, method: str, proxy_path: str | None = None) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.methods = {method}
        self._proxy_path = proxy_path

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and self.path in asked_paths(scope, self._proxy_path):
            scope = {**scope, "path": self.path, "root_path": ""}
        match, child = super().matches(scope)
        page = match is Match.PARTIAL and scope["method"] in ("GET", "HEAD")
        return (Match.NONE if page else match), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self  # for logs and metrics; FastAPI tells only of its own routes
        await self.app(scope, receive, send)
