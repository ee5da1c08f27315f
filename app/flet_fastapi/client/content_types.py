"""Content types by file extension: a table of our own first, so that the host's MIME table cannot break the client."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath

# a browser compiles WebAssembly while it loads only under this type, and with `nosniff` runs scripts only as scripts
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".xml": "application/xml",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".ttc": "font/collection",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".ogg": "audio/ogg",
    ".riv": "application/octet-stream",
    ".bin": "application/octet-stream",
    ".frag": "application/octet-stream",
}
_BUILT_IN = mimetypes.MimeTypes(filenames=())


def content_type(path: str) -> str:
    """The `Content-Type` of the file at `path`; `application/octet-stream` if its extension is unknown."""
    extension = PurePosixPath(path).suffix.lower()
    if extension in _TYPES:
        return _TYPES[extension]
    guessed, encoding = _BUILT_IN.guess_type("x" + extension)
    return "application/octet-stream" if guessed is None or encoding else guessed
