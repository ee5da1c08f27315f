"""Uploads and signing in, in a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from playwright.async_api import Browser, ProxySettings, expect

from tests.e2e import programs
from tests.support.browser import SHOWN_MS, VIEW, Screen, new_screen, until
from tests.support.internet import Internet
from tests.support.oauth_server import HOSTS, OAuthServer
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


def serve_signing_in(
    serve: Serve, provider: OAuthServer, program: str = programs.SIGNING_IN, **variables: str
) -> Server:
    port = free_port()
    callback = f"http://127.0.0.1:{port}/oauth_callback"
    provider.redirect_uris.append(callback)
    environment = {"PROVIDER": provider.url, "CALLBACK": callback, "OAUTHLIB_INSECURE_TRANSPORT": "1", **variables}
    return serve(program, port=port, **environment)


async def consent(screen: Screen, button: str = "Sign in") -> None:
    """Sign in, say yes in the popup, and see it close."""
    async with screen.page.expect_popup() as opened:
        await screen.click(button)
    popup = await opened.value
    async with popup.expect_event("close"):
        await popup.click("#allow")


async def test_sign_in_in_a_popup(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    await screen.open(serve_signing_in(serve, provider).url)
    await consent(screen)
    await screen.shows("signed in as ann")


async def test_sign_in_that_is_denied(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    await screen.open(serve_signing_in(serve, provider).url)
    async with screen.page.expect_popup() as opened:
        await screen.click("Sign in")
    popup = await opened.value
    await popup.click("#deny")
    words = "The resource owner or authorization server denied the request"
    await expect(popup.get_by_text(words, exact=True)).to_be_visible(timeout=SHOWN_MS)
    await screen.shows("error access_denied")
    await screen.shows(f"because {words}")


async def test_sign_in_on_the_same_page(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    server = serve_signing_in(serve, provider)
    await screen.open(server.url)
    await screen.click("Sign in here")
    await come_back_signed_in(screen, server, "signed in as ann")


async def come_back_signed_in(screen: Screen, server: Server, end: str) -> None:
    await screen.page.click("#allow")
    await screen.page.wait_for_url(f"{server.url}/**")
    await screen.look()
    await screen.shows(end)


# --- flet's own providers, who know their endpoints by heart ---------------------------------------------------------

USERS = {
    "GitHub": "583231, Ann of GitHub, ann@example.com",
    "Google": "108204268033311374519, Ann of Google, ann@example.com",
    "Azure": "87d349ed-44d7-43e1-9a83-5f2406dee5bd, Ann of Azure, ann@example.com",
    "Auth0": "auth0|507f1f77bcf86cd799439011, Ann of Auth0, ann@example.com",
}


@pytest_asyncio.fixture(loop_scope="session")
async def internet(provider: OAuthServer, tmp_path: Path) -> AsyncIterator[Internet]:
    async with Internet(HOSTS, provider.url, tmp_path) as internet:
        yield internet


@pytest_asyncio.fixture(loop_scope="session")
async def screen_abroad(browser: Browser, internet: Internet) -> AsyncIterator[Screen]:
    """A tab that comes to `internet`, whose certificates it puts up with: Chromium takes no list of its own."""
    proxy: ProxySettings = {"server": internet.url, "bypass": "127.0.0.1"}
    context = await browser.new_context(viewport=VIEW, proxy=proxy, ignore_https_errors=True)
    yield await new_screen(context)
    await context.close()


@pytest.mark.parametrize("name", USERS)
async def test_sign_in_with_each_of_flets_providers(
    serve: Serve, screen_abroad: Screen, provider: OAuthServer, internet: Internet, name: str
) -> None:
    server = serve_signing_in(serve, provider, programs.SIGNING_IN_WITH, **internet.environment)
    await screen_abroad.open(server.url)
    await consent(screen_abroad, name)
    await screen_abroad.shows(USERS[name])


async def test_sign_in_with_one_of_them_on_the_same_page(
    serve: Serve, screen_abroad: Screen, provider: OAuthServer, internet: Internet
) -> None:
    server = serve_signing_in(serve, provider, programs.SIGNING_IN_WITH, **internet.environment)
    await screen_abroad.open(server.url)
    await screen_abroad.click("GitHub here")
    await screen_abroad.page.wait_for_url("https://github.com/login/oauth/authorize?**")
    await come_back_signed_in(screen_abroad, server, USERS["GitHub"])


# --- what may go wrong -----------------------------------------------------------------------------------------------

VERIFIER = "v" * 50
PKCE = programs.SIGNING_IN.replace(
    'client_id="flet-app",',
    f'client_id="flet-app", code_verifier="{VERIFIER}", code_challenge_method="S256",'
    f'code_challenge="{create_s256_code_challenge(VERIFIER)}",',
)


async def test_sign_in_with_pkce(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    provider.require_pkce = True
    await screen.open(serve_signing_in(serve, provider, PKCE).url)
    await consent(screen)
    await screen.shows("signed in as ann")


async def test_sign_in_without_the_pkce_that_is_required(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    provider.require_pkce = True
    await screen.open(serve_signing_in(serve, provider).url)
    await screen.click("Sign in")
    await screen.shows("error invalid_request")
    await screen.shows("because code challenge required")


async def test_app_goes_on_while_the_provider_is_slow(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    provider.held = threading.Event()
    await screen.open(serve_signing_in(serve, provider).url)
    await consent(screen)
    await until(provider.is_asked)
    await screen.click("Work")
    await screen.shows("It goes on")
    assert not provider.tokens
    provider.held.set()
    await screen.shows("signed in as ann")


async def test_code_that_has_expired(serve: Serve, screen: Screen, provider: OAuthServer) -> None:
    """flet's page tells of the failed token request what httpx says, and that has no word of the provider's."""
    provider.code_seconds = 0
    await screen.open(serve_signing_in(serve, provider).url)
    await consent(screen)
    await screen.shows(
        f"error Client error '400 Bad Request' for url '{provider.url}/token' For more information check: "
        "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/400"
    )
    assert provider.token_errors == ["invalid_grant"]
