"""The application that Roost serves: the user's app, and around it what an operator needs of every request.

`roost.asgi:app` is for servers that import their application by name: `ROOST_APP` says where the user's app is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send

from . import logs
from .access import INTERNAL, TRUSTED, AccessLog
from .forwarded import Forwarded, parse_networks
from .loader import load
from .metrics import HttpMetrics
from .process import tune
from .settings import Settings

if TYPE_CHECKING:
    app: ASGIApp

__all__ = ["INTERNAL", "TRUSTED", "Listeners", "app", "compose"]


class Listeners:
    """The outermost layer: what is believed of a request depends on the listener that it came to."""

    def __init__(self, app: ASGIApp, settings: Settings, slot_port: int | None = None) -> None:
        networks = parse_networks(settings.forwarded_allow_ips)
        self._app = app
        self._slot_port = slot_port
        self._public = Forwarded(networks)
        self._slot = Forwarded(networks, closed=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            server = scope.get("server")
            on_slot = self._slot_port is not None and server is not None and server[1] == self._slot_port
            scope[TRUSTED] = (self._slot if on_slot else self._public).apply(scope)
        await self._app(scope, receive, send)


def compose(app: ASGIApp, settings: Settings, slot_port: int | None = None) -> ASGIApp:
    """`app` with all that stands around it, outermost first: listeners, access log, metrics of requests."""
    return Listeners(AccessLog(HttpMetrics(app), settings), settings, slot_port)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    settings = Settings.load({"environment": "development"})
    logs.configure(settings)
    composed = globals()["app"] = compose(load(settings.app), settings)
    tune()
    return composed
