"""`roost serve` in a process group of its own, looked at as operators do: by its ports, its log and its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import free_ports

ROOST = str(Path(sys.executable).with_name("roost"))
KEY = "aTcwq2N6Jm0kXvB9-uG4sRzY7eLdQhPo"
PROGRAM = """
import flet as ft

def main(page: ft.Page):
    page.add(ft.Text("hello"))
"""
_START_SECONDS = 60
_STOP_SECONDS = 45


@dataclass
class Appliance:
    """A server that has been started; `port`, `internal_port` and `slot_port` are where it listens."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    port: int
    internal_port: int
    slot_port: int
    workers: int
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, port: int | None = None, **headers: str) -> tuple[int, str]:
        """Status and text of the internal listener's answer, or of that at another port."""
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.internal_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
        status, text = self.ask(path)
        return status, json.loads(text)

    def workers_now(self) -> dict[int, int]:
        """The slots and process ids of workers that are ready or were last heard of, from the log."""
        return {int(line["worker"]): int(line["pid"]) for line in self.logged("worker_ready")}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's entries of this event."""
        found = []
        for line in self.out.read_text().splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def until(self, condition: Callable[[], Any], seconds: float = _START_SECONDS) -> Any:
        """What `condition()` gives, once it is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(OSError):
                if found := condition():
                    return found
            time.sleep(0.02)
        raise AssertionError(f"it has not come to that:\n{self.said()}")

    def ready(self) -> None:
        """Wait until each worker is."""

        def all_ready() -> bool:
            if (code := self.process.poll()) is not None:
                raise AssertionError(f"it ended with {code}:\n{self.said()}")
            return len(self.workers_now()) >= self.workers

        self.until(all_ready)

    def said(self) -> str:
        return self.err.read_text() + self.out.read_text()[-8000:]

    def ended(self, seconds: float = _STOP_SECONDS) -> int:
        """The exit code, once there is one."""
        return self.process.wait(seconds)


@contextmanager
def appliance(
    folder: Path, app: str | Path = PROGRAM, *arguments: str, workers: int = 2, wait: bool = True, slots: bool = True,
    first_port: int = 0, **variables: Any,
) -> Iterator[Appliance]:  # fmt: skip
    """Serve `app`, a file or the text of a program, until the end of the block; `variables` are of the environment.

    Its ports begin with `first_port`: the public one, the internal one, one for each worker.
    """
    program = app if isinstance(app, Path) else folder / "program.py"
    if isinstance(app, str):
        program.write_text(app)
    port = first_port or free_ports(3 + workers)  # tests may add a worker
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLET_", "ROOST_"))}
    environment = clean | {
        "FLET_SECRET_KEY": KEY,
        "FLET_RUN_DIR": str(folder / "run"),
        "ROOST_APP": str(program),
        "ROOST_PORT": str(port),
        "ROOST_INTERNAL_PORT": str(port + 1),
        "ROOST_WORKERS": str(workers),
        **({"ROOST_SLOT_PORT": str(port + 2)} if slots else {}),
        **{name: str(value) for name, value in variables.items()},
    }
    out, err = folder / "out", folder / "err"
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    with out.open("wb") as output, err.open("wb") as errors:
        process = subprocess.Popen(
            [ROOST, "serve", *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    server = Appliance(process, out, err, port, port + 1, port + 2, workers)
    try:
        if wait:
            server.ready()
        yield server
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_STOP_SECONDS)
