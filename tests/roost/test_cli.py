import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COUNTER = str(Path(__file__).parents[2] / "app/examples/counter/counter.py")
ROOST = str(Path(sys.executable).with_name("roost"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([ROOST, "run", *arguments], start_new_session=True, text=True, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def answer(process: subprocess.Popen[str], url: str) -> str:
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": "text/html"})) as response:
                return str(response.read().decode())
        except OSError:
            time.sleep(0.1)  # it is starting; asked again until it answers
    raise AssertionError(f"no answer, exit code {process.poll()}")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_run_serves_the_app(workers: str) -> None:
    port = free_port()
    with running(COUNTER, "--port", str(port), "--workers", workers) as process:
        assert "flet-websocket-endpoint-path" in answer(process, f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [((), "ROOST_APP"), (("nowhere.py",), "no file nowhere.py"), ((COUNTER, "--port", "99999"), "ROOST_PORT")],
)
def test_a_mistake_ends_the_start_with_one_line_that_names_it(arguments: tuple[str, ...], problem: str) -> None:
    done = subprocess.run([ROOST, "run", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_variable_ends_the_start_and_is_named() -> None:
    environment = {**os.environ, "FLET_MAX_FRAME_SIZE": "much"}
    done = subprocess.run([ROOST, "run", COUNTER], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2
    assert "FLET_MAX_FRAME_SIZE" in done.stderr
