"""Real nginx with this project's configuration, in front of real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.appliance import Appliance
from tests.support.nginx import Nginx, fetch, nginx_folder, nginx_server, wait_for
from tests.support.servers import Server, uvicorn_server

PROGRAMS = Path(__file__).parent / "programs"

Start = Callable[..., Nginx]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder of the proxy's user, with a copy of `nginx/`."""
    with nginx_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app that tells what it heard."""
    log = tmp_path_factory.mktemp("echo") / "log"
    with uvicorn_server("echo:app", PROGRAMS, log, "--forwarded-allow-ips", "*") as server:
        yield server


@pytest.fixture(scope="module")
def proxy(echo: Server) -> Iterator[Nginx]:
    """nginx with nothing set, in front of the echo."""
    with nginx_folder() as folder, nginx_server(folder, APP_SERVERS=f"127.0.0.1:{echo.port}") as nginx:
        yield nginx


@pytest.fixture
def start(echo: Server) -> Iterator[Start]:
    """Starts an nginx in front of the echo: `start(NGINX_HOSTS="app.test")`."""
    with ExitStack() as running:

        def start(**variables: str) -> Nginx:
            folder = running.enter_context(nginx_folder())
            return running.enter_context(nginx_server(folder, **{"APP_SERVERS": f"127.0.0.1:{echo.port}", **variables}))

        yield start


@pytest.fixture(scope="module")
def front(appliance: Appliance) -> Iterator[Nginx]:
    """nginx that finds the workers of the module's `appliance` by itself."""
    variables = {"APP_HOST": "127.0.0.1", "ROOST_INTERNAL_PORT": str(appliance.internal_port)}
    with nginx_folder() as folder, nginx_server(folder, **variables) as nginx:
        wait_for(lambda: fetch(nginx.url).status == 200, "nginx has found the workers")
        yield nginx
