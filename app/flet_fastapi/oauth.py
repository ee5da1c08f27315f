"""The door back from a sign-in: `/oauth_callback`, and the states that lead to it.

A state is random (flet's providers make it), is used once, expires, and is bound to the browser in which the sign-in
was started: a callback URL that somebody else has got hold of is worth nothing elsewhere (RFC 9700, section 4.7).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urljoin

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from .cluster import Cluster, ClusterUnavailable
from .cluster.wire import LinkError
from .errors import FletFastAPIError
from .identity import header, hide_query, is_secure, read_browser
from .logs import get_logger
from .manager import app_manager
from .metrics import OTHER, Metrics
from .notices import apps_page, notice
from .options import Limits, origin_of
from .tasks import Tasks

T = TypeVar("T")

log = get_logger(__name__)

# RFC 6749, appendix A.5. flet's states have 22 characters; an app's own may differ, but not be guessable.
_STATE = re.compile(r"[\x20-\x7e]{8,512}")
_HOST = re.compile(r"[a-z0-9.-]{1,100}")
# Azure's codes are the longest known, at some 2,000 characters.
_VALUE_LENGTH = 8192
_PARAMETERS = ("state", "code", "error", "error_description")
# A page of text and style has a few kilobytes; one with an image in it may have more.
_HTML_LENGTH = 256 * 1024
_URL_LENGTH = 2048

_DONE = b"done"
_SUPERSEDED = b"superseded"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# Nobody signs in so often; a client that says that somebody clicks must not fill the memory and the shared store.
_SIGN_INS = 20
_SIGN_INS_SECONDS = 60
_AGAIN = "Go back to the app and sign in again."


class SignInRefused(FletFastAPIError):
    """`page.login()` cannot go on; the text says why."""


class SigningIn(Protocol):
    """What the callback needs of a session."""

    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        """Take the provider's answer.

        Raises:
            LinkError: the session lives in another worker, which cannot be reached any more.
        """


class Manager(Protocol):
    """What sign-ins need of the manager."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def tasks(self) -> Tasks: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this worker."""

    async def open_cluster(self) -> Cluster:
        """The cluster, opened if it is not."""

    def write_again(self) -> None:
        """Let all parts write what the cluster may have lost, in the background."""

    def find_session(self, session_key: str) -> SigningIn | None:
        """The living session with this key."""

    @property
    def worker_id(self) -> str:
        """What the other workers call this one."""

    async def find_session_elsewhere(self, owner: str, session_key: str) -> SigningIn | None:
        """The living session with this key in the worker `owner`.

        Raises:
            LinkError: it cannot be reached now.
        """

    def part(self, kind: Callable[[Any], T]) -> T:
        """The one `kind(manager)` of this worker, made at first use; its `close()` is called at shutdown."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in under way. `browser` is a hash: what is stored must not open a session. `owner` is its worker."""

    session_key: str
    browser: str | None
    expires: float
    complete_page_html: str | None
    complete_page_url: str | None
    provider: str = OTHER
    begun: float = 0.0
    owner: str = ""

    def dump(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def load(cls, value: bytes) -> SignIn:
        return cls(**orjson.loads(value))


class Found(NamedTuple):
    """A state's sign-in, and what the cluster holds for it."""

    sign_in: SignIn
    value: bytes


class Refused(Exception):
    """A callback that leads nowhere; `result` is the metric label."""

    def __init__(self, result: str, response: Response) -> None:
        super().__init__(result)
        self.result = result
        self.response = response


class _Begun:
    """A sign-in begun here: `outcome` is set when it can no longer be used, `saving` once others hear of it, `shared`
    when they may have been able to use it. Who is about to change what they read of it holds `writing`."""

    __slots__ = ("open_when_superseded", "outcome", "saving", "shared", "sign_in", "writing")

    def __init__(self, sign_in: SignIn) -> None:
        self.sign_in = sign_in
        self.outcome: bytes | None = None
        self.saving: asyncio.Task[None] | None = None
        self.shared = self.open_when_superseded = False
        self.writing = asyncio.Lock()

    def end(self, outcome: bytes) -> None:
        self.outcome = outcome
        # it may be a large page, and nobody will see it
        self.sign_in = replace(self.sign_in, complete_page_html=None, complete_page_url=None)


@dataclass(slots=True)
class _Latest:
    """A session's newest sign-in, the one before it, and when the last ones were begun."""

    key: str | None = None
    earlier: str | None = None
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_SIGN_INS))

    def admit(self) -> None:
        """
        Raises:
            SignInRefused: there were too many in the last minute.
        """
        now = time.monotonic()
        if len(self.times) == _SIGN_INS and now - self.times[0] < _SIGN_INS_SECONDS:
            raise SignInRefused(f"a session may start no more than {_SIGN_INS} sign-ins in a minute")
        self.times.append(now)


class SignIns:
    """The sign-ins of one worker, and the way to those of the others.

    What was begun here is known here at once; the cluster hears of it in the background and then decides who uses it.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._here: dict[str, _Begun] = {}
        self._latest: dict[str, _Latest] = {}
        # plain functions begin sign-ins in their own threads
        self._lock = threading.Lock()

    def begin(
        self,
        *,
        state: str,
        session_key: str,
        browser: str | None,
        timeout_seconds: float,
        complete_page_html: str | None = None,
        complete_page_url: str | None = None,
        provider: str = "",
    ) -> None:
        """Remember a sign-in that the page has started; does not wait, and may be called from any thread.

        A session has one sign-in under way: an earlier one ends. `browser` is the cookie of the session's browser,
        `provider` the host that it is sent to.

        Raises:
            SignInRefused: the state or the completion page cannot be used, or there were too many sign-ins.
        """
        _check(state, complete_page_html, complete_page_url)
        key, now, metrics = _key(state), time.time(), self._manager.metrics
        host = metrics.provider(provider) if _HOST.fullmatch(provider) else OTHER
        sign_in = SignIn(
            session_key,
            _hashed(browser),
            now + timeout_seconds,
            complete_page_html,
            complete_page_url,
            host,
            now,
            self._manager.worker_id,
        )
        with self._lock:
            earlier = self._remember(key, sign_in)
        metrics.oauth.labels("started").inc()
        metrics.oauth_flows.labels(host, "started").inc()
        self._manager.loop.call_soon_threadsafe(self._share, key, earlier)

    def _remember(self, key: str, sign_in: SignIn) -> str | None:
        """Make this the session's newest sign-in; returns the key of the one that it ends."""
        latest = self._latest.setdefault(sign_in.session_key, _Latest())
        latest.admit()
        ended = latest.key
        if ended != key:
            # of those before, the shared store knows that they have ended
            if latest.earlier not in (None, key):
                self._here.pop(str(latest.earlier), None)
            if (begun := self._here.get(ended or "")) is not None:
                begun.open_when_superseded = begun.outcome is None
                begun.end(_SUPERSEDED)
            latest.key, latest.earlier = key, ended
        self._here[key] = _Begun(sign_in)
        return ended

    async def find(self, state: str) -> Found:
        """The sign-in that `state` belongs to; it is not used up by this.

        Raises:
            Refused: there is none (any more).
            ClusterUnavailable: it may be another worker's.
        """
        key = _key(state)
        begun = self._here.get(key)
        if begun is not None:
            value: bytes | None = begun.outcome or begun.sign_in.dump()
        else:
            value = await (await self._manager.open_cluster()).get(key)
        found = Found(_sign_in(value), value or b"")
        if time.time() >= found.sign_in.expires:
            raise _unknown()
        return found

    async def use(self, state: str, found: Found) -> None:
        """Use it up: of several callers one returns.

        Raises:
            Refused: somebody else has used it.
            ClusterUnavailable: somebody else may have used it.
        """
        key = _key(state)
        begun = self._here.get(key)
        if begun is not None:
            if begun.outcome is not None:
                raise _replayed()
            begun.end(_DONE)
            if not await self._use_here(key, begun, found):
                raise _replayed()
        else:
            cluster = await self._manager.open_cluster()
            if not await cluster.swap(key, found.value, _DONE, found.sign_in.expires - time.time()):
                raise _replayed()

    async def _use_here(self, key: str, begun: _Begun, found: Found) -> bool:
        """Tell the others that a sign-in begun here is used; False if one of them was faster."""
        if begun.saving is None:
            return True  # nobody else has heard of it
        await asyncio.shield(begun.saving)
        async with begun.writing:
            if not begun.shared:
                return True
            left = found.sign_in.expires - time.time()
            try:
                cluster = await self._manager.open_cluster()
                # a store that has lost it says nothing against its use here
                return await cluster.swap(key, found.value, _DONE, left) or await cluster.add(key, _DONE, left)
            except ClusterUnavailable:
                self._manager.write_again()
                return True

    async def write_again(self) -> None:
        """What others must know of the sign-ins begun here, as far as they do not."""
        cluster, now = await self._manager.open_cluster(), time.time()
        with self._lock:
            begun = [item for item in self._here.items() if item[1].saving is not None]
        for key, one in begun:
            async with one.writing:
                if (left := one.sign_in.expires - now) <= 0:
                    continue
                one.shared = True
                if one.outcome is not None:
                    await cluster.put(key, one.outcome, left)
                else:  # somebody else may have used it since, and says so there
                    await cluster.add(key, one.sign_in.dump(), left)

    async def close(self) -> None:
        """Nothing to let go of: what was begun here may come back to another worker."""

    def _share(self, key: str, earlier: str | None) -> None:
        self._forget_expired()
        begun = self._here.get(key)
        if begun is not None:
            begun.saving = self._manager.tasks.start(self._save(key, begun, earlier), "save_sign_in")

    async def _save(self, key: str, begun: _Begun, earlier: str | None) -> None:
        """Tell the other workers."""
        left = begun.sign_in.expires - time.time()
        try:
            cluster = await self._manager.open_cluster()
            begun.shared = begun.outcome is None
            await cluster.put(key, begun.outcome or begun.sign_in.dump(), left)
            if earlier is not None and earlier != key:
                await self._supersede(cluster, earlier, left)
        except ClusterUnavailable as error:
            log.warning("sign_in_not_shared", problem=error.problem)
            self._manager.write_again()

    async def _supersede(self, cluster: Cluster, key: str, left: float) -> None:
        ended = self._here.get(key)
        # it may have been used in another worker
        if ended is not None and ended.open_when_superseded and await cluster.get(key) != _DONE:
            self._manager.metrics.oauth_flows.labels(ended.sign_in.provider, "superseded").inc()
        await cluster.put(key, _SUPERSEDED, left)

    def _forget_expired(self) -> None:
        now = time.time()
        with self._lock:
            # They stand in the order of their start, which is nearly that of their expiry.
            expired = list(takewhile(lambda item: item[1].sign_in.expires <= now, self._here.items()))
            for key, begun in expired:
                del self._here[key]
                latest = self._latest.get(begun.sign_in.session_key)
                if latest is not None and latest.key == key:
                    del self._latest[begun.sign_in.session_key]


class FletOAuth:
    """The OAuth callback endpoint. Instances hold no state; make one per request or one for all."""

    def __init__(self) -> None:
        self._manager: Manager = app_manager

    @classmethod
    def for_manager(cls, manager: Manager) -> FletOAuth:
        """The endpoint of another manager than `app_manager`."""
        endpoint = cls()
        endpoint._manager = manager
        return endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.handle(Request(scope, receive, send))
        await response(scope, receive, send)

    async def handle(self, request: Request) -> Response:
        """Bring the provider's answer to the page that waits for it, and tell the browser how to go on.

        Raises nothing for what a browser may send: every answer is a page or a redirect.
        """
        try:
            result, response = await self._handle(request)
        except Refused as refused:
            result, response = refused.result, refused.response
        except ClusterUnavailable as error:
            log.warning("sign_in_without_cluster", problem=error.problem)
            result, response = "unavailable", _busy()
        self._manager.metrics.oauth.labels(result).inc()
        return response

    async def _handle(self, request: Request) -> tuple[str, Response]:
        query = hide_query(request.scope)
        if request.method != "GET":
            raise Refused("bad_request", Response(status_code=405, headers={**_HEADERS, "Allow": "GET"}))
        answer = _read_answer(query)
        sign_ins = self._manager.part(SignIns)
        state = answer["state"] or ""
        found = await sign_ins.find(state)
        if not _same_browser(found.sign_in.browser, read_browser(request.scope)):
            raise _other_browser()
        here = self._manager.find_session(found.sign_in.session_key)
        elsewhere = await self._elsewhere(found.sign_in) if here is None else None
        await sign_ins.use(state, found)
        self._count(found.sign_in, answer)
        if here is not None:
            # the token request may take seconds; the popup need not wait for it
            self._manager.tasks.start(here.authorize(answer), "authorize")
        elif elsewhere is not None:
            try:
                await elsewhere.authorize(answer)
            except LinkError:
                raise _session_gone() from None
        return self._completed(request, found.sign_in, answer)

    async def _elsewhere(self, sign_in: SignIn) -> SigningIn:
        """The session in another worker, where it is for that to wait for the token.

        Raises:
            Refused: the session has ended, or its worker does not answer; then a later try may succeed.
        """
        try:
            session = await self._manager.find_session_elsewhere(sign_in.owner, sign_in.session_key)
        except LinkError as error:
            log.warning("sign_in_without_owner", problem=str(error))
            raise Refused("unavailable", _busy()) from None
        if session is None:
            raise _session_gone()
        return session

    def _count(self, sign_in: SignIn, answer: Mapping[str, str | None]) -> None:
        metrics, outcome = self._manager.metrics, "provider_error" if answer["error"] else "completed"
        metrics.oauth_flows.labels(sign_in.provider, outcome).inc()
        if sign_in.begun:  # an older version's says nothing of it
            metrics.oauth_flow_seconds.labels(sign_in.provider).observe(max(0.0, time.time() - sign_in.begun))

    def _completed(self, request: Request, sign_in: SignIn, answer: Mapping[str, str | None]) -> tuple[str, Response]:
        result = "provider_error" if answer["error"] else "completed"
        if sign_in.complete_page_url is not None:
            allowed = self._manager.limits.oauth_redirect_origins
            target = _target(request.scope, sign_in.complete_page_url, allowed)
            if target is not None:
                return result, RedirectResponse(target, 303, _HEADERS)
            log.warning("sign_in_redirect_refused", hint="see FLET_OAUTH_REDIRECT_ORIGINS")
            result = "redirect_refused"
        if answer["error"]:
            return result, _failed(answer)
        if sign_in.complete_page_html is not None:
            return result, apps_page(sign_in.complete_page_html)
        return result, notice(
            200, "You can close this window", "The app goes on in the window where you started.", close=True
        )


def _check(state: str, complete_page_html: str | None, complete_page_url: str | None) -> None:
    if not _STATE.fullmatch(state):
        raise SignInRefused("the provider's state must be 8 to 512 characters of ASCII")
    if complete_page_html is not None and len(complete_page_html) > _HTML_LENGTH:
        raise SignInRefused(f"complete_page_html must have no more than {_HTML_LENGTH} characters")
    if complete_page_url is not None and (len(complete_page_url) > _URL_LENGTH or not complete_page_url.isprintable()):
        raise SignInRefused(f"the completion page's URL must have no more than {_URL_LENGTH} printable characters")


def _read_answer(query: QueryParams) -> dict[str, str | None]:
    """The provider's answer, if it is one as RFC 6749, section 4.1.2 has it.

    Raises:
        Refused: it is not.
    """
    answer: dict[str, str | None] = {}
    for name in _PARAMETERS:
        values = query.getlist(name)
        if len(values) > 1 or any(len(value) > _VALUE_LENGTH for value in values):
            raise _bad_request()
        answer[name] = values[0] if values else None
    if not _STATE.fullmatch(answer["state"] or "") or not (answer["code"] or answer["error"]):
        raise _bad_request()
    return answer


def _sign_in(value: bytes | None) -> SignIn:
    """The sign-in that a state leads to.

    Raises:
        Refused: it leads to none, or no longer.
    """
    if value is None:
        raise _unknown()
    if value == _DONE:
        raise _replayed()
    if value == _SUPERSEDED:
        raise _superseded()
    return SignIn.load(value)


def _target(scope: Scope, url: str, allowed: tuple[str, ...]) -> str | None:
    """Where the browser may be sent: an absolute URL of the app's own origin or an allowed one, or None."""
    own = f"{'https' if is_secure(scope) else 'http'}://{header(scope, b'host')}"
    try:
        own = origin_of(own)
        # browsers read a backslash as a slash; no URL of an app has one
        target = urljoin(own + "/", url)
        safe = "\\" not in url and origin_of(target) in (own, *allowed)
    except ValueError:
        return None
    return target if safe else None


def _key(state: str) -> str:
    return f"oauth:{hashlib.sha256(state.encode()).hexdigest()}"


def _hashed(browser: str | None) -> str | None:
    return None if browser is None else hashlib.sha256(b"oauth " + browser.encode()).hexdigest()


def _same_browser(known: str | None, shown: str | None) -> bool:
    hashed = _hashed(shown)
    return known is not None and hashed is not None and hmac.compare_digest(known, hashed)


# --- what the browser is told ----------------------------------------------------------------------------------------


def _failed(answer: Mapping[str, str | None]) -> Response:
    words = answer["error_description"] or answer["error"] or ""
    return notice(
        200, "You were not signed in", "You can close this window, go back to the app and try again.", quote=words
    )


def _bad_request() -> Refused:
    text = f"The address of this page is not what a sign-in leads to. {_AGAIN}"
    return Refused("bad_request", notice(400, "This is not a sign-in", text))


def _unknown() -> Refused:
    text = f"It took too long, or it was never started here. {_AGAIN}"
    return Refused("unknown", notice(400, "This sign-in is not known", text))


def _replayed() -> Refused:
    text = "Nothing more is to be done here. You can close this window and go back to the app."
    return Refused("replayed", notice(400, "This sign-in has been finished already", text))


def _superseded() -> Refused:
    text = "Finish the newer one, or go back to the app and sign in again."
    return Refused("superseded", notice(400, "A newer sign-in has been started", text))


def _other_browser() -> Refused:
    text = (
        "It was started in another browser, or this one did not keep the app's cookie. Signing in needs cookies:"
        " allow them for this site, open the app in this browser, and sign in there."
    )
    return Refused("other_browser", notice(403, "This sign-in belongs to another browser", text))


def _session_gone() -> Refused:
    text = (
        "The app was closed, or was left alone for too long, before the sign-in came back. Open it and sign in again."
    )
    return Refused("session_gone", notice(410, "The app is no longer open", text))


def _busy() -> Response:
    return notice(503, "This cannot be done now", "Reload this page in a minute to try once more.")
