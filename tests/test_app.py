from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi
import flet as ft  # type: ignore[import-untyped]
import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount

import flet_fastapi
from flet_fastapi.app import assemble
from flet_fastapi.errors import OptionError
from flet_fastapi.manager import AppManager
from flet_fastapi.options import Options
from tests.support.in_process import InProcessClient


def main(page: ft.Page) -> None:
    page.add(ft.Text("here"))


def test_public_names() -> None:
    assert set(flet_fastapi.__all__) == {
        "FastAPI", "FletApp", "FletOAuth", "FletStaticFiles", "FletUpload", "app", "app_manager",
    }  # fmt: skip


@pytest.mark.parametrize("handler", [None, 5, "main"])
def test_handler_must_be_callable(handler: Any) -> None:
    with pytest.raises(OptionError, match="session_handler"):
        flet_fastapi.app(handler)


@pytest.mark.parametrize(
    "wrong",
    [{"assets_dir": "/nowhere"}, {"max_upload_size": 0}, {"web_renderer": "x"}, {"session_timeout_seconds": -1}],
)
def test_wrong_parameter_is_named_at_construction(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        flet_fastapi.app(main, **wrong)


@pytest.mark.parametrize("target", [object(), Starlette(), "app"])
def test_fastapi_app_must_be_one(target: Any) -> None:
    with pytest.raises(OptionError, match="fastapi_app"):
        flet_fastapi.app(main, fastapi_app=target)


def test_wrong_variable_stops_the_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_MAX_FRAME_SIZE", "big")
    with pytest.raises(OptionError, match="FLET_MAX_FRAME_SIZE"):
        flet_fastapi.app(main)


def test_given_application_is_returned() -> None:
    target = fastapi.FastAPI()
    assert flet_fastapi.app(main, fastapi_app=target) is target


async def visit(app: Any, path: str = "/ws", **scope: Any) -> None:
    client = await InProcessClient(app, path=path, scope={"headers": [(b"host", b"test")], **scope}).connect()
    await client.register()
    await client.wait_for_control("text", value="here")
    await client.abort()


@pytest.fixture
async def _stops() -> Any:
    yield
    await flet_fastapi.app_manager.shutdown()


@pytest.mark.usefixtures("_stops")
@pytest.mark.parametrize("path", ["/ws", "/sub/ws", "/a/b/ws"])
async def test_websocket_below_any_mount(path: str) -> None:
    app = flet_fastapi.app(main)
    below = path.removesuffix("/ws")
    await visit(Starlette(routes=[Mount(below, app)]) if below else app, path)


@pytest.mark.usefixtures("_stops")
async def test_websocket_endpoint_may_be_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_WEBSOCKET_HANDLER_ENDPOINT", "/live/socket")
    await visit(flet_fastapi.app(main), "/live/socket")


@pytest.mark.usefixtures("_stops")
async def test_middleware_of_the_application_sees_the_websocket() -> None:
    seen: list[str] = []

    class Middleware:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])
            await self.app(scope, receive, send)

    app = flet_fastapi.app(main)
    app.add_middleware(Middleware)
    await visit(app)
    assert seen == ["websocket"]


@pytest.mark.usefixtures("_stops")
@pytest.mark.parametrize("path", ["/", "/wsx", "/ws/", "/upload", "/nothing"])
async def test_websocket_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        await InProcessClient(flet_fastapi.app(main), path=path).connect()


def test_routes_of_the_application_come_first() -> None:
    target = flet_fastapi.FastAPI()

    @target.get("/mine")
    def mine() -> str:
        return "mine"

    flet_fastapi.app(main, fastapi_app=target)

    @target.get("/later")
    def later() -> str:
        return "later"

    assert {"/mine", "/later", "/ws"} <= {getattr(route, "path", "") for route in target.router.routes}


async def test_a_run_directory_that_cannot_be_used_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "run"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    monkeypatch.setenv("FLET_RUN_DIR", str(open_to_all))
    manager = AppManager(CollectorRegistry())
    app = assemble(lambda page: None, Options.load(), None, manager)  # to be kept, so that it counts
    with pytest.raises(OptionError, match="FLET_RUN_DIR"):
        await manager.start()
    assert app


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
@pytest.mark.parametrize(("path", "allowed"), [("/upload", "PUT"), ("/oauth_callback", "GET")])
async def test_endpoint_refuses_other_methods_itself(tmp_path: Path, method: str, path: str, allowed: str) -> None:
    app = flet_fastapi.app(main, upload_dir=str(tmp_path))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        answer = await client.request(method, path)
    await flet_fastapi.app_manager.shutdown()
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["cache-control"] == "no-store"


async def test_endpoint_at_a_path_of_its_own_refuses_other_methods_and_shows_no_signature(tmp_path: Path) -> None:
    app = flet_fastapi.app(main, upload_dir=str(tmp_path), upload_endpoint_path="/files/put", proxy_path="/prox")
    left: list[bytes] = []

    async def seen(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        left.append(scope["query_string"])

    async with httpx.AsyncClient(transport=httpx.ASGITransport(seen), base_url="http://app.test") as client:
        answers = [await client.post(f"{path}?t=secret") for path in ("/files/put", "/files/put/", "/prox/files/put/")]
    await flet_fastapi.app_manager.shutdown()
    assert [answer.headers["allow"] for answer in answers] == ["PUT", "PUT", "GET, HEAD"]
    assert left == [b""] * 3


async def test_routes_of_the_application_may_take_other_methods() -> None:
    target = flet_fastapi.app(main)
    target.add_api_route("/upload", lambda: "mine", methods=["POST"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(target), base_url="http://app.test") as client:
        answer = await client.post("/upload")
    await flet_fastapi.app_manager.shutdown()
    assert answer.json() == "mine"
