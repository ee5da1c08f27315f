"""The operator's commands and what is written of them, as far as no engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPOSE = [*ROOT.glob("compose*.yaml")]
_FILES = [path for path in (ROOT / "scripts").rglob("*") if path.is_file()]
SCRIPTS = [path for path in _FILES if path.suffix == ".sh" or path.read_text().startswith("#!/bin/sh\n")]
# What a person does not set in .env: what a build is told, and names of images.
INTERNAL = {"COMPOSE_PROJECT_NAME", "VERSION", "REVISION", "APP_TAG", "APP_IMAGE", "NGINX_TAG", "NGINX_OWN_IMAGE"}


def read_by_compose() -> set[str]:
    return {name for file in COMPOSE for name in re.findall(r"\$\{(\w+)", file.read_text())} - INTERNAL


def read_by_scripts() -> set[str]:
    return {name for file in SCRIPTS for name in re.findall(r"setting (\w+)", file.read_text())}


def listed() -> set[str]:
    return set(re.findall(r"\b([A-Z][A-Z_]+)\b", (ROOT / ".env.example").read_text()))


def test_every_setting_is_listed_and_no_other() -> None:
    assert read_by_compose() - listed() == set()
    assigned = set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert assigned - read_by_compose() - read_by_scripts() == {"COMPOSE_PROFILES", "COMPOSE_FILE"}


@pytest.mark.parametrize("name", sorted(read_by_compose()))
def test_listed_defaults_are_those_of_compose(name: str) -> None:
    shown = re.findall(rf"^#{name}=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    text = "".join(file.read_text() for file in COMPOSE)
    defaults = set(re.findall(rf"\${{{name}:-([^}}]+)}}", text)) - {"0"}
    # with no default of compose's own the line is an example
    assert not shown or not defaults or name == "APP" or shown[0] in defaults


def test_every_command_is_documented() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text().partition("### The appliance")[2], re.M)
    )
    assert {
        "up",
        "down",
        "deploy",
        "logs",
        "ps",
        "restart",
        "backup",
        "restore",
        "upgrade",
        "doctor",
        "certs",
        "smoke",
    } < targets
    text = (ROOT / "docs/operations.md").read_text()
    undocumented = {target for target in targets if f"make {target}" not in text} - {"down", "restart", "clean"}
    assert undocumented == set()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)
    if (shellcheck := shutil.which("shellcheck")) is not None:
        options = ("--shell=sh", "--severity=warning", "--exclude=SC1091,SC2086,SC2154,SC2164")
        done = subprocess.run([shellcheck, *options, str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def lib(folder: Path, script: str, **environment: str) -> str:
    """What a script says that uses the library, in a project's folder."""
    (folder / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts/lib.sh", folder / "scripts")
    (folder / "scripts/try").write_text(f". {folder}/scripts/lib.sh\n{script}\n")
    bare = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(["sh", "scripts/try"], cwd=folder, env=bare, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("have", "need", "enough"),
    [("25.0.3", "25", True), ("24.0.9", "25", False), ("2.24.0-1", "2.24", True), ("2.9.0", "2.24", False),
     ("3.0", "2.24", True), ("v2", "2.24", False), ("29.1", "25", True)],
)  # fmt: skip
def test_versions_are_compared_as_numbers(tmp_path: Path, have: str, need: str, enough: bool) -> None:
    assert lib(tmp_path, f"at_least {have} {need} && echo enough") == ("enough" if enough else "")


@pytest.mark.parametrize(
    ("text", "value"),
    [("", "default"), ("NAME=", "default"), ("NAME=a", "a"), ('NAME="a b"', "a b"), ("NAME='a b'", "a b"),
     ("NAME=a # why", "a"), ("NAME=first\nNAME=last", "last"), ("export NAME=a", "a"), ("OTHER_NAME=b", "default"),
     ("#NAME=a", "default"), ("NAME = a", "a")],
)  # fmt: skip
def test_settings_are_read_as_compose_reads_them(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"{text}\n")
    assert lib(tmp_path, "setting NAME default") == value
    assert lib(tmp_path, "setting NAME default", NAME="from outside") == "from outside"


@pytest.mark.parametrize(
    ("text", "site"),
    [("", "https://localhost/"), ("HTTPS_PORT=8443", "https://localhost:8443/"),
     ("NGINX_HOSTS=*.example.com, app.example.com", "https://app.example.com/"),
     ("NGINX_TLS=off\nHTTP_PORT=8080", "http://localhost:8080/"), ("SMOKE_PATH=/app/", "https://localhost/app/")],
)  # fmt: skip
def test_where_the_site_is(tmp_path: Path, text: str, site: str) -> None:
    (tmp_path / ".env").write_text(f"{text}\n")
    assert lib(tmp_path, "site") == site


def test_the_skeleton_works_and_its_tests_are_green(tmp_path: Path) -> None:
    for name in ("scripts/lib.sh", "scripts/new-app", "Makefile", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "app/examples/skeleton", tmp_path / "app/examples/skeleton")
    made = subprocess.run(["scripts/new-app", "my-app"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    app = tmp_path / "apps/my-app"
    assert {"main.py", "requirements.txt", "README.md", "conftest.py", "tests", "assets"} <= {
        p.name for p in app.iterdir()
    }
    assert "@NAME@" not in "".join(p.read_text() for p in app.rglob("*") if p.is_file())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(app)]
    tested = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", "1a", "-a", ".a"])
def test_a_name_that_is_none_makes_no_app(tmp_path: Path, name: str) -> None:
    (tmp_path / "scripts").mkdir()
    for script in ("lib.sh", "new-app"):
        shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts")
    made = subprocess.run(["scripts/new-app", name], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 1
    assert "make new-app NAME=my-app" in made.stderr
    assert not (tmp_path / "apps").exists()
