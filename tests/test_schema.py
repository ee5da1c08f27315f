"""The HTTP endpoints do what their OpenAPI description says, whatever they are sent (schemathesis)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi

from flet_fastapi.openapi import describe
from flet_fastapi.options import Options
from tests.support.servers import WEBSOCKETS, uvicorn_server

PROGRAM = """
import flet_fastapi

app = flet_fastapi.app(lambda page: None, upload_dir="uploads", max_upload_size=1000, secret_key="k" * 32)
"""
# Not checked: that what fits the description is accepted (a signature and a state cannot be made up), and that `Allow`
# names all methods of a path (it names the endpoint's, which does not know of the web client's pages).
CHECKS = [
    not_a_server_error, openapi.status_code_conformance, openapi.content_type_conformance,
    openapi.response_headers_conformance, openapi.response_schema_conformance, openapi.negative_data_rejection,
    openapi.missing_required_header, openapi.unsupported_method, openapi.use_after_free,
    openapi.ensure_resource_availability,
]  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("schema")
    (folder / "program.py").write_text(PROGRAM)
    with uvicorn_server("program:app", folder, folder / "log", *WEBSOCKETS, FLET_RUN_DIR=str(folder)) as server:
        yield server.url
        assert "Traceback" not in server.said()
        assert [path for path in (folder / "uploads").rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def described() -> Any:
    app = fastapi.FastAPI()
    describe(app, Options.load())
    return schemathesis.openapi.from_dict(app.openapi())


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_endpoints_answer_as_described(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, allow_redirects=False)
