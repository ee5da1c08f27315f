"""A reconnect finds its session in whichever worker it lives. Real servers, real workers, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.classic_client import ClassicClient, event_message, register_message
from tests.support.servers import Server
from tests.support.workers import (
    SERVERS,
    all_workers,
    browser,
    click,
    counter,
    owner_of,
    reach,
    reach_worker,
    resident,
    shape,
    started,
    visit,
    worker_of,
    workers,
)

ROOST = "uvicorn with Roost's websockets"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Four workers that no test here harms."""
    folder = tmp_path_factory.mktemp("server")
    with workers(folder / "log", ROOST, FLET_RUN_DIR=str(folder / "run")) as running:
        yield running


@pytest.fixture
async def ready(server: Server) -> Server:
    await all_workers(server)
    return server


@pytest.fixture
async def clients() -> AsyncIterator[list[ClassicClient]]:
    """What is put in is closed."""
    opened: list[ClassicClient] = []
    yield opened
    for client in opened:
        with suppress(ConnectionError):
            await client.abort()


async def relayed(server: Server, clients: list[ClassicClient]) -> ClassicClient:
    """A browser with a session whose websocket has come to another worker than the session lives in."""
    first = await visit(server)
    await click(first)
    await first.abort()
    other = await reach(first, other_than={owner_of(first)})
    clients.append(other)
    await other.register()
    assert owner_of(other) != worker_of(other)
    return other


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# --- everybody comes back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
async def test_all_sessions_are_found_wherever_their_browsers_come_back(kind: str, tmp_path: Path) -> None:
    with workers(tmp_path / "log", kind) as running:
        await all_workers(running)
        clients: list[ClassicClient] = []
        for _ in range(10):
            clients += await asyncio.gather(*(visit(running) for _ in range(20)))
        await asyncio.gather(*map(click, clients))
        before = [shape(client) for client in clients]
        await asyncio.gather(*(client.abort() for client in clients))
        others = await asyncio.gather(*(client.reconnect() for client in clients))
        await asyncio.gather(*(other.register() for other in others))
        found = sum(shape(other) == was for other, was in zip(others, before, strict=True))
        relays = sum(owner_of(other) != worker_of(other) for other in others)
        await asyncio.gather(*map(click, others))
        alive = sum(counter(other)["value"] == "2" for other in others)
        await asyncio.gather(*(other.abort() for other in others))
    print(f"{kind}: {found} of 200 resumed, {alive} alive to a click, {relays} relayed, {200 - found} lost")
    assert (found, alive) == (200, 200)
    assert relays > 20
    assert "Traceback" not in running.said()


# --- what goes through a relay ---------------------------------------------------------------------------------------


async def test_click_and_update_go_through(ready: Server, clients: list[ClassicClient]) -> None:
    client = await relayed(ready, clients)
    assert counter(client)["value"] == "1"
    for value in ("2", "3"):
        await click(client)
        assert counter(client)["value"] == value


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x00\x01", 1003),
        ("{", 1007),
        (register_message(), 1008),
        (event_message("page", "x", "y" * 1_100_000), 1009),
    ],
    ids=["binary", "no JSON", "registered already", "too large"],
)
async def test_what_breaks_the_protocol_ends_as_without_a_relay(
    ready: Server, clients: list[ClassicClient], frame: str | bytes, code: int
) -> None:
    client = await relayed(ready, clients)
    await client.send_raw(frame)
    assert await client.wait_closed() == code
    again = await client.reconnect()
    clients.append(again)
    await again.register()
    assert counter(again)["value"] == "1", "the session stays for its owner"


async def test_large_frames_and_any_text_go_through(ready: Server, clients: list[ClassicClient]) -> None:
    client = await relayed(ready, clients)
    await client.event(client.one("textfield")["i"], "blur", "5")
    await client.wait_for(lambda client: client.one("text", key="chat").get("value", "").startswith("4 "))
    text = "\ud83d 日本 \U0001f600" * 20_000  # half an emoji among others, 300 KB as UTF-8
    await client.change(client.one("textfield")["i"], text)
    await click(client)
    await client.abort()
    again = await reach(client, other_than={worker_of(client)})
    clients.append(again)
    await again.register()
    assert again.one("textfield")["value"] == text


async def test_tab_whose_session_is_open_elsewhere_keeps_it(ready: Server, clients: list[ClassicClient]) -> None:
    """The owner asks the browser through the relay by a ping, and hears it."""
    client = await relayed(ready, clients)
    duplicate = await reach(client, other_than={worker_of(client)})
    clients.append(duplicate)
    await duplicate.register()
    await duplicate.wait_for(started)
    assert counter(duplicate)["value"] == "0", "a session of its own"
    await click(client)


async def test_browser_that_is_gone_is_not_waited_for(ready: Server, clients: list[ClassicClient]) -> None:
    client = await relayed(ready, clients)
    client.lose_network()
    again = await reach(client, other_than=set())
    clients.append(again)
    await again.register()
    assert counter(again)["value"] == "1"
    client.find_network()
    assert await client.wait_closed() == 1008


async def test_of_two_that_come_at_once_one_gets_the_session(ready: Server, clients: list[ClassicClient]) -> None:
    for _ in range(5):
        first = await visit(ready)
        await click(first)
        await first.abort()
        pair = [await reach(first, other_than={owner_of(first)}), await reach(first, other_than=set())]
        clients += pair
        await asyncio.gather(*(each.register() for each in pair))
        await asyncio.gather(*(each.wait_for(started) for each in pair))
        assert sorted(counter(each)["value"] for each in pair) == ["0", "1"]
        await asyncio.gather(*map(click, pair))
        await asyncio.gather(*(each.abort() for each in pair))


async def test_credential_opens_nothing_without_its_cookie(ready: Server, clients: list[ClassicClient]) -> None:
    first = await visit(ready)
    clients.append(first)
    # as browsers have it that were given a cookie by the page: the session is bound from its start
    bound = await first.reconnect()
    clients.append(bound)
    await bound.register("")
    await bound.wait_for(started)
    await click(bound)
    await bound.abort()
    thief = await reach(bound, other_than={owner_of(bound)})
    await thief.abort()
    thief = await thief.reconnect(cookies={"flet_browser": "A" * 22})
    clients.append(thief)
    await thief.register(bound.session_id)
    await thief.wait_for(started)
    assert counter(thief)["value"] == "0"


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[Server]:
    """Three workers of gunicorn, which replaces those that are killed."""
    with workers(tmp_path / "log", number=3, FLET_RUN_DIR=str(tmp_path / "run")) as running:
        await all_workers(running, 3)
        yield running


async def test_owner_killed_while_relaying(mortal: Server, clients: list[ClassicClient]) -> None:
    client = await relayed(mortal, clients)
    killed = time.monotonic()
    os.kill(owner_of(client), signal.SIGKILL)
    assert await client.wait_closed() == 1012
    again = await client.reconnect()
    clients.append(again)
    await again.register()
    await again.wait_for(started)
    await click(again)
    print(f"a new session after {time.monotonic() - killed:.2f} s")
    assert time.monotonic() - killed < 5
    assert counter(again)["value"] == "1"


async def test_relaying_worker_killed(mortal: Server, clients: list[ClassicClient]) -> None:
    client = await relayed(mortal, clients)
    os.kill(worker_of(client), signal.SIGKILL)
    assert await client.wait_closed() == 1006
    again = await client.reconnect()
    clients.append(again)
    await again.register()
    assert owner_of(again) == owner_of(client)
    assert counter(again)["value"] == "1"
    await click(again)


async def test_worker_that_replaces_a_killed_one_relays_too(mortal: Server, clients: list[ClassicClient]) -> None:
    client = await visit(mortal)
    await click(client)
    await client.abort()
    owner = owner_of(client)
    new = await replaced(mortal, next(iter(await all_workers(mortal, 3) - {owner})))
    again = await reach_worker(client, new)
    clients.append(again)
    await again.register()
    assert owner_of(again) == owner
    await click(again)


async def replaced(server: Server, victim: int) -> int:
    """Kill a worker; the one that has come for it, once it serves."""
    before = await all_workers(server, 3)
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not (new := await all_workers(server, 1) - before):
            await asyncio.sleep(0.1)
    return new.pop()


async def test_owner_that_is_stopped_costs_seconds_and_gets_nobody_twice(
    mortal: Server, clients: list[ClassicClient]
) -> None:
    first = await visit(mortal)
    await click(first)
    await first.abort()
    owner = owner_of(first)
    elsewhere = await reach(first, other_than={owner})
    clients.append(elsewhere)
    with stopped(owner):
        asked = time.monotonic()
        await elsewhere.register()
        took = time.monotonic() - asked
        await elsewhere.wait_for(started)
        assert counter(elsewhere)["value"] == "0"
    print(f"a new session after {took:.2f} s")
    assert took < 7
    # what is awake again finds nobody waiting, and keeps the session for whoever has its credential
    again = await reach_worker(first, owner)
    clients.append(again)
    await again.register()
    assert counter(again)["value"] == "1"
    await click(again)
    await click(elsewhere)


async def test_owner_that_hangs_keeps_those_who_are_relayed_to_it(tmp_path: Path, clients: list[ClassicClient]) -> None:
    """For longer than the workers' links last: a client of its own would wait, too."""
    with workers(tmp_path / "log", number=2, FLET_RUN_DIR=str(tmp_path / "run")) as running:
        await all_workers(running, 2)
        client = await relayed(running, clients)
        with stopped(owner_of(client)):
            await client.click(client.one("elevatedbutton")["i"])
            await asyncio.sleep(20)  # links last 15 seconds
            assert counter(client)["value"] == "1"
        await client.wait_for(lambda client: counter(client)["value"] == "2")
        await click(client)


async def test_client_that_does_not_read_through_a_relay(tmp_path: Path, clients: list[ClassicClient]) -> None:
    """Both workers' memory is bounded, and the owner cuts it."""
    limits = {"FLET_SEND_QUEUE_SIZE": "4000000", "FLET_SEND_TIMEOUT": "2", "FLET_RUN_DIR": str(tmp_path / "run")}
    with workers(tmp_path / "log", number=2, **limits) as running:
        await all_workers(running, 2)
        client = await relayed(running, clients)
        pids = owner_of(client), worker_of(client)
        before = [resident(pid) for pid in pids]
        client.stop_reading()
        peak = [0, 0]
        # 200 MB in all
        for _ in range(20):
            with suppress(ConnectionError, ConnectionClosed):
                await client.event(client.one("textfield")["i"], "blur", "100")
            await asyncio.sleep(0.05)
            peak = [max(was, resident(pid)) for was, pid in zip(peak, pids, strict=True)]
        again = await client.reconnect()
        clients.append(again)
        await again.register()
        assert counter(again)["value"] == "1"
        await click(again)
    grown = [(high - low) / 1e6 for high, low in zip(peak, before, strict=True)]
    print(f"grown by {grown[0]:.1f} MB in the owner, {grown[1]:.1f} MB in the relaying worker")
    assert max(grown) < 40


# --- where workers meet ----------------------------------------------------------------------------------------------


async def test_path_of_the_private_socket_may_be_long(tmp_path: Path, clients: list[ClassicClient]) -> None:
    run = tmp_path / ("long" * 25) / ("path" * 25)
    with workers(tmp_path / "log", "uvicorn", number=2, FLET_RUN_DIR=str(run)) as running:
        await all_workers(running, 2)
        client = await relayed(running, clients)
        await click(client)


async def test_socket_of_a_killed_worker_is_swept(mortal: Server, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "run").glob("socket-*")
    before = set(folder.glob("*.sock"))
    assert len(before) == 3
    victim = next(iter(await all_workers(mortal, 3)))
    await replaced(mortal, victim)
    async with asyncio.timeout(20):
        while len(now := set(folder.glob("*.sock"))) != 3 or now == before:
            await asyncio.sleep(0.05)


async def test_workers_of_two_servers_do_not_meet(tmp_path: Path, clients: list[ClassicClient]) -> None:
    shared = {"FLET_RUN_DIR": str(tmp_path / "run"), "FLET_SECRET_KEY": "the same in both" * 3}
    with (
        workers(tmp_path / "log1", "uvicorn", number=2, **shared) as one,
        workers(tmp_path / "log2", "uvicorn", number=2, **shared) as two,
    ):
        await all_workers(one, 2)
        await all_workers(two, 2)
        client = await visit(one)
        await click(client)
        await client.abort()
        stranger = browser(two, cookies=client.cookies)
        clients.append(await stranger.connect())
        await stranger.register(client.session_id)
        await stranger.wait_for(started)
        assert counter(stranger)["value"] == "0"
        again = await reach(client, other_than={owner_of(client)})
        clients.append(again)
        await again.register()
        assert counter(again)["value"] == "1"


async def test_worker_without_a_private_socket_serves_alone(tmp_path: Path, clients: list[ClassicClient]) -> None:
    (tmp_path / "file").write_text("")
    with workers(tmp_path / "log", "uvicorn", number=2, FLET_RUN_DIR="/proc/flet", FLET_SECRET_KEY="k" * 32) as running:
        await all_workers(running, 2)
        client = await visit(running)
        await click(client)
        clients.append(client)
        assert "private_socket_failed" in running.said()
        assert "Traceback" not in running.said()


async def test_single_worker_needs_nobody(tmp_path: Path, clients: list[ClassicClient]) -> None:
    with workers(tmp_path / "log", number=1, FLET_RUN_DIR=str(tmp_path / "run")) as running:
        client = await visit(running)
        await click(client)
        await client.abort()
        again = await client.reconnect()
        clients.append(again)
        await again.register()
        assert counter(again)["value"] == "1"


# --- programs that are made of single endpoints ----------------------------------------------------------------------


async def test_endpoints_made_per_request_and_several_apps(tmp_path: Path, clients: list[ClassicClient]) -> None:
    with workers(tmp_path / "log", number=2, program="several", FLET_RUN_DIR=str(tmp_path / "run")) as running:
        await all_workers(running, 2, path="/one/ws")
        for path in ("/one/ws", "/two/ws", "/sub/ws"):
            client = await browser(running, path).connect()
            await client.register()
            await client.wait_for(started)
            await click(client)
            await client.abort()
            again = await reach(client, other_than={worker_of(client)})
            clients.append(again)
            await again.register()
            assert counter(again)["value"] == "1", path
            await click(again)
        # a credential of one app is none of another's, wherever it comes to
        foreign = browser(running, "/two/ws", cookies=client.cookies)
        clients.append(await foreign.connect())
        await foreign.register(again.session_id)
        await foreign.wait_for(started)
        assert counter(foreign)["value"] == "0"
