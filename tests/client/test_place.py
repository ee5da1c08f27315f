from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.client.place import base_path, has_encoded_separator, route_path, segments, websocket_path

BASES = [
    # root_path, server_root, app_mount_path, proxy_path, base
    ("", None, "", None, "/"),
    ("", None, "/", "/", "/"),
    # a mount of starlette says it all
    ("/sub-app", "", "/", None, "/sub-app/"),
    ("/a/b", "", "", None, "/a/b/"),
    # told twice is not doubled
    ("/x", "", "/x", None, "/x/"),
    ("/x", "", "/x/", None, "/x/"),
    ("/proxy/x", "/proxy", "/x", None, "/proxy/x/"),
    # not mounted, only told
    ("", None, "/x", None, "/x/"),
    ("", None, "x", None, "/x/"),
    ("/proxy", "/proxy", "/x", None, "/proxy/x/"),
    # the whole path told, the last part of it mounted
    ("/x", "", "/proxy/x", None, "/proxy/x/"),
    # names that only look alike
    ("/barx", "", "/x", None, "/barx/x/"),
    # uvicorn --root-path
    ("/proxy", None, "", None, "/proxy/"),
    ("/proxy/", "/proxy/", "", None, "/proxy/"),
    ("/proxy/sub", "/proxy", "", None, "/proxy/sub/"),
    # proxy_path, alone, with a mount, and said by the server too
    ("", None, "", "/proxy", "/proxy/"),
    ("/sub", "", "", "/proxy", "/proxy/sub/"),
    ("/sub", "", "/sub", "/proxy/", "/proxy/sub/"),
    ("/proxy/sub", "/proxy", "", "/proxy", "/proxy/sub/"),
    ("", None, "/proxy/x", "/proxy", "/proxy/x/"),
    ("/p", "", "", "/p", "/p/p/"),
    # what a mount with a parameter may bring
    ("/tenant/ä b", "", "", None, "/tenant/%C3%A4%20b/"),
    ("//evil.example", "", "", None, "/evil.example/"),
    ("/\\evil.example", "", "", None, "/%5Cevil.example/"),
    ('/"><script>', "", "", None, "/%22%3E%3Cscript%3E/"),
]


@pytest.mark.parametrize(("root_path", "server_root", "mount", "proxy", "expected"), BASES)
def test_base_is_the_path_that_the_browser_sees(
    root_path: str, server_root: str | None, mount: str, proxy: str | None, expected: str
) -> None:
    assert base_path(root_path, server_root=server_root, app_mount_path=mount, proxy_path=proxy) == expected


@given(st.text(), st.text(), st.none() | st.text())
def test_base_is_always_a_path_of_this_host(root_path: str, mount: str, proxy: str | None) -> None:
    base = base_path(root_path, app_mount_path=mount, proxy_path=proxy)
    assert base.startswith("/") and base.endswith("/") and base.isascii()
    assert base == "/" or not base.startswith("//")


SOCKETS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "/ws"),
    ({"root_path": "/sub", "app_root_path": ""}, {}, "/sub/ws"),
    ({}, {"proxy_path": "/p"}, "/p/ws"),
    ({}, {"app_mount_path": "/x"}, "/x/ws"),
    ({}, {"absolute": "/app1/ws"}, "/app1/ws"),
    ({"root_path": "/sub", "app_root_path": ""}, {"absolute": "/app1/ws"}, "/app1/ws"),
    ({"root_path": "/p/sub", "app_root_path": "/p"}, {"absolute": "/app1/ws"}, "/p/app1/ws"),
    ({}, {"absolute": "/app1/ws", "proxy_path": "/p"}, "/p/app1/ws"),
    ({}, {"absolute": "/p/app1/ws", "proxy_path": "/p"}, "/p/app1/ws"),
]


@pytest.mark.parametrize(("scope", "arguments", "expected"), SOCKETS)
def test_websocket_path_is_absolute(scope: dict[str, Any], arguments: dict[str, Any], expected: str) -> None:
    defaults: dict[str, Any] = {"absolute": None, "app_mount_path": "/", "proxy_path": None}
    assert websocket_path({"root_path": "", **scope}, endpoint="ws", **{**defaults, **arguments}) == expected


@pytest.mark.parametrize(
    ("path", "root_path", "mount", "expected"),
    [
        ("/a", "", "/", "/a"),
        ("/sub/a", "/sub", "/", "/a"),
        ("/sub", "/sub", "/", "/"),
        ("/a", "/sub", "/", "/a"),
        ("/subway", "/sub", "/", "/subway"),
        ("/x/a", "", "/x", "/a"),
        ("/proxy/x/a", "/proxy/x", "/x", "/a"),
        ("", "", "/", "/"),
    ],
)
def test_route_is_the_path_below_the_app(path: str, root_path: str, mount: str, expected: str) -> None:
    assert route_path({"path": path, "root_path": root_path}, mount) == expected


@pytest.mark.parametrize(
    "path",
    ["/..", "/../a", "/a/../b", "/.", "//etc/passwd", "/a//b", "/a/", "/a\0b", "/a\\b", "/.env", "/a/.git/c", "/"],
)
def test_path_that_names_no_file_has_no_segments(path: str) -> None:
    assert segments(path) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/a", ("a",)), ("/a/b.c", ("a", "b.c")), ("/.well-known/x", (".well-known", "x")), ("/a..b", ("a..b",))],
)
def test_segments_are_the_names(path: str, expected: tuple[str, ...]) -> None:
    assert segments(path) == expected


@pytest.mark.parametrize(("raw", "expected"), [(b"/a%2fb", True), (b"/a%5Cb", True), (b"/a%20b", False), (None, False)])
def test_encoded_separators_are_seen(raw: bytes | None, expected: bool) -> None:
    assert has_encoded_separator({"raw_path": raw}) is expected
