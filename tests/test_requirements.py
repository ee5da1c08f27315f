"""What an app's own requirements may name without breaking the server; see `make install` in the README."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def uv() -> str:
    return shutil.which("uv") or str(ROOT / ".uv/bin/uv")


def install(tmp_path: Path, requirements: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What `make install` would do, without doing it and without a network."""
    (tmp_path / "requirements.txt").write_text(requirements)
    return subprocess.run(
        [uv(), "pip", "install", "--python", sys.executable, "--dry-run", "--offline", *options,
         "--requirement", str(tmp_path / "requirements.txt"), "--constraint", str(ROOT / "constraints.txt")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    "requirement", ["flet-fastapi", "flet", "flet-core", "flet>=0.20", "flet-fastapi>=0.20", "fastapi"]
)
def test_what_is_here_meets_it(tmp_path: Path, requirement: str) -> None:
    done = install(tmp_path, requirement)
    assert done.returncode == 0, done.stderr
    assert "Would make no changes" in done.stderr


@pytest.mark.parametrize(
    "requirement",
    ["flet-fastapi==0.20.2", "flet==0.28.3", "flet>=1", "flet-runtime<0.24", "fastapi==0.101.0", "starlette==1.0.0",
     "websockets==12.0", "pydantic<2.8", "pydantic-core<2.50", "gunicorn==20.1.0", "uvloop==0.17.0", "click==7.1.2",
     "itsdangerous==2.0.1", "anyio<4", "httpx==1.0.0", "oauthlib>=4"],
)  # fmt: skip
def test_what_would_replace_a_part_of_the_server_is_refused(tmp_path: Path, requirement: str) -> None:
    done = install(tmp_path, requirement)
    assert done.returncode != 0
    # uv says which two contradict each other; offline, what is merely unknown to it would fail, too
    name = re.split("[<>=]", requirement)[0]
    assert re.search(rf"require {name}\S* and {name}\S*, we can conclude", " ".join(done.stderr.split())), done.stderr


def test_the_constraints_are_made_of_what_the_server_needs() -> None:
    made = subprocess.run([sys.executable, str(ROOT / "scripts/make-constraints")], capture_output=True, text=True)
    assert made.stdout == (ROOT / "constraints.txt").read_text(), made.stderr


def test_the_constraints_name_what_is_installed(tmp_path: Path) -> None:
    names = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    done = install(tmp_path, "\n".join(names))
    assert "Would make no changes" in done.stderr
