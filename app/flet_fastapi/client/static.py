"""`FletStaticFiles`: the web client and the user's assets as an ASGI app."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import brotli
from anyio import to_thread
from flet_core.types import WebRenderer
from starlette.types import Receive, Scope, Send

from ..handshake import HostGuard, ManagerWithDoor
from ..identity import hide_query
from ..logs import get_logger
from ..manager import app_manager
from ..options import Options, check_url_path
from .assets import Asset, Assets
from .build import INDEX, MANIFEST, SERVICE_WORKER, Build, ClientFile, ClientNotFound, default_roots
from .content_types import content_type
from .navigation import is_navigation
from .negotiation import choose_coding, fold
from .page import PRELOADS, PageValues, patch_index, patch_manifest
from .parts import CANVASKIT_JS
from .place import has_encoded_separator, route_path, scope_base, segments, websocket_path
from .policy import CANVASKIT_CDN, FONT_CDN, UPLOAD_HEADERS, Policy, upload_type
from .respond import (
    IMMUTABLE,
    PRIVATE,
    REVALIDATE,
    Headers,
    Representation,
    send_error,
    send_redirect,
    send_representation,
)
from .startup import Client

log = get_logger(__name__)

PageHeaders = Callable[[Scope], Headers]

BUILD_PREFIX = "_b"
_METHODS = ("GET", "HEAD")
# pages differ by the path the app is mounted at, which may hold a parameter that visitors choose
_MAX_PAGES = 64
# an index.html of a user with everything inlined; more is not a page any more
_MAX_PAGE_SIZE = 4 * 1024 * 1024
_UNVERSIONED = frozenset({INDEX, MANIFEST, SERVICE_WORKER})
# Where the engine's defaults point to, for parts that the set-up could not get: folder in the client -> address.
_CDN = {
    "canvaskit": CANVASKIT_CDN,
    "fallback_fonts": f"{FONT_CDN}/s/",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A patched text in all its codings, and the headers that go with it; `digest` is of both."""

    codings: dict[str, bytes]
    digest: str
    headers: Headers


class FletStaticFiles:
    """Flet's web client with the files of `assets_dir` over it; unknown pages get the app, unknown files 404.

    `app_mount_path` is the absolute URL path of the app; a mount of starlette or FastAPI says it by itself.
    `websocket_endpoint_path` is the absolute URL path of the app's websocket, by default `{app_mount_path}/ws`.
    `proxy_path` is the prefix that a proxy in front strips. The other parameters are those of `app()`.

    Raises:
        OptionError: naming the parameter or variable that is wrong.
    """

    def __init__(
        self,
        app_mount_path: str = "/",
        assets_dir: str | os.PathLike[str] | None = None,
        app_name: str | None = None,
        app_short_name: str | None = None,
        app_description: str | None = None,
        web_renderer: WebRenderer = WebRenderer.CANVAS_KIT,
        use_color_emoji: bool = False,
        route_url_strategy: str = "path",
        websocket_endpoint_path: str | None = None,
        *,
        proxy_path: str | None = None,
    ) -> None:
        options = Options.load(
            assets_dir=assets_dir,
            app_name=app_name,
            app_short_name=app_short_name,
            app_description=app_description,
            web_renderer=web_renderer,
            use_color_emoji=use_color_emoji,
            route_url_strategy=route_url_strategy,
            proxy_path=proxy_path,
        )
        self._configure(options, app_mount_path, websocket_endpoint_path, None, None, app_manager)

    @classmethod
    def from_options(
        cls,
        options: Options,
        *,
        app_mount_path: str = "/",
        websocket_endpoint_path: str | None = None,
        page_headers: PageHeaders | None = None,
        roots: Sequence[Path] | None = None,
        manager: ManagerWithDoor = app_manager,
    ) -> Self:
        """The static client of `app()`.

        `page_headers` gives headers for every answer that shows the page, 304 included: the browser's cookie. `roots`
        are the folders where prepared builds are, by default `default_roots()`.
        """
        self = cls.__new__(cls)
        self._configure(options, app_mount_path, websocket_endpoint_path, page_headers, roots, manager)
        return self

    def _configure(
        self,
        options: Options,
        app_mount_path: str,
        websocket_endpoint_path: str | None,
        page_headers: PageHeaders | None,
        roots: Sequence[Path] | None,
        manager: ManagerWithDoor,
    ) -> None:
        manager.limits  # noqa: B018  a wrong variable stops the start, not the first request
        self._guarded = HostGuard(self._handle, manager)
        self._options = options
        self._mount = check_url_path("app_mount_path", app_mount_path)
        self._websocket: str | None = None
        if websocket_endpoint_path is not None:
            self._websocket = check_url_path("websocket_endpoint_path", websocket_endpoint_path)
        self._page_headers = page_headers
        self._assets = Assets(options.assets_dir, options.upload_dir) if options.assets_dir else None
        self._policy = Policy.from_options(options)
        self._client = Client(default_roots() if roots is None else tuple(roots), no_cdn=options.no_cdn)
        self._pages_lock = threading.Lock()
        self._pages: OrderedDict[tuple[Any, ...], Page] = OrderedDict()

    async def prepare(self) -> None:
        """Find the client now instead of at the first request; compression, if the set-up did none, goes on behind.

        Raises:
            ClientNotFound: the `flet` package is not installed.
        """
        await self._client.get()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # nothing here reads it, and a callback or an upload that was sent to a wrong path has secrets in it
            hide_query(scope)
            await self._guarded(scope, receive, send)
        elif scope["type"] == "websocket":
            # a websocket that no route took; closing before accepting makes the server answer 403
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return
            try:
                await self.prepare()
                await send({"type": "lifespan.startup.complete"})
            except ClientNotFound as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})

    async def _handle(self, scope: Scope, _: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in _METHODS:
            await send_error(send, 405, method, [(b"allow", ", ".join(_METHODS).encode())])
            return
        request = fold(scope["headers"])
        path = route_path(scope, self._mount)
        build = await self._client.get()
        if path in ("/", f"/{INDEX}"):
            await self._send_page(scope, send, request, build)
        elif not await self._send_file(scope, send, request, build, path):
            if is_navigation(path, request) and not path.startswith(f"/{BUILD_PREFIX}/"):
                await self._send_page(scope, send, request, build)
            else:
                await send_error(send, 404, method)

    async def _send_file(self, scope: Scope, send: Send, request: dict[str, str], build: Build, path: str) -> bool:
        """Answer with the file at `path`, if there is one."""
        names = segments(path)
        if names is None or has_encoded_separator(scope):
            return False
        if names[0] == BUILD_PREFIX:
            return await self._send_build_file(scope, send, request, build, names)
        if names == (MANIFEST,):
            await self._send_manifest(scope, send, request, build)
            return True
        asset = await self._open_asset(names)
        if asset is None and (client_file := build.files.get("/".join(names))) is not None:
            await _send_client_file(scope, send, request, "/".join(names), client_file, REVALIDATE)
            return True
        if asset is None and names[0] == "assets":
            # Flutter's own name for the assets folder; apps use it for theirs
            asset = await self._open_asset(names[1:])
        if asset is None:
            return await self._send_to_cdn(send, names)
        await self._send_asset(scope, send, request, names[-1], asset)
        return True

    async def _send_build_file(
        self, scope: Scope, send: Send, request: dict[str, str], build: Build, names: tuple[str, ...]
    ) -> bool:
        """Answer a path that names a build.

        A page of another build (an older tab during a deployment) gets what this one has, to be asked for again.
        """
        path = "/".join(names[2:])
        file = build.files.get(path)
        if file is None or path in _UNVERSIONED:
            return await self._send_to_cdn(send, names[2:])
        cache_control = IMMUTABLE if names[1] == build.name else REVALIDATE
        await _send_client_file(scope, send, request, path, file, cache_control)
        return True

    async def _send_to_cdn(self, send: Send, names: tuple[str, ...]) -> bool:
        """What the set-up could not get, and fonts for scripts beyond Roboto, come from the engine's usual address."""
        if self._options.no_cdn or len(names) < 2 or names[0] not in _CDN:
            return False
        await send_redirect(send, _CDN[names[0]] + quote("/".join(names[1:])))
        return True

    async def _open_asset(self, names: tuple[str, ...]) -> Asset | None:
        if self._assets is None or not names:
            return None
        return await to_thread.run_sync(self._assets.open, names)

    async def _send_page(self, scope: Scope, send: Send, request: dict[str, str], build: Build) -> None:
        values = self._page_values(scope, build)
        isolated = self._policy.isolates(route_path(scope, self._mount))
        page = await to_thread.run_sync(self._page, INDEX, build, values, isolated)
        extra = self._page_headers(scope) if self._page_headers else []
        await _send_text(scope, send, request, page, "text/html; charset=utf-8", extra)

    async def _send_manifest(self, scope: Scope, send: Send, request: dict[str, str], build: Build) -> None:
        page = await to_thread.run_sync(self._page, MANIFEST, build, self._page_values(scope, build))
        await _send_text(scope, send, request, page, "application/manifest+json", [])

    def _page_values(self, scope: Scope, build: Build) -> PageValues:
        options = self._options
        websocket = websocket_path(
            scope,
            endpoint=options.websocket_endpoint,
            absolute=self._websocket,
            app_mount_path=self._mount,
            proxy_path=options.proxy_path,
        )
        return PageValues(
            base=scope_base(scope, self._mount, options.proxy_path),
            websocket=websocket,
            build=f"{BUILD_PREFIX}/{build.name}/",
            route_url_strategy=options.route_url_strategy,
            renderer=options.web_renderer.value,
            color_emoji=options.use_color_emoji,
            name=options.app_name,
            short_name=options.app_short_name,
            description=options.app_description,
            preload=tuple(name for name in PRELOADS if name in build.files),
        )

    def _page(self, name: str, build: Build, values: PageValues, isolated: bool = False) -> Page:
        """The patched text of `name`, from the user's copy or the build's; kept until either changes."""
        source = self._page_source(name, build)
        key = (name, hashlib.blake2b(source, digest_size=12).digest(), values, isolated)
        page = self._pages.get(key)
        if page is None:
            page = self._render(name, source, values, isolated, CANVASKIT_JS.path in build.files)
            with self._pages_lock:
                self._pages[key] = page
                while len(self._pages) > _MAX_PAGES:
                    self._pages.popitem(last=False)
        return page

    def _render(self, name: str, source: bytes, values: PageValues, isolated: bool, canvaskit: bool) -> Page:
        text = source.decode("utf-8", "replace")
        if name != INDEX:
            return _packed(_patched_manifest(text, values), [])
        text = patch_index(text, values)
        return _packed(text, self._policy.page(text, isolated=isolated, canvaskit=canvaskit))

    def _page_source(self, name: str, build: Build) -> bytes:
        source = self._assets.read(name, _MAX_PAGE_SIZE) if self._assets else None
        if source is not None:
            return source
        content = build.files[name].content
        return content if isinstance(content, bytes) else content.read_bytes()

    async def _send_asset(self, scope: Scope, send: Send, request: dict[str, str], name: str, asset: Asset) -> None:
        status = os.fstat(asset.file.fileno())
        if choose_coding(request.get("accept-encoding"), ()) is None:
            asset.file.close()
            await send_error(send, 406, scope["method"])
            return
        kind = content_type(name)
        representation = Representation(
            body=asset.file,
            size=status.st_size,
            etag=f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"',
            content_type=upload_type(kind) if asset.uploaded else kind,
            cache_control=REVALIDATE,
            modified=int(status.st_mtime),
            extra=UPLOAD_HEADERS if asset.uploaded else self._policy.asset(kind),
        )
        await send_representation(scope, send, representation, request)


def _packed(text: str, headers: Headers) -> Page:
    data = text.encode("utf-8", "replace")
    codings = {"identity": data, "br": brotli.compress(data, quality=9), "gzip": gzip.compress(data, 9, mtime=0)}
    digest = hashlib.blake2b(data, digest_size=12)
    # a browser that kept the page under other headers must get it anew, not a 304
    for header in headers:
        digest.update(b"\0" + b": ".join(header))
    return Page(codings, digest.hexdigest(), headers)


def _patched_manifest(text: str, values: PageValues) -> str:
    names = {"name": values.name, "short_name": values.short_name or values.name, "description": values.description}
    try:
        return patch_manifest(text, names)
    except ValueError as error:
        log.warning("manifest_not_patched", problem=str(error))
        return text


def _etag(digest: str, coding: str) -> str:
    return f'"{digest}"' if coding == "identity" else f'"{digest}-{coding}"'


async def _send_text(scope: Scope, send: Send, request: dict[str, str], page: Page, kind: str, extra: Headers) -> None:
    coding = choose_coding(request.get("accept-encoding"), page.codings)
    if coding is None:
        await send_error(send, 406, scope["method"])
        return
    data = page.codings[coding]
    # a shared cache must not hand one browser's cookie to another
    private = any(name.lower() == b"set-cookie" for name, _ in extra)
    representation = Representation(
        body=io.BytesIO(data),
        size=len(data),
        etag=_etag(page.digest, coding),
        content_type=kind,
        cache_control=PRIVATE if private else REVALIDATE,
        coding=coding,
        vary=True,
        extra=[*page.headers, *extra],
    )
    await send_representation(scope, send, representation, request)


async def _send_client_file(
    scope: Scope, send: Send, request: dict[str, str], path: str, file: ClientFile, cache_control: bytes
) -> None:
    coding = choose_coding(request.get("accept-encoding"), file.encoded)
    if coding is None:
        await send_error(send, 406, scope["method"])
        return
    body, size = await to_thread.run_sync(_open_content, file, coding)
    representation = Representation(
        body=body,
        size=size,
        etag=_etag(file.digest, coding),
        content_type=content_type(path),
        cache_control=cache_control,
        coding=coding,
        vary=True,
    )
    await send_representation(scope, send, representation, request)


def _open_content(file: ClientFile, coding: str) -> tuple[BinaryIO, int]:
    content = file.content if coding == "identity" else file.encoded[coding]
    if isinstance(content, bytes):
        return io.BytesIO(content), len(content)
    body = open(content, "rb", buffering=0)  # noqa: SIM115 - closed by send_representation()
    return body, os.fstat(body.fileno()).st_size
