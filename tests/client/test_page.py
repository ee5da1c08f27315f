from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.client.page import PageValues, javascript, patch_index, patch_manifest

VALUES = PageValues(
    base="/sub/",
    websocket="/sub/ws",
    build="_b/0123/",
    route_url_strategy="hash",
    renderer="html",
    color_emoji=True,
    name=None,
    short_name=None,
    description=None,
)
HOSTILE = st.text() | st.sampled_from(
    ['"><script>alert(1)</script>', "</title><b>", "<!-- webRenderer -->", "\\1\\g<0>", "%FLET_ROUTE_URL_STRATEGY%"]
    + ["name=description", "name=apple-mobile-web-app-title x", "</head>", "&quot;", "a\nb", "\ud800"]
)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.metas: dict[str | None, str | None] = {}
        self.base: str | None = None
        self.title = ""
        self.scripts: list[str] = []
        self.links: list[str | None] = []
        self._inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self._inside = tag
        if tag == "meta" and "name" in values:
            self.metas[values["name"]] = values.get("content")
        elif tag == "base":
            self.base = values.get("href")
        elif tag == "script" and values.get("src"):
            self.scripts.append(str(values["src"]))
        elif tag == "link":
            self.links.append(values.get("href"))

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data


@pytest.fixture(scope="module")
def index(web: Path) -> str:
    return (web / "index.html").read_text()


def test_page_says_where_it_is(index: str) -> None:
    page = Page(patch_index(index, VALUES))
    assert page.base == "/sub/"
    assert page.metas["flet-websocket-endpoint-path"] == "/sub/ws"
    assert page.metas["flet-route-url-strategy"] == "hash"
    assert page.metas["flet-web-pyodide"] == "false"
    assert page.scripts == ["_b/0123/flutter.js"]


def test_renderer_and_emoji_are_set_after_their_defaults(index: str) -> None:
    text = patch_index(index, VALUES)
    assert text.index('var webRenderer = "auto"') < text.index('webRenderer = "html";')
    assert text.index("var useColorEmoji = false") < text.index("useColorEmoji = true;")


def test_names_not_given_stay_those_of_flet(index: str) -> None:
    page = Page(patch_index(index, VALUES))
    assert (page.title, page.metas["description"]) == ("Flet", "Flet application.")


def test_no_placeholder_is_left(index: str) -> None:
    assert "%FLET" not in patch_index(index, VALUES)


def test_preloads_are_of_the_build(index: str) -> None:
    page = Page(patch_index(index, replace(VALUES, preload=("main.dart.js", "canvaskit/canvaskit.wasm"))))
    assert page.links[-2:] == ["_b/0123/main.dart.js", "_b/0123/canvaskit/canvaskit.wasm"]


@given(name=HOSTILE, short_name=HOSTILE, description=HOSTILE)
def test_values_stay_where_they_are_put(index: str, name: str, short_name: str, description: str) -> None:
    values = replace(VALUES, name=name, short_name=short_name, description=description)
    page = Page(patch_index(index, values).encode("utf-8", "replace").decode())
    assert page.tags == Page(patch_index(index, replace(VALUES, name="", short_name="", description=""))).tags
    assert _words(page.title) == _words(name)
    assert _words(page.metas["description"]) == _words(description)
    assert _words(page.metas["apple-mobile-web-app-title"]) == _words(short_name or name)


def _words(text: str | None) -> list[str]:
    printable = (text or "").encode("utf-8", "replace").decode().replace("\0", "")
    return " ".join(printable.splitlines()).split()


def test_page_of_a_user_gets_what_it_lacks() -> None:
    page = Page(patch_index("<html><head><title>Mine</title></head><body></body></html>", VALUES))
    assert page.base == "/sub/"
    assert page.metas["flet-websocket-endpoint-path"] == "/sub/ws"
    assert page.title == "Mine"


@pytest.mark.parametrize(
    "script",
    [
        '<script src="flutter.js" defer></script>',
        "<script defer src='flutter.js'></script>",
        "<script src=flutter.js></script>",
    ]
    + ['<script src="./flutter_bootstrap.js" async></script>'],
)
def test_loader_comes_from_the_build_however_it_is_written(script: str) -> None:
    [source] = Page(patch_index(f"<head>{script}</head>", VALUES)).scripts
    assert source.startswith("_b/0123/flutter")


@pytest.mark.parametrize("script", ['<script src="/cdn/flutter.js"></script>', '<script src="flutter.json"></script>'])
def test_other_scripts_are_left_alone(script: str) -> None:
    assert script in patch_index(f"<head>{script}</head>", VALUES)


@given(st.text() | st.booleans())
def test_javascript_literal_is_safe_in_a_script_element(value: str | bool) -> None:
    literal = javascript(value)
    assert json.loads(literal) == value
    assert literal.isascii() and not set(literal) & set("<>&\n")


@given(name=st.none() | HOSTILE, description=st.none() | HOSTILE)
def test_manifest_holds_the_names(web: Path, name: str | None, description: str | None) -> None:
    original = json.loads((web / "manifest.json").read_text())
    patched = json.loads(patch_manifest(json.dumps(original), {"name": name, "description": description}))
    assert patched["name"] == (original["name"] if name is None else name)
    assert patched["description"] == (original["description"] if description is None else description)
    assert patched["icons"] == original["icons"]


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_manifest_that_is_no_object_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        patch_manifest(text, {})
