"""A certificate by ACME, from a real authority on this machine, with the script that the container runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.proxy.test_tls import certificate, modes, serial, serial_in
from tests.support.nginx import Nginx, as_its_user, fetch, nginx_folder, nginx_server, wait_for
from tests.support.servers import Server, free_port

HOSTS = ["app.test", "www.app.test"]
_START_SECONDS = 30


@dataclass
class Authority:
    """A running pebble, and the certificate of its own server."""

    port: int
    certificate: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/dir"


@contextmanager
def process(*command: str, **variables: str) -> Iterator[None]:
    running = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        running.terminate()
        running.wait(20)


@contextmanager
def pebble(folder: Path, http_port: int) -> Iterator[Authority]:
    """An authority for which all names are this machine, and port 80 is `http_port`."""
    dns, port, unused = free_port(), free_port(), free_port()
    own = folder / "authority"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", f"{own}.key", "-out", f"{own}.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    Path(f"{own}.pem").chmod(0o644)
    configuration = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{unused}",
        "certificate": f"{own}.pem",
        "privateKey": f"{own}.key",
        "httpPort": http_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))
    with ExitStack() as stack:
        names = ["-dns01", f"127.0.0.1:{dns}", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1", "-management", ""]
        stack.enter_context(process("pebble-challtestsrv", *names, "-http01", "", "-https01", "", "-tlsalpn01", ""))
        server = ["-config", f"{folder}/pebble.json", "-dnsserver", f"127.0.0.1:{dns}"]
        stack.enter_context(process("pebble", *server, PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0"))
        authority = Authority(port, Path(f"{own}.pem"))
        wait_for(lambda: _answers(authority), "the authority answers", _START_SECONDS)
        yield authority


def _answers(authority: Authority) -> bool:
    with suppress(OSError):
        return fetch(authority.url).status == 200
    return False


def acme(nginx: Nginx, authority: Authority, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`acme.sh once`: what the container does twice a day."""
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(nginx.folder),
        "TMPDIR": f"{nginx.folder}/run",
        "NGINX_ACME_DIR": f"{nginx.folder}/acme",
        "ACME_HOSTS": ", ".join(HOSTS),
        "ACME_SERVER": authority.url,
        "REQUESTS_CA_BUNDLE": str(authority.certificate),
    }
    return subprocess.run(
        [f"{nginx.folder}/nginx/scripts/acme.sh", "once", *arguments], env=variables, cwd=nginx.folder,
        capture_output=True, text=True, timeout=100, **as_its_user(),
    )  # fmt: skip


@pytest.fixture
def nginx(echo: Server) -> Iterator[Nginx]:
    settings = {"NGINX_HOSTS": " ".join(HOSTS), "APP_SERVERS": f"127.0.0.1:{echo.port}"}
    with nginx_folder() as folder, nginx_server(folder, **settings) as nginx:
        yield nginx


def test_a_certificate_is_got_and_renewed_and_nginx_takes_it_up(nginx: Nginx) -> None:
    first = serial(nginx, "app.test")
    with pebble(nginx.folder, nginx.http_port) as authority:
        done = acme(nginx, authority)
        assert done.returncode == 0, done.stdout + done.stderr
        issued = wait_for(lambda: (now := serial(nginx, "app.test")) != first and now, "the certificate is there")
        keys = {name: mode for name, mode in modes(nginx.folder / "acme").items() if "privkey" in name}
        assert keys and all(mode in ("0o600", "0o777") for mode in keys.values())  # 777: links

        assert acme(nginx, authority).returncode == 0
        assert serial(nginx, "app.test") == issued  # it was not time

        assert acme(nginx, authority, "--force-renewal").returncode == 0
        wait_for(lambda: serial(nginx, "app.test") not in (first, issued), "the renewed one is there")
    assert not nginx.lines(event="configuration_refused")


def test_a_challenge_is_answered_over_plain_http(nginx: Nginx) -> None:
    place = nginx.folder / "acme/www/.well-known/acme-challenge"
    place.mkdir(parents=True)
    (place / "token").write_text("answer")
    url = f"{nginx.plain_url}/.well-known/acme-challenge"

    assert fetch(f"{url}/token", Host="app.test").body == b"answer"
    assert fetch(f"{url}/other", Host="app.test").status == 404
    assert fetch(f"{url}/../../../live/x", Host="app.test").status != 200


def test_a_provided_certificate_goes_before_one_of_acme(nginx: Nginx) -> None:
    certificate(nginx.folder, "acme/live/roost")
    wait_for(lambda: serial(nginx, "app.test") == serial_in(nginx.folder / "acme/live/roost"), "ACME's is there")
    certificate(nginx.folder, "tls")
    wait_for(lambda: serial(nginx, "app.test") == serial_in(nginx.folder / "tls"), "the provided one is there")


def test_without_host_names_there_is_nothing_to_ask_for(folder: Path) -> None:
    command = [f"{folder}/nginx/scripts/acme.sh", "once"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 2 and "ACME_HOSTS" in done.stderr
