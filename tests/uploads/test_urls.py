"""What an upload URL is bound to."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from flet_fastapi.identity import Keyring
from flet_fastapi.uploads import UploadRefused, upload_url
from flet_fastapi.uploads.urls import Grant, read_grant

KEYS = Keyring(["k" * 32])


def token(**changes: Any) -> str:
    given = {"path": "/upload", "file_name": "f", "session_key": "s", "expires_seconds": 60, "max_size": 9, **changes}
    return parse_qs(urlsplit(upload_url(KEYS, **given)).query)["t"][0]


def read(token: str, keys: Keyring = KEYS, method: str = "PUT", path: str = "/upload") -> Grant:
    return read_grant(keys, token, method=method, paths={path})


def test_url_says_what_it_allows() -> None:
    grant = read(token(file_name="/a/\U0001f389.txt"))
    assert (grant.path, grant.file_name, grant.max_size) == ("/upload", "/a/\U0001f389.txt", 9)
    assert 50 < grant.expires - time.time() <= 60


def test_each_url_is_another_one_and_each_session_too() -> None:
    first, second, other = (read(token(session_key=key)) for key in ("s", "s", "t"))
    assert first.nonce != second.nonce
    assert first.session == second.session != other.session


@pytest.mark.parametrize(
    "change",
    [{"method": "POST"}, {"method": "put"}, {"path": "/other"}, {"path": "/one/upload"}, {"keys": Keyring(["x" * 32])}],
    ids=str,
)
def test_url_is_for_nothing_else(change: dict[str, Any]) -> None:
    with pytest.raises(UploadRefused) as refused:
        read(token(), **change)
    assert refused.value.error == "bad_signature"


def test_signature_for_something_else_is_none_for_uploads() -> None:
    claims = ["/upload", '"f"', "s" * 32, "PUT", 60, None, "nonce"]
    assert read(str(KEYS.serializer("upload").dumps(claims))).file_name == "f"
    with pytest.raises(UploadRefused, match="403"):
        read(str(KEYS.serializer("session").dumps(claims)))
