"""What servers write of requests: uvicorn logs the query, in which uploads and sign-ins have secrets."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.servers import uvicorn_server

PROGRAM = """
import flet_fastapi

def main(page):
    pass

app = flet_fastapi.app(main, upload_dir="uploads", secret_key="x")
"""


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/upload?t=TOKEN.SECRET"),
        ("PUT", "/upload/?t=TOKEN.SECRET"),
        ("POST", "/upload?t=TOKEN.SECRET"),
        ("GET", "/oauth_callback?code=SECRET&state=SECRETSTATE"),
        ("HEAD", "/oauth_callback?code=SECRET&state=SECRETSTATE"),
        ("GET", "/oauth_callback/?code=SECRET&state=SECRETSTATE"),
        ("GET", "/OAuth_Callback?code=SECRET&state=SECRETSTATE"),
        ("GET", "/oauth_callback/x?code=SECRET&state=SECRETSTATE"),
    ],
)
def test_secrets_of_a_query_are_not_in_the_access_log(tmp_path: Path, http: str, method: str, path: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    log = tmp_path / "log"
    with uvicorn_server("program:app", tmp_path, log, "--http", http) as server:
        httpx.request(method, server.url + path)
    line = next(line for line in log.read_text().splitlines() if path.partition("?")[0].rstrip("/") in line)
    assert "HTTP/1.1" in line
    assert "SECRET" not in log.read_text()


def test_query_of_a_websocket_is_not_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    log = tmp_path / "log"
    with uvicorn_server("program:app", tmp_path, log) as server:
        url = server.url.replace("http", "ws") + "/ws?token=SECRET"
        with connect(url, origin=Origin(server.url)):
            pass
    line = next(line for line in log.read_text().splitlines() if "WebSocket" in line)
    assert "/ws" in line
    assert "SECRET" not in log.read_text()
