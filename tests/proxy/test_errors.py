"""While the app is not there: a page that tries again by itself, a plain answer for everything else."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.proxy.conftest import PROGRAMS, Start
from tests.support.classic_client import ClassicClient
from tests.support.nginx import ROOT, Nginx, fetch, nginx_folder, nginx_server, wait_for
from tests.support.servers import free_port, uvicorn_server

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture(scope="module")
def alone() -> Iterator[Nginx]:
    """nginx before a port where nobody is."""
    with nginx_folder() as folder, nginx_server(folder, APP_SERVERS=f"127.0.0.1:{free_port()}") as nginx:
        yield nginx


@pytest.fixture(scope="module")
def without_workers() -> Iterator[Nginx]:
    """nginx that has found no worker yet."""
    with nginx_folder() as folder, nginx_server(folder, APP_HOST="nobody.invalid") as nginx:
        yield nginx


@pytest.fixture(params=["alone", "without_workers"])
def lonely(request: pytest.FixtureRequest) -> Nginx:
    nginx: Nginx = request.getfixturevalue(request.param)
    return nginx


@pytest.mark.parametrize("path", ["/", "/some/route?with=query", "/_b/0123456789abcdef/x"])
def test_people_get_a_page_that_tries_again(lonely: Nginx, path: str) -> None:
    page = fetch(lonely.url + path, Accept=HTML)

    assert page.status in (502, 503)
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert page.header("Retry-After") == "3"
    assert page.header("Cache-Control") == "no-store"
    assert b'<meta http-equiv="refresh" content="3">' in page.body


def test_the_page_needs_nobody_else_and_no_script(lonely: Nginx) -> None:
    page = fetch(lonely.url, Accept=HTML)

    assert not re.search(rb"<script|<link|<img|<iframe|https?://|url\(|@import|javascript:", page.body)
    assert "default-src 'none'" in (page.header("Content-Security-Policy") or "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_it_is_there_for_every_method(lonely: Nginx, method: str) -> None:
    page = fetch(lonely.url, method=method, body=None if method == "HEAD" else b"x", Accept=HTML)
    assert page.status in (502, 503) and page.header("Retry-After") == "3"


def test_programs_get_a_line(lonely: Nginx) -> None:
    answer = fetch(f"{lonely.url}/api", Accept="application/json")
    assert answer.status in (502, 503)
    assert (answer.header("Content-Type"), answer.body.count(b"\n")) == ("text/plain; charset=utf-8", 1)


async def test_a_websocket_gets_a_plain_503(lonely: Nginx) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await ClassicClient(lonely.websocket_url, headers={"Accept": HTML}).connect()

    response = refused.value.response
    assert (response.status_code, response.headers["Content-Type"]) == (503, "text/plain; charset=utf-8")


@pytest.mark.parametrize("status", [400, 404, 418, 429, 500, 502, 503, 504])
def test_what_the_app_itself_says_is_passed_on(proxy: Nginx, status: int) -> None:
    answer = fetch(f"{proxy.url}/answer?status={status}&X-Own=kept&Retry-After=77&size=50", Accept=HTML)
    assert (answer.status, answer.header("X-Own"), answer.header("Retry-After")) == (status, "kept", "77")
    assert answer.body.endswith(b".")


def test_an_app_that_does_not_answer_in_time_is_unavailable(start: Start) -> None:
    nginx = start(NGINX_READ_TIMEOUT="1")
    answer = fetch(f"{nginx.url}/answer?seconds=20", Accept=HTML)
    assert (answer.status, b"One moment" in answer.body) == (504, True)


@contextmanager
def hanging_up() -> Iterator[int]:
    """A server that reads what comes and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(65536)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_an_app_that_hangs_up_is_unavailable(start: Start) -> None:
    with hanging_up() as port:
        nginx = start(APP_SERVERS=f"127.0.0.1:{port}")
        assert fetch(nginx.url, Accept=HTML).status == 502


def test_the_app_is_back_as_soon_as_it_answers(tmp_path: Path) -> None:
    port = free_port()
    with nginx_folder() as folder, nginx_server(folder, APP_SERVERS=f"127.0.0.1:{port}") as nginx:
        assert fetch(nginx.url, Accept=HTML).status == 502
        with uvicorn_server("echo:app", PROGRAMS, tmp_path / "log", port=port):
            assert fetch(nginx.url, Accept=HTML).status == 200
        assert fetch(nginx.url, Accept=HTML).status == 502


def test_nginx_alone_is_alive_and_its_own_end_is_an_error(folder: Path) -> None:
    with nginx_server(folder, APP_HOST="nobody.invalid") as nginx:
        master = int((folder / "run/nginx.pid").read_text())
        for pid in [master, *nginx.processes("worker")]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: nginx.process.poll(), "the entrypoint ends with it") != 0


def test_the_error_page_is_small() -> None:
    assert (ROOT / "nginx/pages/unavailable.html").stat().st_size < 4096
