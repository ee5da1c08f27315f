"""`page.pubsub` over all workers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.cluster.pubsub import PubSub
from flet_fastapi.generations.classic import ClassicGeneration
from flet_fastapi.metrics import Metrics
from tests.cluster.test_relay import replaced
from tests.conftest import Logs
from tests.support.classic_client import ClassicClient
from tests.support.workers import all_workers, owner_of, reach_worker, visit, workers

# --- the hubs of two workers, by hand --------------------------------------------------------------------------------


class Wires:
    """The way between two workers, without sockets."""

    def __init__(self) -> None:
        self.alone = False
        self.others: list[PubSub] = []
        self.sent: list[bytes] = []

    def publish(self, payload: bytes) -> None:
        self.sent.append(payload)
        for other in self.others:
            other.received(payload)


class Worker:
    def __init__(self) -> None:
        self.wires = Wires()
        self.metrics = Metrics(CollectorRegistry())
        self.pubsub = PubSub(self.wires, self.find, self.metrics, asyncio.get_running_loop())
        self.hub = ClassicGeneration().hub(self)  # type: ignore[arg-type]

    def find(self, app: str) -> Any:
        return self.hub if app == "app" else None

    def prepare(self, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> bytes | None:
        return self.pubsub.prepare("app", topic, sender, message, on_topic=on_topic)

    def publish(self, prepared: bytes) -> None:
        self.pubsub.publish(prepared)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def pair() -> tuple[Worker, Worker]:
    one, two = Worker(), Worker()
    one.wires.others, two.wires.others = [two.pubsub], [one.pubsub]
    return one, two


async def test_every_kind_of_sending_reaches_the_other_worker(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    heard: dict[str, list[Any]] = {name: [] for name in ("here", "there", "topic here", "topic there")}
    one.hub.subscribe("s1", heard["here"].append)
    two.hub.subscribe("s2", heard["there"].append)
    one.hub.subscribe_topic("s1", "t", lambda topic, message: heard["topic here"].append(message))
    two.hub.subscribe_topic("s2", "t", lambda topic, message: heard["topic there"].append(message))
    one.hub.send_all((1,))
    one.hub.send_others("s1", (2,))
    one.hub.send_all_on_topic("t", (3,))
    one.hub.send_others_on_topic("s1", "t", (4,))
    one.hub.send_all_on_topic("other", (5,))
    await asyncio.sleep(0)
    assert heard == {
        "here": [(1,)], "there": [(1,), (2,)], "topic here": [(3,)], "topic there": [(3,), (4,)],
    }  # fmt: skip


async def test_alone_nothing_is_encoded_and_messages_go_by_reference() -> None:
    worker = Worker()
    worker.wires.alone = True
    heard: list[Any] = []
    worker.hub.subscribe("s", heard.append)
    lock = threading.Lock()
    worker.hub.send_all(lock)
    await asyncio.sleep(0)
    assert heard[0] is lock
    assert not worker.wires.sent


async def test_message_that_cannot_go_to_all_goes_to_nobody(pair: tuple[Worker, Worker]) -> None:
    one, _ = pair
    heard: list[Any] = []
    one.hub.subscribe("s", heard.append)
    with pytest.raises(TypeError, match=r"_thread\.lock"):
        one.hub.send_all({"a": threading.Lock()})
    await asyncio.sleep(0)
    assert not heard
    assert not one.wires.sent


async def test_messages_of_threads_and_of_the_loop_keep_their_order(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    heard: list[int] = []
    two.hub.subscribe("s", heard.append)
    await asyncio.to_thread(lambda: [one.hub.send_all(number) for number in range(50)])
    for number in range(50, 100):
        one.hub.send_all(number)
    await asyncio.sleep(0.01)
    assert heard == list(range(100))


async def test_message_of_an_unknown_class_is_lost_alone(pair: tuple[Worker, Worker], logs: Logs) -> None:
    one, two = pair
    heard: list[Any] = []
    two.hub.subscribe("s", heard.append)
    gone = type("Gone", (), {"__module__": __name__, "__qualname__": "Gone"})
    globals()["Gone"] = gone
    one.hub.send_all("before")
    prepared = one.prepare(None, None, gone(), on_topic=False)
    del globals()["Gone"]
    assert prepared is not None
    one.publish(prepared)
    one.hub.send_all("after")
    await asyncio.sleep(0)
    assert heard == ["before", "after"]
    assert two.counted("flet_pubsub_dropped_total", reason="unknown_class") == 1
    assert "Gone" in logs.fields("published_message_lost")[0]["problem"]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x95\xa3app\xc2\xc0\x00\xa0", b"x" * 100])
async def test_what_is_no_publish_is_counted(payload: bytes) -> None:
    worker = Worker()
    worker.hub.subscribe("s", pytest.fail)
    worker.pubsub.received(payload)
    assert worker.counted("flet_pubsub_dropped_total", reason="malformed") == 1


# --- real workers ----------------------------------------------------------------------------------------------------

SESSIONS = 200
ROUNDS, AT_ONCE = 10, 3


def heard_by(client: ClassicClient) -> list[str]:
    return str(client.one("text", key="chat").get("value", "")).split()


async def say(client: ClassicClient, name: str, first: int, end: int) -> None:
    """Send the messages `name-first` to `name-end`, a few at a time."""
    for start in range(first, end, AT_ONCE):
        texts = " ".join(f"{name}-{number}" for number in range(start, min(start + AT_ONCE, end)))
        await client.event(client.one("textfield")["i"], "submit", texts)
        await asyncio.sleep(0.01)


async def test_chat_of_many_while_a_worker_is_replaced(tmp_path: Path) -> None:
    """Each message arrives once at each session that lives, in the order of its sender."""
    total = ROUNDS * AT_ONCE
    with workers(tmp_path / "log", FLET_RUN_DIR=str(tmp_path / "run")) as running:
        pids = await all_workers(running)
        clients: list[ClassicClient] = []
        while len(clients) < SESSIONS:
            clients += await asyncio.gather(*(visit(running) for _ in range(20)))
        by_worker = {pid: [client for client in clients if owner_of(client) == pid] for pid in pids}
        victim = min(pids, key=lambda pid: len(by_worker[pid]))
        living = [client for client in clients if owner_of(client) != victim]
        senders = {f"s{pid}": by_worker[pid][0] for pid in pids - {victim}}

        speaking = asyncio.gather(*(say(client, name, 0, total) for name, client in senders.items()))
        new = await replaced(running, victim)
        await speaking
        late = [await come_to(running, clients[0], new) for _ in range(10)]
        await asyncio.gather(*(say(client, name, total, 2 * total) for name, client in senders.items()))

        everything = 2 * total * len(senders)
        await asyncio.gather(*(settled(client, everything) for client in living))
        await asyncio.gather(*(settled(client, everything // 2) for client in late))
        lost = sum(everything - len(set(heard_by(client))) for client in living)
        twice = sum(count - 1 for client in living + late for count in Counter(heard_by(client)).values())
        lost_late = sum(everything // 2 - len(heard_by(client)) for client in late)
        disorder = sum(not in_order(heard_by(client)) for client in living + late)
        for client in clients + late:
            await client.abort()
    print(
        f"{everything} messages to each of {len(living)} sessions in {len(pids)} workers: {lost} lost, {twice} twice, "
        f"{disorder} sessions out of order; at a new worker's {len(late)} sessions {lost_late} lost"
    )
    assert (lost, twice, lost_late, disorder) == (0, 0, 0, 0)
    assert "Traceback" not in running.said()


async def come_to(running: Any, client: ClassicClient, pid: int) -> ClassicClient:
    """A new session in this worker."""
    other = await reach_worker(client, pid)
    await other.register("")
    return await other.wait_for(lambda client: client.all("textfield"))


async def settled(client: ClassicClient, count: int) -> None:
    with contextlib.suppress(TimeoutError):  # what is missing is counted
        await client.wait_for(lambda client: len(heard_by(client)) >= count, 60)


def in_order(heard: list[str]) -> bool:
    last: dict[str, int] = {}
    for text in heard:
        name, _, number = text.rpartition("-")
        if int(number) <= last.get(name, -1):
            return False
        last[name] = int(number)
    return True
