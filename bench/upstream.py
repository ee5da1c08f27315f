"""An environment of its own for upstream: it needs an older FastAPI than this project."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HOME = Path(__file__).resolve().parent / ".upstream-venv"
PYTHON = HOME / "bin" / "python"
STAMP = HOME / "requirements.txt"
# The same uvicorn, loop and websocket library as here, so that only the library differs.
SHARED = ("uvicorn", "uvloop", "httptools", "websockets", "orjson")


def upstream_python() -> str:
    return str(PYTHON)


def requirements() -> str:
    from importlib.metadata import version

    pinned = [f"{name}=={version(name)}" for name in SHARED]
    return "\n".join(["flet==0.24.1", "fastapi==0.115.*", *pinned, ""])


def set_up() -> None:
    """Make the environment, or keep the one that has what is asked for."""
    wanted = requirements()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    shutil.rmtree(HOME, ignore_errors=True)
    install_with_uv(wanted) if shutil.which("uv") else install_with_pip(wanted)
    STAMP.write_text(wanted)


def install_with_uv(wanted: str) -> None:
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(HOME)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(PYTHON), *wanted.split()], check=True)


def install_with_pip(wanted: str) -> None:
    venv.create(HOME, with_pip=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *wanted.split()], check=True)
