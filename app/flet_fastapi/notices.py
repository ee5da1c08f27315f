"""Small pages that tell a person what happened and what to do: no part of an app, no source but themselves."""

from __future__ import annotations

import hashlib
import html
from base64 import b64encode
from functools import cache

from starlette.responses import HTMLResponse, Response

# The URL of such a page may hold a code or a state: nobody stores it, nobody is told about it.
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# An opaque origin: scripts of the app's page run, and may close their window, but cannot reach what the browser keeps
# for the app's origin (the session's credential), should something foreign ever get into that page.
_SANDBOX = "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation"
_APP_SOURCES = (
    "script-src 'unsafe-inline'; style-src 'unsafe-inline' https:; img-src 'self' https: data:; font-src https: data:"
)

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1.5rem;color:#1c1b1f;"
    "background:#fff}h1{font-size:1.4rem}blockquote{margin:1rem 0;padding:.5rem 1rem;border-left:4px solid #888}"
    "@media(prefers-color-scheme:dark){body{color:#e6e1e5;background:#1c1b1f}}"
)
_CLOSE = "window.close()"


def notice(status: int, title: str, text: str, *, quote: str = "", close: bool = False) -> Response:
    """A page with a heading, a sentence, and perhaps somebody else's words; all three are escaped here.

    With `close` its window closes itself, if a script opened it.
    """
    words = f"<blockquote>{html.escape(quote)}</blockquote>" if quote else ""
    script = f"<script>{_CLOSE}</script>" if close else ""
    content = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>{words}<p>{html.escape(text)}</p>{script}</body></html>"
    )
    return HTMLResponse(content, status, {**_HEADERS, "Content-Security-Policy": _policy()})


def apps_page(content: str) -> Response:
    """A page that the app wrote, in a sandbox."""
    policy = f"{_NOTHING}; {_APP_SOURCES}; {_SANDBOX}"
    return HTMLResponse(content, 200, {**_HEADERS, "Content-Security-Policy": policy})


@cache
def _policy() -> str:
    return f"{_NOTHING}; script-src {_hash(_CLOSE)}; style-src {_hash(_STYLE)}"


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
