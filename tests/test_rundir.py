from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flet_fastapi.rundir import RunDirectory, _unheld
from tests.support.servers import uvicorn_server


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_directory_is_private(base: Path) -> None:
    directory = RunDirectory(base)
    for path in (base, directory.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    key = directory.key()
    assert stat.S_IMODE((directory.path / "secret_key").stat().st_mode) == 0o600
    assert len(key) >= 32
    directory.close()


def test_place_that_others_may_enter_is_refused(base: Path) -> None:
    base.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="0700"):
        RunDirectory(base)


def test_link_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    base.symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError):
        RunDirectory(base)


def test_place_of_another_user_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError):
        RunDirectory(base)


def test_all_workers_find_one_key(base: Path) -> None:
    directory = RunDirectory(base)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: directory.key(), range(64)))
    assert len(keys) == 1
    assert sorted(path.name for path in directory.path.iterdir()) == ["lock", "secret_key"]
    directory.close()


@pytest.mark.parametrize("removed", ["", "lock", "secret_key"])
def test_what_a_cleaner_removed_is_put_back(base: Path, removed: str) -> None:
    first = RunDirectory(base)
    key = first.key()
    if removed:
        (first.path / removed).unlink()
    else:
        shutil.rmtree(base)
    first.renew()
    second = RunDirectory(base)
    assert (second.path, second.key()) == (first.path, key)
    assert not _unheld(first.path)
    second.close()
    assert not _unheld(first.path)
    first.close()
    assert _unheld(first.path)


def test_workers_of_one_listening_socket_share_a_directory(base: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = "import sys; from pathlib import Path; from flet_fastapi.rundir import RunDirectory as D;" \
               "print(D(Path(sys.argv[1])).path)"  # fmt: skip
        command = [sys.executable, "-c", code, str(base)]
        paths = {subprocess.check_output(command, pass_fds=[listener.fileno()]) for _ in range(2)}
        alone = subprocess.check_output(command)
    assert len(paths) == 1
    assert b"/socket-" in paths.pop()
    assert b"/process-" in alone


INODE = "from flet_fastapi.rundir import listening_inode; print(listening_inode())"


def inode_in_a_child(*sockets: socket.socket) -> str:
    """What a process says that has inherited these."""
    descriptors = [one.fileno() for one in sockets]
    return subprocess.check_output([sys.executable, "-c", INODE], pass_fds=descriptors, text=True).strip()


def test_inode_is_that_of_the_first_listening_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        lowest = min(first, second, key=socket.socket.fileno)
        assert inode_in_a_child(first, second) == str(os.fstat(lowest.fileno()).st_ino)


@pytest.mark.parametrize(("family", "place"), [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0))])
def test_socket_that_is_bound_and_will_listen_counts(family: socket.AddressFamily, place: tuple[str, int]) -> None:
    with socket.socket(family) as bound:
        bound.bind(place)
        assert inode_in_a_child(bound) == str(os.fstat(bound.fileno()).st_ino)


def test_unix_socket_counts(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        assert inode_in_a_child(bound) == str(os.fstat(bound.fileno()).st_ino)


def test_other_sockets_do_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        pair, fresh = socket.socketpair(), socket.socket()
        others = (datagrams, client, accepted, *pair, fresh)
        assert inode_in_a_child(*others) == "None"
        for one in others:
            one.close()


def test_process_number_that_comes_again_has_a_directory_of_its_own(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flet_fastapi.rundir.listening_inode", lambda: None)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    first = RunDirectory(base)
    key = first.key()
    first.close()
    stat = Path("/proc/self/stat").read_text().split()
    stat[21] = "12345"
    monkeypatch.setattr(Path, "read_text", _reads(Path("/proc/self/stat"), " ".join(stat)))
    second = RunDirectory(base)
    assert second.key() != key
    second.close()


def _reads(file: Path, text: str) -> Callable[..., str]:
    read = Path.read_text
    return lambda path, *args, **kwargs: text if path == file else read(path, *args, **kwargs)


WORKERS = """
import os
import flet_fastapi
from fastapi.responses import PlainTextResponse

def main(page):
    pass

app = flet_fastapi.app(main, upload_dir="uploads")

@app.get("/place", response_class=PlainTextResponse)
async def place():
    manager = flet_fastapi.app_manager
    return f"{os.getpid()} {manager._run_directory.path}"
"""


def test_workers_of_uvicorn_share_a_directory(tmp_path: Path) -> None:
    """They bind in the parent, start their application, and listen after that."""
    (tmp_path / "program.py").write_text(WORKERS)
    with uvicorn_server("program:app", tmp_path, tmp_path / "log", "--workers", "2") as server:
        places: dict[str, str] = {}
        deadline = time.monotonic() + 60
        while len(places) < 2 and time.monotonic() < deadline:
            process, _, place = httpx.get(f"{server.url}/place").text.partition(" ")
            places[process] = place
    assert len(places) == 2
    assert len(set(places.values())) == 1


def test_directory_that_is_in_use_is_not_swept(base: Path) -> None:
    directory = RunDirectory(base)
    old = base / "socket-1"
    old.mkdir(mode=0o700)
    (old / "lock").touch()
    for path in (old, directory.path):
        os.utime(path, (0, 0))
    other = RunDirectory(base)
    assert not old.exists()
    assert directory.path.exists()
    directory.close()
    other.close()


def test_fresh_directory_is_not_swept(base: Path) -> None:
    RunDirectory(base).close()
    fresh = base / "socket-1"
    fresh.mkdir(mode=0o700)
    (fresh / "lock").touch()
    RunDirectory(base).close()
    assert fresh.exists()


def test_sweep_leaves_what_is_not_ours(base: Path) -> None:
    base.mkdir(mode=0o700)
    (base / "file").write_text("x")
    (base / "folder").mkdir()
    for name in ("file", "folder"):
        os.utime(base / name, (0, 0))
    RunDirectory(base).close()
    assert (base / "file").exists()
    assert (base / "folder").exists()


def test_close_twice(base: Path) -> None:
    directory = RunDirectory(base)
    directory.close()
    directory.close()
