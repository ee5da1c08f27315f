"""What is in the app's image, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import Appliance

MAX_BYTES = 350_000_000


@pytest.fixture(scope="module")
def image(appliance: Appliance) -> str:
    return f"{appliance.name}-app"


@pytest.fixture(scope="module")
def described(appliance: Appliance, image: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(appliance.docker("image", "inspect", image))
    return found[0]


def inside(appliance: Appliance, image: str, script: str) -> str:
    return appliance.docker("run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", image, "-c", script)


def test_it_is_small(described: dict[str, Any]) -> None:
    assert described["Size"] < MAX_BYTES, f"{described['Size'] / 1e6:.0f} MB"


def test_it_says_how_it_is_run(described: dict[str, Any]) -> None:
    config = described["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Cmd"] == ["roost", "serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "roost", "health"]
    labels = {name.removeprefix("org.opencontainers.image.") for name in config["Labels"] or ()}
    assert {"title", "description", "licenses", "version", "revision"} <= labels


def test_no_environment_variable_is_a_secret(described: dict[str, Any]) -> None:
    assert not [line for line in described["Config"]["Env"] if "SECRET" in line or "PASSWORD" in line or "KEY" in line]


@pytest.mark.parametrize("program", ["gcc", "cc", "make", "git", "uv", "npm", "node", "curl"])
def test_no_tool_of_the_build_is_left(appliance: Appliance, image: str, program: str) -> None:
    assert inside(appliance, image, f"command -v {program} || true") == ""


def test_no_cache_and_no_test_is_left(appliance: Appliance, image: str) -> None:
    places = "/root /tmp /src /app /opt/roost"
    wanted = "-name '*.whl' -o -path '*/.cache/*' -o -name 'tests' -o -name '*.deb' -o -name conftest.py"
    assert inside(appliance, image, f"find {places} {wanted} 2>/dev/null || true") == ""


def test_the_server_cannot_change_its_own_code(appliance: Appliance, image: str) -> None:
    script = "find /opt/roost /app ! -user 0 -print -quit; find /opt/roost /app -perm -002 ! -type l -print -quit"
    assert inside(appliance, image, script) == ""


def test_the_web_client_is_whole_and_compressed(appliance: Appliance, image: str) -> None:
    script = "cd /opt/roost/share/flet_fastapi/client && ls && ls *-q11/br/main.dart.js parts/canvaskit/canvaskit.wasm"
    assert len(inside(appliance, image, script).splitlines()) == 4


def test_versions_are_those_of_the_lock(appliance: Appliance, image: str) -> None:
    locked = (appliance.folder / "uv.lock").read_text()
    listed = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = json.loads(inside(appliance, image, f"python -c '{listed}'"))
    assert len(installed) > 30
    for name, version in installed.items():
        assert f'name = "{name.lower().replace("_", "-")}"\nversion = "{version}"' in locked, name


def test_what_only_its_author_needs_stays_out_of_the_image(appliance: Appliance, tmp_path: Path) -> None:
    app = tmp_path / "app"
    for name in (
        ".git/config",
        ".env",
        ".venv/bin/python",
        "package/__pycache__/x.pyc",
        "package/x.py",
        "assets/a.txt",
    ):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(name)
    (app / "main.py").write_text("main = 1\n")
    (app / "main.py").chmod(0o600)
    appliance.compose("build", "app", APP=str(app), APP_IMAGE="roosttest-kept-out")
    listing = appliance.docker("run", "--rm", "--network=none", "roosttest-kept-out", "find", "/app", "-type", "f")
    readable = appliance.docker("run", "--rm", "--network=none", "roosttest-kept-out", "cat", "/app/main.py")
    appliance.docker("rmi", "roosttest-kept-out")
    assert set(listing.split()) == {"/app/main.py", "/app/package/x.py", "/app/assets/a.txt"}
    assert readable == "main = 1"


def test_nothing_is_for_one_kind_of_processor() -> None:
    root = Path(__file__).parents[2]
    files = [root / "Dockerfile", root / "nginx/Dockerfile", root / "compose.yaml", *(root / "scripts/image").iterdir()]
    words = ("amd64", "x86_64", "arm64", "aarch64", "--platform", "# syntax=")
    assert not [(file.name, word) for file in files for word in words if word in file.read_text()]
