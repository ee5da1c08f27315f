from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi
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
    # another method is left to the web client, and nobody hears what is said to a browser that has left
    assert set(answers) == {str(status) for status in {201, 204, *_STATUS.values()} - {405, 499}}


def test_every_status_of_a_callback_is_described() -> None:
    answers = description()["paths"]["/oauth_callback"]["get"]["responses"]
    assert set(answers) == {"200", "303", "400", "403", "410", "503"}


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


def test_description_is_the_same_each_time() -> None:
    app = fastapi.FastAPI()
    describe(app, Options.load())
    app.openapi()["paths"]["/upload"].clear()
    assert "put" in app.openapi()["paths"]["/upload"]
