from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.cluster import check_url, from_url, is_shared
from flet_fastapi.cluster.embedded import EmbeddedCluster
from flet_fastapi.cluster.redis import SharedCluster
from flet_fastapi.cluster.urls import RedisAddress, parse


def address(url: str) -> RedisAddress:
    parsed = parse(url)
    assert isinstance(parsed, RedisAddress)
    return parsed


@pytest.mark.parametrize("url", ["sqlite:///var/x.db", "sqlite:////var/x.db"])
def test_sqlite_names_an_absolute_path(url: str) -> None:
    cluster = from_url(url)
    assert isinstance(cluster, EmbeddedCluster)
    assert cluster.path == Path("/var/x.db")
    assert not is_shared(url)


ADDRESSES = {
    "redis://h": RedisAddress("single", (("h", 6379),)),
    "valkey://h:1/": RedisAddress("single", (("h", 1),)),
    "REDIS://10.0.0.1:6380/15": RedisAddress("single", (("10.0.0.1", 6380),), db=15),
    "redis://[fd00::1]:1/1": RedisAddress("single", (("fd00::1", 1),), db=1),
    "redis://[::1]": RedisAddress("single", (("::1", 6379),)),
    "redis://:secret@h": RedisAddress("single", (("h", 6379),), password="secret"),
    "redis://me:p%40ss%2F@h": RedisAddress("single", (("h", 6379),), username="me", password="p@ss/"),
    "redis://me@h": RedisAddress("single", (("h", 6379),), username="me"),
    "redis://h?prefix=a:b&socket_timeout=0.5&socket_connect_timeout=3&max_connections=2": RedisAddress(
        "single", (("h", 6379),), prefix="a:b", timeout=0.5, connect_timeout=3, max_connections=2
    ),
    "rediss://h": RedisAddress("single", (("h", 6379),), tls={"ssl_cert_reqs": "required", "ssl_check_hostname": True}),
    "rediss://h?ssl_cert_reqs=none": RedisAddress(
        "single", (("h", 6379),), tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    ),
    "unix:///run/r.sock": RedisAddress("unix", path="/run/r.sock"),
    "unix://:secret@/run/r.sock?db=3": RedisAddress("unix", path="/run/r.sock", password="secret", db=3),
    "redis+sentinel://a,b:1/m": RedisAddress("sentinel", (("a", 26379), ("b", 1)), master="m"),
    "valkey+sentinel://u:p@a/m/2?sentinel_password=s&sentinel_username=t": RedisAddress(
        "sentinel", (("a", 26379),), master="m", db=2, username="u", password="p",
        sentinel_username="t", sentinel_password="s",
    ),
    "redis+cluster://a:1,[::2]:2": RedisAddress("cluster", (("a", 1), ("::2", 2))),
    "redis+cluster://a/0": RedisAddress("cluster", (("a", 6379),)),
}  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
def test_url_of_a_redis(url: str) -> None:
    assert address(url) == ADDRESSES[url]
    assert is_shared(check_url(url))
    assert isinstance(from_url(url), SharedCluster)


REFUSED = {
    "": "must be sqlite",
    "x": "must be sqlite",
    "mysql://h": "must be sqlite",
    "redis+other://h": "must be sqlite",
    "sqlite://": "must be sqlite",
    "sqlite:///": "must be sqlite",
    "sqlite://host/x": "must be sqlite",
    "sqlite:///x?y": "must be sqlite",
    "sqlite:///%00": "must be sqlite",
    "redis://": "must name a host",
    "redis:///0": "must name a host",
    "redis://:secret@": "must name a host",
    "redis://a b": "must name a host",
    "redis://h:0": "ports",
    "redis://h:65536": "ports",
    "redis://h:x": "ports",
    "redis://h:٣": "ports",
    "redis://user:pass:word": "must name a host",
    "redis://a,b": "must name one host",
    "redis://h/x": "number of a database",
    "redis://h/0/1": "nothing more",
    "redis://h/-1": "number of a database",
    "redis://h#x": "no #",
    "redis://h/\x7f": "control characters",
    "redis://u:secret#@h": "URL-encoded",
    "redis://[::1": "URL-encoded",
    "redis://u:secret℀@h": "URL-encoded",
    "redis://h?x=1": "prefix",
    "redis://h?ssl_ca_certs=/etc/hosts": "prefix",
    "redis://h?db=1": "prefix",
    "redis://h?prefix=": "prefix",
    "redis://h?prefix={x}": "prefix",
    "redis://h?prefix=a&prefix=b": "once",
    "redis://h?max_connections=0": "max_connections",
    "redis://h?socket_timeout=0": "socket_timeout",
    "redis://h?socket_timeout=nan": "socket_timeout",
    "redis://h?socket_connect_timeout=1e9": "socket_connect_timeout",
    "rediss://h?ssl_ca_certs=/nowhere": "ssl_ca_certs must be a file",
    "rediss://h?ssl_keyfile=/etc/hosts": "ssl_certfile",
    "rediss://h?ssl_cert_reqs=maybe": "ssl_cert_reqs",
    "rediss://h?ssl_check_hostname=perhaps": "ssl_check_hostname",
    "unix://host/x": "must be unix",
    "unix://": "must be unix",
    "unix:///": "must be unix",
    "redis+sentinel://a": "master",
    "redis+sentinel://a/m/0/1": "master",
    "redis+sentinel://a/m/x": "number of a database",
    "redis+sentinel://a,/m": "must name a host",
    "redis+cluster://a/1": "no database",
}


@pytest.mark.parametrize("url", REFUSED)
def test_other_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[url]) as refused:
        check_url(url)
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, TEXT.filter(bool))
def test_any_user_and_password_may_be_encoded(username: str, password: str) -> None:
    quoted = quote(username, safe=""), quote(password, safe="")
    parsed = address(f"redis://{quoted[0]}:{quoted[1]}@h")
    assert (parsed.username or "", parsed.password) == (username, password)


@given(st.text(), st.sampled_from(["", "redis://", "rediss://h?", "redis+sentinel://", "unix://", "sqlite://"]))
def test_any_text_is_taken_or_refused(text: str, scheme: str) -> None:
    with suppress(ValueError):
        assert check_url(scheme + text) == scheme + text


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://u:secret@h/3?prefix=x", "redis://h:6379/3"),
        ("rediss://u:secret@[::1]", "rediss://[::1]:6379/0"),
        ("unix://u:secret@/run/x", "unix:///run/x"),
        ("redis+sentinel://u:secret@a,b/m?sentinel_password=secret", "redis+sentinel://a:26379,b:26379/m/0"),
        ("redis+cluster://u:secret@a", "redis+cluster://a:6379"),
    ],
)
def test_place_and_repr_show_no_password(url: str, place: str) -> None:
    assert address(url).place == place
    assert "secret" not in repr(address(url))
