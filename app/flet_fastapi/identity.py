"""Who is who: the keys that sign, the credential a browser keeps, and the cookie that binds a session to a browser.

None of these is ever logged or used as a metric label; `short_hash` is what may be.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from itsdangerous import BadSignature, Signer, URLSafeTimedSerializer
from pydantic import SecretStr
from starlette.datastructures import QueryParams
from starlette.types import Scope

Header = tuple[bytes, bytes]

_COOKIE = "flet_browser"
_HIDDEN = "flet.hidden_query"
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{22}")
# A browser that is asleep for a month and comes back has lost its session anyway.
_COOKIE_SECONDS = 30 * 24 * 3600
# A signed credential has 22 + 1 + 12 + 1 + 43 characters; anything longer is not ours and is not worth an HMAC.
_CREDENTIAL_LENGTH = 79
_WORKER_LENGTH = 12


def new_id() -> str:
    """128 random bits in 22 URL-safe characters."""
    return secrets.token_urlsafe(16)


def new_ids(count: int) -> list[str]:
    """Several of them, for one call to the kernel."""
    entropy = secrets.token_bytes(16 * count)
    return [base64.urlsafe_b64encode(entropy[at : at + 16])[:-2].decode() for at in range(0, len(entropy), 16)]


def short_hash(secret: str | None) -> str | None:
    """Names a secret in a log without giving it away."""
    return None if secret is None else hashlib.sha256(secret.encode()).hexdigest()[:8]


def new_worker_id() -> str:
    """72 random bits: it names one start of one process."""
    return new_id()[:_WORKER_LENGTH]


class Credential(NamedTuple):
    """What the credential of a browser says: which session, and the worker that it lives in.

    `owner` is empty in those of earlier versions, which had one worker.
    """

    secret_id: str
    owner: str


class Keyring:
    """The secret keys of an app, newest first: the newest signs, all of them verify."""

    __slots__ = ("_credentials", "_keys")

    def __init__(self, keys: Sequence[str | SecretStr]) -> None:
        plain = [key.get_secret_value() if isinstance(key, SecretStr) else key for key in keys]
        # itsdangerous wants the newest last
        self._keys = plain[::-1]
        self._credentials = Signer(
            self._keys, salt="flet.credential", key_derivation="hmac", digest_method=hashlib.sha256
        )

    def __repr__(self) -> str:
        return f"Keyring({len(self._keys)} keys)"

    def serializer(self, purpose: str) -> URLSafeTimedSerializer:
        """Signs what is for `purpose` only; its `loads` takes `max_age` seconds."""
        return URLSafeTimedSerializer(
            self._keys,
            salt=f"flet.{purpose}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def fingerprint(self, text: str) -> str:
        """The same for the same text and newest key; it tells nothing of either."""
        return hmac.new(self._keys[-1].encode(), f"flet.fingerprint {text}".encode(), hashlib.sha256).hexdigest()[:32]

    def sign_credential(self, secret_id: str, owner: str = "") -> str:
        """The credential a browser keeps: opaque to it, unforgeable without a key."""
        return self._credentials.sign(f"{secret_id}.{owner}" if owner else secret_id).decode()

    def verify_credential(self, credential: str) -> Credential | None:
        """What `credential` says, or None if it was not signed with one of the keys."""
        if len(credential) > _CREDENTIAL_LENGTH:
            return None
        try:
            secret_id, _, owner = self._credentials.unsign(credential).decode().partition(".")
        except (BadSignature, UnicodeError, ValueError):
            return None
        return Credential(secret_id, owner)


def is_secure(scope: Scope) -> bool:
    """Whether the browser came over TLS, as the server (or its trusted proxy) tells."""
    return scope.get("scheme") in ("https", "wss")


def header(scope: Scope, name: bytes) -> str:
    """One request header, decoded; empty if absent."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def hide_query(scope: Scope) -> QueryParams:
    """The query of a request whose parameters are secrets, taken away from the server's access log.

    Servers write the log line from this very scope when the answer begins (uvicorn does). To call it again gives the
    same query again.
    """
    query = bytes(scope.setdefault(_HIDDEN, scope["query_string"]) or b"")
    scope["query_string"] = b""
    return QueryParams(query)


def read_browser(scope: Scope) -> str | None:
    """The browser's cookie value; a value that cannot be ours counts as none."""
    value = _cookie(scope, _cookie_name(scope))
    return value if value is not None and _COOKIE_VALUE.fullmatch(value) else None


def browser_cookie(scope: Scope, value: str) -> Header:
    """The `Set-Cookie` header that gives the browser `value` (RFC 6265bis: `__Host-` only over TLS)."""
    secure = "; Secure" if is_secure(scope) else ""
    cookie = f"{_cookie_name(scope)}={value}; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}"
    return b"set-cookie", cookie.encode("ascii")


def page_headers(scope: Scope) -> list[Header]:
    """What the entry page sets: the browser's cookie, renewed if it has one."""
    return [browser_cookie(scope, read_browser(scope) or new_id())]


def _cookie_name(scope: Scope) -> str:
    return f"__Host-{_COOKIE}" if is_secure(scope) else _COOKIE


def _cookie(scope: Scope, wanted: str) -> str | None:
    """The first cookie of this name (RFC 6265, 5.4); what else is in the headers need not be well-formed."""
    for key, header in scope["headers"]:
        if key != b"cookie":
            continue
        for pair in header.decode("latin-1").split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == wanted:
                return str(value.strip())
    return None
