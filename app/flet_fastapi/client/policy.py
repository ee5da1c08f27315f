"""What browsers are told that the app's pages may do: Content-Security-Policy and its companions.

Scripts are named one by one: those of the app's own origin, and those written into the page itself, by their hashes. So
what an app shows from elsewhere (images, fonts, map tiles) can be let in generously.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Self
from urllib.parse import urlsplit

from ..options import Options
from .parts import ENGINE_REVISION
from .respond import Headers

# Where the client of flet 0.24.1 gets what the app's origin does not have: CanvasKit if the set-up could not fetch it,
# fonts for scripts beyond Roboto, and the engine of the Rive control, whose address is compiled into main.dart.js.
CANVASKIT_CDN = f"https://www.gstatic.com/flutter-canvaskit/{ENGINE_REVISION}/"
FONT_CDN = "https://fonts.gstatic.com"
_RIVE_CDN = "https://cdn.jsdelivr.net/npm/@rive-app/flutter-wasm@19.0.0/build/bin/release/"
_RIVE_SCRIPT = _RIVE_CDN + "rive_text.js"

# Devices that no control of Flet uses; what is not named here stays with pages of the app's own origin, as always.
_PERMISSIONS = "bluetooth=(), display-capture=(), hid=(), midi=(), payment=(), serial=(), usb=()"
# The browser's own default, said to browsers that have another: tile servers want to know who asks.
_REFERRER = (b"referrer-policy", b"strict-origin-when-cross-origin")
_ISOLATION: Headers = [
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"credentialless"),
]
_FRAME_OPTIONS: dict[tuple[str, ...], bytes] = {("'self'",): b"SAMEORIGIN", ("'none'",): b"DENY"}

# What users have uploaded is saved, not shown; if it is shown all the same, it can do nothing.
UPLOAD_HEADERS: Headers = [
    (b"content-disposition", b"attachment"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_HARMLESS_UPLOADS = ("image/", "audio/", "video/", "font/", "application/pdf", "text/plain", "text/csv")
_DOCUMENTS = ("text/html", "application/xhtml+xml", "image/svg+xml", "application/xml", "text/xml")
# A browser runs no script of this type, also where a page asks for one (with `nosniff`).
_BYTES = "application/octet-stream"


def upload_type(content_type: str) -> str:
    """The type under which an uploaded file may go out: never one that a page could run or be styled by."""
    return content_type if content_type.startswith(_HARMLESS_UPLOADS) else _BYTES


@dataclass(frozen=True, slots=True)
class Policy:
    """The headers of an app's pages, as its options want them."""

    mode: str
    sources: tuple[str, ...]
    scripts: tuple[str, ...]
    frame_ancestors: tuple[str, ...]
    permissions: str
    isolated_routes: tuple[str, ...]
    no_cdn: bool

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """The policy of one app."""
        return cls(
            mode=options.csp,
            sources=options.csp_sources,
            scripts=options.csp_scripts,
            frame_ancestors=options.frame_ancestors,
            permissions=_PERMISSIONS if options.permissions_policy is None else options.permissions_policy,
            isolated_routes=options.isolated_routes,
            no_cdn=options.no_cdn,
        )

    def isolates(self, path: str) -> bool:
        """Whether pages at `path` (below the app) are cut off from other origins, as shared memory needs."""
        return any(path == route or path.startswith(route.rstrip("/") + "/") for route in self.isolated_routes)

    def page(self, text: str, *, isolated: bool = False, canvaskit: bool = True) -> Headers:
        """For the app's page with this text; without `canvaskit` that comes from its CDN."""
        headers = self.document()
        if self.mode != "off":
            content = self._content(text, canvaskit).encode("ascii", "replace")
            if self.mode == "on":
                headers[0] = (b"content-security-policy", content)
            else:
                headers.append((b"content-security-policy-report-only", content))
        if self.permissions.strip().lower() != "off":
            headers.append((b"permissions-policy", self.permissions.encode("ascii")))
        return headers + (_ISOLATION if isolated else [])

    def document(self) -> Headers:
        """For any document, also one of the app's assets: who may frame it, and what links tell."""
        headers = [(b"content-security-policy", self._framing().encode("ascii")), _REFERRER]
        if (older := _FRAME_OPTIONS.get(self.frame_ancestors)) is not None:
            headers.append((b"x-frame-options", older))
        return headers

    def asset(self, content_type: str) -> Headers:
        """For a file of the app's assets."""
        return self.document() if content_type.partition(";")[0] in _DOCUMENTS else []

    def _framing(self) -> str:
        return "frame-ancestors " + " ".join(self.frame_ancestors)

    def _content(self, text: str, canvaskit: bool) -> str:
        page = PageScripts(text)
        cdn = [] if self.no_cdn else [FONT_CDN, _RIVE_CDN] + ([] if canvaskit else [CANVASKIT_CDN])
        scripts = ["'self'", "'wasm-unsafe-eval'", *page.sources, *self.scripts]
        if not self.no_cdn:
            scripts += [_RIVE_SCRIPT] + ([] if canvaskit else [CANVASKIT_CDN])
        directives = {
            "default-src": ["'self'"],
            "script-src": scripts,
            # Flutter writes styles into the page as it goes
            "style-src": ["'self'", "'unsafe-inline'", *self.sources],
            "img-src": ["'self'", "data:", "blob:", *self.sources],
            "font-src": ["'self'", "data:", *self.sources, *cdn],
            "media-src": ["'self'", "data:", "blob:", *self.sources],
            # the engine fetches images and fonts itself, and files that were picked by their blob: URLs
            "connect-src": ["'self'", "data:", "blob:", *self.sources, *cdn],
            "frame-src": ["'self'", *self.sources],
            # the player of video streams makes its worker from a text
            "worker-src": ["'self'", "blob:"],
            "object-src": ["'none'"],
            "base-uri": ["'self'"],
            "form-action": ["'self'"],
        }
        listed = "; ".join(f"{name} {' '.join(_merged(values))}" for name, values in directives.items())
        # a policy that is only reported cannot forbid frames; the one beside it does
        return listed if self.mode == "report" else f"{listed}; {self._framing()}"


def _merged(sources: Iterable[str]) -> list[str]:
    """Each source once; 'none' means nothing beside others, and browsers complain about it."""
    merged = list(dict.fromkeys(sources))
    return [source for source in merged if source != "'none'" or len(merged) == 1]


class PageScripts(HTMLParser):
    """The scripts that a page names or holds, as sources for `script-src`.

    The page is the operator's, from the `flet` package or `assets_dir`; what users say stands in it escaped.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self._found: dict[str, None] = {}
        self._handlers: dict[str, None] = {}
        self._script: list[str] | None = None
        # browsers hash what their parser gives them: it knows one line break only (WHATWG HTML, 13.2.3.5)
        self.feed(text.replace("\r\n", "\n").replace("\r", "\n"))
        self.close()

    @property
    def sources(self) -> list[str]:
        """Hashes of what is written into the page, addresses of what it loads from elsewhere."""
        handlers = ["'unsafe-hashes'", *self._handlers] if self._handlers else []
        return [*self._found, *handlers]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            source = dict(attrs).get("src")
            if source is None:
                self._script = []
            elif (named := _source(source)) is not None:
                self._found[named] = None
        for name, value in attrs:
            if name.startswith("on") and value:
                self._handlers[_hash(value)] = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self._script.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script is not None:
            self._found[_hash("".join(self._script))] = None
            self._script = None


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8", "replace")).digest()
    return f"'sha256-{b64encode(digest).decode('ascii')}'"


def _source(url: str) -> str | None:
    """A script's address as a source, or None if it is of the page's own origin or none at all."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    source = f"{parts.scheme or 'https'}://{parts.netloc}{parts.path}"
    usable = parts.scheme in ("", "http", "https") and parts.netloc and source.isascii() and source.isprintable()
    return source if usable and not set(source) & set(" ;,'\"") else None
