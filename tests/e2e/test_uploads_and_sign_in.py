"""Uploads and signing in, in a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

from tests.e2e import programs
from tests.support.browser import Screen
from tests.support.oauth_server import OAuthServer
from tests.support.servers import Server, free_port

Serve = Callable[..., Server]


async def pick(screen: Screen, *files: Path) -> None:
    async with screen.page.expect_file_chooser() as chosen:
        await screen.click("Pick")
    await (await chosen.value).set_files(list(files))


async def test_picked_files_are_uploaded(serve: Serve, screen: Screen, tmp_path: Path) -> None:
    notes, photo = tmp_path / "Notizen über 日.txt", tmp_path / "photo.bin"
    notes.write_text("hello")
    photo.write_bytes(bytes(range(256)) * 200)
    await screen.open(serve(programs.UPLOADING).url)
    await pick(screen, notes, photo)
    await screen.shows(f"uploaded {notes.name}")
    await screen.shows(f"uploaded {photo.name}")
    for file in (notes, photo):
        assert (tmp_path / "uploads" / file.name).read_bytes() == file.read_bytes()


async def test_file_that_is_too_big_is_refused_and_the_next_one_taken(
    serve: Serve, screen: Screen, tmp_path: Path
) -> None:
    big, small = tmp_path / "big.bin", tmp_path / "small.txt"
    big.write_bytes(bytes(200_000))
    small.write_text("hello")
    await screen.open(serve(programs.UPLOADING).url)
    await pick(screen, big)
    await screen.page.get_by_text("refused big.bin: Upload endpoint returned code 413").wait_for(state="attached")
    await pick(screen, small)
    await screen.shows("uploaded small.txt")
    assert [file.name for file in (tmp_path / "uploads").iterdir() if file.is_file()] == ["small.txt"]


@pytest_asyncio.fixture(loop_scope="session")
async def provider() -> AsyncIterator[OAuthServer]:
    async with OAuthServer() as provider:
        yield provider


def serve_signing_in(serve: Serve, provider: OAuthServer, program: str = programs.SIGNING_IN) -> Server:
    port = free_port()
    callback = f"http://127.0.0.1:{port}/oauth_callback"
    provider.redirect_uris.append(callback)
    environment = {"PROVIDER": provider.url, "CALLBACK": callback, "OAUTHLIB_INSECURE_TRANSPORT": "1"}
    return serve(program, port=port, **environment)


async def test_sign_in_in_a_popup(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    await screen.open(serve_signing_in(serve, provider).url)
    async with screen.page.expect_popup() as opened:
        await screen.click("Sign in")
    popup = await opened.value
    async with popup.expect_event("close"):
        await popup.click("#allow")
    await screen.shows("signed in as ann")


async def test_sign_in_that_is_denied(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    await screen.open(serve_signing_in(serve, provider).url)
    async with screen.page.expect_popup() as opened:
        await screen.click("Sign in")
    await (await opened.value).click("#deny")
    await screen.shows("error access_denied")


async def test_sign_in_on_the_same_page(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    server = serve_signing_in(serve, provider)
    await screen.open(server.url)
    await screen.click("Sign in here")
    await screen.page.click("#allow")
    await screen.page.wait_for_url(f"{server.url}/**")
    await screen.look()
    await screen.shows("signed in as ann")


VERIFIER = "v" * 50
PKCE = programs.SIGNING_IN.replace(
    'client_id="flet-app",',
    f'client_id="flet-app", code_verifier="{VERIFIER}", code_challenge_method="S256",'
    f'code_challenge="{create_s256_code_challenge(VERIFIER)}",',
)


async def consent(screen: Screen) -> None:
    async with screen.page.expect_popup() as opened:
        await screen.click("Sign in")
    await (await opened.value).click("#allow")


@pytest.mark.parametrize(("program", "end"), [(PKCE, "signed in as ann"), (programs.SIGNING_IN, "error ")])
async def test_sign_in_where_pkce_is_required(
    serve: Serve, screen: Screen, provider: OAuthServer, program: str, end: str
) -> None:
    provider.require_pkce = True
    await screen.open(serve_signing_in(serve, provider, program).url)
    if program is PKCE:
        await consent(screen)
    else:
        await screen.click("Sign in")
    await screen.page.get_by_text(end).wait_for(state="attached")


async def test_sign_in_at_a_slow_provider(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    provider.token_delay = 2
    await screen.open(serve_signing_in(serve, provider).url)
    await consent(screen)
    await screen.shows("signed in as ann")


async def test_code_that_has_expired(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    provider.code_seconds = 0
    await screen.open(serve_signing_in(serve, provider).url)
    await consent(screen)
    await screen.page.get_by_text("error ").wait_for(state="attached")
