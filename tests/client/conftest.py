"""A small web client, prepared once, and a client that sends exactly the bytes it is told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from flet_fastapi.client import FletStaticFiles, build, startup
from flet_fastapi.client.parts import PARTS
from flet_fastapi.options import Options

REAL_PAGES = ("index.html", "manifest.json", "flutter.js", "flutter_bootstrap.js", "favicon.png")


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def __getitem__(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def fetch(
    app: ASGIApp,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    raw_path: bytes | None = None,
    **scope: Any,
) -> Answer:
    """One request with `path` as it is, dots and all; `scope` overrides what a server would say."""
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    request = {"type": "http", "method": method, "path": path, "root_path": "", "headers": lines, "query_string": b""}
    request["raw_path"] = path.encode() if raw_path is None else raw_path
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")

    await app({**request, **scope}, receive, send)
    return answer


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real small files of the web client and stand-ins for the big ones."""
    folder = tmp_path_factory.mktemp("web")
    for name in REAL_PAGES:
        shutil.copy(build.web_folder() / name, folder / name)
    (folder / "main.dart.js").write_text("function main() { return 'flet'; }\n" * 5000)
    (folder / "python.js").write_text("// pyodide")
    (folder / "assets/fonts").mkdir(parents=True)
    (folder / "assets/FontManifest.json").write_text("[]" + " " * 500)
    (folder / "assets/fonts/MaterialIcons-Regular.otf").write_bytes(b"icons " * 1000)
    return folder


@pytest.fixture(scope="session")
def prepared(web: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose build is compressed and has all parts."""
    root = tmp_path_factory.mktemp("root")
    for part in PARTS:
        path = build.parts_folder(root) / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"stand-in for {part.path}\n".encode() * 200)
    build.prepare(build.gather(web, [root]), root, 1)
    return root


@pytest.fixture(autouse=True)
def _small_web(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "web_folder", lambda: web)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    return folder


@pytest.fixture
def static(prepared: Path, assets: Path) -> Callable[..., FletStaticFiles]:
    """Makes the app under test; keywords of `from_options` and of `Options` alike."""

    def make(**arguments: Any) -> FletStaticFiles:
        own = ("app_mount_path", "websocket_endpoint_path", "page_headers", "roots")
        keywords = {name: arguments.pop(name) for name in own if name in arguments}
        options = Options.load(**{"assets_dir": assets, **arguments})
        return FletStaticFiles.from_options(options, **{"roots": [prepared], **keywords})

    return make


@pytest.fixture
def build_name(web: Path, prepared: Path) -> str:
    name: str = build.gather(web, [prepared]).name
    return name


@pytest.fixture(name="fetch")
def _fetch() -> Callable[..., Any]:
    return fetch
