"""The smoke test tells a working app from each way in which one can be broken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import flet as ft
import pytest
import uvicorn

import flet_fastapi
from roost.appliance.smoke import main
from roost.appliance.visitor import Broken, Visitor, websocket_url
from tests.support.servers import free_port

Program = Callable[[Any], Any]


@contextmanager
def serving(program: Program, path: str = "") -> Iterator[str]:
    """The address of an app that is served from a thread."""
    app = flet_fastapi.FastAPI()
    app.mount(path or "/", flet_fastapi.app(program))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{path}/"
        finally:
            server.should_exit = True
            thread.join()


def counter(page: ft.Page) -> None:
    text = ft.Text("0")

    def add(_: ft.ControlEvent) -> None:
        text.value = str(int(text.value or "0") + 1)
        page.update()

    page.add(text, ft.ElevatedButton("Still", disabled=True), ft.ElevatedButton("Add", key="add-one", on_click=add))


def said(capsys: pytest.CaptureFixture[str], url: str, *options: str) -> tuple[int, str]:
    code = main([url, *options])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--click", "add-one"), ("--click", "Add"), ("--click", "off")])
def test_a_working_app_is_found_to_work(capsys: pytest.CaptureFixture[str], options: tuple[str, ...]) -> None:
    with serving(counter) as url:
        code, text = said(capsys, url, *options)
    assert code == 0, text
    assert ("was answered" in text) == ("off" not in options)


def test_an_app_below_a_path_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(counter, "/below") as url:
        assert said(capsys, url)[0] == 0


def test_another_name_can_be_visited_at_this_address(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(counter) as url:
        via = url.removeprefix("http://").rstrip("/")
        assert said(capsys, "http://app.example.com/", "--via", via)[0] == 0


def crash(page: ft.Page) -> None:
    raise ValueError("no page")


def crash_at_click(page: ft.Page) -> None:
    def fail(_: ft.ControlEvent) -> None:
        raise ValueError("no click")

    page.add(ft.ElevatedButton("Go", on_click=fail))


def do_nothing(page: ft.Page) -> None:
    page.add(ft.ElevatedButton("Go", on_click=lambda _: None))


@pytest.mark.parametrize(
    ("program", "options", "code", "text"),
    [
        (crash, (), 1, "ERROR: the app failed: Something went wrong"),
        (crash_at_click, (), 1, "ERROR: a click on 'Go' fails: Something went wrong"),
        (do_nothing, (), 0, "click: 'Go' changed nothing on the page"),
        (do_nothing, ("--click", "Go"), 1, "ERROR: a click on 'Go' is not answered"),
        (do_nothing, ("--click", "Gone"), 1, "ERROR: there is nothing to click that is called 'Gone'"),
        (lambda page: page.add(ft.Text("no button")), (), 0, "click: there is no button on the page"),
    ],
)
def test_what_is_broken_is_named(
    capsys: pytest.CaptureFixture[str], program: Program, options: tuple[str, ...], code: int, text: str
) -> None:
    with serving(program) as url:
        result, output = said(capsys, url, *options)
    assert (result, text in output) == (code, True), output


def test_nobody_at_the_address_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, f"http://127.0.0.1:{free_port()}/")
    assert code == 1
    assert "nobody answers at 127.0.0.1" in text


class _Plain(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 503)
        self.end_headers()
        self.wfile.write(b"<html>another site</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("path", "text"), [("", "is not the page of a Flet app"), ("x", "answers 503")])
def test_another_site_is_not_taken_for_the_app(capsys: pytest.CaptureFixture[str], path: str, text: str) -> None:
    with HTTPServer(("127.0.0.1", 0), _Plain) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        code, output = said(capsys, f"http://127.0.0.1:{server.server_port}/{path}")
        server.shutdown()
        thread.join()
    assert (code, text in output) == (1, True), output


def test_a_field_can_be_typed_into() -> None:
    def greet(page: ft.Page) -> None:
        name, text = ft.TextField(label="Name"), ft.Text("")

        def show(_: ft.ControlEvent) -> None:
            text.value = f"Hello, {name.value}!"
            page.update()

        page.add(name, ft.TextButton("Greet", on_click=show), text)

    with serving(greet) as url, Visitor(url) as visitor:
        visitor.visit().enter(visitor.find("Name"), "Ada")
        visitor.click(visitor.find("Greet"))
        assert "Hello, Ada!" in visitor.texts()
        with pytest.raises(LookupError, match="there is no 'Nothing' among"):
            visitor.find("Nothing")


@pytest.mark.parametrize(
    ("base", "endpoint", "websocket"),
    [
        ("/", "ws", "wss://a.example/ws"),
        ("/sub/", "sub/ws", "wss://a.example/sub/sub/ws"),
        ("/sub/", "ws", "wss://a.example/sub/ws"),
    ],
)
def test_the_websocket_is_where_the_page_says(base: str, endpoint: str, websocket: str) -> None:
    page = f'<base href="{base}"><meta name="flet-websocket-endpoint-path" content="{endpoint}">'
    assert websocket_url("https://a.example/some/route", page) == websocket


def test_a_page_that_names_no_websocket_is_none() -> None:
    with pytest.raises(Broken, match="not the page of a Flet app"):
        websocket_url("https://a.example/", "<html>")
