from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest

import flet_fastapi
from flet_fastapi.openapi import describe
from flet_fastapi.options import Options
from flet_fastapi.uploads.refusal import _STATUS


def description(**options: Any) -> dict[str, Any]:
    app = fastapi.FastAPI()
    describe(app, Options.load(**options))
    return app.openapi()


def test_every_status_of_an_upload_is_described() -> None:
    answers = description()["paths"]["/upload"]["put"]["responses"]
    # nobody hears what is said to a browser that has left; 421 is said to a wrong `Host`, before the endpoint is asked
    assert set(answers) == {str(status) for status in {201, 204, 421, *_STATUS.values()} - {499}}


def test_every_status_of_a_callback_is_described() -> None:
    answers = description()["paths"]["/oauth_callback"]["get"]["responses"]
    assert set(answers) == {"200", "303", "400", "403", "405", "410", "421", "503"}


METHODS = {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"}


@pytest.mark.parametrize(
    ("path", "own", "described"),
    [("/upload", "PUT", {"PUT", "GET", "HEAD"}), ("/oauth_callback", "GET", {"GET", "HEAD"})],
)
async def test_described_methods_are_those_that_are_not_refused(path: str, own: str, described: set[str]) -> None:
    """Reading what is no endpoint's is left to the web client, which has its page at any path."""
    app = flet_fastapi.app(lambda page: None)
    operations = app.openapi()["paths"][path]
    assert {method.upper() for method in operations} == described
    allow = operations[own.lower()]["responses"]["405"]["headers"]["Allow"]["schema"]["const"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        answers = {method: await client.request(method, path, headers={"Accept": "text/html"}) for method in METHODS}
    assert {method for method, answer in answers.items() if answer.status_code != 405} == described
    assert {answers[method].headers["allow"] for method in METHODS - described} == {own, allow}
    assert all(answers[method].headers["content-type"].startswith("text/html") for method in described - {"PUT"})


def test_endpoints_have_the_names_that_they_are_served_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_UPLOAD_HANDLER_ENDPOINT", "files")
    monkeypatch.setenv("FLET_OAUTH_CALLBACK_HANDLER_ENDPOINT", "back")
    assert set(description()["paths"]) == {"/files", "/back"}


def test_app_describes_itself_and_shows_it_nowhere(tmp_path: Path) -> None:
    app = flet_fastapi.app(lambda page: None, upload_dir=str(tmp_path))
    assert set(app.openapi()["paths"]) == {"/upload", "/oauth_callback"}
    assert (app.openapi_url, app.docs_url) == (None, None)


def test_routes_of_the_application_stay_described() -> None:
    own = fastapi.FastAPI()

    @own.get("/own")
    def route() -> None: ...

    flet_fastapi.app(lambda page: None, fastapi_app=own)
    assert set(own.openapi()["paths"]) == {"/own", "/upload", "/oauth_callback"}


def test_own_operation_at_an_endpoints_path_is_described_as_it_is() -> None:
    own = fastapi.FastAPI()

    @own.put("/upload", summary="Mine")
    def route() -> None: ...

    flet_fastapi.app(lambda page: None, fastapi_app=own)
    described = own.openapi()["paths"]["/upload"]
    assert (described["put"]["summary"], set(described)) == ("Mine", {"put", "get", "head"})


def test_description_is_the_same_each_time() -> None:
    app = fastapi.FastAPI()
    describe(app, Options.load())
    app.openapi()["paths"]["/upload"].clear()
    assert "put" in app.openapi()["paths"]["/upload"]


def test_uploads_are_described_where_they_are_taken(tmp_path: Path) -> None:
    assert set(description(upload_dir=tmp_path, upload_endpoint_path="/files/put")["paths"]) == {
        "/files/put", "/oauth_callback",
    }  # fmt: skip
    assert set(description(upload_endpoint_path="/files/put")["paths"]) == {"/upload", "/oauth_callback"}
