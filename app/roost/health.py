"""The internal listener: what a worker says of itself to health checks, Prometheus and the proxy in front."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

import orjson
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from flet_fastapi.health import Part

from .board import Board, State
from .forwarded import parse_address

METRICS = "/metrics"
_READING = ("GET", "HEAD")
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What is said to one request."""

    status: HTTPStatus
    body: bytes
    kind: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()

    def fields(self) -> list[tuple[str, str]]:
        """All header fields."""
        size = ("content-length", str(len(self.body)))
        return [("content-type", self.kind), size, ("cache-control", "no-store"), *self.headers]


@dataclass
class Health:
    """What one worker knows of itself."""

    slot: int
    board: Board
    slot_port: int | None = None
    loaded: bool = False
    draining: bool = False
    # why no new session is taken now
    full: str | None = None
    # what the library says of what it needs
    parts: Callable[[], Awaitable[Sequence[Part]]] | None = None
    _paths: tuple[str, ...] = field(default=("/livez", "/readyz", "/startupz", "/slots"), init=False)

    def __contains__(self, path: str) -> bool:
        return path in self._paths or path == METRICS

    @property
    def state(self) -> State:
        """For the board."""
        if not self.loaded:
            return State.STARTING
        if self.draining:
            return State.DRAINING
        return State.FULL if self.full is not None else State.READY

    def own_parts(self) -> list[Part]:
        return [
            Part("app", self.loaded, "" if self.loaded else "the app is not loaded yet"),
            Part("worker", not self.draining, "it stops, and takes no new sessions" if self.draining else ""),
            Part("room", self.full is None, self.full or ""),
        ]

    def answer(self, path: str, further: Sequence[Part] = ()) -> Answer:
        """To a request for `path`; `further` parts make a worker that is ready `degraded` if they fail."""
        if path == "/slots":
            ports = [] if self.slot_port is None else range(self.slot_port, self.slot_port + self.board.slots)
            return Answer(HTTPStatus.OK, "".join(f"{port}\n" for port in ports).encode(), _TEXT)
        if path == "/livez":
            return self._json(HTTPStatus.OK, "alive", [])
        if path == "/startupz":
            status = HTTPStatus.OK if self.loaded else HTTPStatus.SERVICE_UNAVAILABLE
            return self._json(status, "started" if self.loaded else "starting", self.own_parts()[:1])
        if path == "/readyz":
            own = self.own_parts()
            if not all(part.ok for part in own):
                return self._json(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", [*own, *further])
            ready = "ready" if all(part.ok for part in further) else "degraded"
            return self._json(HTTPStatus.OK, ready, [*own, *further])
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the worker is starting\n", _TEXT)

    def _json(self, status: HTTPStatus, word: str, parts: Sequence[Part]) -> Answer:
        shown = {part.name: {"ok": part.ok, **({"reason": part.reason} if part.reason else {})} for part in parts}
        body = {"status": word, "worker": self.slot, "pid": os.getpid(), "parts": shown}
        return Answer(status, orjson.dumps(body) + b"\n")


class Door:
    """Who may ask: with tokens, those who are on this machine or show one of them; without, all who get here."""

    def __init__(self, tokens: Sequence[SecretStr] | None) -> None:
        self._tokens = [token.get_secret_value().encode() for token in tokens or ()]

    def refusal(self, health: Health, method: str, path: str, peer: str | None, authorization: str) -> Answer | None:
        """Why a request is not answered, if it is not."""
        if path not in health:
            return Answer(HTTPStatus.NOT_FOUND, b"not found\n", _TEXT)
        if not self._opens(peer, authorization):
            challenge = (("www-authenticate", 'Bearer realm="roost"'),)
            return Answer(HTTPStatus.UNAUTHORIZED, b"ROOST_INTERNAL_TOKEN is needed\n", _TEXT, challenge)
        if method not in _READING:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n", _TEXT, (("allow", "GET, HEAD"),))
        return None

    def _opens(self, peer: str | None, authorization: str) -> bool:
        address = parse_address(peer) if peer else None
        if not self._tokens or (address is not None and address.is_loopback):
            return True
        scheme, _, shown = authorization.partition(" ")
        known = [hmac.compare_digest(shown.strip().encode(), token) for token in self._tokens]
        return scheme.lower() == "bearer" and any(known)


class Internal:
    """The ASGI application of the internal listener."""

    def __init__(self, health: Health, door: Door, metrics: ASGIApp) -> None:
        self._health = health
        self._door = door
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["roost.internal"] = True
        path, peer = scope["path"], scope.get("client")
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        answer = self._door.refusal(
            self._health, scope["method"], path, peer and peer[0], authorization.decode("latin-1")
        )
        if answer is None and path == METRICS:
            await self._metrics(scope, receive, send)
            return
        if answer is None:
            further = await self._health.parts() if path == "/readyz" and self._health.parts is not None else ()
            answer = self._health.answer(path, further)
        await _send(answer, scope["method"], send)


async def _send(answer: Answer, method: str, send: Send) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in answer.fields()]
    await send({"type": "http.response.start", "status": int(answer.status), "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
