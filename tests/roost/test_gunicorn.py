from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from roost.gunicorn import Application, Failures, Wait, Watched, configuration, memory_directory
from roost.settings import Settings
from roost.worker import _listener_above
from tests.support.servers import free_port


def settings(**arguments: object) -> Settings:
    return Settings.load(app="x.py", **{"workers": 3, **arguments})


def test_gunicorn_gets_what_was_set() -> None:
    found = configuration(settings(host="::", port=80, graceful_timeout=7, worker_timeout=9, max_requests=1000))
    assert found["bind"] == ["[::]:80", "127.0.0.1:9000"]
    assert (found["workers"], found["graceful_timeout"], found["timeout"]) == (3, 7, 9)
    assert (found["max_requests"], found["max_requests_jitter"]) == (1000, 100)


def test_gunicorn_takes_the_configuration_and_what_must_be_off_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GUNICORN_CMD_ARGS": "--preload", "WEB_CONCURRENCY": "9", "PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    cfg = Application(settings()).cfg
    assert (cfg.preload_app, cfg.control_socket_disable, cfg.accesslog, cfg.max_requests) == (False, True, None, 0)
    assert (cfg.workers, cfg.worker_class_str, cfg.reload) == (3, "roost.worker.Worker", False)
    assert cfg.address == [("127.0.0.1", 8000), ("127.0.0.1", 9000)]


def test_workers_heartbeats_are_files_in_memory() -> None:
    folder = memory_directory()
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout.strip()
    assert kind == "tmpfs" or not Path("/dev/shm").is_dir()


def test_a_slot_waits_longer_after_each_failure() -> None:
    wait = Wait()
    seconds = [wait.failed(served=False) for _ in range(12)]
    assert 0.7 <= seconds[0] <= 1
    assert 3 <= seconds[2] <= 4
    assert 45 <= seconds[-1] <= 60


def test_who_had_served_comes_back_at_once_the_first_time() -> None:
    wait = Wait()
    assert [wait.failed(served=True) > 0 for _ in range(3)] == [False, True, True]


def test_failures_are_read_once_and_in_one_line() -> None:
    failures = Failures()
    failures.tell(2, "one\ntwo\udcff")
    failures.tell(2, "later")
    failures.tell(0, "x" * 10_000)
    assert failures.take(2) == "one two?"
    assert 3000 < len(failures.take(0) or "") < 4096
    assert failures.take(2) is failures.take(1) is None


def test_failures_that_nobody_reads_hold_nobody_up() -> None:
    failures = Failures()
    for _ in range(100):
        failures.tell(1, "x" * 4000)
    assert (failures.take(1) or "").startswith("x")


def test_changes_of_files_are_seen(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("1")
    for folder in (".venv", "__pycache__", "venv", "part"):
        (tmp_path / folder).mkdir()
    watched = Watched(tmp_path)
    assert not watched.changed()
    for ours in (tmp_path / "main.py", tmp_path / "part/new.py"):
        ours.write_text("2")
        os.utime(ours, ns=(1, 1))
        assert watched.changed()
    for other in ("notes.txt", ".venv/x.py", "__pycache__/x.py", "venv/x.py"):
        (tmp_path / other).write_text("2")
    assert not watched.changed()


def test_a_slots_listener_has_a_higher_descriptor_than_the_shared_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as lower, socket.create_server(("127.0.0.1", 0)) as shared:
        lower.close()  # its descriptor is free now
        with _listener_above("127.0.0.1", free_port(), shared.fileno()) as slot:
            assert slot.fileno() > shared.fileno()
            assert slot.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_health_checks_import_next_to_nothing() -> None:
    code = (
        "import sys; from roost.probe import ask; print(ask('/livez')); print(len(sys.modules), 'flet' in sys.modules)"
    )
    environment = {**os.environ, "ROOST_INTERNAL_PORT": str(free_port())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    answer, modules = done.stdout.splitlines()
    assert answer.startswith("(False")
    assert int(modules.split()[0]) < 250
    assert modules.endswith("False")
