"""The `roost` command. What a command needs is imported by it: a health check must not wait for the libraries."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from flet_fastapi.options import Limits, Options

    from .settings import Settings

# A mistake in the configuration; an app that cannot be started.
WRONG, APP_FAILED = 2, 3
# A worker that is silent for this long is replaced. It is silent while it imports what it is made of, which on a busy
# machine takes longer than uvicorn's own five seconds; replaced then, it would never get further. A stop that comes
# while a worker starts may wait for as long.
_START_SECONDS = 15
# A websocket takes part in the shutdown for this long before it is cut.
_SHUTDOWN_SECONDS = 10

F = TypeVar("F", bound=Callable[..., object])


def _fail(problem: object) -> NoReturn:
    click.echo(f"roost: {problem}", err=True)
    sys.exit(WRONG)


def _where_and_what(command: F) -> F:
    """What `run` and `serve` both take."""
    for decorate in (
        click.option("--root-path", help="The URL prefix that a proxy in front strips."),
        click.option("--workers", help="The number of processes, or auto."),
        click.option("--port", type=int, help="The port to listen on."),
        click.option("--host", help="The address to listen on."),
        click.argument("app", required=False),
    ):
        command = decorate(command)
    return command


@click.group()
def main() -> None:
    """The production appliance for Flet web apps."""


@main.command()
@_where_and_what
@click.option("--reload", is_flag=True, help="Replace the workers whenever a file of the app changes.")
def serve(reload: bool, **arguments: object) -> None:
    """Serve APP in production, with a worker for each CPU.

    APP is path/to/file.py, package.module or a folder, with :name or without.
    """
    from flet_fastapi.errors import OptionError
    from flet_fastapi.logs import get_logger

    from . import gunicorn, logs
    from .check import warnings

    log = get_logger(__name__)
    settings, _, limits = _load(None, arguments)
    logs.configure(settings)
    for sentence in warnings(settings, limits):
        log.warning("setting_suspicious", problem=sentence)
    try:
        gunicorn.Application(settings, reload=reload).serve()
    except OptionError as error:
        _fail(error)


@main.command()
@_where_and_what
@click.option("--reload", is_flag=True, help="Start again whenever a file of the app changes.")
def run(reload: bool, **arguments: object) -> None:
    """Serve APP during development.

    APP is path/to/file.py, package.module or a folder, with :name or without.
    """
    import uvicorn

    from flet_fastapi.errors import OptionError

    from . import logs
    from .asgi import compose
    from .check import warnings
    from .loader import folder_of, load
    from .process import largest_frame, tune

    settings, _, limits = _load({"environment": "development", "workers": 1}, arguments)
    logs.configure(settings)
    for sentence in warnings(settings, limits):
        click.echo(f"roost: warning: {sentence}", err=True)
    try:
        # found before the server starts: a mistake is one line here, and the same line from each worker there
        application = compose(load(settings.app), settings)
    except OptionError as error:
        _fail(error)
    alone = settings.worker_count == 1 and not reload
    tune()
    # other processes read what was said here
    os.environ |= {"ROOST_APP": settings.app, "ROOST_ENVIRONMENT": settings.environment}
    uvicorn.run(
        application if alone else "roost.asgi:app",
        host=settings.host,
        port=settings.port,
        workers=settings.worker_count,
        root_path=settings.root_path,
        proxy_headers=False,
        loop="uvloop",
        http="httptools",
        ws="roost.websockets:WebSocketProtocol",
        ws_max_size=largest_frame(),
        ws_ping_interval=settings.ws_ping_interval,
        ws_ping_timeout=settings.ws_ping_timeout,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
        access_log=False,
        log_config=None,
        reload=reload,
        reload_dirs=[str(folder_of(settings.app))] if reload else None,
    )


@main.command()
@click.argument("app", required=False)
def check(app: str | None) -> None:
    """Show the settings in effect, who said them, and what is wrong; import APP as the server would.

    The exit code is 0 if the server can be started: 2 if a setting is wrong, 3 if the app cannot be served.
    """
    from flet_fastapi.errors import OptionError

    from .check import rows, table, warnings
    from .loader import load

    settings, options, limits = _load(None, {"app": app})
    click.echo(table(rows(settings, options, limits)))
    for sentence in warnings(settings, limits):
        click.echo(f"roost: warning: {sentence}", err=True)
    try:
        load(settings.app)
    except OptionError as error:
        click.echo(f"roost: {error}", err=True)
        sys.exit(APP_FAILED)


@main.command()
def secret() -> None:
    """Make a secret, for FLET_SECRET_KEY and the like."""
    click.echo(secrets.token_urlsafe(32))


@main.command()
@click.argument("what", type=click.Choice(["livez", "readyz", "startupz"]), default="readyz")
def health(what: str) -> None:
    """Ask the server on this machine how it is; the exit code is 0 if it is well."""
    from .probe import ask

    well, said = ask(f"/{what}")
    click.echo(said)
    sys.exit(0 if well else 1)


@main.command()
@click.option("--markdown", is_flag=True, help="As a table for the documentation.")
def settings(markdown: bool) -> None:
    """List the settings of the server."""
    from . import settings as module

    click.echo(module.markdown(), nl=False)


def _load(defaults: dict[str, object] | None, arguments: dict[str, object]) -> tuple[Settings, Options, Limits]:
    """The settings, all of them right, those of the library too; else the process ends with one line."""
    from flet_fastapi.errors import OptionError
    from flet_fastapi.options import Limits, Options

    from .settings import Settings, check_secrets

    try:
        settings, options, limits = Settings.load(defaults, **arguments), Options.load(), Limits.load()
        check_secrets(settings, options, limits)
    except OptionError as error:
        _fail(error)
    return settings, options, limits
