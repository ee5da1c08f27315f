"""The build that this process serves: found once, compressed in the background if the set-up did not."""

from __future__ import annotations

import threading
from pathlib import Path

from anyio import to_thread

from ..logs import get_logger
from .build import START_QUALITY, Build, gather, load, prepare, web_folder, writable_root

log = get_logger(__name__)

SETUP_COMMAND = "python -m flet_fastapi.client"


class Client:
    """The current `Build`. It is uncompressed until a thread has prepared it, and stays so if no folder is writable."""

    def __init__(self, roots: tuple[Path, ...], *, no_cdn: bool = False) -> None:
        self._roots = roots
        self._no_cdn = no_cdn
        self._lock = threading.Lock()
        self._build: Build | None = None

    async def get(self) -> Build:
        """The build to serve.

        Raises:
            ClientNotFound: the `flet` package is not installed.
        """
        build = self._build
        return build if build is not None else await to_thread.run_sync(self._find)

    def _find(self) -> Build:
        with self._lock:
            if self._build is not None:
                return self._build
            self._build = build = load(gather(web_folder(), self._roots), self._roots)
            self._report_missing(build)
            if not build.quality:
                # a daemon: a process that is told to end does not wait for it, and half a build is swept later
                threading.Thread(target=self._compress, args=(build,), name="web client", daemon=True).start()
            return build

    def _compress(self, build: Build) -> None:
        try:
            self._build = prepare(build, writable_root(self._roots), START_QUALITY)
        except OSError as error:
            log.warning("client_not_compressed", problem=str(error), remedy=SETUP_COMMAND)

    def _report_missing(self, build: Build) -> None:
        if missing := [part.path for part in build.missing()]:
            effect = "pages will not render" if self._no_cdn else "browsers load it from a public CDN"
            log.warning("client_parts_missing", missing=missing, effect=effect, remedy=SETUP_COMMAND)
