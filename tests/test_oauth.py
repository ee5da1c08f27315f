from __future__ import annotations

import asyncio
import json
import re
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import orjson
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from flet_runtime.auth.authorization import Authorization  # type: ignore[import-untyped]
from flet_runtime.auth.oauth_provider import OAuthProvider  # type: ignore[import-untyped]
from flet_runtime.auth.providers import (  # type: ignore[import-untyped]
    Auth0OAuthProvider,
    AzureOAuthProvider,
    GitHubOAuthProvider,
    GoogleOAuthProvider,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from flet_fastapi.cluster import Cluster
from flet_fastapi.identity import new_id
from flet_fastapi.oauth import FletOAuth, SignInRefused, SignIns
from flet_fastapi.openapi import _CALLBACK_TEXTS
from tests.conftest import Logs
from tests.support.fake_server import FakeServer, FakeSession
from tests.support.internet import Internet
from tests.support.oauth_server import CLIENT_ID, CLIENT_SECRET, HOSTS, OAuthServer

STATE = "state-of-22-characters"
SESSION = "session-key"
BROWSER = "b" * 22
ANSWER = {"state": STATE, "code": "c0de"}
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["</blockquote><script>alert(1)</script>", "&lt;", "\"'><img src=x onerror=alert(1)>", "\0", "\r\nSet-Cookie: a=b"]
)
METRICS = Path(__file__).parents[1] / "docs" / "metrics.md"

MakeServer = Callable[..., FakeServer]


@pytest.fixture
async def make_server(tmp_path: Path) -> AsyncIterator[MakeServer]:
    """A worker per call; all share one run directory, and only the first has the session."""
    servers: list[FakeServer] = []

    def make(**limits: Any) -> FakeServer:
        servers.append(FakeServer(tmp_path, **limits))
        servers[0].sessions[SESSION] = FakeSession()
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


@pytest.fixture
async def server(make_server: MakeServer) -> FakeServer:
    return make_server()


def begin(server: FakeServer, **arguments: Any) -> None:
    given = {"state": STATE, "session_key": SESSION, "browser": BROWSER, "timeout_seconds": 600, **arguments}
    server.part(SignIns).begin(**given)


async def settle(server: FakeServer) -> None:
    """Wait for the background work that there is."""
    await asyncio.sleep(0)
    while server.tasks._tasks:
        await asyncio.gather(*server.tasks._tasks, return_exceptions=True)


def callback_request(
    answer: Mapping[str, str] | str = ANSWER,
    *,
    browser: str | None = BROWSER,
    host: str = "app.example.com",
    scheme: str = "http",
    method: str = "GET",
) -> Request:
    """The browser's request for the callback page."""
    query = answer if isinstance(answer, str) else urlencode(answer)
    name = "__Host-flet_browser" if scheme == "https" else "flet_browser"
    headers = [(b"host", host.encode())] + ([(b"cookie", f"{name}={browser}".encode())] if browser else [])
    scope = {
        "type": "http",
        "method": method,
        "path": "/oauth_callback",
        "scheme": scheme,
        "headers": headers,
        "query_string": query.encode(),
    }
    return Request(scope)


async def come_back(server: FakeServer, answer: Mapping[str, str] | str = ANSWER, **where: Any) -> Response:
    """The browser comes to the callback page, and what that started is over."""
    response = await FletOAuth.for_manager(server).handle(callback_request(answer, **where))
    await settle(server)
    return response


def answers(server: FakeServer) -> list[Mapping[str, str | None]]:
    return server.sessions[SESSION].answers


def text(response: Response) -> str:
    return bytes(response.body).decode()


@dataclass(frozen=True)
class Row:
    """What led to a callback, the callback, its answer, and what is counted.

    A sign-in was `begun` with these arguments, and the `earlier` callback has come, or `then` something has happened.
    """

    status: int
    result: str
    says: str
    begun: dict[str, Any] | None = field(default_factory=dict)
    then: Callable[[FakeServer], object] | None = None
    earlier: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    answer: Mapping[str, str] = field(default_factory=lambda: ANSWER)
    request: dict[str, Any] = field(default_factory=dict)


LATER = {"state": "newer-state-of-22-chars"}
NO_STORE = {"cluster_url": "sqlite:///dev/null/missing/keys.sqlite3"}
DENIED = {"state": STATE, "error": "access_denied"}
CALLBACKS = {
    "code": Row(200, "completed", "You can close this window"),
    "code, for the app's page": Row(200, "completed", "<p>Done</p>", begun={"complete_page_html": "<p>Done</p>"}),
    "code, for another page": Row(303, "completed", "", begun={"complete_page_url": "/page"}),
    "code, for a foreign page": Row(
        200, "redirect_refused", "You can close this window", begun={"complete_page_url": "https://evil.test/"}
    ),
    "error": Row(200, "provider_error", "access_denied", answer=DENIED),
    "no state": Row(400, "bad_request", "not what a sign-in leads to", answer={"code": "c0de"}),
    "unknown state": Row(400, "unknown", "never started here", begun=None),
    "expired state": Row(400, "unknown", "took too long", begun={"timeout_seconds": 0}),
    "used state": Row(400, "replayed", "finished already", earlier=True),
    "older state": Row(400, "superseded", "Finish the newer one", then=lambda server: begin(server, **LATER)),
    "another browser's": Row(403, "other_browser", "open the app in this browser", request={"browser": "c" * 22}),
    "a browser's without cookies": Row(403, "other_browser", "allow them for this site", request={"browser": None}),
    "another method": Row(405, "bad_request", "", request={"method": "POST"}),
    "session is gone": Row(410, "session_gone", "sign in again", then=lambda server: server.sessions.clear()),
    "no store": Row(503, "unavailable", "Reload this page in a minute", begun=None, limits=NO_STORE),
}


@pytest.mark.parametrize("name", CALLBACKS)
async def test_callback_says_how_the_sign_in_went(make_server: MakeServer, name: str, logs: Logs) -> None:
    row = CALLBACKS[name]
    server = make_server(**row.limits)
    session = server.sessions[SESSION]
    await lead_to(server, row)
    before = list(session.answers)
    response = await come_back(server, row.answer, **row.request)
    assert (response.status_code, server.counted("flet_oauth_total", result=row.result)) == (row.status, 1)
    assert len(session.answers) - len(before) == (row.status in (200, 303))
    assert (response.headers["x-content-type-options"], response.headers["cache-control"]) == ("nosniff", "no-store")
    assert ("permissions-policy" in response.headers) == bool(row.says)
    assert row.says in text(response)
    assert ("content-type" in response.headers) == bool(row.says)
    assert "Traceback" not in text(response) + logs.text


async def lead_to(server: FakeServer, row: Row) -> None:
    if row.begun is not None:
        begin(server, **row.begun)
        await settle(server)
    if row.earlier:
        await come_back(server)
    if row.then is not None:
        row.then(server)


def test_every_result_and_every_status_stands_in_the_table() -> None:
    listed = re.search(r"`flet_oauth_total`.*?`started`, (.*?) \|", METRICS.read_text())
    assert listed is not None
    assert {row.result for row in CALLBACKS.values()} == set(re.findall(r"`(\w+)`", listed[1]))
    assert {row.status for row in CALLBACKS.values()} == set(_CALLBACK_TEXTS) - {421}  # of the door before


async def test_code_reaches_the_session(server: FakeServer) -> None:
    begin(server)
    response = await come_back(server)
    assert (response.status_code, answers(server)) == (
        200,
        [{"state": STATE, "code": "c0de", "error": None, "error_description": None}],
    )
    assert "<script>window.close()</script>" in text(response)


async def test_providers_error_reaches_the_session_and_is_escaped(server: FakeServer) -> None:
    begin(server)
    words = "<script>alert(1)</script>"
    response = await come_back(server, {"state": STATE, "error": "access_denied", "error_description": words})
    assert (answers(server)[0]["error"], answers(server)[0]["error_description"]) == ("access_denied", words)
    assert "&lt;script&gt;alert(1)" in text(response)
    assert words not in text(response)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"code": "c"},
        {"state": STATE},
        {"state": STATE, "code": ""},
        {"state": "short", "code": "c"},
        {"state": "x" * 513, "code": "c"},
        {"state": STATE, "code": "c" * 8193},
        {"state": STATE + "\n", "code": "c"},
        f"state={STATE}&state={STATE}&code=c",
        f"state={STATE}&code=c&code=d",
    ],
    ids=range(10),
)
async def test_what_is_no_answer_gets_400_and_uses_nothing_up(server: FakeServer, answer: Any) -> None:
    begin(server)
    refused = await come_back(server, answer)
    assert (refused.status_code, (await come_back(server)).status_code) == (400, 200)


async def test_reloaded_callback_changes_nothing_and_says_so(server: FakeServer) -> None:
    begin(server)
    responses = [await come_back(server) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 400, 400]
    assert "finished already" in text(responses[2])
    assert len(answers(server)) == 1


async def test_of_several_callbacks_at_once_one_wins(make_server: MakeServer) -> None:
    workers = [make_server(), make_server()]
    workers[1].sessions = workers[0].sessions
    begin(workers[0])
    await settle(workers[0])
    responses = await asyncio.gather(*(come_back(worker) for worker in workers * 5))
    assert sorted(response.status_code for response in responses) == [200] + [400] * 9
    assert len(answers(workers[0])) == 1


@pytest.mark.parametrize("browser", [None, "c" * 22])
async def test_other_browser_gets_403_and_uses_nothing_up(server: FakeServer, browser: str | None) -> None:
    begin(server)
    refused = await come_back(server, browser=browser)
    assert (refused.status_code, "allow them for this site" in text(refused)) == (403, True)
    assert (await come_back(server)).status_code == 200


async def test_session_of_a_browser_without_cookies_cannot_sign_in(server: FakeServer) -> None:
    begin(server, browser=None)
    assert [(await come_back(server, browser=browser)).status_code for browser in (None, BROWSER)] == [403, 403]


async def test_newer_sign_in_ends_the_one_before(server: FakeServer) -> None:
    begin(server)
    await settle(server)
    begin(server, state="newer-state-of-22-chars")
    old = await come_back(server)
    new = await come_back(server, {"state": "newer-state-of-22-chars", "code": "c"})
    assert (old.status_code, "newer sign-in" in text(old), new.status_code) == (400, True, 200)


async def test_other_worker_knows_the_state(make_server: MakeServer) -> None:
    first, second = make_server(), make_server()
    second.sessions = first.sessions
    begin(first)
    await settle(first)
    assert [(await come_back(worker)).status_code for worker in (second, first)] == [200, 400]


def flows(*servers: FakeServer) -> dict[tuple[str, str], float]:
    """Sign-ins by provider and outcome, what has not been seen left out."""
    samples = [s for server in servers for family in server.metrics.oauth_flows.collect() for s in family.samples]
    return {(s.labels["provider"], s.labels["outcome"]): s.value for s in samples if s.name.endswith("_total")}


@pytest.mark.parametrize(("answer", "outcome"), [({"code": "c"}, "completed"), ({"error": "e"}, "provider_error")])
async def test_sign_in_is_counted_for_its_provider_wherever_it_comes_back(
    make_server: MakeServer, answer: dict[str, str], outcome: str
) -> None:
    first, second = make_server(), make_server()
    second.sessions = first.sessions
    begin(first, provider="login.example.com")
    await settle(first)
    for _ in range(2):
        await come_back(second, {"state": STATE, **answer})
    assert flows(first, second) == {("login.example.com", "started"): 1, ("login.example.com", outcome): 1}
    labels = {"provider": "login.example.com"}
    assert second.counted("flet_oauth_flow_seconds_count", **labels) == 1
    assert 0 <= second.counted("flet_oauth_flow_seconds_sum", **labels) < 60


async def test_sign_in_that_a_newer_one_ends_is_counted_once(server: FakeServer) -> None:
    begin(server, provider="one.example.com")
    begin(server, provider="two.example.com", state="newer-state-of-22-chars")
    await come_back(server)
    await come_back(server, {"state": "newer-state-of-22-chars", "code": "c"})
    begin(server, provider="two.example.com", state="third-state-of-22-chars")
    await settle(server)
    assert flows(server) == {
        ("one.example.com", "started"): 1, ("one.example.com", "superseded"): 1,
        ("two.example.com", "started"): 2, ("two.example.com", "completed"): 1,
    }  # fmt: skip


async def test_sign_in_that_came_back_elsewhere_is_not_superseded(make_server: MakeServer) -> None:
    first, second = make_server(), make_server()
    second.sessions = first.sessions
    begin(first, provider="one.example.com")
    await settle(first)
    await come_back(second)
    begin(first, provider="one.example.com", state="newer-state-of-22-chars")
    await settle(first)
    assert flows(first) == {("one.example.com", "started"): 2}
    assert flows(second) == {("one.example.com", "completed"): 1}


async def test_providers_that_are_counted_are_bounded_and_hosts(server: FakeServer) -> None:
    for number in range(30):
        begin(server, session_key=f"s{number}", state=f"state-{number:016}", provider=f"p{number}.example.com")
    for number, provider in enumerate(["", "x" * 200, "a b", 'quo"ted', "ümlaut.example"]):
        begin(server, session_key=f"t{number}", state=f"other-{number:016}", provider=provider)
    started = {provider: value for (provider, _), value in flows(server).items()}
    assert len(started) == 21
    assert started["other"] == 10 + 5


async def test_sign_in_that_an_older_version_has_stored_is_used(server: FakeServer) -> None:
    begin(server)
    old = server.part(SignIns)._here.popitem()[1].sign_in
    value = {name: each for name, each in asdict(old).items() if name not in ("provider", "begun")}
    await settle(server)
    await server.cluster.put(f"oauth:{sha256(STATE.encode()).hexdigest()}", orjson.dumps(value), 600)
    assert (await come_back(server)).status_code == 200
    assert flows(server)["other", "completed"] == 1
    assert server.counted("flet_oauth_flow_seconds_count", provider="other") == 0


async def test_shared_store_keeps_hashes_and_no_longer_than_the_sign_in(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[str, bytes, float]] = []

    async def put(key: str, value: bytes, ttl: float) -> None:
        kept.append((key, value, ttl))

    monkeypatch.setattr(server.cluster, "put", put)
    begin(server, timeout_seconds=600)
    await settle(server)
    ((key, value, ttl),) = kept
    assert sha256(STATE.encode()).hexdigest() in key
    assert BROWSER.encode() not in value
    assert 590 < ttl <= 600


async def test_state_is_known_at_once(server: FakeServer) -> None:
    """The provider may answer before the shared store does."""
    begin(server)
    found = await server.part(SignIns).find(STATE)
    assert found.sign_in.session_key == SESSION


async def test_callback_may_come_before_the_state_is_shared(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = asyncio.Event()

    async def open_late() -> Cluster:
        await opened.wait()
        return server.cluster

    monkeypatch.setattr(server, "open_cluster", open_late)
    begin(server)
    callback = asyncio.create_task(come_back(server))
    await asyncio.sleep(0)
    opened.set()
    responses = [await callback, await come_back(server)]
    assert [response.status_code for response in responses] == [200, 400]


async def test_plain_functions_may_begin_in_their_threads(server: FakeServer) -> None:
    thread = threading.Thread(target=begin, args=(server,))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert (await come_back(server)).status_code == 200


async def test_without_the_store_signing_in_works_in_the_same_worker(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(cluster_url=f"sqlite://{tmp_path}/missing/keys.sqlite3")
    begin(server)
    await settle(server)
    responses = [await come_back(server) for _ in range(2)]
    assert [response.status_code for response in responses] == [200, 400]
    assert len(answers(server)) == 1


async def test_slow_token_endpoint_does_not_hold_the_popup(server: FakeServer) -> None:
    released = asyncio.Event()

    class Slow(FakeSession):
        async def authorize(self, answer: Mapping[str, str | None]) -> None:
            await released.wait()
            await super().authorize(answer)

    server.sessions[SESSION] = Slow()
    begin(server)
    response = await FletOAuth.for_manager(server).handle(callback_request())
    assert (response.status_code, answers(server)) == (200, [])
    released.set()
    await settle(server)
    assert len(answers(server)) == 1


# --- completion pages ------------------------------------------------------------------------------------------------

OWN = "http://app.example.com"
TARGETS = {
    f"{OWN}/": f"{OWN}/",
    f"{OWN}/sub/page?x=1#y": f"{OWN}/sub/page?x=1#y",
    "http://APP.example.com:80/x": "http://APP.example.com:80/x",
    "/sub/": f"{OWN}/sub/",
    "https://allowed.example.org/x": "https://allowed.example.org/x",
    "https://app.example.com/": None,
    "http://app.example.com:81/": None,
    "http://evil.example.net/": None,
    "//evil.example.net/": None,
    "/\\evil.example.net/": None,
    "\\\\evil.example.net/": None,
    "http://app.example.com@evil.example.net/": None,
    "http://user@app.example.com/": None,
    "http://app.example.com.evil.net/": None,
    "http://evil.net#@app.example.com/": None,
    "javascript:alert(1)": None,
    "data:text/html,x": None,
    "ftp://app.example.com/": None,
    "http://[::1/": None,
    "http://app.example.com:x/": None,
}


@pytest.mark.parametrize("url", TARGETS)
async def test_browser_is_sent_only_where_the_app_is(make_server: MakeServer, url: str) -> None:
    server = make_server(oauth_redirect_origins="https://allowed.example.org")
    begin(server, complete_page_url=url)
    response = await come_back(server)
    assert (response.headers["x-content-type-options"], response.headers["cache-control"]) == ("nosniff", "no-store")
    assert (response.headers.get("location"), response.status_code) == (
        (TARGETS[url], 303) if TARGETS[url] else (None, 200)
    )
    assert len(answers(server)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(url=st.text(max_size=60) | st.text("/\\:@.#?%evil htps\t", max_size=30))
async def test_no_url_leads_elsewhere(server: FakeServer, url: str) -> None:
    try:
        begin(server, complete_page_url=url)
    except SignInRefused:
        return
    location = (await come_back(server)).headers.get("location")
    assert location is None or urlsplit(location)[:2] == ("http", "app.example.com")


async def test_own_origin_is_the_one_that_the_browser_sees(server: FakeServer) -> None:
    begin(server, complete_page_url="https://app.example.com/x")
    assert (await come_back(server, scheme="https")).headers["location"] == "https://app.example.com/x"


async def test_apps_own_page_is_shown_in_a_sandbox(server: FakeServer) -> None:
    begin(server, complete_page_html="<p>Done</p><script>window.close()</script>")
    response = await come_back(server)
    policy = response.headers["content-security-policy"]
    assert text(response) == "<p>Done</p><script>window.close()</script>"
    assert ("sandbox allow-scripts" in policy, "allow-same-origin" in policy, "connect-src" in policy) == (
        True, False, False,
    )  # fmt: skip


async def test_pages_run_only_their_own_script_and_style(server: FakeServer) -> None:
    begin(server)
    response = await come_back(server)
    policy = response.headers["content-security-policy"]
    parts = re.findall(r"<(script|style)>(.*?)</", text(response))
    hashes = [f"{kind}-src 'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'" for kind, source in parts]
    assert len(hashes) == 2
    assert all(allowed in policy for allowed in [*hashes, "default-src 'none'", "frame-ancestors 'none'"])


@pytest.mark.parametrize("answer", [ANSWER, {}, {"state": STATE, "error": "x"}])
async def test_nobody_stores_or_passes_on_the_callback_url(server: FakeServer, answer: dict[str, str]) -> None:
    begin(server)
    headers = (await come_back(server, answer)).headers
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")


@pytest.mark.parametrize(
    "arguments",
    [{"state": "x"}, {"state": "ü" * 22}, {"complete_page_html": "x" * 300_000}, {"complete_page_url": "/\n"}],
)
async def test_login_that_cannot_come_back_is_refused_at_once(server: FakeServer, arguments: dict[str, str]) -> None:
    with pytest.raises(SignInRefused):
        begin(server, **arguments)


async def test_session_that_signs_in_again_and_again_holds_little(server: FakeServer) -> None:
    sign_ins = server.part(SignIns)
    for i in range(20):
        begin(server, state=f"state-{i:08}", complete_page_html="x" * 1000)
    with pytest.raises(SignInRefused, match="in a minute"):
        begin(server, state="one-too-many")
    begin(server, session_key="another", state="another-state")
    pages = [begun.sign_in.complete_page_html for begun in sign_ins._here.values()]
    assert pages == [None, "x" * 1000, None]
    responses = [await come_back(server, {"state": f"state-{i:08}", "code": "c"}) for i in (0, 18, 19)]
    assert [response.status_code for response in responses] == [400, 400, 200]


async def test_sessions_that_never_come_back_are_forgotten(server: FakeServer) -> None:
    sign_ins = server.part(SignIns)
    for i in range(10):
        begin(server, session_key=f"s{i}", state=f"state-{i:08}", timeout_seconds=0)
    await settle(server)
    begin(server, session_key="last", state="state-last")
    await settle(server)
    assert [len(kept) for kept in (sign_ins._here, sign_ins._latest)] == [1, 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(answer=st.fixed_dictionaries({}, optional=dict.fromkeys(("code", "error", "error_description"), WORDS)))
async def test_any_words_of_a_provider_reach_the_session_and_stay_words(
    server: FakeServer, answer: dict[str, str]
) -> None:
    # each time another session, for one may start 20 sign-ins in a minute
    session = server.sessions[state := new_id()] = FakeSession()
    begin(server, session_key=state, state=state)
    response = await come_back(server, {"state": state, **answer})
    whole = {"code": None, "error": None, "error_description": None, **answer, "state": state}
    told = [whole] if answer.get("code") or answer.get("error") else []
    assert (response.status_code, session.answers) == (200 if told else 400, told)
    quotes = re.findall(r"<blockquote>(.*?)</blockquote>", text(response), re.DOTALL)
    said = answer.get("error_description") or answer.get("error", "")
    assert quotes == ([escape(said)] if answer.get("error") else [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    query=st.dictionaries(st.sampled_from(["state", "code", "error", "error_description", "x"]), st.text(max_size=50))
)
async def test_no_query_makes_a_server_error(server: FakeServer, query: dict[str, str]) -> None:
    response = await come_back(server, urlencode(query, errors="replace"))
    assert response.status_code == 400


# --- with a provider -------------------------------------------------------------------------------------------------

VERIFIER = "v" * 50
CALLBACK = "http://app.example.com/oauth_callback"


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OAuthServer]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    async with OAuthServer(consent="allow", require_pkce=True) as provider:
        yield provider


class FletSession(FakeSession):
    """Does with an answer what flet's page does."""

    def __init__(self, provider: OAuthServer, own: OAuthProvider | None = None) -> None:
        super().__init__()
        arguments = provider.provider(
            CALLBACK,
            code_challenge=create_s256_code_challenge(VERIFIER),
            code_challenge_method="S256",
            code_verifier=VERIFIER,
        )
        self.authorization = Authorization(own or OAuthProvider(**arguments), fetch_user=True, fetch_groups=False)
        self.error: str | None = None

    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        self.error = answer["error"]
        if answer["code"]:
            try:
                await self.authorization.request_token_async(answer["code"])
            except httpx.HTTPStatusError as error:
                self.error = json.loads(error.response.text)["error"]


async def sign_in(server: FakeServer, provider: OAuthServer, own: OAuthProvider | None = None) -> FletSession:
    server.sessions[SESSION] = session = FletSession(provider, own)
    url, state = session.authorization.get_authorization_data()
    begin(server, state=state)
    async with httpx.AsyncClient() as browser:
        location = (await browser.get(url)).headers["location"]
    response = await come_back(server, dict(parse_qsl(urlsplit(location).query)))
    assert response.status_code == 200
    return session


async def test_flets_provider_signs_in(server: FakeServer, provider: OAuthServer) -> None:
    session = await sign_in(server, provider)
    assert session.authorization.user["sub"] == "ann"


async def test_denied_consent_is_told(server: FakeServer, provider: OAuthServer) -> None:
    provider.consent = "deny"
    session = await sign_in(server, provider)
    assert (session.error, session.authorization.user) == ("access_denied", None)


async def test_expired_code_is_told(server: FakeServer, provider: OAuthServer) -> None:
    provider.code_seconds = 0
    session = await sign_in(server, provider)
    assert (session.error, session.authorization.user) == ("invalid_grant", None)


async def test_loop_goes_on_while_the_token_endpoint_is_slow(server: FakeServer, provider: OAuthServer) -> None:
    provider.token_delay = 0.5
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    counting = asyncio.create_task(count())
    session = await sign_in(server, provider)
    counting.cancel()
    assert session.authorization.user["sub"] == "ann"
    assert turns > 10


# Who Ann is to each of them.
PROVIDERS = {
    GitHubOAuthProvider: ("583231", "Ann of GitHub"),
    GoogleOAuthProvider: ("108204268033311374519", "Ann of Google"),
    AzureOAuthProvider: ("87d349ed-44d7-43e1-9a83-5f2406dee5bd", "Ann of Azure"),
    Auth0OAuthProvider: ("auth0|507f1f77bcf86cd799439011", "Ann of Auth0"),
}


@pytest.fixture
async def internet(provider: OAuthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    """Where the addresses that flet's providers know lead to `provider`."""
    async with Internet(HOSTS, provider.url, tmp_path) as internet:
        for name, value in internet.environment.items():
            monkeypatch.setenv(name, value)
        yield internet


@pytest.mark.parametrize("kind", PROVIDERS, ids=lambda kind: kind.__name__)
async def test_each_of_flets_providers_signs_in(
    server: FakeServer, provider: OAuthServer, internet: Internet, kind: Any
) -> None:
    provider.require_pkce = False
    provider.redirect_uris.append(CALLBACK)
    arguments = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "redirect_url": CALLBACK}
    own = kind(**arguments, **({"domain": "ann.auth0.test"} if kind is Auth0OAuthProvider else {}))
    session = await sign_in(server, provider, own)
    user = session.authorization.user
    assert (session.error, user.id, user.get("name") or user["displayName"]) == (None, *PROVIDERS[kind])
    assert (user.get("email") or user["mail"]) == "ann@example.com"
