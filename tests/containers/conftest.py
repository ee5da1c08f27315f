"""A real engine, the project's images, and one appliance that most of these tests share.

The engine is the one that `ENGINE` or `../shared/tools/engine.sh` starts, with stand-ins for the public images; else
the one that is there, with the public images. With neither, these tests are skipped, or fail where CI is set.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.project import ROOT, Appliance

SCRIPT = Path(os.environ.get("ENGINE", ROOT.parent / "shared/tools/engine.sh"))
STAND_INS = {
    "PYTHON_IMAGE": "python:3.11-slim",
    "NGINX_IMAGE": "nginx:stable",
    "REDIS_IMAGE": "redis:7",
    "PROMETHEUS_IMAGE": "prom/prometheus:latest",
    # no new base images: there is no registry
    "BUILD_FLAGS": "",
}
# the first time packages are downloaded and the stand-ins made
_ENGINE_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1200))


def _missing(reason: str) -> None:
    text = f"THE CONTAINER TESTS DID NOT RUN: {reason}"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(text, pytrace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(pytest.PytestWarning(text), stacklevel=1)
    pytest.skip(text)


def _engine_works(environment: Mapping[str, str]) -> bool:
    if shutil.which("docker", path=environment["PATH"]) is None:
        return False
    return subprocess.run(["docker", "info"], env=dict(environment), capture_output=True).returncode == 0


def _script(command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), command], env=dict(environment), capture_output=True, text=True, timeout=_ENGINE_SECONDS
    )


@pytest.fixture(scope="session")
def engine() -> Iterator[dict[str, str]]:
    """The environment in which docker works; the engine is stopped if it was started for this."""
    base = {**os.environ, "LAB": os.environ.get("LAB", str(Path(tempfile.gettempdir()) / "roost-engine"))}
    if not SCRIPT.is_file():
        if not _engine_works(base):
            _missing(f"there is no {SCRIPT} (ENGINE), and no Docker engine")
        yield base
        return
    ran_before = (Path(base["LAB"]) / "run/docker.sock").exists() and _script("status", base).returncode == 0
    started = _script("up", base)
    if started.returncode != 0:
        _missing(f"the engine did not start: {started.stderr.strip().splitlines()[-1:]}")
    exports = shlex.split(_script("env", base).stdout.removeprefix("export").strip())
    told = dict(word.split("=", 1) for word in exports)
    told["PATH"] = told["PATH"].replace("$PATH", base["PATH"])
    yield {**base, **told, **STAND_INS, "COMPOSE_FILE": "compose.yaml:compose.ci.yaml"}
    if not ran_before:
        _script("stop", base)


@pytest.fixture(scope="session")
def appliance(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The appliance of a fresh checkout, started as its README says."""
    with _fresh(engine, tmp_path_factory, "roosttest") as made:
        made.first_start = made.compose("up", "--detach", "--wait", "--wait-timeout", "300").output
        yield made


@pytest.fixture(scope="module")
def another(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A second one beside it, not yet started, with the same images."""
    with _fresh(appliance.environment, tmp_path_factory, "roosttest2") as made:
        for image in ("app", "nginx"):
            made.docker("tag", f"{appliance.name}-{image}", f"{made.name}-{image}")
        yield made


@contextmanager
def _fresh(environment: Mapping[str, str], paths: pytest.TempPathFactory, name: str) -> Iterator[Appliance]:
    made = Appliance(paths.mktemp(name) / "roost", environment, name)
    made.destroy()  # what an interrupted run has left
    try:
        yield made
    finally:
        made.destroy()
