"""Workers that know each other: who may connect, what is said, and that one of them never holds up the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from flet_fastapi.cluster import ClusterUnavailable, peers, relay, sockets, wire
from flet_fastapi.cluster.base import WorkerInfo
from flet_fastapi.cluster.doors import Doorkeeper, dial
from flet_fastapi.cluster.peers import Peers
from flet_fastapi.cluster.relay import Relayed, Remote
from flet_fastapi.cluster.sockets import NobodyThere, Place
from flet_fastapi.cluster.wire import LinkError, Stream
from flet_fastapi.metrics import Metrics
from flet_fastapi.tasks import Tasks
from tests.conftest import Logs


class Directory:
    """The part of a cluster that workers find each other by; it can be away."""

    def __init__(self) -> None:
        self.listed: dict[str, WorkerInfo] = {}
        self.away = False

    async def announce(self, worker: WorkerInfo, ttl_seconds: float) -> bool:
        self._check()
        self.listed[worker.id] = worker
        return True

    async def withdraw(self, worker_id: str) -> None:
        self._check()
        self.listed.pop(worker_id, None)

    async def workers(self) -> list[WorkerInfo]:
        self._check()
        return list(self.listed.values())

    def _check(self) -> None:
        if self.away:
            raise ClusterUnavailable("here", "away")


class Worker:
    """One worker, and what it has heard."""

    def __init__(self, name: str, directory: Directory, place: Callable[[], Place], secrets: tuple[bytes, ...]) -> None:
        self.heard: list[bytes] = []
        self.health: str | None = None
        self.metrics = Metrics(CollectorRegistry())
        self.tasks = Tasks()
        self.peers = Peers(
            name, directory, place, self, metrics=self.metrics, tasks=self.tasks,  # type: ignore[arg-type]
            secrets=secrets, node="node", slot=None, max_frame_size=1000, max_relays=5, tell=self._tell,
        )  # fmt: skip

    def _tell(self, problem: str | None) -> None:
        self.health = problem

    async def serve_relayed(self, relayed: Relayed) -> None:
        relayed.refuse("unknown")

    def published(self, payload: bytes) -> None:
        self.heard.append(payload)

    async def asked(self, question: str, arguments: Mapping[str, Any]) -> Any:
        if question == "echo":
            return dict(arguments)
        raise LookupError(question)

    async def close(self) -> None:
        await self.peers.close()
        await self.tasks.stop()

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.directory = Directory()
        self.folder = tmp_path
        self.workers: list[Worker] = []

    async def start(
        self, name: str, *, tcp: bool = False, secrets: tuple[bytes, ...] = (), place: Callable[[], Place] | None = None
    ) -> Worker:
        here = place or (lambda: Place(host="127.0.0.1") if tcp else Place(self.folder))
        worker = Worker(name, self.directory, here, secrets)
        self.workers.append(worker)
        await worker.peers.open()
        return worker


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    for worker in world.workers:
        await worker.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


# --- finding each other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
async def test_publish_reaches_all_others_once_and_in_order(world: World, tcp: bool) -> None:
    secrets = (b"s" * 16,) if tcp else ()
    workers = [await world.start(f"w{number}", tcp=tcp, secrets=secrets) for number in range(4)]
    said = [b"%d" % number for number in range(100)]
    for payload in said:
        workers[1].peers.publish(payload)
    await until(lambda: all(len(worker.heard) >= 100 for worker in workers if worker is not workers[1]))
    assert [worker.heard for worker in workers] == [said, [], said, said]
    assert workers[0].counted("flet_cluster_workers") == 4


async def test_worker_is_linked_with_all_others_when_it_has_started(world: World) -> None:
    """What is published from then on reaches it."""
    first = await world.start("a")
    for name in "bcdef":
        new = await world.start(name)
        first.peers.publish(name.encode())
        await until(lambda new=new: new.heard)
        assert new.heard == [name.encode()]


async def test_publishes_go_on_while_the_store_is_away(world: World, logs: Logs) -> None:
    one, two = await world.start("a"), await world.start("b")
    world.directory.away = True
    await one.peers._refresh()
    await one.peers._refresh()
    one.peers.publish(b"x")
    await until(lambda: two.heard)
    assert len(logs.named("directory_unavailable")) == 1


async def test_worker_that_has_left_is_forgotten(world: World) -> None:
    one, two = await world.start("a"), await world.start("b")
    assert not one.peers.alone
    await two.close()
    await until(lambda: one.peers.alone)
    assert one.counted("flet_cluster_workers") == 1


async def test_worker_that_was_killed_is_not_waited_for(world: World) -> None:
    """Its socket is there, and so is its entry in the directory."""
    one = await world.start("a")
    listener, path = await asyncio.to_thread(sockets.listen_in, world.folder, "worker-dead")
    listener.close()
    world.directory.listed["dead"] = WorkerInfo("dead", f"unix:{path}", "node", None, 0)
    await one.peers._refresh()
    assert not one.peers.alone
    async with asyncio.timeout(1):
        with pytest.raises(NobodyThere):
            await one.peers.ask("dead", "echo")
    assert one.peers.alone
    await one.peers._refresh()
    assert one.peers.alone, "though it is still listed"


async def test_socket_that_somebody_removed_is_made_again(world: World) -> None:
    await world.start("a")
    two = await world.start("b")
    path = world.folder / "worker-a.sock"
    os.unlink(path)
    await until(lambda: os.path.exists(path))
    assert await two.peers.ask("a", "echo", x=1) == {"x": 1}


async def test_place_that_cannot_be_used_degrades_until_it_can(world: World, logs: Logs) -> None:
    other = await world.start("a")
    file = world.folder / "file"
    file.write_text("")
    place = [file]
    worker = await world.start("b", place=lambda: Place(place[0]))
    assert "do not reach" in (worker.health or "")
    assert logs.named("private_socket_failed")
    # it reaches the others all the same
    worker.peers.publish(b"x")
    await until(lambda: other.heard)
    other.peers.publish(b"y")
    await until(lambda: worker.heard)
    place[0] = world.folder
    await until(lambda: worker.health is None and other.peers._peers["b"].info.address)
    assert await other.peers.ask("b", "echo") == {}


# --- questions -------------------------------------------------------------------------------------------------------


async def test_questions_are_answered(world: World, logs: Logs) -> None:
    one, _ = await world.start("a"), await world.start("b")
    answers = await asyncio.gather(*(one.peers.ask("b", "echo", n=number) for number in range(50)))
    assert [answer["n"] for answer in answers] == list(range(50))
    with pytest.raises(LinkError):
        await one.peers.ask("b", "what?")
    assert logs.named("question_failed")
    with pytest.raises(NobodyThere):
        await one.peers.ask("nobody", "echo")


# --- who does not read holds up nobody -------------------------------------------------------------------------------


async def test_worker_that_does_not_read_loses_its_own_messages_only(
    world: World, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(peers, "QUEUE_BYTES", 200_000)
    one, slow, quick = [await world.start(name) for name in "abc"]
    (link,) = slow.peers._peers["a"].links
    link.stream.pause()
    payload = b"x" * 10_000
    for number in range(200):
        one.peers.publish(payload)
        await until(lambda number=number: len(quick.heard) == number + 1)
    dropped = one.counted("flet_pubsub_dropped_total", reason="queue_full")
    assert dropped > 0
    assert [fields["reason"] for fields in logs.fields("published_message_lost")] == ["queue_full"]
    link.stream.resume()
    await until(lambda: len(slow.heard) == 200 - dropped)


async def test_link_over_which_nothing_comes_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(peers, "_SHORT_SECONDS", 0)
    one, two = await world.start("a"), await world.start("b")
    (link,) = one.peers._peers["b"].links
    link._heard -= 100
    link.beat()
    await until(lambda: link.stream.ended)
    await until(lambda: one.peers._peers["b"].links)
    one.peers.publish(b"x")
    await until(lambda: two.heard)


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "works"),
    [
        ((b"a",), (b"a",), True),
        ((b"new", b"old"), (b"old",), True),
        ((b"old",), (b"new", b"old"), True),
        ((b"a",), (b"b",), False),
        ((), (b"b",), False),
        ((b"a",), (), False),
    ],
)
async def test_workers_with_a_common_secret_reach_each_other(
    world: World, mine: tuple[bytes, ...], theirs: tuple[bytes, ...], works: bool
) -> None:
    one = await world.start("a", tcp=True, secrets=mine)
    await world.start("b", tcp=True, secrets=theirs)
    if works:
        assert await one.peers.ask("b", "echo") == {}
    else:
        with pytest.raises(LinkError):
            await one.peers.ask("b", "echo")


class Silent:
    def frame(self, kind: int, payload: bytes) -> None:
        self.got = kind

    def lost(self) -> None:
        pass


async def test_answer_that_was_overheard_opens_nothing(world: World) -> None:
    """Each connection has challenges of its own; and one's own proof, sent back, is none."""
    worker = await world.start("a", tcp=True, secrets=(b"s",))
    host, port = "127.0.0.1", int((worker.peers._address or "").rpartition(":")[2])
    recorded: list[bytes] = []

    async def spy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(host, port)
        with contextlib.suppress(OSError):
            recorded.append(await reader.read(65536))
            downstream.write(recorded[0])
            writer.write(await upstream.read(65536))
            recorded.append(await reader.read(65536))
            downstream.write(recorded[1])
            writer.write(await upstream.read(65536))
        downstream.close()
        writer.close()

    server = await asyncio.start_server(spy, host, 0)
    address = f"tcp://{host}:{server.sockets[0].getsockname()[1]}"
    stream = await dial(address, "b", "a", "call", Silent(), secrets=(b"s",), limit=1000)
    stream.abort()
    server.close()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(recorded[0])
    await reader.read(65536)  # another challenge
    writer.write(recorded[1])
    assert await reader.read(65536) == b"", "cut"
    writer.close()


# --- strangers -------------------------------------------------------------------------------------------------------


def frame(kind: int, payload: bytes) -> bytes:
    return (len(payload) + 1).to_bytes(4, "big") + bytes([kind]) + payload


class Browser:
    """A websocket that is to be relayed; nothing is ever sent to it."""

    sending_since = 0.0

    def wake(self) -> None: ...

    def cut(self, code: int, reason: str) -> None: ...


class Nowhere:
    """The way to an owner that is heard only when the test says so."""

    ended = full = False

    def send(self, kind: int, payload: bytes = b"") -> None: ...


@pytest.mark.parametrize("busy", [False, True])
async def test_owner_counts_as_silent_only_while_this_worker_listens(
    busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SILENCE_SECONDS", 0.1)
    tasks = Tasks()
    remote = Remote(Browser(), tasks, 1000, lambda remote: None)  # type: ignore[arg-type]
    waiting = asyncio.create_task(remote.taken(Nowhere()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    if busy:
        time.sleep(0.5)  # as an app may do
    else:
        await asyncio.sleep(0.5)
    await asyncio.sleep(0.01)
    assert waiting.done() is not busy
    if busy:
        remote.frame(wire.OFFER, b"")
        await asyncio.sleep(0.01)
        remote.frame(wire.TEXT, b"{}")
        assert await waiting is True
    else:
        with pytest.raises((LinkError, TimeoutError)):
            await waiting


async def test_owner_waits_for_a_worker_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has died ends its connection: `lost` says so at once."""
    monkeypatch.setattr(relay, "SILENCE_SECONDS", 0.05)
    relayed = Relayed(Nowhere(), wire.load(OPEN[4:]))  # type: ignore[arg-type]
    waiting = asyncio.create_task(relayed.offered())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    relayed.frame(wire.GO, b"")
    assert await waiting
    waiting = asyncio.create_task(relayed.offered())
    await asyncio.sleep(0)
    relayed.lost()
    assert not await waiting


async def test_connection_for_relays_is_there_before_the_first_one(world: World) -> None:
    one, two = await world.start("a"), await world.start("b")
    await until(lambda: one.peers._peers["b"].ready and two.peers._peers["a"].ready)


async def test_worker_that_is_forgotten_while_it_is_called_leaves_no_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await world.start("a"), await world.start("b")
    peer = one.peers._peers["b"]
    await until(lambda: peer.ready)
    assert peer.channels is not None
    peer.channels.stream.abort()
    before = len(two.peers._door.streams)

    async def slow(*arguments: Any, **named: Any) -> Stream:
        stream = await dial(*arguments, **named)
        one.peers._forget(peer)
        return stream

    monkeypatch.setattr(peers, "dial", slow)
    with pytest.raises(LinkError, match="no longer known"):
        await one.peers._channels(peer)
    await until(lambda: len(two.peers._door.streams) < before)


async def test_greeting_that_is_no_greeting_is_an_error_of_the_link() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(frame(wire.CHALLENGE, b'{"key":[],"nonce":"x","proof":"y"}'))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(LinkError):
        await dial(f"tcp://127.0.0.1:{port}", "a", "b", "link", Nobody(), secrets=[b"s"], limit=1000)
    server.close()


class Nobody:
    def frame(self, kind: int, payload: bytes) -> None: ...

    def lost(self) -> None: ...


def hello(purpose: str, **more: Any) -> bytes:
    said = {"version": 1, "from": "x", "to": "a", "for": purpose, "nonce": "n", "node": "n", **more}
    return frame(wire.HELLO, wire.dump(said))


SCOPE = {"scheme": "ws", "path": "/ws", "root_path": "", "client": None, "headers": []}
ONE = (1).to_bytes(4, "big")
OPEN = ONE + wire.dump({"session": "s", "app": "a", "browser": None, "ping": False, "scope": SCOPE})


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\0",
        b"\xff\xff\xff\xff\x01",
        frame(wire.HELLO, b""),
        frame(wire.HELLO, b"[]"),
        frame(wire.HELLO, b"{}"),
        frame(wire.PUBLISH, b"x"),
        hello("relay", version=2),
        hello("relay", to="b"),
        hello("cooking"),
        hello("relay") + frame(wire.TEXT, b"{}"),
        hello("relay") + frame(wire.OPEN, b"\0\0\0\0{}"),
        hello("call") + frame(wire.CALL, b'{"question":1}'),
        hello("link", address=7),
        hello("link") + frame(wire.TEXT, b"x"),
        hello("link") * 2,
    ],
)
async def test_what_is_against_the_protocol_ends_its_connection_only(world: World, said: bytes) -> None:
    one, two = await world.start("a"), await world.start("b")
    reader, writer = await asyncio.open_unix_connection(one.peers._address.removeprefix("unix:"))  # type: ignore[union-attr]
    writer.write(said)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                pass
    writer.close()
    two.peers.publish(b"still there")
    await until(lambda: one.heard)


@pytest.mark.parametrize(
    "said",
    [
        frame(wire.OPEN, ONE + b"{}"),
        frame(wire.OPEN, OPEN.replace(b"headers", b"footers")),
        frame(wire.OPEN, OPEN) + frame(wire.GO, ONE),
        frame(wire.OPEN, OPEN) + frame(wire.TEXT, ONE + b"\xff"),
        frame(wire.OPEN, OPEN) + frame(wire.CLOSE, ONE),
        frame(wire.OPEN, OPEN) + frame(99, ONE),
        frame(wire.OPEN, OPEN) + frame(wire.TEXT, ONE + b"x" * 60_000) * 10,
        frame(wire.OPEN, OPEN) + frame(wire.MORE, ONE + b"x" * 60_000) * 10,
    ],
)
async def test_what_is_against_the_protocol_in_a_channel_ends_the_channel_only(world: World, said: bytes) -> None:
    one = await world.start("a")
    reader, writer = await asyncio.open_unix_connection(str(world.folder / "worker-a.sock"))
    two = (2).to_bytes(4, "big")
    writer.write(hello("relay") + said + frame(wire.OPEN, two + OPEN[4:]) + frame(wire.TEXT, two + b"{}"))
    answers: list[tuple[int, bytes]] = []
    async with asyncio.timeout(10):
        while (wire.REFUSE, two) not in answers or (wire.RESET, ONE) not in answers:
            size = int.from_bytes(await reader.readexactly(4), "big")
            answer = await reader.readexactly(size)
            answers.append((answer[0], answer[1:5]))
    assert one.peers._door.streams
    writer.close()


_frames = st.builds(
    frame,
    st.sampled_from([*range(10), *range(0x11, 0x1B), *range(0x21, 0x29), 0x31, 0x32, 0x41, 0x42]),
    st.binary(max_size=50)
    | st.sampled_from([OPEN, b"{}", b'{"result":"x"}', ONE, ONE + b"{}", ONE + b"\x03\xe8bye", ONE + b"\0\1\0\0"])
    | st.binary(max_size=50).map(lambda rest: ONE + rest),
)


BEGINNINGS = [b"", hello("relay"), hello("relay") + frame(wire.OPEN, OPEN), hello("link"), hello("call")]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    beginning=st.sampled_from(
        [b"", hello("relay"), hello("relay") + frame(wire.OPEN, OPEN), hello("link"), hello("call")]
    ),
    rest=st.lists(_frames | st.binary(max_size=30), max_size=6),
    cuts=st.lists(st.integers(1, 40), max_size=5),
)
async def test_any_traffic_is_borne(beginning: bytes, rest: list[bytes], cuts: list[int]) -> None:
    """In whatever pieces it comes; nothing escapes, and what was begun is ended."""
    worker = Worker("a", Directory(), lambda: Place(), ())
    stream = worker.peers._door.answer()
    stream.connection_made(Transport(stream))
    data = beginning + b"".join(rest)
    for cut in cuts:
        piece, data = data[:cut], data[cut:]
        if piece:
            stream.data_received(piece)
    if data:
        stream.data_received(data)
    await asyncio.sleep(0)
    stream.abort()
    await asyncio.sleep(0)
    assert worker.peers._door.half_open == 0
    assert not worker.peers._door.streams
    await worker.close()


class Transport(asyncio.Transport):
    """A transport whose other end reads everything."""

    def __init__(self, protocol: Stream) -> None:
        super().__init__()
        self._protocol = protocol
        self._closed = False

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


@given(payloads=st.lists(st.binary(max_size=300), max_size=20), sizes=st.lists(st.integers(1, 200), min_size=1))
async def test_frames_are_whole_however_they_are_cut(payloads: list[bytes], sizes: list[int]) -> None:
    got: list[tuple[int, bytes]] = []

    class Taking:
        def frame(self, kind: int, payload: bytes) -> None:
            got.append((kind, payload))

        def lost(self) -> None:
            pass

    stream = Stream(Taking(), 1000)
    stream.connection_made(Transport(stream))
    data = b"".join(frame(number % 200, payload) for number, payload in enumerate(payloads))
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        stream.data_received(data[at : at + size])
        at, number = at + size, number + 1
    assert got == [(number % 200, payload) for number, payload in enumerate(payloads)]


async def test_connections_that_say_nothing_are_bounded_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flet_fastapi.cluster.doors._MAX_HALF_OPEN", 3)
    monkeypatch.setattr("flet_fastapi.cluster.doors._HELLO_SECONDS", 0.2)
    door = Doorkeeper("a", (), 1000, lambda purpose, said, stream: Silent())
    streams = [door.answer() for _ in range(10)]
    for stream in streams:
        stream.connection_made(Transport(stream))
    await asyncio.sleep(0.01)
    assert [stream.ended for stream in streams] == [False] * 3 + [True] * 7
    await until(lambda: all(stream.ended for stream in streams))
    await until(lambda: door.half_open == 0 and not door.streams)


# --- sockets ---------------------------------------------------------------------------------------------------------


def test_sockets_of_the_dead_are_swept_and_others_stay(tmp_path: Path) -> None:
    living, path = sockets.listen_in(tmp_path, "living")
    dead, _ = sockets.listen_in(tmp_path, "dead")
    dead.close()
    assert sockets.sweep(tmp_path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    living.close()


def test_ports_from_a_given_one_on_are_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if port < 65000:
            with sockets.listen_at("127.0.0.1", port) as listener:
                assert listener.getsockname()[1] > port


def test_address_of_the_way_to_a_host() -> None:
    assert sockets.address_towards("127.0.0.1", 6379) == "127.0.0.1"
