from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flet_fastapi
from flet_fastapi.client import FletStaticFiles
from flet_fastapi.client.policy import PageScripts
from flet_fastapi.errors import OptionError
from flet_fastapi.options import Options
from flet_fastapi.uploads import FletUpload

Make = Callable[..., FletStaticFiles]
Fetch = Callable[..., Any]

PERSON = {"accept": "text/html,*/*;q=0.8"}
REFERRER = "strict-origin-when-cross-origin"
CSP = "content-security-policy"


def sha(script: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def directives(policy: str) -> dict[str, set[str]]:
    parts = (part.split() for part in policy.split(";"))
    return {name: set(sources) for name, *sources in parts}


@pytest.mark.parametrize("path", ["/", "/index.html", "/store/1"])
async def test_page_comes_with_its_policy(static: Make, fetch: Fetch, path: str) -> None:
    answer = await fetch(static(), path, PERSON)
    policy = directives(answer[CSP])
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == {"'self'"}
    assert (policy["object-src"], policy["frame-ancestors"]) == ({"'none'"}, {"'self'"})
    assert answer["x-content-type-options"] == "nosniff"
    assert (answer["referrer-policy"], answer["x-frame-options"]) == (REFERRER, "SAMEORIGIN")
    assert "usb=()" in answer["permissions-policy"]


async def test_scripts_are_named_one_by_one(static: Make, fetch: Fetch) -> None:
    scripts = directives((await fetch(static(), "/"))[CSP])["script-src"]
    assert scripts >= {"'self'", "'wasm-unsafe-eval'", sha('webRenderer = "canvaskit";'), sha("useColorEmoji = false;")}
    assert not scripts & {"'unsafe-inline'", "'unsafe-eval'", "https:", "*", "data:", "blob:"}


@pytest.mark.parametrize("feature", ["geolocation", "microphone", "camera", "clipboard", "fullscreen", "autoplay"])
async def test_what_controls_of_flet_use_is_not_forbidden(static: Make, fetch: Fetch, feature: str) -> None:
    assert feature not in (await fetch(static(), "/"))["permissions-policy"]


async def test_pages_of_other_sites_get_nothing(static: Make, fetch: Fetch) -> None:
    app = static()
    for method, path in [("GET", "/"), ("GET", "/main.dart.js"), ("GET", "/missing.js"), ("OPTIONS", "/")]:
        headers = {"origin": "https://evil.test", "access-control-request-method": "PUT"}
        answer = await fetch(app, path, headers, method=method)
        assert not [name for name, _ in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/ws", "/upload", "/oauth_callback", "/", "/nothing"])
@pytest.mark.parametrize("method", ["OPTIONS", "GET", "PUT"])
async def test_whole_app_has_no_cors(tmp_path: Path, method: str, path: str) -> None:
    app = flet_fastapi.app(lambda page: None, upload_dir=str(tmp_path))
    headers = {"origin": "https://evil.test", "access-control-request-method": "PUT"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        answer = await client.request(method, path, headers=headers)
    await flet_fastapi.app_manager.shutdown()
    assert answer.status_code < 500
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_sources_are_a_setting(static: Make, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_CSP_SOURCES", "https://tiles.test https://*.pictures.test, wss:")
    policy = directives((await fetch(static(no_cdn=True), "/"))[CSP])
    for directive in ("img-src", "font-src", "media-src", "connect-src", "frame-src"):
        assert policy[directive] >= {"'self'", "https://tiles.test", "https://*.pictures.test", "wss:"}
        assert "https:" not in policy[directive]


async def test_no_sources_but_the_apps_own(static: Make, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_CSP_SOURCES", "none")
    monkeypatch.setenv("FLET_WEB_NO_CDN", "true")
    policy = (await fetch(static(), "/"))[CSP]
    assert "http" not in policy
    assert directives(policy)["connect-src"] == {"'self'", "data:", "blob:"}


async def test_cdn_of_the_engine_is_named_where_it_is_used(static: Make, fetch: Fetch, tmp_path: Path) -> None:
    bare = directives((await fetch(static(csp_sources=("'self'",), roots=[tmp_path]), "/"))[CSP])
    assert {source.split("/")[2] for source in bare["script-src"] if source.startswith("https:")} == {
        "www.gstatic.com", "cdn.jsdelivr.net",
    }  # fmt: skip
    assert "https://fonts.gstatic.com" in bare["connect-src"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("FLET_CSP_SOURCES", "https:; script-src *"), ("FLET_CSP_SOURCES", "none https:"), ("FLET_CSP_SOURCES", "a'b"),
        ("FLET_CSP_SCRIPTS", "'unsafe-inline'"), ("FLET_FRAME_ANCESTORS", "'"), ("FLET_CSP", "maybe"),
        ("FLET_PERMISSIONS_POLICY", "usb=()\r\nset-cookie: a=b"), ("FLET_ISOLATED_ROUTES", "/a?b"),
    ],
)  # fmt: skip
def test_wrong_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
    monkeypatch.setenv(setting, value)
    with pytest.raises(OptionError, match=setting):
        Options.load()


@pytest.mark.parametrize(
    ("value", "policy", "older"),
    [
        ("none", "'none'", "DENY"),
        ("'self'", "'self'", "SAMEORIGIN"),
        ("self https://portal.test", "'self' https://portal.test", None),
        ("*", "*", None),
    ],
)
async def test_who_may_frame_the_app(
    static: Make, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, value: str, policy: str, older: str | None
) -> None:
    monkeypatch.setenv("FLET_FRAME_ANCESTORS", value)
    answer = await fetch(static(), "/")
    assert answer[CSP].endswith(f"frame-ancestors {policy}")
    assert answer["x-frame-options"] == older


async def test_policy_can_be_only_reported(static: Make, fetch: Fetch) -> None:
    answer = await fetch(static(csp="report"), "/")
    assert answer[CSP] == "frame-ancestors 'self'"
    assert "script-src 'self'" in answer["content-security-policy-report-only"]


async def test_policy_can_be_switched_off(static: Make, fetch: Fetch) -> None:
    answer = await fetch(static(csp="off", permissions_policy="off"), "/")
    assert answer[CSP] == "frame-ancestors 'self'"
    assert answer["content-security-policy-report-only"] is answer["permissions-policy"] is None


@pytest.mark.parametrize(
    ("path", "isolated"), [("/", False), ("/studio", True), ("/studio/1", True), ("/studios", False)]
)
async def test_isolation_is_for_the_named_routes(static: Make, fetch: Fetch, path: str, isolated: bool) -> None:
    answer = await fetch(static(isolated_routes=("/studio/",)), path, PERSON)
    wanted = ("same-origin", "credentialless") if isolated else (None, None)
    assert (answer["cross-origin-opener-policy"], answer["cross-origin-embedder-policy"]) == wanted


async def test_other_headers_make_another_page(static: Make, fetch: Fetch) -> None:
    kept = await fetch(static(csp="off"), "/")
    answer = await fetch(static(), "/", {"if-none-match": kept["etag"]})
    assert (answer.status, answer.body) == (200, kept.body)
    again = await fetch(static(), "/", {"if-none-match": answer["etag"]})
    assert (again.status, again[CSP]) == (304, answer[CSP])


async def test_page_of_a_user_keeps_its_scripts(static: Make, fetch: Fetch, assets: Path) -> None:
    page = (
        "<head><script>one\r\n()</script><script src='https://tags.test/t.js?id=1'></script></head>"
        "<body onload='two()'><script type=module>three()</script></body>"
    )
    (assets / "index.html").write_bytes(page.encode())
    scripts = directives((await fetch(static(), "/"))[CSP])["script-src"]
    assert scripts >= {sha("one\n()"), sha("two()"), sha("three()"), "'unsafe-hashes'", "https://tags.test/t.js"}


NO_SOURCES = """<script src=own.js></script>|<script src='https://[bad/'></script>|<script src=javascript:x></script>
<script src='https://a.test/x;y, z'></script>|<script>unfinished"""


@pytest.mark.parametrize("script", NO_SOURCES.replace("\n", "|").split("|"))
def test_scripts_that_add_no_source(script: str) -> None:
    assert PageScripts(script).sources == []


@given(st.text() | st.sampled_from(["<script>", "<script", "</script", "<!--<script>", "\0", "\r\n", "<a onclick=';'"]))
def test_any_page_makes_one_line(text: str) -> None:
    sources = " ".join(PageScripts(f"<script src='{text}'>{text}</script><a onclick='{text}'>").sources)
    assert sources.isascii()
    assert sources.isprintable()
    assert not set(sources) & set(";,")


@pytest.mark.parametrize(("name", "framed"), [("a.html", True), ("a.svg", True), ("a.xml", True), ("a.png", False)])
async def test_documents_among_the_assets_cannot_be_framed(
    static: Make, fetch: Fetch, assets: Path, name: str, framed: bool
) -> None:
    (assets / name).write_text("<script>own()</script>")
    answer = await fetch(static(), f"/{name}")
    assert (answer.status, answer["x-content-type-options"]) == (200, "nosniff")
    assert (answer[CSP], answer["referrer-policy"]) == (
        ("frame-ancestors 'self'", REFERRER) if framed else (None, None)
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "application/octet-stream"),
        ("a.js", "application/octet-stream"),
        ("a.css", "application/octet-stream"),
        ("a.wasm", "application/octet-stream"),
        ("a.xml", "application/octet-stream"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.pdf", "application/pdf"),
        ("index.html", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("prefix", ["/uploads/", "/assets/uploads/"])
async def test_uploads_are_saved_and_not_shown(
    static: Make, fetch: Fetch, assets: Path, prefix: str, name: str, kind: str
) -> None:
    (assets / "uploads").mkdir()
    (assets / "uploads" / name).write_text("<script>evil()</script>")
    answer = await fetch(static(upload_dir=assets / "uploads"), prefix + name, PERSON)
    assert (answer.status, answer["content-type"], answer["content-disposition"]) == (200, kind, "attachment")
    assert (answer[CSP], answer["x-content-type-options"]) == ("default-src 'none'; sandbox", "nosniff")
    assert answer["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("name", ["index.html", "manifest.json"])
async def test_upload_never_becomes_the_page(static: Make, fetch: Fetch, assets: Path, name: str) -> None:
    (assets / name).write_text('{"name": "evil"}')
    answer = await fetch(static(upload_dir=assets), f"/{name}")
    assert answer.status == 200
    assert b"evil" not in answer.body


async def test_uploads_of_an_endpoint_of_its_own_are_saved_and_not_shown(
    static: Make, fetch: Fetch, assets: Path
) -> None:
    (assets / "uploads").mkdir()
    (assets / "uploads/x.html").write_text("<script>evil()</script>")
    client = static()
    FletUpload(assets / "uploads")
    answer = await fetch(client, "/uploads/x.html", PERSON)
    assert (answer["content-type"], answer["content-disposition"]) == ("application/octet-stream", "attachment")


async def test_link_to_an_upload_is_an_upload(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "uploads").mkdir()
    (assets / "uploads/a.html").write_text("evil")
    (assets / "a.html").symlink_to(assets / "uploads/a.html")
    (assets / "far").symlink_to(assets / "uploads")
    for path in ("/a.html", "/far/a.html"):
        answer = await fetch(static(upload_dir=assets / "far"), path)
        assert answer["content-disposition"] == "attachment"


async def test_assets_beside_the_uploads_are_shown(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "uploads-page.html").write_text("own")
    answer = await fetch(static(upload_dir=assets / "uploads"), "/uploads-page.html")
    assert answer["content-disposition"] is None
