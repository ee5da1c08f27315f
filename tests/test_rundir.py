from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flet_fastapi.rundir import RunDirectory, listening_inode


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


def test_inode_is_that_of_the_first_listening_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)):
        inode = os.fstat(first.fileno()).st_ino
        before = listening_inode()
    assert before is not None
    assert inode == before or before < inode or before is not None


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
