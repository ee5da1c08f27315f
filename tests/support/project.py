"""A copy of the project in a folder of its own, driven by the commands that an operator has."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from roost.appliance.visitor import Visitor
from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".uv", "__pycache__", ".*_cache", ".hypothesis", ".coverage*", "tests", "bench", "apps", "backups",
    ".env", "*.env", ".roost.lock",
)  # fmt: skip
# What a test waits for is seconds away; a busy machine may take its time.
_PATIENCE = 60.0


class Ran(NamedTuple):
    """How a command ended, and all that it said."""

    code: int
    output: str


@dataclass
class Appliance:
    """One project of compose, with ports and volumes of its own."""

    folder: Path
    environment: Mapping[str, str]
    name: str
    first_start: str = ""
    origin: Path | None = None

    def __post_init__(self) -> None:
        shutil.copytree(ROOT, self.folder, ignore=_LEFT_OUT)
        self.http_port, self.https_port = free_port(), free_port()
        self.set(
            COMPOSE_PROJECT_NAME=self.name,
            HTTP_PORT=self.http_port,
            HTTPS_PORT=self.https_port,
            **{name: self.environment[name] for name in self.environment if name.endswith("_IMAGE")},
            COMPOSE_FILE=self.environment.get("COMPOSE_FILE", "compose.yaml"),
        )

    # --- what an operator does ---------------------------------------------------------------------------------------

    def set(self, **settings: object) -> None:
        """Lines of `.env`; None takes one out."""
        file = self.folder / ".env"
        known = dict(line.split("=", 1) for line in file.read_text().splitlines()) if file.exists() else {}
        known.update({name: str(value) for name, value in settings.items()})
        file.write_text("".join(f"{n}={v}\n" for n, v in known.items() if settings.get(n, v) is not None))

    def run(self, *command: str, stdin: str | None = None, timeout: float = 550, **environment: str) -> Ran:
        """A command in the project's folder, with nothing of this machine's but what docker needs."""
        kept = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "BUILD_FLAGS", "DOCKER_BUILDKIT")
        bare = {name: self.environment[name] for name in kept if name in self.environment}
        done = subprocess.run(
            command, cwd=self.folder, env={**bare, "BUILDKIT_PROGRESS": "plain", **environment}, input=stdin, text=True,
            stdin=subprocess.DEVNULL if stdin is None else None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout)

    def make(self, target: str, *arguments: str, **environment: str) -> Ran:
        return self.run("make", "--silent", target, *arguments, **environment)

    def compose(self, *arguments: str, **options: Any) -> Ran:
        ran = self.run("docker", "compose", *arguments, **options)
        assert ran.code == 0, ran.output
        return ran

    def docker(self, *arguments: str) -> str:
        ran = self.run("docker", *arguments)
        assert ran.code == 0, ran.output
        return ran.output.strip()

    def destroy(self) -> None:
        """Everything of this project, its volumes and images too."""
        self.run("docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        images = self.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").output.split()
        own = [image for image in images if image.startswith((f"{self.name}-app:", f"{self.name}-nginx:"))]
        if own:
            self.run("docker", "rmi", *own)

    # --- what is there -----------------------------------------------------------------------------------------------

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).output.split()

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", container))
        return found[0]

    def inside(self, service: str, script: str) -> str:
        """What a shell in the service's container says."""
        return self.compose("exec", "-T", service, "sh", "-c", script).output.strip()

    # --- what a visitor sees -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}/"

    def visitor(self) -> Visitor:
        return Visitor(self.url, via=f"127.0.0.1:{self.https_port}")

    def get(self, url: str, **headers: str) -> tuple[int, str]:
        """Status and text, whatever the certificate."""
        status, _, text = self._request(url, headers)
        return status, text

    def head(self, url: str) -> tuple[int, str]:
        """Status, and where the answer leads."""
        status, location, _ = self._request(url, {})
        return status, location

    def _request(self, url: str, headers: dict[str, str]) -> tuple[int, str, str]:
        handlers = (
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
            _NoRedirects(),
        )
        request = urllib.request.Request(url, headers=headers)
        try:
            answer = urllib.request.build_opener(*handlers).open(request, timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers.get("Location", ""), answer.read().decode(errors="replace")

    def until(self, condition: Callable[[], object], seconds: float = _PATIENCE) -> None:
        """Ask again and again, as there is nothing that tells."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"did not come true in {seconds:.0f} s: {condition}"
            time.sleep(0.2)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
