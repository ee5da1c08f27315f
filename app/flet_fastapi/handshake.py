"""The door for websockets: who may come in, how often, and how many at once. Nothing is accepted before this says so.

A browser sends its cookies with any website's websocket (RFC 6455, section 10.2), so a page of another origin must not
get in. The browser's view of the app's origin is the scheme that the server or its trusted proxy tells, and `Host`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Protocol, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import FletFastAPIError
from .identity import hide_query, is_secure, read_browser
from .logs import get_logger
from .metrics import Metrics
from .options import ANY_ORIGIN, Limits, origin_of

log = get_logger(__name__)

T = TypeVar("T")

# A host as browsers write it (RFC 3986, 3.2.2, without percent-encoding): 253 bytes of name and a port at most.
_HOST = re.compile(r"([A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9._~\[\]:-]{1,265}", re.IGNORECASE)
# Addresses whose pace is remembered, about 2 MB; the one that was away the longest is forgotten first.
_MAX_PACES = 10_000
_RETRY_SECONDS = 5
# What a translator of a whole network shows for an IPv4 address: in its last 32 bits (RFC 6052, 2.1).
_NAT64 = IPv6Network("64:ff9b::/96")
# A wrong proxy setting refuses everybody: the log says it, but not for everybody.
_LOG_SECONDS = 60
_SHOWN_LENGTH = 200

# What each reason is answered with: not more than a person who debugs needs.
_ANSWERS = {
    "bad_host": (400, "The Host header is missing or wrong."),
    "unknown_host": (421, "This server does not serve this host."),
    "bad_origin": (403, "The Origin header is wrong."),
    "no_origin": (403, "Only browsers may connect: the Origin header is missing."),
    "cross_origin": (403, "Pages of this origin may not connect."),
    "rate": (429, "Too many new connections from this address."),
    "address_connections": (429, "Too many connections from this address."),
    "browser_connections": (429, "Too many connections from this browser."),
    "unregistered": (503, "Too many connections are just starting."),
}
_LATER = (429, 503)
_HINTS = {
    "unknown_host": "FLET_ALLOWED_HOSTS does not name it",
    "no_origin": "native clients send none: FLET_ALLOW_NO_ORIGIN lets them in",
    "cross_origin": "a proxy in front must pass Host and X-Forwarded-Proto and be trusted by the server, "
    "or FLET_ALLOWED_ORIGINS must name the origin",
}


class HandshakeRefused(FletFastAPIError):
    """The websocket must not be accepted. `reason` is a short metric label, `status` and `text` are the answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status, self.text = _ANSWERS[reason]

    async def answer(self, scope: Scope, send: Send) -> None:
        """Refuse the handshake: with a status and a sentence where the server can, else with the server's own 403."""
        with suppress(OSError):  # the client has left: that is refused, too
            if "websocket.http.response" not in scope.get("extensions", ()):
                code = 1013 if self.status in _LATER else 1008
                await send({"type": "websocket.close", "code": code, "reason": self.text})
                return
            # uvicorn's own websocket class answers this, too, but then logs that the handshake was not completed
            await self._send(send, "websocket.http.response")

    async def answer_http(self, send: Send) -> None:
        """The same answer to a plain request."""
        await self._send(send, "http.response")

    async def _send(self, send: Send, kind: str) -> None:
        body = self.text.encode()
        await send({"type": f"{kind}.start", "status": self.status, "headers": self._headers(body)})
        await send({"type": f"{kind}.body", "body": body})

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        return [*headers, (b"retry-after", b"%d" % _RETRY_SECONDS)] if self.status in _LATER else headers


class Manager(Protocol):
    """What the door needs of `app_manager`."""

    @property
    def limits(self) -> Limits: ...

    @property
    def metrics(self) -> Metrics: ...


class ManagerWithDoor(Protocol):
    """What has a door: `app_manager`."""

    @property
    def limits(self) -> Limits: ...

    def part(self, kind: Callable[[Any], T]) -> T: ...


class Place:
    """What an admitted connection takes of its address's and its browser's room; `leave` when it ends.

    `browser` is the value of its cookie.
    """

    __slots__ = ("_address", "_handshakes", "browser")

    def __init__(self, handshakes: Handshakes, address: str | None, browser: str | None) -> None:
        self._handshakes: Handshakes | None = handshakes
        self._address = address
        self.browser = browser

    def leave(self) -> None:
        """Give the room back; to call it again changes nothing."""
        handshakes, self._handshakes = self._handshakes, None
        if handshakes is not None:
            handshakes.addresses.leave(self._address)
            handshakes.browsers.leave(self.browser)


class Handshakes:
    """The door of one worker; `app_manager.part(Handshakes)` is the one of this worker."""

    def __init__(self, manager: Manager, clock: Callable[[], float] = time.monotonic) -> None:
        limits = manager.limits
        self._limits = limits
        self._metrics = manager.metrics
        self._clock = clock
        self._logged: dict[str, float] = {}
        self.paces = Paces(limits.handshakes_per_second, limits.handshake_burst, clock)
        self.addresses = Room(limits.max_connections_per_address)
        self.browsers = Room(limits.max_connections_per_browser)

    async def close(self) -> None:
        """Nothing is open."""

    def enter(self, scope: Scope, *, full: bool = False) -> Place:
        """Let the connection in, or not; when the worker is `full`, nobody.

        Raises:
            HandshakeRefused: not; it has been counted.
        """
        try:
            check(scope, self._limits)
            if full:
                raise HandshakeRefused("unregistered")
            return self._enter(address_of(scope, private=self._limits.limits_private_addresses), read_browser(scope))
        except HandshakeRefused as refusal:
            self._count(refusal.reason, scope)
            raise

    def check_host(self, scope: Scope) -> None:
        """Whether a plain request is for this server; a `Host` of any kind is, unless hosts are named.

        Raises:
            HandshakeRefused: it is not; it has been counted.
        """
        if not self._limits.allowed_hosts:
            return
        try:
            _checked_host(scope, self._limits.allowed_hosts)
        except HandshakeRefused as refusal:
            self._count(refusal.reason, scope)
            raise

    def _enter(self, address: str | None, browser: str | None) -> Place:
        # after the origin: a foreign page must not use up what its visitors need to get in
        if not self.paces.take(address):
            raise HandshakeRefused("rate")
        if not self.addresses.take(address):
            raise HandshakeRefused("address_connections")
        if not self.browsers.take(browser):
            self.addresses.leave(address)
            raise HandshakeRefused("browser_connections")
        return Place(self, address, browser)

    def _count(self, reason: str, scope: Scope) -> None:
        self._metrics.handshakes_refused.labels(reason).inc()
        self._report(reason, scope)

    def _report(self, reason: str, scope: Scope) -> None:
        now = self._clock()
        if now < self._logged.get(reason, 0) + _LOG_SECONDS and reason in self._logged:
            return
        self._logged[reason] = now
        host, origin = (",".join(_values(scope, name))[:_SHOWN_LENGTH] for name in (b"host", b"origin"))
        hint = _HINTS.get(reason, "")
        log.warning("handshake_refused", reason=reason, scheme=scope.get("scheme"), host=host, origin=origin, hint=hint)


class HostGuard:
    """Serves `app`, which speaks HTTP, under the hosts that `FLET_ALLOWED_HOSTS` names, if it names any.

    A page of another name that leads here (DNS rebinding) could read the answers: the browser takes them for its own.
    """

    def __init__(self, app: ASGIApp, manager: ManagerWithDoor) -> None:
        self._app = app
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                self._manager.part(Handshakes).check_host(scope)
        except HandshakeRefused as refusal:
            hide_query(scope)
            await refusal.answer_http(send)
            return
        await self._app(scope, receive, send)


class Paces:
    """`burst` at once and `per_second` after that, for each of a bounded number of keys; None has no pace.

    One number per key: when it would be as if it had never come (GCRA, ITU-T I.371).
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float], max_keys: int = _MAX_PACES) -> None:
        self._interval = 1 / per_second
        self._tolerance = (burst - 1) * self._interval
        self._clock = clock
        self._max_keys = max_keys
        self._rested: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._rested)

    def take(self, key: str | None) -> bool:
        """Whether one more may come now."""
        if key is None:
            return True
        now = self._clock()
        rested = max(self._rested.pop(key, now), now)
        may = rested - now <= self._tolerance
        self._rested[key] = rested + self._interval if may else rested
        if len(self._rested) > self._max_keys:
            del self._rested[next(iter(self._rested))]
        return may


class Room:
    """At most `limit` at once for each key; only keys that have one are remembered. None has no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, key: str | None) -> bool:
        """Whether there is room for one more, which is then taken."""
        if key is None:
            return True
        if self._taken[key] >= self._limit:
            return False
        self._taken[key] += 1
        return True

    def leave(self, key: str | None) -> None:
        """Give room back."""
        if key is not None:
            self._taken[key] -= 1
            if self._taken[key] <= 0:
                del self._taken[key]


# --- what a handshake says -------------------------------------------------------------------------------------------


def check(scope: Scope, limits: Limits) -> None:
    """Whether `Host` and `Origin` are those of a page of this app, or of another one that may connect.

    Raises:
        HandshakeRefused: they are not.
    """
    host = _checked_host(scope, limits.allowed_hosts)
    origins = _values(scope, b"origin")
    if not origins:
        if not limits.allow_no_origin:
            raise HandshakeRefused("no_origin")
        return
    if len(origins) > 1:
        raise HandshakeRefused("bad_origin")
    own = f"{'https' if is_secure(scope) else 'http'}://{host}"
    # written alike but for a port that goes without saying; most are written alike
    if origins[0] != own:
        _check_foreign(origins[0], own, limits.allowed_origins)


def _check_foreign(origin: str, own: str, allowed: tuple[str, ...]) -> None:
    if ANY_ORIGIN in allowed:
        return
    if origin == "null":  # a sandboxed frame, a file, a data: URL: anybody's
        raise HandshakeRefused("cross_origin")
    if not _ORIGIN.fullmatch(origin):
        raise HandshakeRefused("bad_origin")
    try:
        named = origin_of(origin)
    except ValueError:
        raise HandshakeRefused("bad_origin") from None
    if named != origin_of(own) and named not in allowed:
        raise HandshakeRefused("cross_origin")


def _checked_host(scope: Scope, allowed: tuple[str, ...]) -> str:
    hosts = _values(scope, b"host")
    name = _host_name(hosts[0]) if len(hosts) == 1 else None
    if name is None:
        raise HandshakeRefused("bad_host")
    if allowed and name not in allowed:
        raise HandshakeRefused("unknown_host")
    return hosts[0]


@lru_cache(256)
def _host_name(host: str) -> str | None:
    """The name in a `Host` header, in lower case; None if the header is malformed."""
    parts = _HOST.fullmatch(host)
    if parts is None or int(parts[2] or 0) > 65_535:
        return None
    try:
        origin_of(f"http://{host}")
    except ValueError:  # brackets with something else in them than an IPv6 address
        return None
    return parts[1].lower()


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def address_of(scope: Scope, *, private: bool = False) -> str | None:
    """What limits per address count by, or None for an address that stands for nobody in particular.

    That is an unknown one (a Unix socket) and, unless `private`, one that is not of the public internet: it is most
    likely that of a proxy which hides everybody's.
    """
    client = scope.get("client")
    return _address(str(client[0]), private) if client else None


@lru_cache(4096)
def _address(text: str, private: bool) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    elif isinstance(address, IPv6Address):
        address = _translated(address) or address
    if not private and not address.is_global:
        return None
    # a customer's smallest network: each machine in it takes addresses as it likes (RFC 6177)
    return str(address) if address.version == 4 else address.packed[:8].hex()


def _translated(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that stands behind NAT64 or 6to4: all of NAT64 would share one /64."""
    if address in _NAT64:
        return IPv4Address(address.packed[12:])
    return address.sixtofour
