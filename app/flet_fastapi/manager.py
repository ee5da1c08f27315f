"""`app_manager`: what the apps of one worker share: sessions, limits, keys, metrics, the pool for plain functions."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable
from weakref import WeakMethod, WeakValueDictionary

from prometheus_client import REGISTRY, CollectorRegistry

from .cluster import Cluster, ClusterUnavailable, from_url
from .cluster.again import WritingAgain
from .cluster.embedded import EmbeddedCluster
from .cluster.joining import place_of, secrets_of
from .cluster.observed import ObservedCluster
from .cluster.peers import Peers
from .cluster.pubsub import PubSub
from .cluster.relay import Relayed
from .cluster.sockets import NobodyThere, Place
from .cluster.wire import LinkError
from .errors import OptionError
from .generations.base import Publisher
from .health import Health
from .health import Part as HealthPart
from .identity import Keyring, new_worker_id
from .idle import end_idle_sessions
from .logs import get_logger
from .metrics import Metrics
from .options import Limits, Options
from .rundir import RunDirectory, listening_inode
from .session import Session
from .tasks import Tasks
from .vitals import watch_loop, watch_process
from .writer import Writer

if TYPE_CHECKING:
    from .connection import Connection

log = get_logger(__name__)

Preparation = Callable[[], Coroutine[Any, Any, None]]


class Part(Protocol):
    """What a manager makes once for its worker: the uploads, the sign-ins."""

    async def close(self) -> None: ...


@runtime_checkable
class Keeper(Protocol):
    """A part that holds here what it has written to the cluster."""

    async def write_again(self) -> None:
        """Write what the cluster may have lost.

        Raises:
            ClusterUnavailable: it could not; there will be another call.
        """


T = TypeVar("T")

# How often connections that do not read are looked for.
_WATCH_SECONDS = 1.0
# Endpoints may be made per request; those of a program differ in little.
_KNOWN_OPTIONS = 64
# Of one app. Where there are more, some may be of apps that were thrown away.
_PREPARATIONS = 3
# Sessions that close at the same time at shutdown: each may run the user's `on_close`.
_CLOSING_AT_ONCE = 100


class AppManager:
    """What the apps of one worker share. There is one, `app_manager`; others are for tests."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        # The number that this worker has among its siblings, and that a successor takes over, if somebody counts them.
        self.slot: int | None = None
        # Why no new sessions are taken, if whoever watches over this worker says so.
        self.refusing: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._preparations: list[Callable[[], Preparation | None]] = []
        self._stopping_loop: asyncio.AbstractEventLoop | None = None
        self._reset()

    def _reset(self) -> None:
        self.tasks = Tasks()
        self.writer = Writer(self.tasks)
        self._started: asyncio.Task[None] | None = None
        self.connections: set[Connection] = set()
        self._registering: set[Connection] = set()
        self._sessions: dict[str, Session] = {}
        self._by_key: dict[str, Session] = {}
        # in the order in which their browsers left
        self._detached: dict[Session, None] = {}
        self._browsers: Counter[str] = Counter()
        self._hubs: dict[str, tuple[Any, int]] = {}
        self._run_directory: RunDirectory | None = None
        self._shared_keyring: Keyring | None = None
        self._cluster: Cluster | None = None
        self._writing_again = WritingAgain(self.tasks, self._write_all_again)
        self._health = Health("store", "uploads", "workers")
        # this start of this process, and the other workers if there can be any
        self.worker_id = ""
        self.peers: Peers | None = None
        self._pubsub: PubSub | None = None
        self._admissions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._parts: dict[Callable[[Any], Any], Part] = {}
        self._opening = asyncio.Lock()
        self._turnstile = asyncio.Lock()
        self._known = lru_cache(_KNOWN_OPTIONS, typed=True)(Options.load)
        for name in ("limits", "executor"):
            self.__dict__.pop(name, None)

    # --- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the background work of this worker; to call it again changes nothing.

        Raises:
            OptionError: a `FLET_*` variable is wrong.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise RuntimeError("app_manager runs on another event loop: one process serves on one loop")
            if self._loop is not None:
                self._reset()  # the loop of the earlier start is gone, and its tasks with it
            self.limits  # noqa: B018  a wrong variable stops the start
            options = Options.load()  # and so does one that no app has read yet
            self._loop = loop
            self._started = loop.create_task(self._begin(options), name="start")
        if self._started is not None:
            await asyncio.shield(self._started)

    async def _begin(self, options: Options) -> None:
        self._stopping_loop = None
        self.worker_id = new_worker_id()
        try:
            await asyncio.to_thread(options.make_upload_dir)
            await self._meet_cluster()
            for preparation in self._living_preparations():
                await preparation()
            await self._join()
        except BaseException:
            self._loop = self._started = None
            await self._leave_cluster()
            raise
        self.tasks.start(self._watch(), "watch_connections")
        self.tasks.start(watch_loop(self.metrics), "watch_loop")
        self.tasks.start(watch_process(self.metrics), "watch_process")
        self.metrics.appear()
        if (silence := self.limits.idle_timeout_seconds) is not None:
            self.tasks.start(end_idle_sessions(silence, self.sessions, self.end), "end_idle_sessions")
        self.writer.start()
        self._started = None

    def prepare(self, preparation: Preparation) -> None:
        """Await `preparation()` whenever the manager starts: what an app needs before its first request.

        A method is forgotten with its object.
        """
        if inspect.ismethod(preparation):
            self._preparations.append(WeakMethod(preparation, self._preparations.remove))
        else:
            self._preparations.append(lambda: preparation)
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._prepare_late, preparation)

    def _living_preparations(self) -> Iterator[Preparation]:
        # applications are cycles, which live on until they are looked for
        if len(self._preparations) > _PREPARATIONS:
            gc.collect()
        for reference in tuple(self._preparations):
            if (preparation := reference()) is not None:
                yield preparation

    def _prepare_late(self, preparation: Preparation) -> None:
        """An app was made while the manager runs."""
        self.tasks.start(preparation(), "prepare")

    async def shutdown(self) -> None:
        """End all connections and sessions, `on_close` included, and everything that `start` has started."""
        if self._loop is not asyncio.get_running_loop():
            return
        self._stopping_loop = self._loop
        for connection in list(self.connections):
            connection.cut(1012, "service restart")
        while self._sessions:
            await self._close_some(list(self._sessions.values())[:_CLOSING_AT_ONCE])
        if self.peers is not None:
            await self.peers.close()
        await self.tasks.stop()
        if "executor" in self.__dict__:
            self.executor.shutdown(wait=False, cancel_futures=True)
        for part in self._parts.values():
            await part.close()
        await self._leave_cluster()
        if self._run_directory is not None:
            self._run_directory.close()
        self.metrics.disappear()
        self._loop = None
        self._reset()

    async def _close_some(self, sessions: list[Session]) -> None:
        await asyncio.gather(*(self._finish(session, "shutdown") for session in sessions))

    async def _watch(self) -> None:
        """Add up what was counted, and cut connections whose client has not read for too long."""
        assert self._loop is not None
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            latest = self._loop.time() - self.limits.send_timeout_seconds
            unread = 0
            for connection in list(self.connections):
                unread += connection.unread
                if 0 < connection.sending_since < latest and not connection.is_cut:
                    self.metrics.send_queue_drops.inc()
                    connection.cut(1013, "the client does not read")
            self.metrics.send_queue_bytes.set(unread)
            self.metrics.ready.set(self.refusing is None and not self.is_full)
            self.metrics.settle()

    @property
    def is_running(self) -> bool:
        """Whether the manager has been started and not been shut down."""
        return self._loop is not None

    @property
    def stopping(self) -> bool:
        """Whether the manager has been shut down on this loop, and not been started again: late clients must go."""
        return self._stopping_loop is asyncio.get_running_loop()

    # --- what is shared ----------------------------------------------------------------------------------------------

    @cached_property
    def limits(self) -> Limits:
        """The bounds of this worker.

        Raises:
            OptionError: a `FLET_*` variable is wrong.
        """
        return Limits.load()

    @cached_property
    def metrics(self) -> Metrics:
        return Metrics(self._registry, None if self.slot is None else str(self.slot))

    @cached_property
    def executor(self) -> ThreadPoolExecutor:
        """Where plain functions of the user's code run; the loop's own pool is too small for handlers that wait."""
        return ThreadPoolExecutor(self.limits.handler_threads, thread_name_prefix="flet-handler")

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this worker; there is one from `start` on."""
        assert self._loop is not None
        return self._loop

    def options(self, **arguments: Any) -> Options:
        """The options of an endpoint that may be made anew for each request: while the manager runs, what has been
        checked once is not checked again, and variables are not read again.

        Raises:
            OptionError: a parameter or a `FLET_*` variable is wrong.
        """
        frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
        if self._loop is None or not _is_hashable(tuple(frozen.values())):
            return Options.load(**arguments)
        return self._known(**frozen)

    def part(self, kind: Callable[[Any], T]) -> T:
        """The one `kind(self)` of this worker, made when first asked for; `close()` at shutdown."""
        part = self._parts.get(kind)
        if part is None:
            part = self._parts[kind] = cast(Part, kind(self))
        return cast(T, part)

    async def keyring(self, options: Options | None = None) -> Keyring:
        """The app's own keys, or the one that the workers of this server share."""
        if options is not None and options.secret_key is not None:
            return Keyring(options.secret_key)
        if self._shared_keyring is None:
            async with self._opening:
                if self._shared_keyring is None:
                    self._shared_keyring = Keyring([await asyncio.to_thread(self._shared_key)])
        return self._shared_keyring

    def _shared_key(self) -> str:
        if self.limits.has_shared_cluster:
            raise OptionError(
                "FLET_SECRET_KEY",
                "must be set where FLET_CLUSTER_URL names a Redis: all hosts need the same (`roost secret` makes one)",
            )
        log.warning(
            "secret_key_made",
            hint="no secret_key is set: one was made for this server, and signed URLs and sessions end with it",
        )
        return self._open_run_directory().key()

    def _open_run_directory(self) -> RunDirectory:
        if self._run_directory is None:
            try:
                self._run_directory = RunDirectory(self.limits.run_dir)
            except OSError as error:
                raise OptionError("FLET_RUN_DIR", str(error)) from error
        return self._run_directory

    async def open_cluster(self) -> Cluster:
        """The keys and the directory that the workers share."""
        if self._cluster is None:
            async with self._opening:
                if self._cluster is None:
                    cluster = await asyncio.to_thread(self._find_cluster)
                    self._cluster = ObservedCluster(
                        cluster, self.metrics, partial(self._health.tell, "store", "store"), self.write_again
                    )
        return self._cluster

    def _find_cluster(self) -> Cluster:
        url = self.limits.cluster_url
        if url is not None:
            return from_url(url.get_secret_value())
        return EmbeddedCluster(self._open_run_directory().path / "cluster.sqlite3")

    async def _meet_cluster(self) -> None:
        """Find out now whether a Redis can be used. One that is away does not stop the start: it may come back.

        Raises:
            OptionError: it does not let us in.
        """
        if not self.limits.has_shared_cluster:
            return
        cluster = await self.open_cluster()
        try:
            await cluster.check()
        except ClusterUnavailable as error:
            if error.denied:
                raise OptionError(self.limits.written("cluster_url"), str(error)) from None

    async def _leave_cluster(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.close()

    def write_again(self) -> None:
        """Let all parts write what the cluster may have lost, or did not get: in the background, until it has it."""
        self._writing_again.ask()

    async def _write_all_again(self) -> None:
        for part in list(self._parts.values()):
            if isinstance(part, Keeper):
                await part.write_again()

    def health(self) -> list[HealthPart]:
        """How the parts are that sessions can do without: `store`, `uploads` and `workers`."""
        return self._health.parts()

    def tell_health(self, part: str, place: str, problem: str | None) -> None:
        """This is wrong with `place`, of `part`; None: nothing is any more."""
        self._health.tell(part, place, problem)

    # --- the other workers -------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        """Find the other workers, if there can be any. What cannot be done now degrades this worker, no more."""
        limits = self.limits
        if limits.cluster_url is None and await asyncio.to_thread(listening_inode) is None:
            return  # this process was started alone
        secrets = secrets_of(limits, Options.load().secret_key or ())
        try:
            self.peers = Peers(
                self.worker_id, await self.open_cluster(), self._find_place, self, metrics=self.metrics,
                tasks=self.tasks, secrets=secrets,
                node=self.node, slot=self.slot, max_frame_size=limits.max_frame_size,
                max_relays=limits.max_sessions, tell=partial(self.tell_health, "workers", "private socket"),
            )  # fmt: skip
            self._pubsub = PubSub(self.peers, self.hub, self.metrics, self.loop)
            await self.peers.open()
        except OptionError as error:  # of the run directory
            log.warning("private_socket_failed", problem=error.problem, hint="this worker serves without the others")
            self.tell_health("workers", "private socket", error.problem)
        except Exception:
            log.exception("cluster_failed")
            self.tell_health("workers", "private socket", "failed: see the log")

    def _find_place(self) -> Place:
        try:
            return place_of(self.limits, self._folder)
        except OptionError as error:
            raise OSError(error.problem) from None

    def _folder(self) -> Path:
        directory = self._open_run_directory()
        directory.renew()
        return directory.path

    @property
    def node(self) -> str:
        """The name of this host among those of the cluster."""
        return self.limits.node or socket.gethostname()

    def is_elsewhere(self, owner: str) -> bool:
        """Whether this is the id of another worker; a credential without one is from before there were several."""
        return bool(owner) and owner != self.worker_id

    def admission(self, secret_id: str) -> AbstractAsyncContextManager[Any]:
        """Of several connections that come with one credential at once, one at a time is looked at."""
        lock = self._admissions.get(secret_id)
        if lock is None:
            lock = self._admissions[secret_id] = asyncio.Lock()
        return lock

    async def in_turn(self) -> None:
        """Let one pass in a turn of the loop: many large pages one after the other would keep it from all others."""
        async with self._turnstile:
            await asyncio.sleep(0)

    async def serve_relayed(self, relayed: Relayed) -> None:
        """Serve a websocket that another worker has."""
        session = None if self.stopping else self.find(relayed.secret_id)
        if session is None:
            self.metrics.resumed("unknown", relayed=True)
            relayed.refuse("unknown")
        else:
            await session.services.serve_relayed(relayed)

    def published(self, payload: bytes) -> None:
        """Another worker has published."""
        if self._pubsub is not None:
            self._pubsub.received(payload)

    async def find_session_elsewhere(self, owner: str, session_key: str) -> SessionElsewhere | None:
        """The living session with this key in the worker `owner`.

        Raises:
            LinkError: that lives, but does not answer.
        """
        if self.peers is None or not self.is_elsewhere(owner):
            return None
        try:
            found = await self.peers.ask(owner, "session", session=session_key)
        except NobodyThere:
            return None
        return SessionElsewhere(self.peers, owner, session_key) if found is True else None

    async def asked(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Another worker's question.

        Raises:
            LookupError: there is none of this name.
        """
        session = self.find_session(str(arguments.get("session")))
        if question == "session":
            return session is not None
        if question == "authorize":
            if session is not None:
                self.tasks.start(session.authorize(dict(arguments["answer"])), "authorize")
            return session is not None
        raise LookupError(question)

    def publisher(self, app: str) -> Publisher | None:
        """The way of the app's hub to those of the other workers."""
        return None if self._pubsub is None else _AppPublisher(self._pubsub, app)

    def hub(self, app: str) -> Any:
        """The publish/subscribe hub of an app, if one of its sessions lives here."""
        return self._hubs[app][0] if app in self._hubs else None

    # --- connections -------------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """A websocket is here."""
        self.connections.add(connection)
        self.metrics.connections.inc()

    @property
    def unregistered(self) -> int:
        """How many websockets are open whose client has not registered yet."""
        return len(self._registering)

    @contextmanager
    def registering(self, connection: Connection) -> Iterator[None]:
        """While its client has not registered, a connection takes one of the places for those."""
        self._registering.add(connection)
        try:
            yield
        finally:
            self._registering.discard(connection)

    def closed(self, connection: Connection) -> None:
        """A websocket has ended."""
        self.connections.discard(connection)
        self.metrics.connections.dec()
        self.metrics.settle()

    # --- sessions ----------------------------------------------------------------------------------------------------

    def find(self, secret_id: str) -> Session | None:
        """The living session that a credential names."""
        return self._sessions.get(secret_id)

    def find_session(self, session_key: str) -> Session | None:
        """The living session with this key."""
        return self._by_key.get(session_key)

    def sessions(self) -> Iterable[Session]:
        """The sessions that live here."""
        return self._sessions.values()

    @property
    def is_full(self) -> bool:
        """Whether no more sessions fit in here, even if one that waits for its browser made room."""
        return len(self._sessions) >= self.limits.max_sessions and not self._detached

    def make_room(self, browser: str | None) -> bool:
        """Whether one more session may start, after a detached one has made room for it if need be."""
        if self.refusing is not None:
            return False
        if browser is not None and self._browsers[browser] >= self.limits.max_sessions_per_browser:
            return self._evict(session for session in self._detached if session.browser == browser)
        if len(self._sessions) >= self.limits.max_sessions:
            return self._evict(self._detached)
        return True

    def _evict(self, candidates: Iterable[Session]) -> bool:
        session = next(iter(candidates), None)
        if session is None:
            return False
        self.end(session, "evicted")
        return True

    def add(self, session: Session, hub: Any) -> None:
        """A session has started."""
        self._sessions[session.secret_id] = session
        self._by_key[session.key] = session
        _, users = self._hubs.get(session.app, (hub, 0))
        self._hubs[session.app] = (hub, users + 1)
        self._count(session, 1)
        self.metrics.sessions_started.inc()
        self._show()

    def attached(self, session: Session) -> None:
        """The session has a connection."""
        self._detached.pop(session, None)
        self._show()

    def detached(self, session: Session) -> None:
        """The session has lost its connection."""
        if session.secret_id in self._sessions:
            self._detached[session] = None
            self._show()

    def _show(self) -> None:
        self.metrics.detached.set(len(self._detached))
        self.metrics.connected.set(len(self._sessions) - len(self._detached))
        self.metrics.here.set(len(self._sessions))

    def bind(self, session: Session, browser: str | None) -> None:
        """Bind a session to the browser that has shown this cookie."""
        self._count(session, -1)
        session.browser = browser
        self._count(session, 1)

    def _count(self, session: Session, by: int) -> None:
        if session.browser is not None:
            self._browsers[session.browser] += by
            if self._browsers[session.browser] <= 0:
                del self._browsers[session.browser]

    def end(self, session: Session, reason: str) -> None:
        """End a session in the background."""
        if self._forget(session):
            self.tasks.start(self._close(session, reason), "close_session")

    async def _finish(self, session: Session, reason: str) -> None:
        if self._forget(session):
            await self._close(session, reason)

    def _forget(self, session: Session) -> bool:
        """From now on nobody finds the session; whether somebody could before."""
        if self._sessions.pop(session.secret_id, None) is None:
            return False
        self._by_key.pop(session.key, None)
        self._detached.pop(session, None)
        self._show()
        self._count(session, -1)
        hub, users = self._hubs[session.app]
        if users > 1:
            self._hubs[session.app] = (hub, users - 1)
        else:
            del self._hubs[session.app]
        return True

    async def _close(self, session: Session, reason: str) -> None:
        if session.connection is not None:
            session.connection.cut(1001, "the session has ended")
        try:
            await session.close()
        except Exception:
            log.exception("session_close_failed")
        finally:
            self.metrics.sessions_ended.labels(reason).inc()
            self.metrics.session_seconds.observe(time.monotonic() - session.started)


class SessionElsewhere:
    """A session that lives in another worker, as far as a sign-in needs it."""

    def __init__(self, peers: Peers, owner: str, key: str) -> None:
        self._peers = peers
        self._owner = owner
        self._key = key

    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        """A sign-in came back.

        Raises:
            LinkError: the session, or its worker, is gone.
        """
        found = await self._peers.ask(self._owner, "authorize", session=self._key, answer=dict(answer))
        if found is not True:
            raise LinkError("the session has ended")


class _AppPublisher:
    """The way of one app's hub to those of the other workers."""

    def __init__(self, pubsub: PubSub, app: str) -> None:
        self._pubsub = pubsub
        self._app = app

    def prepare(self, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> bytes | None:
        return self._pubsub.prepare(self._app, topic, sender, message, on_topic=on_topic)

    def publish(self, prepared: bytes) -> None:
        self._pubsub.publish(prepared)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


app_manager = AppManager()
