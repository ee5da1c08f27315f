"""The project's nginx as its image runs it: the entrypoint of `nginx/`, as the same user if tests may choose one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.servers import ROOT, free_port

# Another nginx may be tested, too: NGINX=/path/to/it
NGINX = os.environ.get("NGINX", "nginx")
_UID = 101
_WORKERS = 2
_START_SECONDS = 30
_STOP_SECONDS = 30


@dataclass
class Nginx:
    """A running proxy, and the folder with all that it reads and writes."""

    folder: Path
    http_port: int
    https_port: int
    status_port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def websocket_url(self) -> str:
        return f"wss://127.0.0.1:{self.https_port}/ws"

    @property
    def plain_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def lines(self, **members: object) -> list[dict[str, Any]]:
        """What has been logged with these members; a line that is no JSON fails the test."""
        lines = [json.loads(line) for line in self.output.splitlines()]
        return [line for line in lines if members.items() <= line.items()]

    @property
    def output(self) -> str:
        return (self.folder / "out").read_text(encoding="utf-8") + (self.folder / "err").read_text(encoding="utf-8")

    def logged(self, count: int = 1, **members: object) -> list[dict[str, Any]]:
        """Wait until so many lines have these members: nginx writes them after the answer."""
        return wait_for(lambda: len(found := self.lines(**members)) >= count and found, f"{count} lines of {members}")

    def status(self) -> dict[str, int]:
        """The counts of stub_status."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/stub_status", timeout=10) as answer:
            words = answer.read().decode().split()
        return {"active": int(words[2]), "requests": int(words[9])}

    def processes(self, title: str = "") -> list[int]:
        """nginx's own processes: `title` may be `master` or `worker`."""
        return [pid for pid in descendants(self.process.pid) if f"nginx: {title}" in command_line(pid)]

    def memory(self) -> int:
        """Bytes that all its workers hold; pages that they share are counted for each."""
        return sum(resident(pid) for pid in self.processes("worker"))

    def said(self) -> str:
        return self.output


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Ask until `condition` holds, and give what it gave."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return result


async def async_wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    return await asyncio.to_thread(wait_for, condition, what, seconds)


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, at any depth."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return ""


def resident(pid: int) -> int:
    """Bytes of memory that the process holds now."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def trusting() -> ssl.SSLContext:
    """For clients that take any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def nginx_folder() -> Iterator[Path]:
    """A folder that the proxy's user can use, with a copy of `nginx/`: pytest's own are for one user only."""
    folder = Path(tempfile.mkdtemp(prefix="roost-nginx-"))
    try:
        shutil.copytree(ROOT / "nginx", folder / "nginx")
        for name in ("run", "cache", "tls", "acme"):
            (folder / name).mkdir()
        for name in ("out", "err"):
            (folder / name).touch()
        give(folder)
        yield folder
    finally:
        shutil.rmtree(folder)


def give(path: Path) -> None:
    """Make the proxy's user the owner of all of it."""
    if os.getuid() == 0:
        for item in [path, *path.rglob("*")]:
            os.chown(item, _UID, _UID, follow_symlinks=False)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """What the entrypoint is told, beside `variables`."""
    return {
        "PATH": os.environ["PATH"],
        "NGINX_BINARY": NGINX,
        "NGINX_LISTEN": "127.0.0.1",
        "NGINX_RUN_DIR": f"{folder}/run",
        "NGINX_CACHE_DIR": f"{folder}/cache",
        "NGINX_TLS_DIR": f"{folder}/tls",
        "NGINX_ACME_DIR": f"{folder}/acme",
        "NGINX_WORKERS": str(_WORKERS),
        "NGINX_DISCOVERY_SECONDS": "1",
        **variables,
    }


def as_its_user() -> dict[str, Any]:
    return {"user": _UID, "group": _UID, "extra_groups": []} if os.getuid() == 0 else {}


def entrypoint(folder: Path) -> str:
    return str(folder / "nginx/scripts/entrypoint.sh")


def check(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `entrypoint.sh check`: what it would do, and whether nginx accepts it."""
    return subprocess.run(
        [entrypoint(folder), "check"], env=environment(folder, **variables), cwd=folder, capture_output=True,
        text=True, timeout=60, **as_its_user(),
    )  # fmt: skip


@contextmanager
def nginx_server(folder: Path, **variables: str) -> Iterator[Nginx]:
    """The proxy, at free ports, until the end of the block.

    Raises:
        RuntimeError: it ended, or did not answer in time; with what it has written.
    """
    http, https, status = free_port(), free_port(), free_port()
    ports = {"NGINX_HTTP_PORT": http, "NGINX_HTTPS_PORT": https, "NGINX_STATUS_PORT": status}
    ports["NGINX_PUBLIC_HTTPS_PORT"] = https
    settings = environment(folder, **{name: str(port) for name, port in ports.items()}, **variables)
    with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
        process = subprocess.Popen(
            [entrypoint(folder)], env=settings, cwd=folder, stdout=out, stderr=err, start_new_session=True,
            **as_its_user(),
        )  # fmt: skip
    nginx = Nginx(folder, http, https, status, process)
    try:
        _await_answer(nginx)
        yield nginx
    finally:
        _stop(process)


def _await_answer(nginx: Nginx) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while nginx.process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{nginx.status_port}/livez", timeout=5):
                if len(nginx.processes("worker")) == _WORKERS:
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"nginx did not start:\n{nginx.output}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@dataclass
class Answer:
    """An HTTP answer with all its headers."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The header's value; two of them fail the test."""
        values = self.all(name)
        assert len(values) < 2, f"{name} comes {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(url: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request over a connection of its own; neither redirects nor codings are followed. `_` in names is `-`."""
    request = urllib.request.Request(url, data=body, method=method)
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=trusting()))
    try:
        with opener.open(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers.items(), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers.items(), error.read())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def tls_connection(port: int, name: str, seconds: float = 60) -> ssl.SSLSocket:
    """A connection made for the host of this name."""
    return trusting().wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=seconds), server_hostname=name)


def raw(port: int, data: bytes, *, tls: bool = True, seconds: float = 30) -> bytes:
    """What comes back for these bytes, until the server closes."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    received = b""
    connection = trusting().wrap_socket(plain, server_hostname="localhost") if tls else plain
    with connection, suppress(ConnectionError, ssl.SSLEOFError):
        connection.sendall(data)
        while part := connection.recv(65536):
            received += part
    return received


class Upstreams:
    """Small servers that say their own address, and one that names them as `roost serve` does, all in threads."""

    def __init__(self, count: int) -> None:
        self._servers: dict[str, ThreadingHTTPServer] = {}
        self._count = count
        self.addresses: list[str] = []
        self.shown: list[str] = []
        self.said: str | None = None
        self.answers = True
        self.token = ""
        self.rounds = 0
        self.internal_port = 0

    def start(self, address: str) -> None:
        self._run(address, self._name)

    @staticmethod
    def _name(request: BaseHTTPRequestHandler) -> str:
        return f"127.0.0.1:{request.connection.getsockname()[1]}"

    def stop(self, address: str) -> None:
        server = self._servers.pop(address)
        server.shutdown()
        server.server_close()

    def _run(self, address: str, answer: Callable[[BaseHTTPRequestHandler], str | None]) -> str:
        """Serve there; the address that it has become, if any port was allowed."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = answer(self)
                body = (text or "").encode()
                self.send_response(200 if text is not None else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", int(address.rpartition(":")[2])), Handler)
        address = f"127.0.0.1:{server.server_port}"
        self._servers[address] = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return address

    def _slots(self, request: BaseHTTPRequestHandler) -> str | None:
        self.rounds += 1
        allowed = not self.token or request.headers.get("Authorization") == f"Bearer {self.token}"
        if not (self.answers and allowed and request.path == "/slots"):
            return None
        return self.said if self.said is not None else "".join(f"{each.rpartition(':')[2]}\n" for each in self.shown)

    def __enter__(self) -> Upstreams:
        for _ in range(self._count):
            self.addresses.append(self._run("127.0.0.1:0", self._name))
        self.internal_port = int(self._run("127.0.0.1:0", self._slots).rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        for address in list(self._servers):
            self.stop(address)
