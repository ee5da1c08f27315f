from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import BadData
from pydantic import SecretStr

from flet_fastapi.identity import Keyring, browser_cookie, new_id, new_worker_id, page_headers, read_browser, short_hash

ID = "a" * 22


def scope(*cookies: str, scheme: str = "http") -> Any:
    return {"scheme": scheme, "headers": [(b"cookie", cookie.encode("latin-1")) for cookie in cookies]}


def test_ids_differ_and_have_128_bits() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(one) for one in ids} == {22}


def test_credential_round_trip() -> None:
    keyring = Keyring(["k"])
    assert keyring.verify_credential(keyring.sign_credential(ID, "worker-1")) == (ID, "worker-1")


def test_credential_of_an_earlier_version_names_no_owner() -> None:
    keyring = Keyring(["k"])
    assert keyring.verify_credential(keyring.sign_credential(ID)) == (ID, "")


def test_credential_that_is_too_long_is_not_looked_at() -> None:
    keyring = Keyring(["k"])
    assert keyring.verify_credential(keyring.sign_credential(ID, new_worker_id()))
    assert keyring.verify_credential(keyring.sign_credential(ID, "w" * 13)) is None


def test_newest_key_signs_and_all_verify() -> None:
    old, both, new = Keyring(["old"]), Keyring(["new", SecretStr("old")]), Keyring(["new"])
    assert both.verify_credential(old.sign_credential(ID)) == (ID, "")
    assert new.verify_credential(both.sign_credential(ID)) == (ID, "")
    assert old.verify_credential(both.sign_credential(ID)) is None


@given(st.text(max_size=80))
def test_nothing_else_verifies(text: str) -> None:
    assert Keyring(["k"]).verify_credential(text) is None


def test_every_changed_character_is_noticed() -> None:
    keyring = Keyring(["k"])
    credential = keyring.sign_credential(ID)
    for at in range(len(credential) - 1):  # of the last one, two bits are padding
        changed = credential[:at] + ("A" if credential[at] != "A" else "B") + credential[at + 1 :]
        assert keyring.verify_credential(changed) is None


def test_signatures_for_one_purpose_serve_no_other() -> None:
    keyring = Keyring(["k"])
    upload = keyring.serializer("upload").dumps(ID)
    with pytest.raises(BadData):
        keyring.serializer("oauth").loads(upload)
    assert keyring.verify_credential(upload) is None


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(Keyring(["secret"]))


def test_short_hash_tells_nothing() -> None:
    assert short_hash(None) is None
    assert short_hash(ID) == short_hash(ID)
    assert len(short_hash(ID) or "") == 8


@pytest.mark.parametrize(
    "cookies",
    [
        [f"flet_browser={ID}"],
        [f"a=b; flet_browser={ID}; c=d"],
        ["a=b", f"flet_browser={ID}"],
        [f"bad cookie=\x7f; ;=;x; flet_browser={ID}"],
        [f'a="b;c"; flet_browser={ID}'],
        [f"flet_browser={ID}; flet_browser={'b' * 22}"],
        [f"\xe9=\xe9; flet_browser={ID}"],
    ],
)
def test_cookie_is_found(cookies: list[str]) -> None:
    assert read_browser(scope(*cookies)) == ID


@pytest.mark.parametrize(
    "cookies",
    [
        [],
        ["flet_browser="],
        ["flet_browser=x"],
        [f"flet_browser={ID}x"],
        [f"flet_browser={ID[:-1]}\xe9"],
        [f"xflet_browser={ID}"],
    ],
)
def test_what_cannot_be_ours_is_no_cookie(cookies: list[str]) -> None:
    assert read_browser(scope(*cookies)) is None


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_under_tls_only_the_host_cookie_counts(scheme: str) -> None:
    assert read_browser(scope(f"flet_browser={ID}", scheme=scheme)) is None
    assert read_browser(scope(f"__Host-flet_browser={ID}", scheme=scheme)) == ID


def test_cookie_attributes() -> None:
    name, plain = browser_cookie(scope(), ID)
    assert name == b"set-cookie"
    assert plain.startswith(f"flet_browser={ID}; Path=/; ".encode())
    assert b"HttpOnly" in plain
    assert b"SameSite=Lax" in plain
    assert b"Secure" not in plain
    _, secure = browser_cookie(scope(scheme="wss"), ID)
    assert secure.startswith(b"__Host-flet_browser=")
    assert b"; Secure" in secure
    assert b"Domain" not in secure


def test_page_renews_the_cookie_it_was_shown() -> None:
    ((_, cookie),) = page_headers(scope(f"flet_browser={ID}"))
    assert ID.encode() in cookie
    ((_, fresh),) = page_headers(scope("flet_browser=junk"))
    assert b"junk" not in fresh
