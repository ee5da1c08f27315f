"""What nginx keeps: the web client's files, and what else the app says may be shared; never anything else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.proxy.conftest import PROGRAMS
from tests.support.nginx import Nginx, fetch, nginx_folder, nginx_server, wait_for
from tests.support.servers import uvicorn_server

BUILD = "/_b/0123456789abcdef"


def is_kept(nginx: Nginx, path: str, **headers: str) -> bool:
    """Whether the second of two equal requests is answered without the app, which never says the same twice."""
    return fetch(nginx.url + path, **headers).body == fetch(nginx.url + path, **headers).body


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ("Cache-Control=public, max-age=60", True),
        ("Cache-Control=max-age=60", True),
        ("Cache-Control=public, max-age=60&Vary=Accept-Encoding", True),
        ("Cache-Control=s-maxage=60, max-age=0", True),
        ("", False),
        ("Cache-Control=no-cache", False),
        ("Cache-Control=no-store", False),
        ("Cache-Control=private, max-age=60", False),
        ("Cache-Control=public, max-age=0", False),
        ("Cache-Control=public, max-age=60&Set-Cookie=a=1", False),
        ("Cache-Control=public, max-age=60&Vary=*", False),
        ("Cache-Control=public, max-age=60&size=40000000", False),
        ("ETag=\"x\"", False),
    ],
)  # fmt: skip
def test_only_what_the_app_marks_is_kept(proxy: Nginx, headers: str, kept: bool) -> None:
    query = headers.replace(" ", "%20")
    assert is_kept(proxy, f"/answer?{query}") is kept


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer x"}, {"Range": "bytes=0-3"}, {"If-None-Match": '"x"'},
     {"If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT"}],
)  # fmt: skip
def test_a_request_that_is_no_plain_read_goes_to_the_app(proxy: Nginx, headers: dict[str, str]) -> None:
    path = "/answer?Cache-Control=public,%20max-age=60&X=plain"
    assert is_kept(proxy, path)
    assert not is_kept(proxy, path, **headers)


@pytest.mark.parametrize("name", ["If-None-Match", "If-Modified-Since", "Range", "If-Range", "If-Match"])
def test_conditions_and_ranges_reach_the_app(proxy: Nginx, name: str) -> None:
    assert [name.lower(), "x"] in fetch(f"{proxy.url}/echo", **{name: "x"}).json()["headers"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_reads_are_kept(proxy: Nginx, method: str) -> None:
    url = f"{proxy.url}/answer?Cache-Control=public,%20max-age=60&m={method}"
    assert fetch(url, method=method, body=b"").body != fetch(url, method=method, body=b"").body


@pytest.mark.parametrize("name", ["Accept-Encoding", "Cookie", "Accept-Language", "Origin"])
def test_answers_that_vary_are_kept_apart(proxy: Nginx, name: str) -> None:
    url = f"{proxy.url}/answer?Cache-Control=public,%20max-age=60&Vary={name}"
    bodies = [fetch(url, **{name: value}).body for value in ("br", "gzip", "br", "gzip")]

    assert bodies[0] == bodies[2] != bodies[1] == bodies[3]


@pytest.mark.parametrize("names", [("Accept-Encoding", "Cookie"), ("Cookie", "Accept-Encoding"), ("Origin", "Accept")])
def test_several_vary_headers_count(proxy: Nginx, names: tuple[str, str]) -> None:
    query = "&".join(f"Vary={name}" for name in names)
    url = f"{proxy.url}/doubled?Cache-Control=public,%20max-age=60&{query}"
    name = next(name for name in names if name in ("Cookie", "Origin"))
    assert fetch(url, **{name: "a"}).body != fetch(url, **{name: "b"}).body


def test_an_unmarked_coding_is_not_given_to_a_client_that_did_not_ask_for_it(proxy: Nginx) -> None:
    url = f"{proxy.url}/answer?Cache-Control=public,%20max-age=60&Content-Encoding=br"
    assert fetch(url, Accept_Encoding="br").body != fetch(url, Accept_Encoding="identity").body


def test_hosts_are_kept_apart(proxy: Nginx) -> None:
    url = f"{proxy.url}/answer?Cache-Control=public,%20max-age=60&X=host"
    assert fetch(url, Host="a.test").body == fetch(url, Host="a.test").body != fetch(url, Host="b.test").body


@pytest.mark.parametrize("second", ["set-cookie", "Set-Cookie"])
def test_a_page_that_sets_a_cookie_is_never_anybody_elses(proxy: Nginx, second: str) -> None:
    url = f"{proxy.url}/doubled?Cache-Control=public,%20max-age=60&{second}=a=1&{second}=b=2"
    answers = [fetch(url) for _ in range(3)]

    assert len({answer.body for answer in answers}) == 3
    assert all(answer.all("Set-Cookie") == ["a=1", "b=2"] for answer in answers)


def test_a_build_file_is_asked_for_once_by_all_who_want_it_at_once(proxy: Nginx) -> None:
    url = f"{proxy.url}{BUILD}/stampede.js"
    with ThreadPoolExecutor(20) as pool:
        bodies = set(pool.map(lambda _: fetch(url, Accept_Encoding="gzip, deflate, br, zstd").body, range(20)))
    assert len(bodies) == 1


# what clients send, what the app is asked for
CODINGS = [
    ("gzip, deflate, br, zstd", "br"),
    ("gzip, deflate, br", "br"),
    ("br", "br"),
    ("BR,GZIP", "br"),
    ("gzip, deflate", "gzip"),
    ("gzip", "gzip"),
    ("identity", "identity"),
    ("", "identity"),
    ("zstd", "identity"),
    ("brotli", "identity"),
    ("br;q=0, gzip", "br;q=0, gzip"),
    ("*", "*"),
    ("identity;q=0", "identity;q=0"),
]


@pytest.mark.parametrize(("sent", "asked"), CODINGS)
def test_a_build_file_is_asked_for_in_few_spellings(proxy: Nginx, sent: str, asked: str) -> None:
    body = fetch(f"{proxy.url}{BUILD}/coding.js", Accept_Encoding=sent).body.decode()
    assert body.split(" ", 2)[2] == asked


def test_a_build_file_is_kept_for_each_coding_whatever_the_query(proxy: Nginx) -> None:
    bodies: dict[str, set[bytes]] = {"br": set(), "gzip": set(), "identity": set()}
    for query in ("", "?x=1", "?x=2"):
        for coding, found in bodies.items():
            answer = fetch(f"{proxy.url}{BUILD}/once.js{query}", Accept_Encoding=coding)
            assert answer.header("Content-Encoding") == (None if coding == "identity" else coding)
            found.add(answer.body)
    assert [len(found) for found in bodies.values()] == [1, 1, 1]


def test_answers_are_never_compressed_here(proxy: Nginx) -> None:
    answer = fetch(f"{proxy.url}/answer?size=100000&Content-Type=text/html", Accept_Encoding="gzip, br")
    assert (answer.header("Content-Encoding"), len(answer.body)) == (None, 100_000)


def test_a_range_of_a_kept_file_comes_from_the_cache(proxy: Nginx) -> None:
    url = f"{proxy.url}{BUILD}/range.js"
    whole, part = fetch(url), fetch(url, Range="bytes=0-3")
    assert (part.status, part.body) == (206, whole.body[:4])


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Nginx]:
    """An nginx whose app has given one file of its build, and then ended."""
    with nginx_folder() as folder:
        with uvicorn_server("echo:app", PROGRAMS, tmp_path / "log") as server:
            running = nginx_server(folder, APP_SERVERS=f"127.0.0.1:{server.port}")
            nginx = running.__enter__()
            assert fetch(f"{nginx.url}{BUILD}/kept.js").status == 200
        try:
            yield nginx
        finally:
            running.__exit__(None, None, None)


def test_a_kept_file_is_there_while_the_app_is_not(stopped: Nginx) -> None:
    wait_for(lambda: fetch(f"{stopped.url}/echo").status == 502, "the app is gone")
    assert fetch(f"{stopped.url}{BUILD}/kept.js").status == 200
    assert fetch(f"{stopped.url}{BUILD}/never-asked.js").status == 502


def test_a_stream_is_passed_on_as_it_comes(proxy: Nginx) -> None:
    import urllib.request

    from tests.support.nginx import trusting

    with urllib.request.urlopen(f"{proxy.url}/stream", timeout=20, context=trusting()) as answer:
        assert answer.readline() == b"data: first\n"
