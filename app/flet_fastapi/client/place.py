"""Where an app stands in the URL space of the browser, and which path below it a request names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

# RFC 3986 path characters that need no escape; `%` is not one of them: scope paths are already decoded.
_SAFE = "/:@!$&'()*+,;=~-._"


def base_path(
    root_path: str, *, server_root: str | None = None, app_mount_path: str = "", proxy_path: str | None = None
) -> str:
    """The browser's path of the app, with a slash at both ends, percent-encoded: what `<base href>` must say.

    `root_path` is the ASGI one: the server's own prefix and all mounts. `server_root` is the part of it that the
    server knew (uvicorn's `--root-path`; starlette keeps it as `app_root_path`), by default all of it.
    `app_mount_path` is the path the app was told it has; whatever of it `root_path` already says is not repeated.
    `proxy_path` is what a proxy stripped; it comes first unless the server or `app_mount_path` already has it.
    """
    here, mount, proxy = _clean(root_path), _clean(app_mount_path), _clean(proxy_path or "")
    outer = _clean(root_path if server_root is None else server_root)
    if mount.endswith(here) and len(mount) > len(here):
        outer, here = outer or mount.removesuffix(here), mount
    elif not here.endswith(mount):
        here += mount
    if not _within(outer, proxy):
        here = proxy + here
    return quote(here, safe=_SAFE, errors="replace") + "/"


def scope_base(scope: Mapping[str, Any], app_mount_path: str = "", proxy_path: str | None = None) -> str:
    """`base_path()` of the app that answers this request."""
    return base_path(
        scope.get("root_path", ""),
        server_root=scope.get("app_root_path"),
        app_mount_path=app_mount_path,
        proxy_path=proxy_path,
    )


def websocket_path(
    scope: Mapping[str, Any], *, endpoint: str, absolute: str | None, app_mount_path: str, proxy_path: str | None
) -> str:
    """The browser's path of the websocket: `endpoint` below the app, or `absolute` below what the outside added."""
    if absolute is None:
        return scope_base(scope, app_mount_path, proxy_path) + quote(endpoint, safe=_SAFE)
    server_root = scope.get("app_root_path", scope.get("root_path", ""))
    outside = base_path(server_root, proxy_path=proxy_path).rstrip("/")
    path = quote(_clean(absolute), safe=_SAFE)
    return path if _within(path, outside) else outside + path


def route_path(scope: Mapping[str, Any], app_mount_path: str = "") -> str:
    """The request's path below the app; starts with a slash."""
    path: str = scope["path"]
    for prefix in (scope.get("root_path", "").rstrip("/"), _clean(app_mount_path)):
        if prefix and _within(path, prefix):
            path = path[len(prefix) :]
            break
    return path or "/"


def segments(path: str) -> tuple[str, ...] | None:
    """The names in `path` if it can name a file below a directory, else None.

    Refused are `..` and `.`, NUL and backslash, empty names (`//etc`), a trailing slash and names that start with a
    dot (`.env`, `.git`), except `.well-known` (RFC 8615).
    """
    names = tuple(path.removeprefix("/").split("/"))
    if any(_hidden(name) for name in names) or "\0" in path or "\\" in path:
        return None
    return names


def has_encoded_separator(scope: Mapping[str, Any]) -> bool:
    """Whether the browser wrote a slash or backslash as `%2F` or `%5C`: such a path names a route, never a file."""
    raw = scope.get("raw_path")
    return raw is not None and any(code in raw.lower() for code in (b"%2f", b"%5c"))


def _hidden(name: str) -> bool:
    return not name or (name.startswith(".") and name != ".well-known")


def _clean(path: str) -> str:
    # one leading slash and no more: "//host" in a base href would be another host
    stripped = path.strip("/")
    return "/" + stripped if stripped else ""


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/") or not prefix
