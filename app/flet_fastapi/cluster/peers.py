"""The other workers, as one worker knows them: how each is reached, and the link over which publishes go there.

A worker listens on a private socket of its own, announces itself, reads the directory and connects to all others before
it serves; two that are connected need the store no more for what they say to each other. Between two workers there may
be two links, if both connected at once. Each side publishes over the oldest that lives, so what it says stays in order.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ..identity import short_hash
from ..logs import get_logger
from ..metrics import Metrics
from ..tasks import Tasks
from . import sockets, wire
from .base import Cluster, ClusterUnavailable, WorkerInfo
from .channels import PIECE, Channel, Channels
from .doors import Doorkeeper, dial
from .relay import Relayed, Remote, opening
from .wire import Handler, LinkError, Pipe, Stream

log = get_logger(__name__)

# How often a worker says that it lives, in the directory and over its links.
_BEAT_SECONDS = 2.0
# A worker that was silent for so long is not listed any more, and a link over which nothing came is cut. A loop that
# hangs for seconds must not lose its worker's place.
_TTL_SECONDS = 15.0
# A new worker serves when it is linked with the others, or after this time: one of them may hang.
_START_SECONDS = 3.0
_SHORT_SECONDS = 1.0
# How many stale credentials ask the directory: after a restart every browser comes with one.
_LOOK_SECONDS = 0.5
_FIND_SECONDS = 1.0
_CALL_SECONDS = 5.0
# Questions that are answered at once.
_QUESTIONS = 100
# Bytes of publishes that may wait for one worker that does not read; what comes then is lost there, and nowhere else.
QUEUE_BYTES = 16 * 1024 * 1024
# One publish, with what it costs to frame it.
MAX_PUBLISH = 8 * 1024 * 1024
_COST = 100


class Offers(Protocol):
    """What this worker does for the others."""

    def serve_relayed(self, relayed: Relayed) -> Awaitable[None]:
        """Serve a websocket that another worker has."""

    def published(self, payload: bytes) -> None:
        """Another worker has published."""

    def asked(self, question: str, arguments: Mapping[str, Any]) -> Awaitable[Any]:
        """Another worker's question; raises `LookupError` if there is none of that name."""


class Peers:
    """One worker among the others of its cluster."""

    def __init__(
        self, worker_id: str, cluster: Cluster, find_place: Callable[[], sockets.Place], offers: Offers,
        *, metrics: Metrics, tasks: Tasks, secrets: Sequence[bytes], node: str, slot: int | None,
        max_frame_size: int, max_relays: int, tell: Callable[[str | None], None],
    ) -> None:  # fmt: skip
        self.id = worker_id
        self._cluster = cluster
        self._find_place = find_place
        self._tell = tell
        self._offers = offers
        self._metrics = metrics
        self._tasks = tasks
        self._secrets = secrets
        self._node, self._slot = node, slot
        self._started = time.time()
        self._max_frame_size = max_frame_size
        self._max_relays = max_relays
        self._relays: set[Remote] = set()
        self._peers: dict[str, Peer] = {}
        # workers whose process has ended, as long as the directory has not noticed
        self._dead: set[str] = set()
        limit = max(max_frame_size, MAX_PUBLISH, wire.HANDSHAKE_SIZE) + 1024
        self._door = Doorkeeper(worker_id, secrets, limit, self._accept)
        self._server: asyncio.Server | None = None
        self._address: str | None = None
        self._store_problem = self._troubled = False
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._questions = asyncio.Semaphore(_QUESTIONS)
        self._closing = False

    # --- start and stop ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen, announce this worker and link it with the others. What cannot be done is logged, and tried again."""
        await self._listen()
        await self._refresh()
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.gather(*(self._link(peer) for peer in list(self._peers.values())))
        self._tasks.start(self._beat(), "peers")

    async def close(self) -> None:
        """Take this worker off the directory, and end all that it has with others."""
        if self._address is not None:
            with suppress(ClusterUnavailable, TimeoutError):
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._cluster.withdraw(self.id)
        self._closing = True
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers.values()):
            peer.close()
        for relay in list(self._relays):
            relay.detach(None)
        self._door.close()
        if self._address is not None and sockets.is_local(self._address):
            await asyncio.to_thread(_unlink, self._address)
        self._address = self._server = None

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            listener, address = await asyncio.to_thread(self._make_socket)
            serve = loop.create_unix_server if sockets.is_local(address) else loop.create_server
            self._server = await serve(self._door.answer, sock=listener, backlog=sockets.BACKLOG)
        except OSError as error:
            if not self._troubled:
                log.warning("private_socket_failed", problem=str(error), hint="other workers do not reach this one")
            self._troubled = True
            self._tell(f"other workers do not reach this one: {error}")
        else:
            self._address, self._troubled = address, False
            self._tell(None)

    def _make_socket(self) -> tuple[socket.socket, str]:
        place = self._find_place()
        if place.folder is not None:
            sockets.sweep(place.folder)
            listener, path = sockets.listen_in(place.folder, f"worker-{self.id}")
            return listener, f"unix:{path}"
        listener = sockets.listen_at(place.host, place.port)
        return listener, sockets.tcp_address(place.shown or place.host, listener.getsockname()[1])

    # --- the directory -----------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  so that workers do not go in step
            if self._address is None or await asyncio.to_thread(self._is_unlinked):
                await self._relisten()
            await self._refresh()
            for peer in list(self._peers.values()):
                peer.beat()
                if peer.links and not peer.ready and not peer.opening.locked():
                    self._tasks.start(self._prepare(peer), "relay")
                if not peer.links and peer.linking is None:
                    peer.linking = self._tasks.start(self._link(peer), "link")

    def _is_unlinked(self) -> bool:
        """Whether somebody, a cleaner of /tmp say, has removed the socket. What else was in its place is put back."""
        address = self._address or ""
        if not sockets.is_local(address):
            return False
        with suppress(OSError):
            self._find_place()
        return not os.path.exists(address.removeprefix("unix:"))

    async def _relisten(self) -> None:
        if self._server is not None:
            self._server.close()
        self._address = self._server = None
        await self._listen()

    async def _refresh(self, *, announce: bool = True) -> None:
        """Announce this worker and read who else is there; without the store, those stay who were known."""
        try:
            if announce and self._address is not None:
                info = WorkerInfo(self.id, self._address, self._node, self._slot, self._started)
                await self._cluster.announce(info, _TTL_SECONDS)
            listed = await self._cluster.workers()
        except ClusterUnavailable as error:
            if not self._store_problem:
                log.warning("directory_unavailable", problem=error.problem)
            self._store_problem = True
            return
        self._store_problem = False
        self._looked = time.monotonic()
        self._take(listed)

    def _take(self, listed: list[WorkerInfo]) -> None:
        ids = {info.id for info in listed}
        self._dead &= ids
        for info in listed:
            if info.id != self.id and info.id not in self._dead:
                self._known(info)
        for peer in list(self._peers.values()):
            if peer.info.id not in ids and not peer.links:
                self._forget(peer)
        self._count()

    def _known(self, info: WorkerInfo) -> Peer:
        peer = self._peers.get(info.id)
        if peer is None:
            peer = self._peers[info.id] = Peer(info, self._metrics, self._tasks)
        peer.info = info
        return peer

    def _forget(self, peer: Peer) -> None:
        if self._peers.get(peer.info.id) is peer:
            del self._peers[peer.info.id]
        peer.forget()
        self._count()

    def _count(self) -> None:
        self._metrics.cluster_workers.set(len(self._peers) + 1)

    @property
    def alone(self) -> bool:
        """Whether no other worker is known."""
        return not self._peers

    async def find(self, worker_id: str) -> Peer | None:
        """The worker of this id, if it lives as far as is known."""
        if worker_id not in self._peers and worker_id not in self._dead:
            if self._looking is None and time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looking = self._tasks.start(self._refresh(announce=False), "look_for_worker")
                self._looking.add_done_callback(self._has_looked)
            if self._looking is not None:
                await asyncio.wait([self._looking], timeout=_FIND_SECONDS)
        return self._peers.get(worker_id)

    def _has_looked(self, _: object) -> None:
        self._looking = None
        self._looked = time.monotonic()

    # --- links -------------------------------------------------------------------------------------------------------

    async def _link(self, peer: Peer) -> None:
        link = Link(peer, self)
        try:
            of_mine = {"address": self._address, "node": self._node, "slot": self._slot}
            await self._dial(peer, "link", link, of_mine=of_mine)
        except LinkError as error:
            if peer.silent_since is None:
                peer.silent_since = time.monotonic()
                log.info("worker_not_reached", other=short_hash(peer.info.id), problem=str(error))
        finally:
            peer.linking = None

    async def _dial(
        self, peer: Peer, purpose: str, handler: Handler, *, limit: int = MAX_PUBLISH + 1024,
        first: tuple[tuple[int, bytes], ...] = (), of_mine: Mapping[str, Any] | None = None,
    ) -> Stream:  # fmt: skip
        try:
            stream = await dial(
                peer.info.address, self.id, peer.info.id, purpose, handler, secrets=self._secrets, limit=limit,
                first=first, of_mine=of_mine,
            )  # fmt: skip
        except sockets.NobodyThere:
            self._dead.add(peer.info.id)
            self._forget(peer)
            raise
        if isinstance(handler, Link):
            handler.begin(stream)
        return stream

    def _accept(self, purpose: str, hello: dict[str, Any], stream: Stream) -> Handler:
        """A connection of another worker's."""
        if purpose == "link":
            link = Link(self._known(_info(hello)), self)
            self._dead.discard(link.peer.info.id)
            link.begin(stream)
            self._count()
            return link
        if purpose == "relay":
            limit = max(self._max_frame_size, wire.HANDSHAKE_SIZE)
            channels = Channels(self._max_relays, limit, self._opened)
            channels.stream = stream
            return channels
        if purpose == "call":
            return _Question(stream, self._answer, self._tasks)
        raise LinkError("for nothing that there is")

    def _opened(self, channel: Channel) -> Handler:
        return _Opening(channel, self._offers, self._tasks)

    def ended(self, link: Link) -> None:
        """A link is lost: either its worker is gone, or another link is needed."""
        peer = link.peer
        if not self._closing and not peer.links and peer.linking is None and self._peers.get(peer.info.id) is peer:
            peer.linking = self._tasks.start(self._link(peer), "link")

    # --- publishes ---------------------------------------------------------------------------------------------------

    def publish(self, payload: bytes) -> None:
        """Tell all other workers."""
        for peer in self._peers.values():
            peer.publish(payload)

    def published(self, payload: bytes) -> None:
        """Another worker has told."""
        self._offers.published(payload)

    # --- relays ------------------------------------------------------------------------------------------------------

    async def relay(
        self, owner: str, browser: Any, register: tuple[int, bytes], scope: Any,
        *, session: str, app: str, cookie: str | None, pings: bool,
    ) -> tuple[Remote | None, str]:  # fmt: skip
        """A session in the worker `owner` for a websocket that has come here, or None and why not.

        `register` is its first frame. The reason is what `owner` said, or `gone`.
        """
        peer = await self.find(owner)
        if peer is None or len(self._relays) >= self._max_relays:
            return None, self._not_relayed("gone" if peer is None else "too_many")
        remote = Remote(browser, self._tasks, self._max_frame_size, self._relay_ended)
        said = opening(scope, session=session, app=app, browser=cookie, pings=pings)
        channel: Channel | None = None
        taken = False
        try:
            channel = (await self._channels(peer)).open(remote)
            channel.send(wire.OPEN, wire.dump(said))
            channel.send(*register)
            taken = await remote.taken(channel)
        except (LinkError, TimeoutError) as error:
            log.info("relay_failed", other=short_hash(owner), problem=str(error) or "it does not answer")
            return None, self._not_relayed("gone")
        finally:
            if channel is not None and not taken:
                channel.abort()
        if not taken:
            self._metrics.relays.labels("refused").inc()
            return None, remote.refusal
        self._relays.add(remote)
        self._metrics.relays.labels("relayed").inc()
        self._metrics.relays_active.inc()
        return remote, "relayed"

    async def _prepare(self, peer: Peer) -> None:
        """Connect before the first relay: when many browsers come back at once, either worker may be busy."""
        with suppress(LinkError):
            await self._channels(peer)

    async def _channels(self, peer: Peer) -> Channels:
        """Those to another worker, opened if need be."""
        async with peer.opening:
            if peer.channels is None or not peer.ready:
                if time.monotonic() - peer.refused < _SHORT_SECONDS:  # who waited for a try need not try again
                    raise LinkError("it does not answer")
                channels = Channels(self._max_relays, wire.ANY_SIZE)
                try:
                    channels.stream = await self._dial(peer, "relay", channels, limit=2 * PIECE)
                except LinkError:
                    peer.refused = time.monotonic()
                    raise
                if self._peers.get(peer.info.id) is not peer:
                    channels.stream.abort()
                    raise LinkError("it is no longer known")
                peer.channels = channels
            return peer.channels

    def _not_relayed(self, why: str) -> str:
        self._metrics.relays.labels(why).inc()
        return "gone"

    def _relay_ended(self, remote: Remote) -> None:
        if remote in self._relays:
            self._relays.remove(remote)
            self._metrics.relays_active.dec()
            self.tally(remote)

    def tally(self, remote: Remote) -> None:
        """Add up what has gone over a relay since the last time."""
        self._metrics.relay_bytes.labels("received").inc(remote.to_owner)
        self._metrics.relay_bytes.labels("sent").inc(remote.from_owner)
        remote.to_owner = remote.from_owner = 0

    def tally_all(self) -> None:
        """The same for all relays that there are."""
        for remote in self._relays:
            self.tally(remote)

    # --- questions ---------------------------------------------------------------------------------------------------

    async def ask(self, worker_id: str, question: str, **arguments: Any) -> Any:
        """What another worker answers.

        Raises:
            NobodyThere: it is gone.
            LinkError: it does not answer.
        """
        peer = await self.find(worker_id)
        if peer is None:
            raise sockets.NobodyThere("no such worker")
        answer = _Answer()
        said = wire.dump({"question": question, "arguments": arguments})
        stream = await self._dial(peer, "call", answer, first=((wire.CALL, said),))
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await answer.given
        except TimeoutError:
            raise LinkError("it does not answer") from None
        finally:
            stream.close()

    async def _answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        async with self._questions:
            return await self._offers.asked(question, arguments)


class Peer:
    """Another worker: its links, and the publishes that wait for it."""

    def __init__(self, info: WorkerInfo, metrics: Metrics, tasks: Tasks) -> None:
        self.info = info
        self.links: list[Link] = []
        self.linking: asyncio.Task[None] | None = None
        self.silent_since: float | None = None
        self._metrics = metrics
        self._tasks = tasks
        self._queue: deque[bytes] = deque()
        self._queued = 0
        # told once until it has caught up
        self._overrun = False
        self._flushing: asyncio.Task[None] | None = None
        # for the websockets here whose sessions are there
        self.channels: Channels | None = None
        self.opening = asyncio.Lock()
        self.refused = -_SHORT_SECONDS

    @property
    def ready(self) -> bool:
        """Whether a relay can begin at once."""
        return self.channels is not None and self.channels.usable

    def publish(self, payload: bytes) -> None:
        """Send this now, or when what was published before is sent and the other worker reads."""
        stream = self._stream
        if not self._queue and stream is not None and not stream.full:
            self._send(stream, payload)
        elif self._queued + len(payload) > QUEUE_BYTES:
            self._metrics.pubsub_dropped.labels("queue_full").inc()
            if not self._overrun:
                self._overrun = True
                log.warning("published_message_lost", reason="queue_full", problem="another worker does not keep up")
        else:
            self._queue.append(payload)
            self._queued += len(payload) + _COST
            self._start_flushing()

    @property
    def _stream(self) -> Stream | None:
        """That of the oldest link that lives."""
        return next((link.stream for link in self.links if not link.stream.ended), None)

    def _send(self, stream: Stream, payload: bytes) -> None:
        stream.send(wire.PUBLISH, payload)
        self._metrics.pubsub_messages.labels("sent").inc()

    def _start_flushing(self) -> None:
        if self._queue and self._flushing is None and self._stream is not None:
            self._flushing = self._tasks.start(self._flush(), "publish")

    async def _flush(self) -> None:
        """Send what waits, as fast as the other worker reads; without a link, the next one goes on."""
        try:
            while self._queue and (stream := self._stream) is not None:
                while self._queue and not stream.full and not stream.ended:
                    payload = self._queue.popleft()
                    self._queued -= len(payload) + _COST
                    self._send(stream, payload)
                with suppress(LinkError):
                    await stream.drain()
            self._overrun = self._overrun and bool(self._queue)
        finally:
            self._flushing = None

    def begin(self, link: Link) -> None:
        self.links.append(link)
        self.silent_since = None
        self._start_flushing()

    def end(self, link: Link) -> None:
        if link in self.links:
            self.links.remove(link)
        self._start_flushing()

    def beat(self) -> None:
        """Say something over each link, and cut those over which nothing comes."""
        for link in list(self.links):
            link.beat()

    def forget(self) -> None:
        """Nothing new goes there. What is relayed goes on: a worker that hangs may yet go on too."""
        if self._queue:
            self._metrics.pubsub_dropped.labels("worker_gone").inc(len(self._queue))
        self._queue.clear()
        self._queued = 0
        if self._flushing is not None:
            self._flushing.cancel()
        for link in list(self.links):
            link.stream.abort()
        if self.channels is not None:
            self.channels.retire()

    def close(self) -> None:
        self.forget()
        if self.channels is not None:
            self.channels.stream.abort()


class Link:
    """One connection between two workers for what they publish, in both directions."""

    def __init__(self, peer: Peer, peers: Peers) -> None:
        self.peer = peer
        self.stream: Stream
        self._peers = peers
        self._heard = 0.0
        self._began: float | None = None

    def begin(self, stream: Stream) -> None:
        self.stream = stream
        self._heard = self._began = time.monotonic()
        self.peer.begin(self)

    def frame(self, kind: int, payload: bytes) -> None:
        self._heard = time.monotonic()
        if kind == wire.PUBLISH:
            self._peers.published(payload)
        elif kind != wire.BEAT:
            raise LinkError("no frame of a link")

    def beat(self) -> None:
        if time.monotonic() - self._heard > _TTL_SECONDS:
            self.stream.abort()
        elif not self.stream.full and not self.stream.ended:
            self.stream.send(wire.BEAT)

    def lost(self) -> None:
        began, self._began = self._began, None
        if began is not None:
            self.peer.end(self)
            # what ends as soon as it begins would begin again and again: the next beat tries
            if time.monotonic() - began > _SHORT_SECONDS:
                self._peers.ended(self)


class _Opening:
    """A channel of a relay, until it has said for which websocket."""

    def __init__(self, stream: Pipe, offers: Offers, tasks: Tasks) -> None:
        self._stream = stream
        self._offers = offers
        self._tasks = tasks
        self._relayed: Relayed | None = None

    def frame(self, kind: int, payload: bytes) -> None:
        if self._relayed is not None:
            self._relayed.frame(kind, payload)
            return
        if kind != wire.OPEN:
            raise LinkError("no opening of a relay")
        self._relayed = Relayed(self._stream, wire.load(payload))
        self._tasks.start(self._serve(self._relayed), "relayed")

    async def _serve(self, relayed: Relayed) -> None:
        try:
            await self._offers.serve_relayed(relayed)
        finally:
            relayed.close()

    def lost(self) -> None:
        if self._relayed is not None:
            self._relayed.lost()


class _Question:
    """A connection for one question of another worker's."""

    def __init__(
        self, stream: Stream, answer: Callable[[str, Mapping[str, Any]], Awaitable[Any]], tasks: Tasks
    ) -> None:
        self._stream = stream
        self._answer = answer
        self._tasks = tasks
        self._asked = False

    def frame(self, kind: int, payload: bytes) -> None:
        said = wire.load(payload)
        arguments = said.get("arguments")
        if kind != wire.CALL or self._asked or type(arguments) is not dict:
            raise LinkError("no question")
        self._asked = True
        self._tasks.start(self._tell(wire.text_of(said, "question", 50), arguments), "answer")

    async def _tell(self, question: str, arguments: dict[str, Any]) -> None:
        try:
            answer = {"answer": await self._answer(question, arguments)}
        except Exception:
            log.exception("question_failed", question=question)
            answer = {"failed": True}
        if not self._stream.ended:
            self._stream.send(wire.ANSWER, wire.dump(answer))
            self._stream.close()

    def lost(self) -> None:
        """Nobody waits for the answer; it is given all the same."""


class _Answer:
    """What one question waits for."""

    def __init__(self) -> None:
        self.given: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def frame(self, kind: int, payload: bytes) -> None:
        said = wire.load(payload)
        if kind != wire.ANSWER or "answer" not in said:
            raise LinkError("no answer")
        if not self.given.done():
            self.given.set_result(said["answer"])

    def lost(self) -> None:
        if not self.given.done():
            self.given.set_exception(LinkError("it has not answered"))
            self.given.exception()


def _info(hello: dict[str, Any]) -> WorkerInfo:
    """
    Raises:
        LinkError: the worker does not say where it is.
    """
    address, slot = hello.get("address"), hello.get("slot")
    if not (address is None or type(address) is str) or not (slot is None or type(slot) is int):
        raise LinkError("no address of a worker")
    return WorkerInfo(
        wire.text_of(hello, "from", 64), address or "", wire.text_of(hello, "node", 300), slot, time.time()
    )


def _unlink(address: str) -> None:
    with suppress(OSError):
        os.unlink(address.removeprefix("unix:"))
