"""Real workers, killed in the middle of an upload."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from flet_fastapi.identity import Keyring
from flet_fastapi.uploads import upload_url

SERVER = Path(__file__).parents[1] / "support" / "upload_server.py"
SIZE = 1_000_000

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "up").mkdir()
    return tmp_path / "up"


@pytest.fixture
def start(tmp_path: Path, directory: Path, listener: socket.socket) -> Iterator[Start]:
    """Starts a worker and waits for its word; what lives at the end is killed."""
    workers = []

    def start(*quota: str) -> subprocess.Popen[str]:
        descriptor = listener.fileno()
        command = [sys.executable, "-P", str(SERVER), str(tmp_path / "run"), str(directory), str(descriptor), *quota]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[descriptor])
        workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate()


def make_url(name: str) -> str:
    key = Keyring(["k1" * 16])
    return upload_url(key, path="/upload", file_name=name, session_key="s", expires_seconds=600)


def start_upload(listener: socket.socket, url: str, directory: Path) -> socket.socket:
    """Half of an upload, and it has reached the disk."""
    browser = socket.create_connection(listener.getsockname())
    browser.sendall(f"PUT {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode() + b"x" * (SIZE // 2))
    deadline = time.monotonic() + 30
    while sum(path.stat().st_size for path in directory.rglob(".flet-upload-*")) < SIZE // 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return browser


def peak_memory(worker: subprocess.Popen[str]) -> int:
    """The most bytes that the worker ever had in memory."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def put(listener: socket.socket, url: str) -> httpx.Response:
    host, port = listener.getsockname()
    return httpx.put(f"http://{host}:{port}{url}", content=b"y" * SIZE, timeout=30)


def test_killed_worker_leaves_nothing(listener: socket.socket, directory: Path, start: Start) -> None:
    (directory / "f").write_bytes(b"old")
    worker = start()
    with start_upload(listener, make_url("f"), directory), start_upload(listener, make_url("a/b/g"), directory):
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    start()
    assert [path.name for path in directory.rglob("*")] == ["f"]
    assert (directory / "f").read_bytes() == b"old"


def test_url_works_again_when_the_killed_workers_lease_is_over(
    listener: socket.socket, directory: Path, start: Start
) -> None:
    url = make_url("f")
    worker = start()
    with start_upload(listener, url, directory):
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    start()
    answers = [put(listener, url)]
    while answers[-1].status_code == 409 and answers[-1].json()["error"] == "in_progress" and len(answers) < 200:
        time.sleep(0.05)
        answers.append(put(listener, url))
    assert (answers[-1].status_code, (directory / "f").read_bytes()) == (201, b"y" * SIZE)
    assert put(listener, url).json()["error"] == "already_used"


def test_worker_that_starts_leaves_the_others_uploads_alone(
    listener: socket.socket, directory: Path, start: Start
) -> None:
    first = start()
    with start_upload(listener, make_url("f"), directory) as browser:
        start()
        browser.sendall(b"x" * (SIZE - SIZE // 2))
        assert browser.recv(100).startswith(b"HTTP/1.1 201")
    assert first.poll() is None
    assert (directory / "f").stat().st_size == SIZE


def test_killed_workers_share_of_the_quota_is_free_again(
    listener: socket.socket, directory: Path, start: Start
) -> None:
    """A worker that lives on finds what the killed one left when it needs the room."""
    quota = str(SIZE + SIZE // 2)
    worker = start(quota)
    with start_upload(listener, make_url("f"), directory):
        start(quota)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    answers = [put(listener, make_url(name)) for name in ("g", "h")]
    assert [answer.status_code for answer in answers] == [201, 507]
    assert [path.name for path in directory.rglob("*")] == ["g"]


def test_refused_browser_cannot_hold_its_connection(listener: socket.socket, directory: Path, start: Start) -> None:
    start()
    with socket.create_connection(listener.getsockname(), timeout=30) as browser:
        browser.sendall(b"PUT /upload?t=x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx")
        answer = b"".join(iter(lambda: browser.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"connection: close" in answer.lower()


def test_browser_that_goes_away_leaves_nothing(listener: socket.socket, directory: Path, start: Start) -> None:
    start()
    url = make_url("a/f")
    start_upload(listener, url, directory).close()
    deadline = time.monotonic() + 30
    while any(directory.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert put(listener, url).status_code == 201


def test_big_file_does_not_go_through_memory(listener: socket.socket, directory: Path, start: Start) -> None:
    worker = start()
    put(listener, make_url("small"))
    before = peak_memory(worker)
    host, port = listener.getsockname()
    chunks = [b"x" * SIZE] * 100
    headers = {"content-length": str(100 * SIZE)}
    answer = httpx.put(f"http://{host}:{port}{make_url('big')}", content=iter(chunks), headers=headers, timeout=60)
    assert (answer.status_code, (directory / "big").stat().st_size) == (201, 100 * SIZE)
    assert peak_memory(worker) - before < 20 * SIZE


@pytest.mark.parametrize("size", [0, SIZE])
def test_refusal_reaches_a_browser_that_has_sent_everything(
    listener: socket.socket, directory: Path, start: Start, size: int
) -> None:
    start()
    host, port = listener.getsockname()
    answer = httpx.put(f"http://{host}:{port}/upload?t=x", content=b"y" * size)
    assert (answer.status_code, set(answer.json())) == (403, {"error", "detail"})
