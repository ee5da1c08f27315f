"""`index.html` and `manifest.json` with the app's own names in them: pure functions from text to text.

Values are escaped for where they stand: an attribute, an element's text, a JavaScript literal, JSON.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
_HEAD_END = re.compile(r"</head\s*>", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^>]*>.*?</title\s*>", re.IGNORECASE | re.DOTALL)
_META = re.compile(r"""<meta\b((?:"[^"]*"|'[^']*'|[^>"'])*)>""", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([\w:-]+)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""")
_BASE = re.compile(r"<base\b[^>]*>", re.IGNORECASE)
_LOADER = re.compile(
    r"""(<script\b[^>]*\ssrc=)(["']?)(?:\./)?(flutter|flutter_bootstrap)\.js\2(?=[\s>])""", re.IGNORECASE
)

# What the engine asks for first and would find out about late: main.dart.js only after the page's load event, the rest
# only after main.dart.js ran. The client of flet 0.24.1 is compiled for CanvasKit alone, whatever renderer is chosen.
PRELOADS = {
    "main.dart.js": 'rel="preload" as="script"',
    "canvaskit/canvaskit.js": 'rel="modulepreload"',
    "canvaskit/canvaskit.wasm": 'rel="preload" as="fetch" crossorigin="anonymous"',
}


@dataclass(frozen=True, slots=True)
class PageValues:
    """What goes into the page. Paths are the browser's, percent-encoded; `build` is relative to `base`."""

    base: str
    websocket: str
    build: str
    route_url_strategy: str
    renderer: str
    color_emoji: bool
    name: str | None
    short_name: str | None
    description: str | None
    preload: tuple[str, ...] = ()


def patch_index(text: str, values: PageValues) -> str:
    """The entry page: Flet's own `index.html` or a user's copy of it; what a copy lacks is added to its head."""
    text = _set_base(text, values.base)
    metas = {
        "flet-websocket-endpoint-path": values.websocket,
        "flet-route-url-strategy": values.route_url_strategy,
        "flet-web-pyodide": "false",
        "description": values.description,
        "apple-mobile-web-app-title": values.short_name or values.name,
    }
    for name, content in metas.items():
        if content is not None:
            text = _set_meta(text, name, content)
    if values.name is not None:
        text = _set_title(text, values.name)
    text = _set_script(text, "webRenderer", values.renderer)
    text = _set_script(text, "useColorEmoji", values.color_emoji)
    return _set_build(text, values)


def patch_manifest(text: str, values: Mapping[str, str | None]) -> str:
    """The web app manifest with every given name set.

    Raises:
        ValueError: the manifest is no JSON object.
    """
    manifest: Any = json.loads(text)
    if not isinstance(manifest, dict):
        raise ValueError("manifest.json must hold an object")
    manifest.update({name: value for name, value in values.items() if value is not None})
    return json.dumps(manifest, ensure_ascii=True, indent=2)


def javascript(value: str | bool) -> str:
    """`value` as a JavaScript literal that is safe in a `<script>` element: ASCII, without `<`, `>` and `&`."""
    literal = json.dumps(value, ensure_ascii=True)
    return literal.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _attribute(value: str) -> str:
    # line breaks and NUL are legal neither in meta contents nor wanted: a parser may drop or keep them
    return html.escape(" ".join(value.replace("\0", "").splitlines()), quote=True)


def _put(text: str, pattern: re.Pattern[str], replacement: str) -> str | None:
    """`text` with the first match replaced literally, or None without a match."""
    patched, count = pattern.subn(_literally(replacement), text, count=1)
    return patched if count else None


def _literally(replacement: str) -> Callable[[re.Match[str]], str]:
    return lambda _match: replacement


def _into_head(text: str, element: str) -> str:
    end = _HEAD_END.search(text)
    at = end.start() if end else 0
    return f"{text[:at]}{element}\n{text[at:]}"


def _set_base(text: str, base: str) -> str:
    element = f'<base href="{_attribute(base)}">'
    if (patched := _put(text, _BASE, element)) is not None:
        return patched
    head = _HEAD.search(text)
    at = head.end() if head else 0
    # first in the head: it counts only for what comes after it
    return f"{text[:at]}\n  {element}{text[at:]}"


def _set_meta(text: str, name: str, content: str) -> str:
    element = f'<meta name="{name}" content="{_attribute(content)}">'
    for meta in _META.finditer(text):
        if any(key.lower() == "name" and value.strip("\"'") == name for key, value in _ATTRIBUTE.findall(meta[1])):
            return text[: meta.start()] + element + text[meta.end() :]
    return _into_head(text, f"  {element}")


def _set_title(text: str, title: str) -> str:
    element = f"<title>{_attribute(title)}</title>"
    patched = _put(text, _TITLE, element)
    return patched if patched is not None else _into_head(text, f"  {element}")


def _set_script(text: str, variable: str, value: str | bool) -> str:
    # the comment is the place that Flet's index.html keeps for it; a user's page without it chooses by itself
    return text.replace(f"<!-- {variable} -->", f"<script>{variable} = {javascript(value)};</script>", 1)


def _set_build(text: str, values: PageValues) -> str:
    """Load Flutter's loader, and so all it loads, from the build's immutable path."""
    build = _attribute(values.build)
    text, count = _LOADER.subn(lambda m: f'{m[1]}"{build}{m[3].lower()}.js"', text, count=1)
    if not count:
        return text
    links = [f'  <link {PRELOADS[name]} href="{build}{name}">' for name in values.preload]
    return _into_head(text, "\n".join(links)) if links else text
