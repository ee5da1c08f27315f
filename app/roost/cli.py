"""The `roost` command."""

from __future__ import annotations

import os
import sys

import click
import uvicorn

from flet_fastapi.errors import OptionError

from .loader import load
from .process import tune
from .settings import Settings

# Frames over this size are refused by the server before they are read whole; the app's own limit lies below.
_MAX_FRAME_SIZE = 16 * 1024 * 1024
# A worker that is silent for this long is replaced. It is silent while it imports what it is made of, which on a busy
# machine takes longer than uvicorn's own five seconds; replaced then, it would never get further. A stop that comes
# while a worker starts may wait for as long.
_START_SECONDS = 15
# A websocket takes part in the shutdown for this long before it is cut.
_SHUTDOWN_SECONDS = 10


@click.group()
def main() -> None:
    """The production appliance for Flet web apps."""


@main.command()
@click.argument("app", required=False)
@click.option("--host", help="The address to listen on.")
@click.option("--port", type=int, help="The port to listen on.")
@click.option("--workers", type=int, help="The number of processes.")
@click.option("--root-path", help="The URL prefix that a proxy in front strips.")
def run(app: str | None, host: str | None, port: int | None, workers: int | None, root_path: str | None) -> None:
    """Serve APP: path/to/file.py or package.module, with :name or without."""
    try:
        settings = Settings.load(app=app, host=host, port=port, workers=workers, root_path=root_path)
        # found before the server starts: a mistake is one line here, and the same line from each worker there
        application = load(settings.app)
    except OptionError as error:
        click.echo(f"roost: {error}", err=True)
        sys.exit(2)
    if settings.workers > 1:
        click.echo(
            "roost: workers do not share sessions yet: a reconnect that another worker gets starts a new one", err=True
        )
    tune()
    os.environ["ROOST_APP"] = settings.app  # the workers are processes of their own
    uvicorn.run(
        application if settings.workers == 1 else "roost.asgi:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        root_path=settings.root_path,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        loop="uvloop",
        http="httptools",
        ws="roost.websockets:WebSocketProtocol",
        ws_max_size=_MAX_FRAME_SIZE,
        ws_ping_interval=settings.ws_ping_interval,
        ws_ping_timeout=settings.ws_ping_timeout,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
        access_log=False,
    )
