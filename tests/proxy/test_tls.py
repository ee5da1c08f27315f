"""TLS as testssl.sh and SSL Labs want it for an A+, and the certificates it is made with."""

from __future__ import annotations

import datetime
import os
import subprocess
import urllib.error
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.proxy.conftest import Start
from tests.support.nginx import NGINX, Nginx, check, fetch, give, nginx_server, raw, tls_connection, wait_for
from tests.support.servers import Server


def shake(nginx: Nginx, *arguments: str, name: str = "localhost") -> str:
    """What `openssl s_client` says; at the lowest level, so that it is nginx that refuses."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{nginx.https_port}", "-servername", name, *arguments]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


WEAK = ["-cipher", "ALL:@SECLEVEL=0"]
PROTOCOLS = {"-tls1": False, "-tls1_1": False, "-tls1_2": True, "-tls1_3": True}


@pytest.mark.parametrize("version", PROTOCOLS)
def test_protocols(proxy: Nginx, version: str) -> None:
    said = shake(proxy, version, *WEAK)
    assert ("Cipher is (NONE)" not in said and "Server certificate" in said) is PROTOCOLS[version], said


def test_protocols_are_the_same_where_hosts_are_named(start: Start) -> None:
    nginx = start(NGINX_HOSTS="app.test")
    spoken = {version: "Server certificate" in shake(nginx, version, *WEAK, name="app.test") for version in PROTOCOLS}
    assert spoken == PROTOCOLS


CIPHERS = {
    "ECDHE-ECDSA-AES256-GCM-SHA384": True,
    "ECDHE-ECDSA-AES128-GCM-SHA256": True,
    "ECDHE-ECDSA-CHACHA20-POLY1305": True,
    "ECDHE-ECDSA-AES256-SHA384": False,
    "ECDHE-ECDSA-AES128-SHA": False,
    "ECDHE-ECDSA-AES128-CCM8": False,
    "ECDHE-ECDSA-NULL-SHA": False,
    "DHE-RSA-AES256-GCM-SHA384": False,
    "ADH-AES256-GCM-SHA384": False,
    "AECDH-AES256-SHA": False,
    "AES256-GCM-SHA384": False,
    "PSK-AES256-GCM-SHA384": False,
}


@pytest.mark.parametrize("cipher", CIPHERS)
def test_ciphers_of_tls_1_2(proxy: Nginx, cipher: str) -> None:
    said = shake(proxy, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert (f"Cipher is {cipher}" in said) is CIPHERS[cipher], said


@pytest.mark.parametrize(
    ("group", "spoken"), [("X25519", True), ("P-256", True), ("P-384", True), ("ffdhe2048", False)]
)
def test_key_exchange(proxy: Nginx, group: str, spoken: bool) -> None:
    assert ("Cipher is TLS_AES" in shake(proxy, "-tls1_3", "-groups", group)) is spoken


def test_tickets_compression_and_renegotiation_are_off(proxy: Nginx) -> None:
    said = shake(proxy, "-tls1_2")
    assert "TLS session ticket" not in said
    assert "Compression: NONE" in said
    assert "Secure Renegotiation IS supported" in said  # RFC 5746: signalled; nginx refuses a client's


def test_http_2_and_http_1_1_are_offered_and_2_preferred(proxy: Nginx) -> None:
    assert "ALPN protocol: h2" in shake(proxy, "-alpn", "http/1.1,h2")
    assert "ALPN protocol: http/1.1" in shake(proxy, "-alpn", "http/1.1")


def test_a_page_comes_by_http_2(proxy: Nginx) -> None:
    command = ["curl", "-sk", "--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"{proxy.url}/echo"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30).stdout == "2 200"


@pytest.mark.parametrize(
    ("setting", "header"),
    [
        ("", "max-age=31536000"),
        ("max-age=63072000; includeSubDomains; preload", "max-age=63072000; includeSubDomains; preload"),
        ("off", None),
    ],
)
def test_hsts_is_a_setting(start: Start, setting: str, header: str | None) -> None:
    nginx = start(NGINX_HSTS=setting)
    assert fetch(nginx.url).header("Strict-Transport-Security") == header
    assert fetch(nginx.plain_url).header("Strict-Transport-Security") is None


@pytest.mark.parametrize("path", ["/", "/a/b?x=1&y=%2F", "/.well-known/other", "/ws"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_plain_http_is_sent_to_tls(proxy: Nginx, path: str, method: str) -> None:
    answer = fetch(proxy.plain_url + path, method=method, body=b"x" if method == "POST" else None)
    assert (answer.status, answer.header("Location")) == (301, f"https://127.0.0.1:{proxy.https_port}{path}")


def test_the_redirect_names_no_port_if_it_is_the_usual_one(start: Start, folder: Path) -> None:
    assert check(folder, NGINX_PUBLIC_HTTPS_PORT="443").returncode == 0
    assert "return 301 https://$host$request_uri;" in (folder / "run/now/servers-tls.conf").read_text()


def test_plain_http_at_the_port_of_tls_is_sent_to_tls(proxy: Nginx) -> None:
    answer = raw(proxy.https_port, b"GET /a?b HTTP/1.1\r\nHost: a.test:1\r\nConnection: close\r\n\r\n", tls=False)
    assert b"Location: https://a.test:1/a?b\r\n" in answer


# --- hosts ------------------------------------------------------------------------------------------------------------


def test_named_hosts_are_answered_and_others_are_not(start: Start) -> None:
    nginx = start(NGINX_HOSTS="app.test, *.example.test")
    with pytest.raises(urllib.error.URLError, match="UNRECOGNIZED_NAME"):
        fetch(nginx.url)  # by its address
    assert by_name(nginx, "app.test", "app.test") == by_name(nginx, "x.example.test", "x.example.test") == 200
    assert "Server certificate" not in shake(nginx, name="evil.test")
    assert fetch(nginx.plain_url, Host="app.test").status == 301
    assert fetch(nginx.plain_url, Host="evil.test").status == 421


def by_name(nginx: Nginx, server_name: str, host: str) -> int:
    with tls_connection(nginx.https_port, server_name) as connection:
        connection.sendall(f"GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(connection.recv(4096).split()[1])


@pytest.mark.parametrize(
    ("host", "status"), [("app.test", 200), ("app.test:8443", 200), ("app.test.", 200), ("evil.test", 421)]
)
def test_a_handshake_for_a_named_host_opens_no_other(start: Start, host: str, status: int) -> None:
    assert by_name(start(NGINX_HOSTS="app.test"), "app.test", host) == status


# --- certificates -----------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(path.stat().st_mode & 0o777) for path in sorted(folder.rglob("*"))}


def test_the_first_start_makes_a_certificate_that_only_its_user_can_read(folder: Path) -> None:
    done = check(folder, NGINX_HOSTS="app.test 192.0.2.7")
    assert done.returncode == 0, done.stderr
    assert modes(folder / "tls") == {
        "self-signed": "0o700",
        "self-signed/fullchain.pem": "0o600",
        "self-signed/privkey.pem": "0o600",
    }
    made = x509.load_pem_x509_certificate((folder / "tls/self-signed/fullchain.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "app.test"} == set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "::1", "192.0.2.7"} == {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    assert isinstance(made.public_key(), ec.EllipticCurvePublicKey)
    assert "PRIVATE" not in done.stdout + done.stderr


def test_it_is_never_overwritten(folder: Path) -> None:
    check(folder)
    before = {path: path.read_bytes() for path in (folder / "tls").rglob("*.pem")}
    check(folder, NGINX_HOSTS="other.test")
    assert {path: path.read_bytes() for path in (folder / "tls").rglob("*.pem")} == before != {}


def test_half_a_certificate_is_not_overwritten_either(folder: Path) -> None:
    (folder / "tls/self-signed").mkdir()
    (folder / "tls/self-signed/privkey.pem").write_text("mine")
    give(folder)
    assert check(folder).returncode == 2
    assert (folder / "tls/self-signed/privkey.pem").read_text() == "mine"


def certificate(folder: Path, name: str, host: str = "app.test") -> None:
    """A new key and certificate as `name/fullchain.pem` and `name/privkey.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / name / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    give(folder / name)


def serial(nginx: Nginx, name: str = "localhost") -> int:
    """Of the certificate that nginx shows for this name."""
    with tls_connection(nginx.https_port, name) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").serial_number


def serial_in(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "fullchain.pem").read_bytes()).serial_number


def test_a_provided_certificate_counts_and_its_renewal_is_taken_up(folder: Path, echo: Server) -> None:
    certificate(folder, "tls")
    with nginx_server(folder, APP_SERVERS=f"127.0.0.1:{echo.port}") as nginx:
        assert serial(nginx) == serial_in(folder / "tls")
        assert not (folder / "tls/self-signed").exists()
        certificate(folder, "tls")
        wait_for(lambda: serial(nginx) == serial_in(folder / "tls"), "the new one is there")


def test_a_named_certificate_goes_before_all_others(folder: Path, echo: Server) -> None:
    certificate(folder, "tls")
    certificate(folder, "mine")
    paths = {"NGINX_CERTIFICATE": f"{folder}/mine/fullchain.pem", "NGINX_CERTIFICATE_KEY": f"{folder}/mine/privkey.pem"}
    with nginx_server(folder, APP_SERVERS=f"127.0.0.1:{echo.port}", **paths) as nginx:
        assert serial(nginx) == serial_in(folder / "mine")


def test_a_broken_renewal_changes_nothing_and_is_said_once(folder: Path, echo: Server) -> None:
    certificate(folder, "tls")
    with nginx_server(folder, APP_SERVERS=f"127.0.0.1:{echo.port}") as nginx:
        before, workers = serial(nginx), nginx.processes("worker")
        (folder / "tls/fullchain.pem").write_text("no certificate")
        nginx.logged(event="configuration_refused")
        assert (serial(nginx), nginx.processes("worker")) == (before, workers)
        certificate(folder, "tls")
        wait_for(lambda: serial(nginx) == serial_in(folder / "tls"), "a good one is taken up")
        assert len(nginx.lines(event="configuration_refused")) == 1


def test_a_key_that_cannot_be_read_stops_the_start_with_its_name(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("whoever runs the tests can read what they have made")
    certificate(folder, "tls")
    os.chown(folder / "tls/privkey.pem", 0, 0)
    (folder / "tls/privkey.pem").chmod(0o600)
    done = check(folder)
    assert done.returncode == 2 and "privkey.pem" in done.stderr


def test_a_certificate_that_names_a_responder_is_stapled(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=app.test", "-addext", "authorityInfoAccess=OCSP;URI:http://127.0.0.1:9/"]
    command += ["-keyout", f"{folder}/tls/privkey.pem", "-out", f"{folder}/tls/fullchain.pem"]
    subprocess.run(command, check=True, capture_output=True)
    give(folder / "tls")

    done = check(folder)
    assert done.returncode == 0, done.stderr
    assert "ssl_stapling on;" in (folder / "run/now/certificate.conf").read_text()


def test_both_spellings_of_http_2_are_known(folder: Path, tmp_path: Path) -> None:
    """The version decides; which one this nginx wants it has said itself by accepting it."""
    said = subprocess.run([NGINX, "-v"], capture_output=True, text=True).stderr
    fake = folder / "nginx-1.28"
    for version, spelling in (
        ("1.22.1", "ssl http2"),
        ("1.25.0", "ssl http2"),
        ("1.25.1", "http2 on;"),
        ("1.30.0", "http2 on;"),
    ):
        fake.write_text(f'#!/bin/sh\n[ "$1" != -V ] || echo "nginx version: nginx/{version}"\n')
        fake.chmod(0o755)
        give(folder)
        assert check(folder, NGINX_BINARY=str(fake)).returncode == 0, said
        assert spelling in (folder / "run/now/listen-https.conf").read_text()
