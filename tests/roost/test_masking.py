"""Secrets that others forgot do not get into a line; what is none stays readable."""

from __future__ import annotations

import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.masking import MASK, Masks, hides, hiding

SECRET = "Hq7-xY2_kLm9Zp0aBcD4Ef"
HEX = "0123456789abcdef" * 2
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"

TEXTS = [
    "redis://:{}@cache:6379/0",
    "rediss://user:{}@cache/0",
    "redis://:a/b?c#d@{}@cache:6379/0",
    "sentinel tried redis+sentinel://u:{}@a:1,b:2/x",
    "postgresql+asyncpg://user:{}@db/app",
    "cannot reach https://user:{}@host/path",
    "user:{}@db.internal refused",
    'PUT "/upload?t={}" 413',
    "PUT /upload?{} HTTP/1.1",
    "https://app.example.com/oauth_callback?code={}&state=x",
    "https://app.example.com/oauth_callback?state=x&code={}#fragment",
    "redirect=https%3A%2F%2Fhost%2Fcb%3Fcode%3D{}",
    "token={}",
    "access_token={}&expires_in=3600",
    "refresh_token: {}",
    "{{'password': '{}', 'user': 'ann'}}",
    '{{"client_secret": "{}", "user": "ann"}}',
    'body="{{\\"id_token\\": \\"{}\\"}}"',
    "Login(user='ann', password='{}')",
    "Cookie: theme=dark; __Host-flet_browser={}",
    "Set-Cookie: a={}; Path=/; HttpOnly",
    "[(b'host', b'x'), (b'cookie', b'a={}')]",
    "{{'authorization': 'Bearer {}'}}",
    "Authorization: Bearer {}",
    "authorization=Basic {}",
    "sent Bearer {} to the API",
    "X-Api-Key: {}",
    "AWS_SECRET_ACCESS_KEY={}",
    "X-Amz-Signature={}",
    "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}",
    "it was {} all along",
    "/reset/{}/now",
    "key-{}-x",
    "{}.sig",
]


@pytest.mark.parametrize("template", TEXTS)
@pytest.mark.parametrize("secret", [SECRET, JWT, "dXNlcjpwYXNzd29yZDEyMzQ1Njc4OTA="])
def test_secrets_in_texts_are_masked(template: str, secret: str) -> None:
    masked = Masks().text(template.format(secret))
    assert secret not in masked
    assert secret[:12] not in masked
    assert secret[-12:] not in masked


@pytest.mark.parametrize("template", [text for text in TEXTS if text.count("{") != 1 or text[:2] in ("re", "to", "po")])
def test_simple_passwords_are_masked_where_the_text_says_what_they_are(template: str) -> None:
    assert "hunter22" not in Masks().text(template.format("hunter22"))


@pytest.mark.parametrize(
    "secret",
    ["AKIAIOSFODNN7EXAMPLE", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
     "xoxb-17653672481-19874698323", "GOCSPX-abcdefghijkl", "ya29.a0AfH6SMBxQ2w", JWT],
)  # fmt: skip
def test_tokens_of_known_services_are_masked(secret: str) -> None:
    assert Masks().text(f"got {secret}, why") == f"got {MASK}, why"


@pytest.mark.parametrize(
    "text",
    [
        "Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)",
        "Started server process [4711]",
        "the code=1006 of connection 12",
        "state=connected",
        "no secret_key is set: one was made for this server, and signed URLs and sessions end with it",
        "token: expired",
        "password=None",
        "what? no: that is basic knowledge",
        "/usr/lib/python3.11/site-packages/uvicorn/protocols/http/httptools_impl.py:416",
        "/666081662835f575/canvaskit/canvaskit.wasm",
        "flet_fastapi.generations.classic.ClassicGeneration failed in CupertinoActivityIndicatorTheme",
        "FLET_MAX_CONNECTIONS_PER_ADDRESS is 1000",
        "0b3c4d5e-1111-2222-3333-444455556666",
        "Task exception was never retrieved: <Task finished name='Task-3' coro=<f() done, defined at /x/y.py:3>>",
        "2026-01-01T00:00:00.123Z",
        "app-7d9f8b6c5d-x2x4z.default.svc.cluster.local",
        "Grüße aus Köln, 北京 and 😀",
        "error=[Errno 28] No space left on device: '/data/uploads/report 2026.pdf'",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert Masks().text(text) == text


def test_a_digest_keeps_its_beginning() -> None:
    assert Masks().text(f"sha256:{HEX}{HEX}") == f"sha256:01234567{MASK}"


def test_known_secrets_are_masked_whatever_they_look_like() -> None:
    masks = Masks(["correct horse", "correct horse battery", "abc"])
    assert masks.text("the correct horse battery and abc") == f"the {MASK} and abc"


def test_random_names_are_left_where_ids_are_expected() -> None:
    assert Masks().text(SECRET, ids=True) == SECRET


def test_of_random_secrets_hardly_one_is_overlooked() -> None:
    masks = Masks()
    assert sum(masks.text(secrets.token_urlsafe(15)) != MASK for _ in range(2000)) < 60
    for size in (16, 32):
        assert sum(masks.text(secrets.token_urlsafe(size)) != MASK for _ in range(5000)) < 4


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("password", "x", True), ("db_password", "x", True), ("Authorization", "x", True), ("set-cookie", b"x", True),
        ("cookies", {"a": 1}, True), ("api_key", "x", True), ("session_id", "x", True), ("session_key", "x", True),
        ("clientSecret", "x", True), ("query_string", b"x", True), ("csrf_token", "x", True), ("pin_token", 1234, True),
        ("password", 1234, True), ("tokens", 12, False), ("password", None, False), ("token", True, False),
        ("token", "", False), ("token", "missing", False), ("code", 1006, False), ("code", "4/0AbC-xyz", True),
        ("state", "connected", False), ("state", "aB3dE6gH9", True), ("session", "0a1b2c3d", False),
        ("path", "/token", False), ("request_id", "abcdefgh", False),
    ],
)  # fmt: skip
def test_values_are_hidden_by_their_names(name: str, value: object, hidden: bool) -> None:
    assert hides(hiding(name), value) is hidden


UNITS = [
    "a", "A1b", "?", "=", "/", "://", "://@", "redis://", "redis://@", "password", "password=", "password='", "cookie:",
    '"token",', "\\", "'", '"', "[", "{", "(", "a:bcd@", "eyJ", "eyJa.", "-----BEGIN PRIVATE KEY-----", "-----END",
    "bearer aaaaaaa ", "a.", "a-", "x-amz-", "x-amz-a", "code=", "%3d", "%3f", "password = ", "cookie: x\n", "code='\\",
    "/a?", "session-id", "_", "=a",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_time_grows_with_the_length_alone(unit: str) -> None:
    text = (unit * 64_000)[:64_000]
    began = time.thread_time()
    Masks().text(text)
    # it takes a tenth of a second at most; growing with the square it would take more than ten
    assert time.thread_time() - began < 2


@given(st.text())
def test_any_text_can_be_masked(text: str) -> None:
    Masks().text(text)
    hiding(text)
