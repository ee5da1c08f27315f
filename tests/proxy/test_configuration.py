"""Every configuration that can come of the settings is one that nginx takes, and that a linter finds nothing in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nginx import check
from tests.support.servers import ROOT

# Together these write every line of every template.
SETTINGS: dict[str, dict[str, str]] = {
    "none": {},
    "hosts": {"NGINX_HOSTS": "app.test, *.example.test 192.0.2.7", "NGINX_PUBLIC_HTTPS_PORT": "8443"},
    "plain": {"NGINX_TLS": "off", "NGINX_TRUSTED_PROXIES": "10.0.0.0/8 2001:db8::/32"},
    "plain hosts": {"NGINX_TLS": "off", "NGINX_HOSTS": "app.test"},
    "workers": {"APP_SERVERS": "10.0.0.1:8100 10.0.0.1:8101,[::1]:8100"},
    "unlimited": {"NGINX_REQUESTS_PER_SECOND": "0", "NGINX_CONNECTIONS_PER_ADDRESS": "0", "NGINX_MAX_BODY_SIZE": "0"},
    "private": {"NGINX_LOG_CLIENT": "none", "NGINX_HSTS": "off", "NGINX_LOG_LEVEL": "crit"},
    "truncated": {"NGINX_LOG_CLIENT": "truncated", "NGINX_HSTS": "max-age=63072000; includeSubDomains; preload"},
    "two listeners": {"NGINX_LISTEN": "127.0.0.1 [::1]"},
    "empty": dict.fromkeys(["NGINX_HOSTS", "NGINX_HSTS", "NGINX_TRUSTED_PROXIES", "NGINX_WORKERS", "APP_HOST"], ""),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_nginx_takes_it(folder: Path, name: str) -> None:
    done = check(folder, **{"APP_HOST": "127.0.0.1", **SETTINGS[name]})
    assert (done.returncode, done.stderr) == (0, "")


# gixy tries regular expressions on strings that it draws at random, so what it finds may differ from run to run. With a
# seed it does not, and several seeds look in several directions.
# It warns of the post-quantum group, which an older OpenSSL refuses; that is written only where OpenSSL is new enough.
_ELSEWHERE = {"ssl_ecdh_curve"}
_SEEDED = "import random, sys; random.seed(int(sys.argv.pop(1))); from gixy.cli.main import main; main()"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_linter_finds_nothing(folder: Path, name: str) -> None:
    check(folder, **{"APP_HOST": "127.0.0.1", **SETTINGS[name]})
    for seed in range(3):
        command = [sys.executable, "-c", _SEEDED, str(seed), "-f", "json", f"{folder}/run/now/nginx.conf"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        found = [each for each in json.loads(done.stdout) if each["plugin"] not in _ELSEWHERE]
        assert found == [], done.stdout
        assert "CRITICAL" not in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_linter_reads_what_is_included(folder: Path) -> None:
    check(folder)
    (folder / "run/now/closed.conf").write_text("location /x { proxy_pass http://$arg_host; }\n")
    command = [sys.executable, "-c", _SEEDED, "0", "-f", "json", f"{folder}/run/now/nginx.conf"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)
    assert "ssrf" in {each["plugin"] for each in found}


WRONG = {
    "NGINX_HTTP_PORT": ["0", "65536", "http", "80;"],
    "NGINX_HTTPS_PORT": ["-1"],
    "NGINX_STATUS_PORT": ["x"],
    "NGINX_PUBLIC_HTTPS_PORT": ["443/"],
    "ROOST_INTERNAL_PORT": ["9000 9001"],
    "NGINX_LISTEN": ["0.0.0.0;", "::", "localhost"],
    "APP_HOST": ["app;", "$(id)", "http://app"],
    "APP_SERVERS": ["app", "app:1;", "app:http"],
    "NGINX_HOSTS": ["a.test;", "a.test:443", "https://a.test", "a{b", "$host", "~.*"],
    "NGINX_TLS": ["yes", "ON"],
    "NGINX_HSTS": ["on", "max-age=1; x", 'max-age=1"; add_header X y', "max-age=1\nx"],
    "NGINX_TRUSTED_PROXIES": ["everybody", "10.0.0.0/8;", "unix:"],
    "NGINX_MAX_BODY_SIZE": ["1 GB", "-1", "1t"],
    "FLET_MAX_UPLOAD_SIZE": ["1g", "-5"],
    "NGINX_REQUESTS_PER_SECOND": ["1.5", "many"],
    "NGINX_REQUEST_BURST": ["-1"],
    "NGINX_CONNECTIONS_PER_ADDRESS": ["70000"],
    "NGINX_READ_TIMEOUT": ["0", "60s"],
    "NGINX_WEBSOCKET_TIMEOUT": ["1"],
    "NGINX_SHUTDOWN_TIMEOUT": ["1h"],
    "NGINX_STOP_TIMEOUT": ["-1"],
    "NGINX_DISCOVERY_SECONDS": ["0"],
    "NGINX_WORKERS": ["0", "all"],
    "NGINX_WORKER_CONNECTIONS": ["1"],
    "NGINX_CACHE_SIZE": ["0", "256", "256mb"],
    "NGINX_LOG_CLIENT": ["yes"],
    "NGINX_LOG_LEVEL": ["debug", "warning"],
    "NGINX_CERTIFICATE": ["relative.pem", "/a b"],
    "NGINX_CERTIFICATE_KEY": ["/a;b"],
    "ROOST_INTERNAL_TOKEN": ['a"b', "a\nurl = x"],
    "ROOST_INTERNAL_TOKEN_FILE": ["/nowhere"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_stops_the_start_and_is_named(folder: Path, name: str, value: str) -> None:
    done = check(folder, **{name: value})
    assert done.returncode == 2
    assert f"nginx: {name}: " in done.stderr
    assert not (folder / "run/now").exists()


def test_a_certificate_without_its_key_is_an_error(folder: Path) -> None:
    assert "NGINX_CERTIFICATE_KEY: is missing" in check(folder, NGINX_CERTIFICATE="/a.pem").stderr
    assert "NGINX_CERTIFICATE: is missing" in check(folder, NGINX_CERTIFICATE_KEY="/a.pem").stderr


def test_a_token_is_not_shown_when_it_is_wrong(folder: Path) -> None:
    assert "secret-but" not in check(folder, ROOST_INTERNAL_TOKEN='secret-but"wrong').stderr


def test_the_readme_lists_every_setting_and_its_default() -> None:
    scripts = "".join((ROOT / f"nginx/scripts/{name}.sh").read_text() for name in ("settings", "acme"))
    known = dict(re.findall(r'"\$\{([A-Z_]+):=([^}"]*)\}+"', scripts))
    table = (ROOT / "nginx/README.md").read_text()
    listed: dict[str, str] = {}
    for names, default in re.findall(r"^\| (`[^|]*)\|([^|]*)\|", table, re.MULTILINE):
        values = [value.strip().strip("`") for value in default.split(",")]
        found = re.findall(r"`([A-Z_]+)`", names)
        listed.update(zip(found, values if len(values) == len(found) else values * len(found), strict=False))

    places = {"NGINX_RUN_DIR", "NGINX_CACHE_DIR", "NGINX_TLS_DIR", "NGINX_ACME_DIR", "NGINX_BINARY", "CERTBOT"}
    assert sorted(listed) == sorted(known.keys() - places - {"FLET_MAX_UPLOAD_SIZE"})
    numbers = {name: value for name, value in known.items() if re.fullmatch(r"[a-z0-9=-]+", value) and name in listed}
    shown = {name: listed[name] for name in numbers}
    assert shown == {**numbers, "NGINX_WORKERS": "CPUs"}


def test_the_scripts_are_plain_shell() -> None:
    program = shutil.which("shellcheck")
    assert program, "there is no shellcheck: scripts/install-tools installs it"
    scripts = ["entrypoint.sh", "acme.sh"]
    command = [program, "--shell=sh", "--external-sources", "--severity=style", "--exclude=SC2317", *scripts]
    done = subprocess.run(command, cwd=ROOT / "nginx/scripts", capture_output=True, text=True)
    assert done.stdout == ""
