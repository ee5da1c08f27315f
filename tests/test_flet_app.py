from __future__ import annotations

import asyncio
import inspect
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest

from flet_fastapi import FletApp
from flet_fastapi.errors import OptionError
from tests.support.in_process import InProcessClient
from tests.support.serving import serving


async def main(page: ft.Page) -> None:
    page.add(ft.Text(page.url))


@pytest.mark.parametrize("handler", [None, 5, "main", object()])
def test_handler_must_be_callable(handler: Any) -> None:
    with pytest.raises(OptionError, match="session_handler"):
        FletApp(handler)


def test_older_form_with_an_event_loop() -> None:
    loop = asyncio.new_event_loop()
    assert FletApp(loop, main, 5)._options.session_timeout_seconds == 5
    with pytest.raises(OptionError, match="session_handler"):
        FletApp(loop)
    loop.close()


def test_older_form_by_names_as_in_flet() -> None:
    loop = asyncio.new_event_loop()
    for endpoint in (
        FletApp(loop=loop, session_handler=main, secret_key="k"),
        FletApp(loop, session_handler=main, secret_key="k"),
        FletApp(loop, main, 3600, 600, None, "k"),
        FletApp(session_handler=main, secret_key="k"),
    ):
        assert endpoint._main is main
        assert [key.get_secret_value() for key in endpoint._options.secret_key or ()] == ["k"]
    loop.close()


@pytest.mark.parametrize(
    ("args", "named", "problem"),
    [
        ((main, 100), {"session_timeout_seconds": 5}, "session_timeout_seconds: is given twice"),
        ((main,), {"session_handler": main}, "session_handler: is given twice"),
        ((main,), {"session_timeout": 5}, "session_timeout: is no parameter"),
        ((), {"secret_key": "k"}, "session_handler: is missing"),
    ],
)
def test_parameter_that_cannot_be_placed_is_named(args: Any, named: Any, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        FletApp(*args, **named)


def test_parameters_can_be_asked_for() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(FletApp).parameters.items()}
    del defaults["session_handler"]
    given = FletApp(main)._options
    assert defaults == {name: getattr(given, name) for name in defaults}
    assert len(defaults) == 4


def test_positional_parameters_are_flets() -> None:
    options = FletApp(main, 1, 2, "/up", "k")._options
    assert (options.session_timeout_seconds, options.oauth_state_timeout_seconds) == (1, 2)
    assert options.upload_endpoint_path == "/up"
    with pytest.raises(OptionError):
        FletApp(main, 1, 2, "/up", "k", "more")


@pytest.mark.parametrize(
    "wrong", [{"session_timeout_seconds": "x"}, {"oauth_state_timeout_seconds": 0}, {"secret_key": ""}]
)
def test_wrong_parameter_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        FletApp(main, **wrong)


@pytest.mark.parametrize(
    ("scope", "url"),
    [
        ({}, "http://test"),
        ({"scheme": "wss"}, "https://test"),
        ({"root_path": "/sub-app"}, "http://test/sub-app"),
    ],
)
async def test_page_url_is_what_the_browser_sees(scope: dict[str, Any], url: str) -> None:
    async with serving(main) as served:
        client = await served.visit(scope=scope)
        await client.wait_for_control("text", value=url)


async def test_proxy_path_is_in_the_page_url() -> None:
    async with serving(main, options={"proxy_path": "/apps/"}) as served:
        client = await served.visit(scope={"root_path": "/a"})
        await client.wait_for_control("text", value="http://test/apps/a")


async def test_two_apps_at_one_place_do_not_share_sessions() -> None:
    async def other(page: ft.Page) -> None:
        page.add(ft.Text("other"))

    async with serving(main) as served:
        client = await served.visit()
        await client.abort()
        endpoint = FletApp.from_options(other, served.endpoint._options, served.manager)
        stranger = InProcessClient(endpoint, cookies=client.cookies)
        stranger.session_id = client.session_id
        await (await stranger.connect()).register()
        await stranger.wait_for_control("text", value="other")
        await stranger.abort()


async def test_client_that_leaves_before_it_connects() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async with serving(main) as served:
        scope = {"type": "websocket", "headers": [], "path": "/ws", "scheme": "ws"}
        await served.endpoint(scope, receive, send)
        assert not served.manager.connections
