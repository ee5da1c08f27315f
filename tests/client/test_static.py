from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI
from flet_core.types import WebRenderer
from starlette.applications import Starlette
from starlette.routing import Mount

from flet_fastapi.client import FletStaticFiles
from flet_fastapi.client.parts import ROBOTO
from flet_fastapi.errors import OptionError

Make = Callable[..., FletStaticFiles]
Fetch = Callable[..., Any]

PERSON = {"accept": "text/html,*/*;q=0.8"}
BUILD_FILES = [
    ("main.dart.js", "text/javascript; charset=utf-8"),
    ("flutter.js", "text/javascript; charset=utf-8"),
    ("canvaskit/canvaskit.js", "text/javascript; charset=utf-8"),
    ("canvaskit/canvaskit.wasm", "application/wasm"),
    (ROBOTO.path, "font/ttf"),
    ("assets/FontManifest.json", "application/json"),
    ("assets/fonts/MaterialIcons-Regular.otf", "font/otf"),
    ("favicon.png", "image/png"),
]


@pytest.mark.parametrize(("path", "kind"), BUILD_FILES)
async def test_build_path_is_immutable(static: Make, fetch: Fetch, build_name: str, path: str, kind: str) -> None:
    answer = await fetch(static(), f"/_b/{build_name}/{path}")
    assert (answer.status, answer["content-type"]) == (200, kind)
    assert answer["cache-control"] == "public, max-age=31536000, immutable"
    assert answer["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("path", "kind"), BUILD_FILES)
async def test_plain_path_is_revalidated(static: Make, fetch: Fetch, path: str, kind: str) -> None:
    app = static()
    answer = await fetch(app, f"/{path}")
    assert (answer.status, answer["content-type"], answer["cache-control"]) == (200, kind, "no-cache")
    again = await fetch(app, f"/{path}", {"if-none-match": answer["etag"]})
    assert (again.status, again.body, again["etag"]) == (304, b"", answer["etag"])


async def test_path_of_another_build_is_answered_but_not_kept(static: Make, fetch: Fetch) -> None:
    answer = await fetch(static(), "/_b/0123456789abcdef/main.dart.js")
    assert (answer.status, answer["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize("path", ["index.html", "manifest.json", "flutter_service_worker.js", "nothing", "", "../x"])
async def test_build_path_holds_only_what_never_changes(static: Make, fetch: Fetch, build_name: str, path: str) -> None:
    assert (await fetch(static(), f"/_b/{build_name}/{path}", PERSON)).status == 404


@pytest.mark.parametrize("coding", ["br", "gzip"])
async def test_compressed_file_has_a_tag_of_its_own(static: Make, fetch: Fetch, coding: str) -> None:
    app = static()
    plain = await fetch(app, "/main.dart.js")
    packed = await fetch(app, "/main.dart.js", {"accept-encoding": coding})
    assert packed["content-encoding"] == coding
    assert packed["vary"] == plain["vary"] == "accept-encoding"
    assert packed["etag"] != plain["etag"]
    assert len(packed.body) == int(packed["content-length"]) < len(plain.body)


async def test_compressed_files_are_the_plain_ones(static: Make, web: Path) -> None:
    transport = httpx.ASGITransport(app=static())
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        for coding in ("br", "gzip", "identity"):
            answer = await client.get("/main.dart.js", headers={"accept-encoding": coding})
            assert answer.content == (web / "main.dart.js").read_bytes()


async def test_nothing_acceptable_is_said_so(static: Make, fetch: Fetch) -> None:
    assert (await fetch(static(), "/favicon.png", {"accept-encoding": "identity;q=0, br"})).status == 406


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-1"}, {"accept-encoding": "br"}, {"if-none-match": "*"}])
@pytest.mark.parametrize("path", ["/", "/main.dart.js", "/a.bin", "/manifest.json", "/missing.js", "/store"])
async def test_head_equals_get(static: Make, fetch: Fetch, assets: Path, path: str, headers: dict[str, str]) -> None:
    (assets / "a.bin").write_bytes(b"0123456789")
    app = static()
    head = await fetch(app, path, headers, method="HEAD")
    without_range = {name: value for name, value in headers.items() if name != "range"}
    get = await fetch(app, path, without_range)
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_refused(static: Make, fetch: Fetch, method: str) -> None:
    answer = await fetch(static(), "/", PERSON, method=method)
    assert (answer.status, answer["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/index.html", "/store", "/store/1/", "/item/a%2Fb"])
async def test_page_is_shown(static: Make, fetch: Fetch, path: str) -> None:
    answer = await fetch(static(), path, PERSON)
    assert (answer.status, answer["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer["cache-control"] == "no-cache"
    assert answer["etag"]


async def test_route_with_an_encoded_slash_is_a_page(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "a").mkdir()
    (assets / "a/b").write_text("file")
    answer = await fetch(static(), "/a/b", PERSON, raw_path=b"/a%2Fb")
    assert b"<base" in answer.body


async def test_root_needs_no_accept_header(static: Make, fetch: Fetch) -> None:
    assert (await fetch(static(), "/")).status == 200


@pytest.mark.parametrize(
    "path", ["/missing.js", "/missing.png", "/api/users", "/assets/missing.json", "/_b/x", "/_b/x/y"]
)
async def test_missing_file_is_not_the_page(static: Make, fetch: Fetch, path: str) -> None:
    answer = await fetch(static(), path, PERSON)
    assert (answer.status, answer["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_page_revalidates(static: Make, fetch: Fetch) -> None:
    app = static()
    tag = (await fetch(app, "/", {"accept-encoding": "br"}))["etag"]
    again = await fetch(app, "/store", {**PERSON, "accept-encoding": "br", "if-none-match": f"W/{tag}"})
    assert (again.status, again.body) == (304, b"")


async def test_page_carries_the_headers_of_the_hook(static: Make, fetch: Fetch) -> None:
    app = static(page_headers=lambda scope: [(b"set-cookie", b"a=" + scope["path"].encode()), (b"x-own", b"1")])
    answer = await fetch(app, "/", PERSON)
    again = await fetch(app, "/store", {**PERSON, "if-none-match": answer["etag"]})
    assert (answer.status, answer["set-cookie"], answer["x-own"]) == (200, "a=/", "1")
    assert (again.status, again["set-cookie"], again["x-own"]) == (304, "a=/store", "1")
    # a cookie belongs to one browser
    assert answer["cache-control"] == "no-cache, private"


async def test_files_carry_no_cookie(static: Make, fetch: Fetch) -> None:
    app = static(page_headers=lambda scope: [(b"set-cookie", b"a=1")])
    for path in ("/main.dart.js", "/manifest.json", "/missing.js"):
        assert (await fetch(app, path))["set-cookie"] is None


async def test_asset_lies_over_the_client(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "favicon.png").write_bytes(b"mine")
    answer = await fetch(static(), "/favicon.png")
    assert (answer.body, answer["content-type"]) == (b"mine", "image/png")


async def test_assets_are_live(static: Make, fetch: Fetch, assets: Path) -> None:
    app = static()
    assert (await fetch(app, "/a.txt")).status == 404
    (assets / "a.txt").write_text("one")
    first = await fetch(app, "/a.txt")
    (assets / "a.txt").write_text("other")
    second = await fetch(app, "/a.txt", {"if-none-match": first["etag"]})
    assert (first.body, second.body) == (b"one", b"other")


@pytest.mark.parametrize("path", ["/images/a.png", "/assets/images/a.png"])
async def test_asset_is_found_under_flutters_name_too(static: Make, fetch: Fetch, assets: Path, path: str) -> None:
    (assets / "images").mkdir()
    (assets / "images/a.png").write_bytes(b"png")
    assert (await fetch(static(), path)).body == b"png"


async def test_asset_revalidates_by_tag_and_by_date(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "a.txt").write_text("one")
    app = static()
    answer = await fetch(app, "/a.txt")
    for condition in ({"if-none-match": answer["etag"]}, {"if-modified-since": answer["last-modified"]}):
        assert (await fetch(app, "/a.txt", condition)).status == 304


async def test_index_of_the_user_is_patched(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "index.html").write_text("<html><head><title>Mine</title></head><body></body></html>")
    answer = await fetch(static(), "/store", PERSON, root_path="/sub")
    assert b"<title>Mine</title>" in answer.body
    assert b'<base href="/sub/">' in answer.body


async def test_index_of_the_user_is_live(static: Make, fetch: Fetch, assets: Path) -> None:
    app = static()
    for title in (b"one", b"two"):
        (assets / "index.html").write_bytes(b"<head><title>%s</title></head>" % title)
        assert title in (await fetch(app, "/")).body


async def test_manifest_has_the_names(static: Make, fetch: Fetch) -> None:
    answer = await fetch(static(app_name='A "B"', app_description="C"), "/manifest.json")
    assert answer["content-type"] == "application/manifest+json"
    assert b'"name": "A \\"B\\""' in answer.body and b'"description": "C"' in answer.body


async def test_manifest_that_is_broken_is_sent_as_it_is(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "manifest.json").write_text("{broken")
    assert (await fetch(static(app_name="A"), "/manifest.json")).body == b"{broken"


@pytest.fixture
def secret(tmp_path: Path, assets: Path) -> Path:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (assets / "inside.txt").write_text("inside")
    (assets / ".env").write_text("secret")
    (assets / "out").symlink_to(tmp_path)
    (assets / "out.txt").symlink_to(secret)
    (assets / "loop").symlink_to("loop")
    (assets / "in.txt").symlink_to("inside.txt")
    os.mkfifo(assets / "pipe.txt")
    return secret


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/a/../../secret.txt",
        "/..\\secret.txt",
        "//secret.txt",
        "/out/secret.txt",
        "/out.txt",
        "/assets/../secret.txt",
        "/assets/out.txt",
        "/loop",
        "/.env",
        "/pipe.txt",
        "/inside.txt/",
        "/inside.txt\0",
        "/inside.txt\0.png",
        "/" + "x" * 5000,
        "/\udcff.txt",
        "/out",
    ],
)
async def test_nothing_escapes_from_the_assets(static: Make, fetch: Fetch, secret: Path, path: str) -> None:
    answer = await fetch(static(), path, raw_path=b"/")
    assert (answer.status, answer.body) == (404, b"Not Found")


@pytest.mark.parametrize(
    "raw_path", [b"/%2e%2e/secret.txt", b"/..%2fsecret.txt", b"/out%2Fsecret.txt", b"/x%5Cinside.txt"]
)
async def test_nothing_escapes_by_encoding(static: Make, fetch: Fetch, secret: Path, raw_path: bytes) -> None:
    assert (await fetch(static(), unquote(raw_path.decode()), raw_path=raw_path)).status == 404


async def test_absolute_path_names_nothing(static: Make, fetch: Fetch, secret: Path) -> None:
    assert (await fetch(static(), f"/{secret}")).status == 404


async def test_link_inside_the_assets_is_followed(static: Make, fetch: Fetch, secret: Path) -> None:
    assert (await fetch(static(), "/in.txt")).body == b"inside"


@pytest.mark.parametrize(
    ("value", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, b"Range Not Satisfiable", "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
    ],
)
async def test_range_of_an_asset(
    static: Make, fetch: Fetch, assets: Path, value: str, status: int, body: bytes, content_range: str | None
) -> None:
    (assets / "a.mp4").write_bytes(b"0123456789")
    answer = await fetch(static(), "/a.mp4", {"range": value})
    assert (answer.status, answer.body, answer["content-range"]) == (status, body, content_range)
    assert answer["content-length"] == str(len(body))


async def test_range_of_a_compressed_file_is_of_what_is_sent(static: Make, fetch: Fetch) -> None:
    app, packed = static(), {"accept-encoding": "br"}
    whole = await fetch(app, "/main.dart.js", packed)
    part = await fetch(app, "/main.dart.js", {**packed, "range": "bytes=3-6", "if-range": whole["etag"]})
    assert (part.status, part["content-encoding"], part.body) == (206, "br", whole.body[3:7])


async def test_changed_asset_is_sent_whole(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "a.mp4").write_bytes(b"0123456789")
    answer = await fetch(static(), "/a.mp4", {"range": "bytes=0-1", "if-range": '"old"'})
    assert (answer.status, answer.body) == (200, b"0123456789")


async def test_asset_for_an_old_tag_is_refused(static: Make, fetch: Fetch, assets: Path) -> None:
    (assets / "a.mp4").write_bytes(b"0123456789")
    assert (await fetch(static(), "/a.mp4", {"if-match": '"old"'})).status == 412


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1])
async def test_asset_of_any_size_is_whole(static: Make, fetch: Fetch, assets: Path, size: int) -> None:
    (assets / "a.bin").write_bytes(os.urandom(size))
    answer = await fetch(static(), "/a.bin")
    assert answer.body == (assets / "a.bin").read_bytes()


async def test_service_worker_retires_itself(static: Make, fetch: Fetch) -> None:
    answer = await fetch(static(), "/flutter_service_worker.js")
    assert answer["cache-control"] == "no-cache"
    assert b"registration.unregister()" in answer.body and b"caches.delete" in answer.body
    assert b"RESOURCES" not in answer.body


async def test_python_in_the_browser_is_not_served(static: Make, fetch: Fetch) -> None:
    assert (await fetch(static(), "/python.js")).status == 404


@pytest.mark.parametrize("folder", ["", "_b/x/"])
@pytest.mark.parametrize(("no_cdn", "status"), [(False, 302), (True, 404)])
async def test_fonts_of_other_scripts_come_from_their_usual_place_if_allowed(
    static: Make, fetch: Fetch, no_cdn: bool, status: int, folder: str
) -> None:
    answer = await fetch(static(no_cdn=no_cdn), f"/{folder}fallback_fonts/notosanssc/v36/a b.ttf")
    location = None if no_cdn else "https://fonts.gstatic.com/s/notosanssc/v36/a%20b.ttf"
    assert (answer.status, answer["location"]) == (status, location)


@pytest.mark.parametrize(
    ("arguments", "scope", "base", "websocket"),
    [
        ({}, {"path": "/"}, "/", "/ws"),
        ({}, {"path": "/sub/", "root_path": "/sub", "app_root_path": ""}, "/sub/", "/sub/ws"),
        ({"proxy_path": "/p"}, {"path": "/"}, "/p/", "/p/ws"),
        ({"app_mount_path": "/x"}, {"path": "/x/"}, "/x/", "/x/ws"),
        ({"websocket_endpoint_path": "/app1/ws"}, {"path": "/"}, "/", "/app1/ws"),
        ({}, {"path": "/p/", "root_path": "/p"}, "/p/", "/p/ws"),
    ],
)
async def test_page_knows_its_place(
    static: Make, fetch: Fetch, arguments: dict[str, Any], scope: dict[str, Any], base: str, websocket: str
) -> None:
    answer = await fetch(static(**arguments), **scope)
    assert f'<base href="{base}">'.encode() in answer.body
    assert f'name="flet-websocket-endpoint-path" content="{websocket}"'.encode() in answer.body


async def test_apps_mounted_side_by_side(static: Make, fetch: Fetch) -> None:
    app = FastAPI()
    app.mount("/sub-app", static(app_name="Sub"))
    app.mount("/", static(app_name="Root"))
    for path, title in (("/sub-app/", b"Sub"), ("/sub-app/x", b"Sub"), ("/", b"Root"), ("/sub-app", b"Root")):
        assert b"<title>%s</title>" % title in (await fetch(app, path, PERSON)).body


async def test_mounts_in_mounts_behind_a_prefix(static: Make, fetch: Fetch) -> None:
    app = Starlette(routes=[Mount("/a", routes=[Mount("/{tenant}", static())])])
    answer = await fetch(app, "/p/a/t1/store", PERSON, root_path="/p")
    assert b'<base href="/p/a/t1/">' in answer.body


async def test_pages_kept_are_bounded(static: Make, fetch: Fetch) -> None:
    static_files = static()
    app = Starlette(routes=[Mount("/{tenant}", static_files)])
    for number in range(100):
        await fetch(app, f"/{number}/")
    assert len(static_files._pages) == 64


async def test_websocket_that_no_route_took_is_refused(static: Make) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await static()({"type": "websocket", "path": "/x"}, _never, send)
    assert sent == ["websocket.close"]


async def _never() -> Any:
    raise AssertionError("nothing to receive")


def test_parameters_of_the_document_are_taken(tmp_path: Path) -> None:
    FletStaticFiles("/x", str(tmp_path), "A", "B", "C", WebRenderer.HTML, True, "hash", "/x/ws", proxy_path="/p")


@pytest.mark.parametrize(
    "arguments",
    [
        {"assets_dir": "/does/not/exist"},
        {"route_url_strategy": "query"},
        {"web_renderer": "skia"},
        {"app_mount_path": None},
        {"app_mount_path": "/x?y"},
        {"app_mount_path": "http://x/y"},
        {"app_mount_path": "//evil.com"},
        {"websocket_endpoint_path": "/a/./ws"},
        {"websocket_endpoint_path": 1},
    ],
)
def test_wrong_parameter_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(arguments))):
        FletStaticFiles(**arguments)
