"""The beginning of a connection between two workers: who is there, and what the connection is for.

A Unix socket lies in a directory that only this user may enter, which says enough. Over TCP both sides prove that they
know the cluster's secret before anything else is said: each answers the other's random challenge (HMAC-SHA-256 over
both challenges, both names and the purpose), so neither an answer that was overheard nor one's own, sent back, is of
any use.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..identity import new_id
from . import sockets, wire
from .wire import Handler, LinkError, Stream

VERSION = 1
# To connect and to be greeted. A process that was stopped still has connections accepted by its kernel; a busy one
# answers later.
DIAL_SECONDS = 5.0
# Who connects here says why within this time.
_HELLO_SECONDS = 5.0
# Connections that have not said yet what they are for. Each costs a file descriptor and 2 KB.
_MAX_HALF_OPEN = 1000

Accept = Callable[[str, dict[str, Any], Stream], Handler]


class Dialing:
    """The side that connects, until it is greeted; then `then` takes the frames."""

    def __init__(self, mine: str, theirs: str, purpose: str, secrets: Sequence[bytes], then: Handler) -> None:
        self._names = mine, theirs, purpose
        self._secrets = {_key_id(secret): secret for secret in secrets}
        self._then = then
        self._nonce = new_id()
        self.stream: Stream
        self.welcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def hello(self, of_mine: Mapping[str, Any]) -> bytes:
        mine, theirs, purpose = self._names
        return wire.dump(
            {
                "version": VERSION,
                "from": mine,
                "to": theirs,
                "for": purpose,
                "nonce": self._nonce,
                "keys": list(self._secrets),
                **of_mine,
            }
        )

    def frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.CHALLENGE and self._secrets:
            said = wire.load(payload)
            secret, self._secrets = self._secrets.get(wire.text_of(said, "key", 16)), {}
            if secret is None:
                raise LinkError("it has another secret")
            nonces = self._nonce, wire.text_of(said, "nonce", 64)
            _check(said, _proof(secret, "listener", *self._names, *nonces))
            self.stream.send(wire.PROOF, wire.dump({"proof": _proof(secret, "dialer", *self._names, *nonces)}))
        elif kind == wire.WELCOME and not self._secrets:
            said = wire.load(payload)
            if said.get("id") != self._names[1]:
                raise LinkError("another worker answers there")
            self.stream.handler = self._then
            if not self.welcome.done():
                self.welcome.set_result(said)
        else:
            raise LinkError("no greeting")

    def lost(self) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(LinkError("the connection was refused"))
            self.welcome.exception()  # who waited may have gone
        self._then.lost()


async def dial(
    address: str, mine: str, theirs: str, purpose: str, then: Handler,
    *, secrets: Sequence[bytes], limit: int, first: tuple[tuple[int, bytes], ...] = (),
    of_mine: Mapping[str, Any] | None = None,
) -> Stream:  # fmt: skip
    """A connection to the worker `theirs` for `purpose`, whose frames `then` takes; `first` is said right away, and
    `of_mine` with the greeting.

    Raises:
        NobodyThere: its process has ended.
        LinkError: it cannot be reached, or does not answer.
    """
    local = sockets.is_local(address)
    dialing = Dialing(mine, theirs, purpose, () if local else secrets, then)
    stream: Stream | None = None
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            stream = dialing.stream = await sockets.connect(address, lambda: Stream(dialing, limit))
            stream.send(wire.HELLO, dialing.hello(of_mine or {}))
            if local:
                for kind, payload in first:
                    stream.send(kind, payload)
            await dialing.welcome
            if not local:
                for kind, payload in first:
                    stream.send(kind, payload)
    except BaseException as error:
        if stream is not None:
            stream.abort()
        if isinstance(error, TimeoutError):
            raise LinkError("it does not answer") from None
        raise
    return stream


class Doorkeeper:
    """The side that is connected to. `accept` takes a connection whose other end is known, and is told its purpose.

    Without `secrets`, whoever can connect is one of us.
    """

    def __init__(self, mine: str, secrets: Sequence[bytes], limit: int, accept: Accept) -> None:
        self.mine = mine
        self.secrets = {_key_id(secret): secret for secret in secrets}
        self.limit = limit
        self.accept = accept
        self.streams: set[Stream] = set()
        self.half_open = 0

    def answer(self) -> Stream:
        """The protocol of a connection that has just come."""
        return _Caller(self).stream

    def close(self) -> None:
        """End all connections that came from elsewhere."""
        for stream in list(self.streams):
            stream.abort()


class _Caller:
    """One connection from elsewhere, until it is known what it is for; then its own handler takes the frames."""

    def __init__(self, door: Doorkeeper) -> None:
        self._door = door
        self._hello: dict[str, Any] | None = None
        self._nonces = "", ""
        self._secret = b""
        self._then: Handler | None = None
        self._half_open = True
        self.stream = Stream(self, wire.HANDSHAKE_SIZE)
        door.streams.add(self.stream)
        door.half_open += 1
        patience = _HELLO_SECONDS if door.half_open <= _MAX_HALF_OPEN else 0
        self._timer = asyncio.get_running_loop().call_later(patience, self.stream.abort)

    def frame(self, kind: int, payload: bytes) -> None:
        if self._then is not None:
            self._then.frame(kind, payload)
        elif kind == wire.HELLO and self._hello is None:
            self._greet(wire.load(payload))
        elif kind == wire.PROOF and self._hello is not None and self._secret:
            _check(wire.load(payload), _proof(self._secret, "dialer", *_names(self._hello), *self._nonces))
            self._admit(self._hello)
        else:
            raise LinkError("no greeting")

    def _greet(self, hello: dict[str, Any]) -> None:
        names = _names(hello)
        if hello.get("version") != VERSION or names[1] != self._door.mine:
            raise LinkError("for another worker")
        self._hello = hello
        if not self._door.secrets:
            self._admit(hello)
            return
        known = hello.get("keys")
        key = next((key for key in self._door.secrets if type(known) is list and key in known), None)
        if key is None:
            raise LinkError("it has another secret")
        self._secret = self._door.secrets[key]
        self._nonces = wire.text_of(hello, "nonce", 64), new_id()
        proof = _proof(self._secret, "listener", *names, *self._nonces)
        self.stream.send(wire.CHALLENGE, wire.dump({"key": key, "nonce": self._nonces[1], "proof": proof}))

    def _admit(self, hello: dict[str, Any]) -> None:
        self._enter()
        self.stream.limit = self._door.limit
        self.stream.send(wire.WELCOME, wire.dump({"id": self._door.mine}))
        then = self._door.accept(hello["for"], hello, self.stream)
        self.stream.handler = _Counted(then, self._door, self.stream)
        self._then = self.stream.handler

    def _enter(self) -> None:
        if self._half_open:
            self._half_open = False
            self._timer.cancel()
            self._door.half_open -= 1

    def lost(self) -> None:
        self._enter()
        self._door.streams.discard(self.stream)


class _Counted:
    """A handler of a connection that came from elsewhere."""

    __slots__ = ("_door", "_stream", "_then", "frame")

    def __init__(self, then: Handler, door: Doorkeeper, stream: Stream) -> None:
        self._door, self._stream, self._then = door, stream, then
        self.frame = then.frame

    def lost(self) -> None:
        self._door.streams.discard(self._stream)
        self._then.lost()


def _names(hello: dict[str, Any]) -> tuple[str, str, str]:
    return wire.text_of(hello, "from", 64), wire.text_of(hello, "to", 64), wire.text_of(hello, "for", 20)


def _key_id(secret: bytes) -> str:
    """Names a secret without giving it away: while keys are changed, two workers find the one that both have."""
    return _proof(secret, "name")[:16]


def _proof(secret: bytes, side: str, *said: str) -> str:
    # JSON: no two lists of texts are written alike
    return hmac.new(secret, wire.dump([f"flet-cluster-{VERSION}", side, *said]), hashlib.sha256).hexdigest()


def _check(said: dict[str, Any], expected: str) -> None:
    if not hmac.compare_digest(wire.text_of(said, "proof", 64).encode(), expected.encode()):
        raise LinkError("it does not know the cluster's secret")
