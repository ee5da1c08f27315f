"""The programs of the guide, verbatim, served by every server that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.classic_client import ClassicClient
from tests.support.servers import Server, free_port, module_server

PROGRAMS = Path(__file__).parent / "programs"

SERVERS = {
    "uvicorn": ["uvicorn", "--port", "{port}", "{program}:app"],
    "uvicorn with Roost's websockets": [
        "uvicorn", "--ws", "roost.websockets:WebSocketProtocol", "--port", "{port}", "{program}:app",
    ],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", "{program}:app"],
    "gunicorn": ["gunicorn", "--bind", "127.0.0.1:{port}", "-k", "uvicorn.workers.UvicornWorker", "{program}:app"],
    "gunicorn with uvicorn-worker": [
        "gunicorn", "--bind", "127.0.0.1:{port}", "-k", "uvicorn_worker.UvicornWorker", "{program}:app",
    ],
}  # fmt: skip


@contextmanager
def served(program: str, log: Path, server: str = "uvicorn", **variables: str) -> Iterator[Server]:
    port = free_port()
    command = [part.format(port=port, program=program) for part in SERVERS[server]]
    with module_server(command, port, PROGRAMS, log, **variables) as running:
        yield running


def client_of(server: Server, path: str = "/ws") -> ClassicClient:
    return ClassicClient(server.url.replace("http", "ws") + path)


@pytest.mark.parametrize("server", SERVERS)
async def test_counter_counts_and_survives_a_drop(server: str, tmp_path: Path) -> None:
    with served("counter", tmp_path / "log", server) as running:
        client = await client_of(running).connect()
        await client.register()
        button = await client.wait_for_control("floatingactionbutton")
        await client.click(button["i"])
        await client.wait_for_control("text", value="1")
        await client.abort()
        async with await client.reconnect() as other:
            await other.register()
            assert other.one("text", value="1")
            await other.click(button["i"])
            await other.wait_for_control("text", value="2")
    assert "Traceback" not in running.said()


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_server_with_open_sessions_stops(server: str, tmp_path: Path) -> None:
    with served("counter", tmp_path / "log", server) as running:
        client = await client_of(running).connect()
        await client.register()
        await client.wait_for_control("text")
    assert await client.wait_closed() in (1001, 1006, 1012)
    assert "Traceback" not in running.said()


async def test_several_apps(tmp_path: Path) -> None:
    with served("several", tmp_path / "log") as running:
        for path, text in (("/ws", "This is root app!"), ("/sub-app/ws", "This is sub app!")):
            async with client_of(running, path) as client:
                await client.register()
                await client.wait_for_control("text", value=text)
        async with httpx.AsyncClient(base_url=running.url) as http:
            pages = [await http.get(path) for path in ("/", "/sub-app/")]
    assert [page.status_code for page in pages] == [200, 200]
    assert "/sub-app/" in pages[1].text
    assert "/sub-app/" not in pages[0].text


async def test_session_of_one_app_is_not_resumed_in_the_other(tmp_path: Path) -> None:
    with served("several", tmp_path / "log") as running:
        async with client_of(running, "/sub-app/ws") as client:
            await client.register()
        async with ClassicClient(running.url.replace("http", "ws") + "/ws", cookies=client.cookies) as other:
            await other.register(client.session_id)
            await other.wait_for_control("text", value="This is root app!")


async def test_app_in_an_existing_application(tmp_path: Path) -> None:
    with served("existing", tmp_path / "log") as running:
        async with client_of(running, "/flet-app/ws") as client:
            await client.register()
            await client.wait_for_control("text", value="Hello, Flet!")
        async with httpx.AsyncClient(base_url=running.url) as http:
            assert (await http.get("/flet-app/")).status_code == 200
            assert (await http.get("/docs")).status_code == 200
            assert (await http.get("/nothing")).status_code == 404


async def test_each_endpoint_alone(tmp_path: Path) -> None:
    with served("single", tmp_path / "log") as running:
        client = await client_of(running, "/app1/ws").connect()
        await client.register()
        await client.wait_for_control("text", value="Hello, Flet!")
        await client.abort()
        other = await client.reconnect()
        await other.register()
        assert other.session_id == client.session_id, "each connection has a FletApp of its own, the session is one"
        await other.close()
        async with httpx.AsyncClient(base_url=running.url) as http:
            assert (await http.get("/")).headers["content-type"].startswith("text/html")
            assert (await http.put("/upload", content=b"x")).status_code in (400, 401, 403)
            assert (await http.get("/oauth_callback?state=x&code=y")).status_code in (400, 403, 404, 410)
    assert "Traceback" not in running.said()


@pytest.mark.parametrize("program", ["single", "several", "existing"])
def test_wrong_variable_stops_the_start(program: str, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"FLET_OAUTH_STATE_TIMEOUT: .*got 'soon'"),
        served(program, tmp_path / "log", FLET_OAUTH_STATE_TIMEOUT="soon"),
    ):
        pass
