"""Signed upload URLs: what one allows, how it is made and how it is read."""

from __future__ import annotations

import hashlib
import json
import time
from typing import NamedTuple
from urllib.parse import quote

from itsdangerous import BadData
from starlette.types import Scope

from ..identity import Keyring, new_id
from .refusal import UploadRefused

METHOD = "PUT"
PARAMETER = "t"

_PURPOSE = "upload"
# A name of 1000 bytes takes up to 7000 characters of JSON, and base64 adds a third.
_TOKEN_LENGTH = 12_000
_LONGEST_SECONDS = 10 * 365 * 24 * 3600


class Grant(NamedTuple):
    """What one URL allows: one upload of one file, at one path, until `expires` (seconds since the epoch)."""

    path: str
    file_name: str
    session: str
    expires: float
    max_size: int | None
    nonce: str


def upload_url(
    keyring: Keyring,
    *,
    path: str,
    file_name: str,
    session_key: str,
    expires_seconds: int,
    max_size: int | None = None,
) -> str:
    """A URL, relative to the host, at which the browser may PUT `file_name` once.

    `path` is the endpoint's as the browser sees it, with mount path and prefix. Names are checked when the upload
    comes, because they are the browser's: a bad one must not fail the app's handler.
    """
    path = _absolute(path)
    seconds = min(max(int(expires_seconds), 0), _LONGEST_SECONDS)
    # as ASCII, because a name may hold half a surrogate pair, which no other encoding takes
    claims = [path, json.dumps(file_name), _hashed(session_key), METHOD, seconds, max_size, new_id()]
    token = keyring.serializer(_PURPOSE).dumps(claims)
    return f"{quote(path)}?{PARAMETER}={_text(token)}"


def read_grant(keyring: Keyring, token: str, *, method: str, paths: set[str]) -> Grant:
    """What `token` allows at one of `paths`.

    Raises:
        UploadRefused: `bad_signature` or `expired`.
    """
    if len(token) > _TOKEN_LENGTH:
        raise _bad_signature()
    try:
        claims, signed = keyring.serializer(_PURPOSE).loads(token, return_timestamp=True)
        path, file_name, session, signed_method, seconds, max_size, nonce = claims
    except (BadData, TypeError, ValueError):
        raise _bad_signature() from None
    if signed_method != method or path not in {_absolute(path) for path in paths}:
        raise _bad_signature()
    grant = Grant(path, json.loads(file_name), session, signed.timestamp() + seconds, max_size, nonce)
    if time.time() >= grant.expires:
        raise UploadRefused("expired", "The upload URL has expired.")
    return grant


def asked_paths(scope: Scope, proxy_path: str | None) -> set[str]:
    """What the browser may have asked for: a proxy may have taken its prefix, told or untold, off the path."""
    path, root, proxy = scope["path"], str(scope.get("root_path", "")).rstrip("/"), proxy_path or ""
    mounted = path if path.startswith(f"{root}/") else root + path
    return {path, mounted, proxy + path, proxy + mounted}


def placed_below(prefix: str, path: str) -> str:
    """`path` with `prefix` before it, unless it has it already."""
    return path if path.startswith(f"{prefix}/") else prefix + path


def _absolute(path: str) -> str:
    return "/" + path.strip("/")


def _hashed(session_key: str) -> str:
    """The URL is seen by logs and proxies; the key must not be."""
    return hashlib.sha256(session_key.encode()).hexdigest()[:32]


def _text(token: str | bytes) -> str:
    return token if isinstance(token, str) else token.decode()


def _bad_signature() -> UploadRefused:
    return UploadRefused("bad_signature", "The upload URL is not valid here.")
