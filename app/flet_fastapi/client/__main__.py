"""`python -m flet_fastapi.client`: the set-up of the web client. Run again, it does only what is still missing."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .build import (
    SETUP_QUALITY,
    ClientFile,
    ClientNotFound,
    default_roots,
    gather,
    load,
    parts_folder,
    prepare,
    web_folder,
    writable_root,
)
from .parts import fetch_parts


def main(arguments: list[str] | None = None) -> int:
    """Fetch the missing parts and compress the client; the exit code is 1 if nothing could be built."""
    parser = argparse.ArgumentParser(prog="python -m flet_fastapi.client", description=__doc__)
    parser.add_argument("--root", type=Path, help="folder for the client (default: in the environment, or the cache)")
    parser.add_argument("--quality", type=int, default=SETUP_QUALITY, choices=range(1, 12), metavar="1..11")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    options = parser.parse_args(arguments)
    os.umask(0o022)  # set up by root, read by whoever serves
    try:
        return _set_up([options.root] if options.root else list(default_roots()), options.quality, options.offline)
    except (ClientNotFound, OSError) as error:
        print(f"web client: {error}", file=sys.stderr)
        return 1


def _set_up(roots: list[Path], quality: int, offline: bool) -> int:
    root = writable_root(roots)
    found = gather(web_folder(), roots)
    if found.missing() and not offline:
        fetch_parts(parts_folder(root))
        found = gather(web_folder(), roots)
    ready = load(found, roots)
    if ready.quality < quality:
        ready = prepare(found, root, quality)
    for part in ready.missing():
        print(f"web client: warning: no {part.path}; browsers will load it from a public CDN", file=sys.stderr)
    plain = sum(file.size for file in ready.files.values())
    packed = sum(_packed_size(file) for file in ready.files.values())
    print(f"web client: build {ready.name}, {plain / 1e6:.1f} MB, {packed / 1e6:.1f} MB as brotli, in {root}")
    return 0


def _packed_size(file: ClientFile) -> int:
    return file.encoded["br"].stat().st_size if "br" in file.encoded else file.size


if __name__ == "__main__":
    sys.exit(main())
