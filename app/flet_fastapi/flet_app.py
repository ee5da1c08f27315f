"""`FletApp`: the websocket endpoint of an app. It decides which session a connection gets."""

from __future__ import annotations

import asyncio
import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Self, overload

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from .cluster.relay import Relayed, Remote
from .cluster.wire import BINARY, TEXT
from .connection import Connection, RelayedConnection
from .errors import CloseConnection, OptionError, SessionClosed, UploadsDisabled
from .generations import generation_for
from .generations.base import Generation, Handler, Origin, Register
from .handshake import HandshakeRefused, Handshakes
from .identity import Credential, Keyring, header, is_secure, short_hash
from .logs import carry, tell
from .manager import AppManager, app_manager
from .oauth import SignIns
from .options import Options
from .session import Session
from .uploads import placed_below, upload_url

# How long a refused client may show why, before its socket is closed and it tries again.
_REFUSED_SECONDS = 30
_MAX_HEADER = 1024
_EITHER_WAY = inspect.Parameter.POSITIONAL_OR_KEYWORD
_DEFAULTS = {
    "session_timeout_seconds": 3600,
    "oauth_state_timeout_seconds": 600,
    "upload_endpoint_path": None,
    "secret_key": None,
}
_BUSY = "The server is full at the moment. Please try again in a few minutes."


class FletApp:
    """One app's websocket endpoint.

    `handle(websocket)` serves one connection from a FastAPI or Starlette route; the object is also an ASGI application
    of its own. `session_handler` is the app's `main(page)`, a coroutine function or a plain one. Source: the Flet guide
    "Running Flet with FastAPI"; the form of `flet` 0.24, with an event loop before the handler, is taken too.

    Raises:
        OptionError: a parameter or a `FLET_*` variable is wrong.
    """

    # what is shown to those who ask; the older form is the second one below
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("session_handler", _EITHER_WAY),
            *(inspect.Parameter(name, _EITHER_WAY, default=default) for name, default in _DEFAULTS.items()),
        ]
    )

    @overload
    def __init__(
        self, session_handler: Any, session_timeout_seconds: int = 3600, oauth_state_timeout_seconds: int = 600,
        upload_endpoint_path: str | None = None, secret_key: str | None = None,
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self, loop: asyncio.AbstractEventLoop, session_handler: Any, session_timeout_seconds: int = 3600,
        oauth_state_timeout_seconds: int = 600, upload_endpoint_path: str | None = None, secret_key: str | None = None,
    ) -> None: ...  # fmt: skip

    def __init__(self, *args: Any, **named: Any) -> None:
        given = _given(args, named)
        session_handler = given.pop("session_handler")
        self._configure(session_handler, app_manager.options(**given), app_manager)

    @classmethod
    def from_options(
        cls,
        session_handler: Handler,
        options: Options,
        manager: AppManager = app_manager,
        *,
        takes_uploads: bool = False,
    ) -> Self:
        """The endpoint of an app whose options are checked already; `takes_uploads` if `FletUpload` is beside it."""
        endpoint = cls.__new__(cls)
        endpoint._configure(session_handler, options, manager)
        endpoint._takes_uploads = takes_uploads and options.upload_dir is not None
        return endpoint

    def _configure(self, session_handler: Handler, options: Options, manager: AppManager) -> None:
        self._takes_uploads = False
        self._main = check_handler(session_handler)
        self._options = options
        self._manager = manager
        self._generation: Generation = generation_for(session_handler)
        self._keyring: Keyring | None = None

    async def prepare(self) -> None:
        """Find the app's keys now, so that what is wrong with them stops the start.

        Raises:
            OptionError: the private run directory cannot be used.
        """
        self._keyring = await self._manager.keyring(self._options)

    async def handle(self, websocket: WebSocket) -> None:
        """Serve one websocket that nobody has accepted yet, until it ends."""
        await self._serve(websocket.scope, websocket.receive, websocket.send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve(scope, receive, send)

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        manager = self._manager
        scope["query_string"] = b""  # nothing here reads it, and the server would log it
        if (await receive())["type"] != "websocket.connect":
            return
        if manager.stopping:
            await send({"type": "websocket.close", "code": 1012, "reason": "service restart"})
            return
        await manager.start()
        full = manager.unregistered >= manager.limits.max_unregistered
        try:
            place = manager.part(Handshakes).enter(scope, full=full)
        except HandshakeRefused as refusal:
            await refusal.answer(scope, send)
            return
        connection = Connection(manager, self._generation, place.browser, scope, receive, send)
        manager.opened(connection)
        try:
            await connection.run(self._admitted)
        finally:
            session = connection.session
            place.leave()
            manager.closed(connection)
            connection.let_go()
            if isinstance(session, Session) and connection.unclaimed:
                manager.end(session, "unclaimed")

    async def serve_relayed(self, relayed: Relayed) -> None:
        """Serve a websocket that has come to another worker, for a session of this app that lives here."""
        manager = self._manager
        carry(relayed.log)
        connection = RelayedConnection(
            manager, self._generation, relayed.browser, relayed.scope, relayed.receive, relayed.send
        )
        manager.connections.add(connection)
        try:
            await connection.run(partial(self._admitted_relayed, relayed))
        finally:
            manager.connections.discard(connection)
            connection.let_go()

    async def _admitted_relayed(self, relayed: Relayed, connection: Connection) -> Session | None:
        """The session that the client registers for, if it may have it, and still waits for it."""
        register = await connection.register()
        if register is None:
            return None
        keyring = await self._keys()
        session, result = await self._claimed(connection, register, keyring, relayed.app, relayed.offered)
        self._manager.metrics.resumed(result, relayed=True)
        if session is None:
            relayed.refuse(result)
        return session

    async def _admitted(self, connection: Connection) -> Session | Remote | None:
        """The session that the client registers for; None if it left, or was refused and has read why."""
        manager = self._manager
        with manager.registering(connection):
            register = await connection.register()
            if register is None:
                return None
            session = await self._session(connection, register)
        if session is None:
            manager.metrics.refused.labels("full").inc()
            await connection.refuse(_BUSY, _REFUSED_SECONDS)
            raise CloseConnection(1013, "the server is full")
        return session

    # --- which session -----------------------------------------------------------------------------------------------

    async def _session(self, connection: Connection, register: Register) -> Session | Remote | None:
        keyring = await self._keys()
        known = await self._known(connection, register, keyring) if register.credential else None
        return known or self._started(connection, register, keyring)

    async def _keys(self) -> Keyring:
        if self._keyring is None:
            self._keyring = await self._manager.keyring(self._options)
        return self._keyring

    async def _known(self, connection: Connection, register: Register, keyring: Keyring) -> Session | Remote | None:
        """The living session that the credential opens for this browser, whichever worker it lives in."""
        manager = self._manager
        credential = keyring.verify_credential(register.credential)
        session: Session | Remote | None = None
        if credential is None:
            result = "forged"
        elif manager.is_elsewhere(credential.owner):
            session, result = await self._relayed(connection, credential)
            if result != "gone":
                return session  # the owner has counted it
            result = "unknown"
        else:
            session, result = await self._claimed(connection, register, keyring, self._name(connection.scope))
        manager.metrics.resumed(result)
        return session

    async def _relayed(self, connection: Connection, credential: Credential) -> tuple[Remote | None, str]:
        """The session in another worker, or why there is none: what its owner said, or that that is `gone`."""
        peers, first = self._manager.peers, connection.first
        if peers is None:
            return None, "gone"
        frame = (TEXT, first.encode(errors="surrogatepass")) if isinstance(first, str) else (BINARY, first)
        remote, result = await peers.relay(
            credential.owner, connection, frame, connection.scope,
            session=credential.secret_id, app=self._name(connection.scope), cookie=connection.browser,
            pings=connection.pings,
        )  # fmt: skip
        if remote is not None:
            tell(connection.scope, session=short_hash(credential.secret_id), app=self._name(connection.scope))
            connection.pass_on(remote)
        return remote, result

    async def _claimed(
        self, connection: Connection, register: Register, keyring: Keyring, app: str,
        wanted: Callable[[], Awaitable[bool]] | None = None,
    ) -> tuple[Session | None, str]:  # fmt: skip
        """The session that the credential names, resumed, or why it is not. `wanted` is asked last."""
        manager = self._manager
        credential = keyring.verify_credential(register.credential)
        if credential is None:
            return None, "forged"
        async with manager.admission(credential.secret_id):
            session, result = self._find(connection, credential.secret_id, app)
            if session is None:
                return None, result
            if await self._is_in_use(session):
                return None, "in_use"
            if wanted is not None and not await wanted():
                return None, "unknown"
            connection.session = session
            try:
                answer = keyring.sign_credential(session.secret_id, manager.worker_id)
                await manager.in_turn()
                connection.open(await session.resume(connection, register, answer), fresh=False)
                tell(connection.scope, session.page.context, session=short_hash(session.secret_id), app=session.app)
            except SessionClosed:
                connection.session = None
                return None, "unknown"
            return session, "resumed"

    async def _is_in_use(self, session: Session) -> bool:
        """Whether a browser is at the other end of the session's connection, or of one that took its place."""
        while (connection := session.connection) is not None:
            if await session.answers():
                return True
            if session.connection is connection:
                return False
        return False

    def _find(self, connection: Connection, secret_id: str, app: str) -> tuple[Session | None, str]:
        """The session that the credential names, or why it opens none."""
        session = self._manager.find(secret_id)
        if session is None:
            return None, "unknown"
        if session.app != app:
            return None, "other_app"
        if session.browser is not None and not _same(session.browser, connection.browser):
            return None, "other_browser"
        if session.crashed:
            self._manager.end(session, "crashed")
            return None, "crashed"
        if session.browser is None and session.issued_cookie is not None:
            self._bind(session, connection)
        return session, "resumed"

    def _bind(self, session: Session, connection: Connection) -> None:
        """The browser kept the cookie that it was given when the session started: from now on it must show it."""
        if _same(session.issued_cookie or "", connection.browser):
            self._manager.bind(session, connection.browser)

    def _started(self, connection: Connection, register: Register, keyring: Keyring) -> Session | None:
        manager, scope = self._manager, connection.scope
        if not manager.make_room(connection.browser):
            return None
        name = self._name(scope)
        session = Session(manager, name, self, self._options.session_timeout_seconds)
        session.browser, session.issued_cookie = connection.browser, connection.issued_cookie
        session.upload_path = self._upload_path(scope)
        tell(scope, session=short_hash(session.secret_id), app=name)  # the page keeps it for all handlers
        hub = manager.hub(name) or self._generation.hub(manager.publisher(name))
        session.page = self._generation.open(session, register, self._origin(scope), hub)
        manager.add(session, hub)
        connection.session = session
        session.attach(connection)
        # before the answer is written, so that both go out in one turn of the loop
        session.begin(self._main)
        credential = keyring.sign_credential(session.secret_id, manager.worker_id)
        connection.open(session.page.registered(credential), fresh=True)
        return session

    def _name(self, scope: Scope) -> str:
        """Names the app in this worker: where it is served, and what it runs."""
        main = getattr(self._main, "func", self._main)
        return f"{scope['path']} {getattr(main, '__module__', '')}.{getattr(main, '__qualname__', type(main).__name__)}"

    def _origin(self, scope: Scope) -> Origin:
        prefix = self._prefix(scope)
        scheme = "https" if is_secure(scope) else "http"
        client = scope.get("client")
        return Origin(
            page_url=f"{scheme}://{header(scope, b'host')[:_MAX_HEADER]}{prefix}",
            page_name=prefix.strip("/"),
            client_ip=str(client[0]) if client else "",
            user_agent=header(scope, b"user-agent")[:_MAX_HEADER],
        )

    def _prefix(self, scope: Scope) -> str:
        """Below which URL path the browser sees the app."""
        return (self._options.proxy_path or "") + str(scope.get("root_path", "")).rstrip("/")

    def _upload_path(self, scope: Scope) -> str | None:
        """The path that the browser sends uploads to; one that is somebody else's is as it was given."""
        options, prefix = self._options, self._prefix(scope)
        given = options.upload_endpoint_path
        if given is not None:
            return placed_below(prefix, given) if self._takes_uploads else given
        return None if options.upload_dir is None else f"{prefix}/{options.upload_endpoint}"

    # --- services of the session -------------------------------------------------------------------------------------

    def upload_url(self, session: Session, file_name: str, expires_seconds: int) -> str:
        """A signed URL for one upload of the session's browser.

        Raises:
            UploadsDisabled: the app has no upload endpoint.
        """
        if session.upload_path is None or self._keyring is None:
            raise UploadsDisabled("uploads are disabled: give the app an upload_dir or an upload_endpoint_path")
        return upload_url(
            self._keyring,
            path=session.upload_path,
            file_name=file_name,
            session_key=session.key,
            expires_seconds=expires_seconds,
            max_size=self._options.max_upload_size,
        )

    def begin_login(self, session: Session, attributes: Mapping[str, str]) -> None:
        """Remember a sign-in until its callback comes.

        Raises:
            SignInRefused: it cannot be completed.
        """
        self._manager.part(SignIns).begin(
            state=attributes["state"],
            session_key=session.key,
            browser=session.browser or session.issued_cookie,
            timeout_seconds=self._options.oauth_state_timeout_seconds,
            complete_page_html=attributes.get("completePageHtml"),
            complete_page_url=attributes.get("completePageUrl"),
            provider=attributes.get("provider", ""),
        )


def _given(args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The parameters of `FletApp` by their names, the event loop of the older form left out.

    Raises:
        OptionError: one is missing, unknown or there twice.
    """
    older = "loop" in named or (args and isinstance(args[0], asyncio.AbstractEventLoop))
    names = ("loop", "session_handler", *_DEFAULTS) if older else ("session_handler", *_DEFAULTS)
    if len(args) > len(names):
        raise OptionError("FletApp", f"takes at most {len(names)} positional parameters")
    given = dict(zip(names, args, strict=False))
    for name in named:
        if name not in names:
            raise OptionError(name, "is no parameter of FletApp")
        if name in given:
            raise OptionError(name, "is given twice, by its position and by its name")
    given |= named
    given.pop("loop", None)
    if "session_handler" not in given:
        raise OptionError("session_handler", "is missing")
    return given


def check_handler(handler: Any) -> Callable[..., Any]:
    """`handler` if it can be an app's `main`.

    Raises:
        OptionError: it cannot be called with a page.
    """
    if not callable(handler):
        raise OptionError("session_handler", f"must be a function of the page (got {type(handler).__name__})")
    try:
        inspect.signature(handler).bind(object())
    except TypeError:
        raise OptionError("session_handler", "must take one argument, the page") from None
    except ValueError:  # a builtin without a signature
        pass
    return handler  # type: ignore[no-any-return]


def _same(known: str, shown: str | None) -> bool:
    return shown is not None and hmac.compare_digest(known, shown)
