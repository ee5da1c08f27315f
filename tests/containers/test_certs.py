"""`make certs`: a certificate of one's own is served within seconds, a wrong one is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.project import Appliance


def certificate(folder: Path, name: str, days: int = 90) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days))
    subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
    where = ("-keyout", str(folder / "key"), "-out", str(folder / "cert"))
    subprocess.run(["openssl", "req", *kind, *subject, *where], check=True, capture_output=True)
    return f"CERT={folder / 'cert'}", f"KEY={folder / 'key'}"


def test_the_certificate_that_is_served_is_shown(appliance: Appliance) -> None:
    ran = appliance.make("certs")
    assert ran.code == 0, ran.output
    assert "CN = roost self-signed" in ran.output.replace("CN=", "CN = ")
    assert "DNS:localhost" in ran.output


def test_ones_own_is_served_and_can_be_taken_away(appliance: Appliance, tmp_path: Path) -> None:
    installed = appliance.make("certs", *certificate(tmp_path, "own.example.com"))
    assert installed.code == 0, installed.output
    assert "DNS:own.example.com" in installed.output
    assert appliance.inside("nginx", "stat -c '%a %u' /etc/nginx/tls/privkey.pem") == "600 101"
    removed = appliance.make("certs", "REMOVE=1")
    assert removed.code == 0, removed.output
    appliance.until(lambda: "DNS:localhost" in appliance.make("certs").output)


@pytest.mark.parametrize("wrong", ["key", "expired", "text"])
def test_what_cannot_be_served_is_refused(appliance: Appliance, tmp_path: Path, wrong: str) -> None:
    cert, key = certificate(tmp_path / "a", "localhost")
    _, other = certificate(tmp_path / "b", "localhost")
    (tmp_path / "text").write_text("no certificate")
    old = expired(tmp_path / "c")
    given = {"key": (cert, other), "expired": old, "text": (f"CERT={tmp_path / 'text'}", key)}
    said = {"key": "not of this certificate", "expired": "has expired", "text": "is no certificate"}
    ran = appliance.make("certs", *given[wrong])
    assert ran.code != 0
    assert said[wrong] in ran.output
    assert "fullchain.pem" not in appliance.inside("nginx", "ls /etc/nginx/tls")


def expired(folder: Path) -> tuple[str, str]:
    """One of a year ago, made by the cryptography library: openssl 3.0 makes none that has ended."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")]),
    )
    ended = datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, ended - timedelta(days=90), ended)
    folder.mkdir()
    (folder / "cert").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key").write_bytes(pem)
    return f"CERT={folder / 'cert'}", f"KEY={folder / 'key'}"
