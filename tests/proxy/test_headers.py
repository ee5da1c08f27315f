"""What the app hears of a client, and what the client hears back."""

from __future__ import annotations

import re

import pytest

from tests.proxy.conftest import Start
from tests.support.nginx import Nginx, fetch, raw

# Headers by which clients could pass for somebody else, and proxies in front say who somebody is.
CLAIMS = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "81",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Server": "evil.test",
    "X-Forwarded-Scheme": "http",
    "X-Forwarded-Ssl": "off",
    "X-Forwarded-Uri": "/evil",
    "X-Forwarded-Path": "/evil",
    "X-Real-IP": "1.2.3.4",
    "X-Client-IP": "1.2.3.4",
    "X-Cluster-Client-IP": "1.2.3.4",
    "True-Client-IP": "1.2.3.4",
    "CF-Connecting-IP": "1.2.3.4",
    "X-Original-URL": "/evil",
    "X-Original-Host": "evil.test",
    "X-Rewrite-URL": "/evil",
    "X-Scheme": "http",
    "X-Script-Name": "/evil",
    "Forwarded": "for=1.2.3.4;host=evil.test",
    "Front-End-Https": "off",
    "Proxy": "http://evil.test",
    "X-Request-ID": "evil-evil-evil",
}


def heard(nginx: Nginx, **headers: str) -> dict[str, list[str]]:
    """The app's view of a request: its headers by name."""
    found: dict[str, list[str]] = {}
    for name, value in fetch(f"{nginx.url}/echo", **headers).json()["headers"]:
        found.setdefault(name, []).append(value)
    return found


def test_says_who_the_client_is(proxy: Nginx) -> None:
    answer = fetch(f"{proxy.url}/echo").json()
    headers = dict(answer["headers"])

    assert (answer["client"], answer["scheme"]) == ("127.0.0.1", "https")
    assert headers["host"] == headers["x-forwarded-host"] == f"127.0.0.1:{proxy.https_port}"
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("name", CLAIMS)
def test_a_strangers_claim_is_overwritten_or_dropped(proxy: Nginx, name: str) -> None:
    claim = CLAIMS[name]
    plain, claimed = heard(proxy), heard(proxy, **{name: claim})

    assert claim not in claimed.get(name.lower(), [])
    assert len(claimed.get(name.lower(), [])) == len(plain.get(name.lower(), [])) <= 1


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For", "x_real_ip"])
def test_headers_that_only_look_like_a_claim_are_dropped(proxy: Nginx, name: str) -> None:
    request = f"GET /echo HTTP/1.1\r\nHost: a.test\r\n{name}: 1.2.3.4\r\nConnection: close\r\n\r\n"
    assert b"1.2.3.4" not in raw(proxy.https_port, request.encode())


# trusted networks, what X-Forwarded-For says, whom the app sees
REAL_IP = [
    ("", "1.2.3.4", "127.0.0.1"),
    ("10.0.0.0/8", "1.2.3.4", "127.0.0.1"),
    ("127.0.0.0/8", "1.2.3.4", "1.2.3.4"),
    ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
    ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
    ("127.0.0.1", "127.0.0.1, 1.2.3.4", "1.2.3.4"),
    ("127.0.0.1, 10.0.0.0/8", "6.6.6.6, 1.2.3.4, 10.1.1.1", "1.2.3.4"),
    ("127.0.0.1", "2001:db8::7", "2001:db8::7"),
    ("127.0.0.1", "not an address", "127.0.0.1"),
    ("127.0.0.1", "1.2.3.4, <script>", "127.0.0.1"),
    ("::1", "1.2.3.4", "127.0.0.1"),
    ("0.0.0.0/0 ::/0", "1.2.3.4", "1.2.3.4"),
]


@pytest.mark.parametrize(("trusted", "claim", "seen"), REAL_IP)
def test_the_clients_address_comes_from_a_trusted_proxy_only(start: Start, trusted: str, claim: str, seen: str) -> None:
    nginx = start(NGINX_TRUSTED_PROXIES=trusted)
    answer = fetch(f"{nginx.url}/echo", X_Forwarded_For=claim).json()
    headers = dict(answer["headers"])

    assert (answer["client"], headers["x-forwarded-for"], headers["x-real-ip"]) == (seen, seen, seen)
    assert nginx.logged(path="/echo")[0]["client"] == seen


@pytest.mark.parametrize(
    ("trusted", "claim", "scheme"),
    [("", "https", "http"), ("127.0.0.1", "https", "https"), ("127.0.0.1", "HTTPS", "https"),
     ("127.0.0.1", "https, http", "http"), ("127.0.0.1", "", "http"), ("127.0.0.1", "wss", "http")],
)  # fmt: skip
def test_behind_a_proxy_that_ends_tls_the_scheme_is_its_word(
    start: Start, trusted: str, claim: str, scheme: str
) -> None:
    nginx = start(NGINX_TLS="off", NGINX_TRUSTED_PROXIES=trusted)
    answer = fetch(f"{nginx.plain_url}/echo", X_Forwarded_Proto=claim)

    assert answer.json()["scheme"] == scheme
    assert (answer.header("Strict-Transport-Security") is not None) is (scheme == "https")


def test_each_request_has_an_id_that_app_client_and_log_share(proxy: Nginx) -> None:
    answers = [fetch(f"{proxy.url}/echo") for _ in range(2)]
    ids = [answer.header("X-Request-ID") or "" for answer in answers]

    assert [dict(answer.json()["headers"])["x-request-id"] for answer in answers] == ids
    assert all(re.fullmatch(r"[0-9a-f]{32}", identifier) for identifier in ids) and ids[0] != ids[1]
    assert proxy.logged(request_id=ids[0])


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abcd-EFGH_1234", True), ("short", False), ("a" * 65, False), ("with space", False), ('"}{"', False)],
)
def test_a_trusted_proxys_request_id_is_kept_if_it_is_one(start: Start, given: str, kept: bool) -> None:
    nginx = start(NGINX_TRUSTED_PROXIES="127.0.0.1")
    answer = fetch(f"{nginx.url}/echo", X_Request_ID=given)

    assert (answer.header("X-Request-ID") == given) is kept
    assert dict(answer.json()["headers"])["x-request-id"] == answer.header("X-Request-ID")


def test_the_apps_own_headers_arrive_once(proxy: Nginx) -> None:
    query = "X-Content-Type-Options=nosniff&Strict-Transport-Security=max-age%3D1&X-Request-ID=app&X-Powered-By=app"
    answer = fetch(f"{proxy.url}/answer?{query}&X-Own=kept")

    assert answer.header("X-Own") == "kept"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Strict-Transport-Security") == "max-age=31536000"
    assert answer.header("X-Request-ID") != "app"
    assert answer.header("X-Powered-By") is None


@pytest.mark.parametrize("path", ["/echo", "/answer?status=404", "/answer?status=500", "/metrics", "/.roost/x"])
def test_every_answer_carries_the_same_headers(proxy: Nginx, path: str) -> None:
    answer = fetch(proxy.url + path)

    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Strict-Transport-Security")
    assert answer.header("X-Request-ID")
    assert answer.header("Server") == "nginx"


def test_the_app_cannot_send_a_client_to_what_is_internal(proxy: Nginx) -> None:
    answer = fetch(f"{proxy.url}/answer?X-Accel-Redirect=/.roost/unavailable.html")
    assert (answer.status, answer.header("Content-Type")) == (200, "text/plain; charset=utf-8")


# request line and Host header, what the app takes for its host
HOSTS = [
    ("/echo", "a.test", "a.test"),
    ("/echo", "A.test:8443", "A.test:8443"),
    ("/echo", "a.test.:8443", "a.test.:8443"),
    ("/echo", "[::1]:8443", "[::1]:8443"),
    ("http://a.test/echo", "a.test:1", "a.test:1"),
    ("http://a.test/echo", "evil.test", "a.test"),
]


@pytest.mark.parametrize(("target", "host", "seen"), HOSTS)
def test_one_host_is_passed_on(proxy: Nginx, target: str, host: str, seen: str) -> None:
    answer = raw(proxy.https_port, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert re.findall(rb'\["host", ?"([^"]*)"\]', answer) == [seen.encode()]


def test_paths_and_queries_reach_the_app_as_they_are(proxy: Nginx) -> None:
    target = "/a//b/%2e%2e/c%2Fd/../e;f=1/%E4%BD%A0?x=%2F&y=a+b"
    answer = raw(proxy.https_port, f"GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".encode())

    path, _, query = target.partition("?")
    assert f'"path":"{path}","query":"{query}"'.encode() in answer.replace(b'": "', b'":"').replace(b'", "', b'","')
