"""A real Chromium in front of two workers: what it sends on the way comes to the one that does not have its session."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Route

from tests.e2e import programs
from tests.e2e.test_uploads_and_sign_in import consent, pick, provider
from tests.support.appliance import Appliance, appliance
from tests.support.browser import Screen
from tests.support.oauth_server import OAuthServer
from tests.support.servers import free_ports

__all__ = ["provider"]  # fixtures


async def divert(screen: Screen, server: Appliance, path: str) -> None:
    """From now on requests for `path` go to the second worker; everything else goes to the first."""

    async def go_on(route: Route) -> None:
        first, second = f":{server.slot_port}/", f":{server.slot_port + 1}/"
        await route.continue_(url=route.request.url.replace(first, second, 1))

    await screen.page.context.route(f"**/{path}*", go_on)


def served_by(server: Appliance, path: str) -> set[int]:
    """The slots of the workers that requests for `path` have come to."""
    return {line["worker"] for line in server.logged("request") if line["path"] == path}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_sign_in_comes_back_to_another_worker(screen: Screen, folder: Path, provider: OAuthServer) -> None:
    ports = free_ports(4)
    callback = f"http://127.0.0.1:{ports + 3}/oauth_callback"
    provider.redirect_uris.append(callback)
    variables = {"PROVIDER": provider.url, "CALLBACK": callback, "OAUTHLIB_INSECURE_TRANSPORT": "1"}
    with appliance(folder, programs.SIGNING_IN, first_port=ports, **variables) as server:
        await screen.open(f"http://127.0.0.1:{server.slot_port}")
        await consent(screen)
        await screen.shows("signed in as ann")
        assert served_by(server, "/oauth_callback") == {1}
        assert 0 in served_by(server, "/")


async def test_upload_comes_to_another_worker(screen: Screen, folder: Path) -> None:
    notes = folder / "notes.txt"
    notes.write_text("hello")
    with appliance(folder, programs.UPLOADING) as server:
        await divert(screen, server, "upload")
        await screen.open(f"http://127.0.0.1:{server.slot_port}")
        await pick(screen, notes)
        await screen.shows("uploaded notes.txt")
        assert served_by(server, "/upload") == {1}
        assert [file.read_text() for file in (folder / "uploads").glob("notes.txt")] == ["hello"]
