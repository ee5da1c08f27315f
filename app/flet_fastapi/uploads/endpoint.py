"""The door for files: checks everything that can be known before the first byte, then streams it to the storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..cluster import ClusterUnavailable
from ..identity import hide_query
from ..logs import get_logger
from ..manager import app_manager
from ..options import Options
from ..uploaded import folders
from .claim import Claim
from .names import parts_of
from .pace import paced
from .refusal import DOOR_HEADERS, UploadRefused
from .storage import Incoming
from .urls import METHOD, PARAMETER, Grant, asked_paths, read_grant
from .worker import Manager, Uploads

log = get_logger(__name__)

# Longer numbers are no sizes, and Python takes its time to read them.
_LENGTH_DIGITS = 18
# A browser that has sent all or most of a small file should hear the refusal, and not that the connection broke.
_DRAIN_BYTES = 4 * 1024 * 1024
_DRAIN_SECONDS = 2.0


class _Body:
    """The body of a request, and whether all of it has come."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.ended = False

    async def stream(self) -> AsyncIterator[bytes]:
        async for chunk in self._request.stream():
            yield chunk
        self.ended = True

    async def drain(self) -> None:
        """Read on for a little while, to nowhere."""
        left = _DRAIN_BYTES
        while left > 0 and not self.ended:
            message = await self._request.receive()
            left -= len(message.get("body", b""))
            self.ended = not message.get("more_body", False)


class FletUpload:
    """The upload endpoint: takes the `PUT` of a raw file at a URL that `page.get_upload_url()` gave out.

    `max_upload_size` is in bytes (None: unlimited), `secret_key` one key or several, newest first. Instances hold no
    state; make one per request or one for all.

    Raises:
        OptionError: naming the parameter or variable that is wrong.
    """

    def __init__(
        self,
        upload_dir: str | Path,
        max_upload_size: int | str | None = None,
        secret_key: str | SecretStr | Sequence[str | SecretStr] | None = None,
    ) -> None:
        options = app_manager.options(upload_dir=upload_dir, max_upload_size=max_upload_size, secret_key=secret_key)
        self._setup(options, app_manager)

    @classmethod
    def from_options(cls, options: Options, manager: Manager = app_manager) -> Self:
        """The endpoint of an app; without `upload_dir` every upload is refused."""
        upload = cls.__new__(cls)
        upload._setup(options, manager)
        return upload

    def _setup(self, options: Options, manager: Manager) -> None:
        self._options = options
        self._manager = manager
        if options.upload_dir is not None:
            folders.add_uploads(options.upload_dir)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self.handle(Request(scope, receive, send))
        except UploadRefused as refusal:
            response = refusal.response()
        await response(scope, receive, send)

    async def prepare(self) -> None:
        """At start-up: make the directory if it is missing, remove what killed workers left, and start to remove what
        is too old, if that is set.

        Raises:
            OptionError: the directory cannot be made.
        """
        directory = self._options.upload_dir
        if directory is not None:
            await asyncio.to_thread(self._options.make_upload_dir)
            await self._uploads.storage(directory)
            self._uploads.watch(self._options)

    async def handle(self, request: Request) -> Response:
        """Take one upload; 201 if the file is new, 204 if it replaced one.

        Raises:
            UploadRefused: an `HTTPException`; nothing of the file is left, and one that was there is as it was.
        """
        metrics = self._manager.metrics
        started = time.perf_counter()
        metrics.uploads_started.inc()
        body, status = _Body(request), 500
        try:
            response = await self._handle(request, body)
            status = response.status_code
        except UploadRefused as refusal:
            status = refusal.status_code
            metrics.upload_refusals.labels(refusal.error).inc()
            await _let_go(request, body, refusal)
            raise
        finally:
            metrics.uploads.labels(str(status)).inc()
            metrics.upload_seconds.observe(time.perf_counter() - started)
        return response

    @property
    def _uploads(self) -> Uploads:
        return self._manager.part(Uploads)

    async def _handle(self, request: Request, body: _Body) -> Response:
        try:
            grant = await self._read_grant(request)
            size = self._read_size(request, grant)
            parts = parts_of(grant.file_name)
            with self._uploads.place(grant.session):
                async with self._uploads.claimed(grant, size) as claim:
                    new = await self._store(body, parts, size, claim)
        except ClientDisconnect:
            raise UploadRefused("client_gone", "The browser went away.") from None
        except ClusterUnavailable as error:
            log.warning("upload_without_cluster", problem=error.problem)
            if error.full:
                raise UploadRefused("no_space", "The server has no room for this file.") from None
            raise UploadRefused("unavailable", "The server cannot take files now.", {"Retry-After": "30"}) from None
        return Response(status_code=201 if new else 204, headers=DOOR_HEADERS)

    async def _read_grant(self, request: Request) -> Grant:
        query = hide_query(request.scope)
        if request.method != METHOD:
            raise UploadRefused("method_not_allowed", "Uploads are PUT.", {"Allow": METHOD})
        if self._options.upload_dir is None:
            raise UploadRefused("uploads_off", "This app takes no uploads.")
        tokens = query.getlist(PARAMETER)
        if len(tokens) > 1:
            raise UploadRefused("bad_request", "The URL has more than one signature.")
        if not tokens or not tokens[0]:
            raise UploadRefused("no_signature", "The upload URL has no signature.")
        paths = asked_paths(request.scope, self._options.proxy_path)
        return read_grant(await self._manager.keyring(self._options), tokens[0], method=request.method, paths=paths)

    def _read_size(self, request: Request, grant: Grant) -> int:
        _check_encoding(request)
        size = _content_length(request)
        for limit in (grant.max_size, self._options.max_upload_size):
            if limit is not None and size > limit:
                raise UploadRefused("too_large", f"The file is larger than {limit} bytes.")
        return size

    async def _store(self, body: _Body, parts: tuple[str, ...], size: int, claim: Claim) -> bool:
        assert self._options.upload_dir is not None
        storage = await self._uploads.storage(self._options.upload_dir)
        self._uploads.watch(self._options)  # an endpoint that is made per request was not prepared
        incoming = await storage.open(parts, size)
        try:
            await self._receive(body, incoming, size, claim)
            await incoming.flush()
            await claim.renew()
            new = await incoming.commit()
            await claim.finish()
            return new
        finally:
            await incoming.discard()

    async def _receive(self, body: _Body, incoming: Incoming, size: int, claim: Claim) -> None:
        limits = self._manager.limits
        received = 0
        async for chunk in paced(body.stream(), limits.min_upload_rate, limits.upload_grace_seconds):
            claim.check()
            received += len(chunk)
            self._manager.metrics.upload_bytes.inc(len(chunk))
            if received > size:
                raise UploadRefused("bad_request", "The body is longer than its Content-Length.")
            await incoming.write(chunk)
        if received < size:
            raise UploadRefused("incomplete", "The body is shorter than its Content-Length.")


async def _let_go(request: Request, body: _Body, refusal: UploadRefused) -> None:
    """End the connection with the answer, unless the body has come to its end: servers wait for it without a bound."""
    # a browser that waits for "100 Continue" has sent nothing, and reading would tell it to
    if refusal.error not in ("too_slow", "client_gone") and "expect" not in request.headers:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await body.drain()
        except TimeoutError:
            pass
    if not body.ended:
        refusal.close()


def _check_encoding(request: Request) -> None:
    headers = request.headers
    encodings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    if any(encoding.strip() not in ("", "identity") for encoding in encodings):
        raise UploadRefused("unsupported_encoding", "The file must be sent as it is, without Content-Encoding.")
    if any(kind.strip().lower().startswith("multipart/") for kind in headers.getlist("content-type")):
        raise UploadRefused("unsupported_encoding", "The body must be the file itself, not a form.")
    if "content-range" in headers:
        # RFC 9110, section 14.5: a server that would take a part for the whole must refuse it
        raise UploadRefused("bad_request", "Parts of files are not taken.")


def _content_length(request: Request) -> int:
    lengths = request.headers.getlist("content-length")
    if not lengths or "transfer-encoding" in request.headers:
        raise UploadRefused("length_required", "The upload needs a Content-Length.")
    if len(set(lengths)) > 1 or not lengths[0].isascii() or not lengths[0].isdecimal():
        raise UploadRefused("bad_request", "Content-Length is not a number.")
    if len(lengths[0]) > _LENGTH_DIGITS:
        raise UploadRefused("too_large", "The file is too large.")
    return int(lengths[0])
