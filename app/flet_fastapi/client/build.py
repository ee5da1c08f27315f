"""The client as files: gathered from its sources, named by its content, compressed once, kept in a folder.

A prepared build is a folder `<name>-q<quality>` with `files.json` and one subfolder for each content coding. It appears
by one rename, so who sees it sees all of it, and is never changed afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import brotli

from ..logs import get_logger
from .parts import CANVASKIT_JS, PARTS, Part

log = get_logger(__name__)

INDEX, MANIFEST = "index.html", "manifest.json"
SERVICE_WORKER = "flutter_service_worker.js"
SETUP_QUALITY = 11
# at first start: a hundredth of the time of 11 for a sixth more bytes
START_QUALITY = 5
_LISTING = "files.json"
# Python in the browser (pyodide) is another way to run Flet, and comes from a CDN; the rest is the build's own note
_LEFT_OUT = frozenset({"python.js", "python-worker.js", ".last_build_id"})
_PACKED = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".woff", ".woff2", ".mp3", ".mp4")
_KEPT_BUILDS = 3
# a build takes a minute; whoever left a half one behind an hour ago is dead
_STALE_SECONDS = 3600

Content = Path | bytes


@dataclass(frozen=True, slots=True)
class ClientFile:
    """One file of the client in all its codings; `digest` is of the plain content."""

    digest: str
    size: int
    content: Content
    encoded: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Build:
    """The whole client. `name` changes exactly when a file of it does; `quality` is 0 before compression."""

    name: str
    files: Mapping[str, ClientFile]
    quality: int = 0

    def missing(self) -> list[Part]:
        return [part for part in PARTS if part.path not in self.files]


class ClientNotFound(FileNotFoundError):
    """The `flet` package, which holds the web client, is not installed or carries none."""


def web_folder() -> Path:
    """Where the installed `flet` package keeps the web client.

    Raises:
        ClientNotFound
    """
    spec = find_spec("flet")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "web"
        if (folder / "main.dart.js").is_file():
            return folder
    raise ClientNotFound("the web client is missing: install flet==0.24.1")


def default_roots() -> tuple[Path, ...]:
    """Where builds are looked for: with the environment first, so that it carries its client, then the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(cache) if os.path.isabs(cache) else Path(os.path.expanduser("~/.cache"))
    return Path(sys.prefix) / "share/flet_fastapi/client", home / "flet_fastapi/client"


def writable_root(roots: Sequence[Path]) -> Path:
    """The first of `roots` that can be written to, made if need be.

    Raises:
        PermissionError: none can.
    """
    for root in roots:
        with contextlib.suppress(OSError):
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                return root
    raise PermissionError("no folder for the web client can be written to: " + ", ".join(map(str, roots)))


def gather(web: Path, roots: Sequence[Path]) -> Build:
    """The client uncompressed, from the package, this package's own scripts and what the set-up has fetched."""
    contents: dict[str, Content] = {
        path.relative_to(web).as_posix(): path for path in sorted(web.rglob("*")) if path.is_file()
    }
    for name in _LEFT_OUT:
        contents.pop(name, None)
    contents.update(_found_parts(roots))
    contents.update(_adapted(contents))
    files = {path: _plain(content) for path, content in sorted(contents.items())}
    digest = hashlib.blake2b(digest_size=8)
    for path, file in files.items():
        digest.update(f"{path}\0{file.digest}\n".encode())
    return Build(digest.hexdigest(), files)


def _plain(content: Content) -> ClientFile:
    data = _read(content)
    return ClientFile(hashlib.blake2b(data, digest_size=12).hexdigest(), len(data), content)


def _read(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def parts_folder(root: Path) -> Path:
    return root / "parts"


def _found_parts(roots: Sequence[Path]) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for part in PARTS:
        for root in roots:
            path = parts_folder(root) / part.path
            if path.is_file():
                found[part.path] = path
                break
    return found


def _adapted(contents: Mapping[str, Content]) -> dict[str, Content]:
    """The scripts that must differ from what the packages carry."""
    loader = _script("loader.js")
    adapted: dict[str, Content] = {SERVICE_WORKER: _script("service_worker.js")}
    if "flutter.js" in contents:
        adapted["flutter.js"] = _read(contents["flutter.js"]) + loader
    if "flutter_bootstrap.js" in contents:
        # the adapter stands between Flutter's loader and the line that starts it
        head, start, tail = _read(contents["flutter_bootstrap.js"]).partition(b"_flutter.loader.load(")
        adapted["flutter_bootstrap.js"] = head + loader + start + tail
    if CANVASKIT_JS.path in contents:
        adapted[CANVASKIT_JS.path] = _read(contents[CANVASKIT_JS.path]) + _script("canvaskit_module.js")
    return adapted


def _script(name: str) -> bytes:
    return (resources.files(__package__) / "js" / name).read_bytes()


def load(build: Build, roots: Sequence[Path]) -> Build:
    """`build` as some root has it prepared, best quality first; `build` itself if none has."""
    prepared = (found for root in roots for found in _prepared(root, build.name))
    return max(prepared, key=lambda found: found.quality, default=build)


def _prepared(root: Path, name: str) -> Iterator[Build]:
    for folder in root.glob(f"{name}-q*"):
        try:
            listing = json.loads((folder / _LISTING).read_bytes())
            yield Build(name, _listed(folder, listing["files"]), int(listing["quality"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("client_build_damaged", folder=str(folder), problem=str(error))


def _listed(folder: Path, listing: Mapping[str, Mapping[str, int | str]]) -> dict[str, ClientFile]:
    files = {}
    for name, entry in listing.items():
        sizes = {coding: int(size) for coding, size in entry.items() if coding != "digest"}
        paths = {coding: folder / coding / name for coding in sizes}
        for coding, path in paths.items():
            if path.stat().st_size != sizes[coding]:
                raise ValueError(f"{path} has the wrong size")
        plain = paths.pop("identity")
        files[name] = ClientFile(str(entry["digest"]), sizes["identity"], plain, paths)
    return files


def prepare(build: Build, root: Path, quality: int) -> Build:
    """Compress `build` into `root`, once: whoever comes second waits for the first and takes what it made."""
    folder = root / f"{build.name}-q{quality}"
    with _locked(root):
        ready = load(build, [root])
        if ready.quality >= quality:
            return ready
        _sweep(root)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
        try:
            _write(build, made, quality)
            made.chmod(0o755)
            if folder.exists():  # damaged: load() refused it
                folder.rename(made.with_name(made.name + "-damaged"))
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return load(build, [root])


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    with open(root / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(root: Path) -> None:
    """Remove what dead builders left and the oldest builds; only under the lock, where nobody else builds."""
    for leftover in root.glob(".making-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    builds = sorted(root.glob("*-q*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in builds[_KEPT_BUILDS:]:
        if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _write(build: Build, folder: Path, quality: int) -> None:
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        # the biggest first, or one thread ends with main.dart.js while the others have nothing left
        names = sorted(build.files, key=lambda name: -build.files[name].size)
        entries = pool.map(lambda name: (name, _encode(build.files[name], name, folder, quality)), names)
        listing = {"quality": quality, "files": dict(sorted(entries))}
    (folder / _LISTING).write_text(json.dumps(listing, indent=1))


def _encode(file: ClientFile, name: str, folder: Path, quality: int) -> dict[str, int | str]:
    data = _read(file.content)
    entry: dict[str, int | str] = {"digest": file.digest, "identity": _put(folder / "identity" / name, data)}
    if name.lower().endswith(_PACKED):
        return entry
    for coding, compress in _compressors(quality).items():
        encoded = compress(data)
        if len(encoded) < 0.95 * len(data):
            entry[coding] = _put(folder / coding / name, encoded)
    return entry


def _compressors(quality: int) -> dict[str, Callable[[bytes], bytes]]:
    return {
        # a window of 16 MB, the largest that browsers must know, holds main.dart.js whole
        "br": lambda data: brotli.compress(data, quality=quality, lgwin=24),
        "gzip": lambda data: gzip.compress(data, compresslevel=min(quality, 9), mtime=0),
    }


def _put(path: Path, data: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)
    return len(data)
