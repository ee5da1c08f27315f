from __future__ import annotations

import pytest

from flet_fastapi.client.navigation import accepts_html, is_navigation

CHROME = {"accept": "text/html,application/xhtml+xml,image/avif,*/*;q=0.8", "sec-fetch-mode": "navigate"}
OLD_BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.mark.parametrize("headers", [CHROME, OLD_BROWSER])
@pytest.mark.parametrize(
    "path",
    ["/store", "/store/1", "/store/", "/users/ann@example.com", "/users/john.doe", "/v1.2", "/api", "/apia/x", "/a%b"],
)
def test_person_going_to_a_page_navigates(path: str, headers: dict[str, str]) -> None:
    assert is_navigation(path, headers)


@pytest.mark.parametrize("headers", [CHROME, OLD_BROWSER])
@pytest.mark.parametrize(
    "path",
    ["/x.js", "/a/b.png", "/x.JS", "/x.wasm", "/x.html", "/x.php", "/main.dart.js.map", "/api/", "/api/users", "/API/x"]
    + ["/../x", "/a/..", "/.env", "/.git/config", "/x\0", "*"],
)  # fmt: skip
def test_missing_file_or_api_is_no_page(path: str, headers: dict[str, str]) -> None:
    assert not is_navigation(path, headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"accept": "*/*"},
        {"accept": "application/json"},
        {"accept": "image/avif,image/webp,*/*"},
        {"accept": "text/html;q=0"},
        {"accept": "text/html", "sec-fetch-mode": "cors"},
        {"accept": "text/html", "sec-fetch-mode": "no-cors"},
        {"accept": "*/*", "sec-fetch-mode": "navigate"},
    ],
)
def test_script_does_not_navigate(headers: dict[str, str]) -> None:
    assert not is_navigation("/store", headers)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("text/html", True), ("TEXT/HTML;q=0.1", True), ("application/xhtml+xml", True), ("text/htmlx", False)]
    + [("text/html;q=0.0", False), ("text/html;q=x", True), ("text/plain, text/html", True), ("", False)],
)
def test_accept_names_html(accept: str, expected: bool) -> None:
    assert accepts_html(accept) is expected
