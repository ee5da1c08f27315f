"""The internet as a test has it: an HTTP proxy behind which some names lead to a local server, over TLS.

Browsers and processes are told of it as in a company whose proxy looks into what goes through: `environment` is what
httpx reads, and their programs stay as they are. Names that the proxy does not know get 502.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Internet:
    """`async with Internet(hosts, url, folder):` all `hosts` are served by the plain HTTP server at `url`."""

    def __init__(self, hosts: Iterable[str], url: str, folder: Path) -> None:
        self.hosts = frozenset(hosts)
        self.url = ""
        self._server = urlsplit(url)
        self._certificate = folder / "internet.pem"
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take the proxy, and to trust those who are behind it."""
        return {"HTTPS_PROXY": self.url, "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": str(self._certificate)}

    async def __aenter__(self) -> Self:
        self._certificate.write_bytes(_certificate(self.hosts))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(self._certificate)
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ", 2)
        host = target.rpartition(":")[0]
        if method != "CONNECT" or host not in self.hosts:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return await writer.drain()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.start_tls(self._tls)
        upstream, downstream = await asyncio.open_connection(self._server.hostname, self._server.port)
        pumps = [asyncio.create_task(_pump(reader, downstream)), asyncio.create_task(_pump(upstream, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            downstream.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


def _certificate(hosts: Iterable[str]) -> bytes:
    """A key, and a certificate for `hosts` that it has signed itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "internet of a test")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in sorted(hosts)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


_USAGE = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
