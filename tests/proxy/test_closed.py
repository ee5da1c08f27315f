"""What is for the inside is not there from outside, however it is spelt."""

from __future__ import annotations

import pytest

from tests.support.nginx import Nginx, fetch, raw

NAMES = ["metrics", "livez", "readyz", "startupz", "slots"]
SPELLINGS = [
    "/{name}", "/{name}/", "/{name}?x=1", "//{name}", "///{name}//", "/{name}.", "/{name}...", "/{name}/.", "/./{name}",
    "/a/../{name}", "/a/%2e%2e/{name}", "/%2e/{name}", "/{name}%2f", "/%2f{name}", "/{name}%2e", "/{name}%20",
    "/{name};a=b", "/{name}/;a", "/{name}%5c", "/{name}%09", "/{name}%0a", "/{encoded}", "/{upper}", "/a/..//{name}#x",
]  # fmt: skip


def status(nginx: Nginx, target: str, *, tls: bool = True) -> int:
    port = nginx.https_port if tls else nginx.http_port
    answer = raw(port, f"GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".encode(), tls=tls)
    return int(answer.split()[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_inside_is_closed(proxy: Nginx, name: str) -> None:
    encoded = "".join(f"%{ord(letter):02x}" for letter in name)
    targets = [spelling.format(name=name, encoded=encoded, upper=name.upper()) for spelling in SPELLINGS]

    assert {target: status(proxy, target) for target in targets} == dict.fromkeys(targets, 404)
    assert not [line for line in proxy.lines(status=404) if line["upstream"]]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_closed_without_tls_too(proxy: Nginx, name: str) -> None:
    assert status(proxy, f"/{name}", tls=False) == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
def test_it_is_closed_to_every_method(proxy: Nginx, method: str) -> None:
    assert fetch(f"{proxy.url}/metrics", method=method).status == 404


@pytest.mark.parametrize("path", ["/metrics-of-mine", "/metrics/day", "/my/metrics", "/livezz", "/slots_", "/metric"])
def test_the_apps_own_pages_are_not(proxy: Nginx, path: str) -> None:
    assert fetch(proxy.url + path).json()["path"] == path


@pytest.mark.parametrize("path", ["/.roost/unavailable.html", "/.roost/", "/.roost/../x/../.roost/too_many.txt"])
def test_nginxs_own_files_are_not_pages(proxy: Nginx, path: str) -> None:
    assert status(proxy, path) == 404


@pytest.mark.parametrize("path", ["/stub_status", "/nginx_status", "/status"])
def test_the_status_is_at_its_own_port_only(proxy: Nginx, path: str) -> None:
    assert fetch(proxy.url + path).json()["path"] == path
    assert proxy.status()["requests"] > 0
    assert fetch(f"http://127.0.0.1:{proxy.status_port}/echo").status == 404
