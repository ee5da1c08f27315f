"""Many relays over one connection: each with its own bound, in order, and none in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flet_fastapi.cluster import channels, sockets, wire
from flet_fastapi.cluster.channels import PIECE, WINDOW, Channel, Channels
from flet_fastapi.cluster.wire import LinkError, Stream
from tests.conftest import Logs


class Taker:
    """One end of a channel: keeps what comes."""

    def __init__(self) -> None:
        self.got: list[tuple[int, bytes]] = []
        self.gone = False
        self.channel: Channel

    def frame(self, kind: int, payload: bytes) -> None:
        self.got.append((kind, payload))

    def lost(self) -> None:
        self.gone = True


class Ends:
    """Both ends of one connection."""

    def __init__(self) -> None:
        self.takers: list[Taker] = []
        self.here = Channels(100, wire.ANY_SIZE)
        self.there = Channels(3, 1_000_000, self._accept)

    def _accept(self, channel: Channel) -> Taker:
        taker = Taker()
        taker.channel = channel
        self.takers.append(taker)
        return taker

    def open(self) -> tuple[Channel, Taker]:
        taker = Taker()
        taker.channel = self.here.open(taker)
        taker.channel.send(wire.OPEN, b"")
        return taker.channel, taker


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    ends = Ends()

    def answer() -> Stream:
        ends.there.stream = Stream(ends.there, 2 * PIECE)
        return ends.there.stream

    listener, path = await asyncio.to_thread(sockets.listen_in, tmp_path, "x")
    server = await asyncio.get_running_loop().create_unix_server(answer, sock=listener)
    ends.here.stream = await sockets.connect(f"unix:{path}", lambda: Stream(ends.here, 2 * PIECE))
    yield ends
    ends.here.stream.abort()
    server.close()
    await until(lambda: ends.there.stream.ended)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


SIZES = st.sampled_from([0, 1, 100, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5, WINDOW + 1])


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 2), SIZES), max_size=30))
async def test_frames_arrive_whole_and_in_order(ends: Ends, sizes: list[tuple[int, int]]) -> None:
    taken = len(ends.takers)
    opened = [ends.open() for _ in range(3)]
    sent: list[list[tuple[int, bytes]]] = [[(wire.OPEN, b"")] for _ in opened]
    for number, (which, size) in enumerate(sizes):
        payload = bytes([number % 256]) * size
        opened[which][0].send(wire.TEXT, payload)
        sent[which].append((wire.TEXT, payload))
    await until(lambda: [len(taker.got) for taker in ends.takers[taken:]] == [len(frames) for frames in sent])
    assert [taker.got for taker in ends.takers[taken:]] == sent
    for channel, _ in opened:
        channel.close()
    await until(lambda: all(taker.gone for taker in ends.takers))


async def test_receiver_that_pauses_bounds_what_is_under_way_and_stops_nobody_else(ends: Ends) -> None:
    slow, _ = ends.open()
    quick, _ = ends.open()
    await until(lambda: len(ends.takers) == 2)
    held, free = ends.takers
    held.channel.pause()
    for _ in range(100):
        slow.send(wire.TEXT, b"s" * 50_000)
        quick.send(wire.TEXT, b"q" * 50_000)
    await until(lambda: len(free.got) == 101)
    assert slow.full
    assert sum(len(payload) for _, payload in held.got) <= WINDOW + PIECE
    held.channel.resume()
    async with asyncio.timeout(20):
        await slow.drain()
    await until(lambda: len(held.got) == 101)


async def test_end_comes_after_what_was_sent(ends: Ends) -> None:
    channel, mine = ends.open()
    channel.send(wire.TEXT, b"x" * (WINDOW * 2))
    channel.close()
    assert channel.ended
    with pytest.raises(LinkError):
        channel.send(wire.TEXT, b"")
    await until(lambda: ends.takers and ends.takers[0].gone and mine.gone)
    assert [len(payload) for _, payload in ends.takers[0].got] == [0, WINDOW * 2]
    assert not ends.here._channels and not ends.there._channels


async def test_end_of_a_channel_whose_receiver_never_reads_is_forced(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "_LINGER_SECONDS", 0.1)
    channel, mine = ends.open()
    await until(lambda: ends.takers)
    ends.takers[0].channel.pause()
    channel.send(wire.TEXT, b"x" * (WINDOW * 2))
    channel.close()
    await until(lambda: mine.gone and ends.takers[0].gone)


async def test_both_ends_may_close_with_much_under_way(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_LINGER_SECONDS", 100)
    channel, mine = ends.open()
    await until(lambda: ends.takers)
    channel.send(wire.TEXT, b"x" * (WINDOW * 3))
    ends.takers[0].channel.send(wire.TEXT, b"y" * (WINDOW * 3))
    channel.close()
    ends.takers[0].channel.close()
    await until(lambda: mine.gone and ends.takers[0].gone)


async def test_mistake_in_one_channel_ends_no_other(ends: Ends, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, mine = ends.open()
    other, _ = ends.open()
    await until(lambda: len(ends.takers) == 2)
    monkeypatch.setattr(ends.takers[0], "got", None)
    broken.send(wire.TEXT, b"x")
    other.send(wire.TEXT, b"y")
    await until(lambda: mine.gone and len(ends.takers[1].got) == 2)
    assert len(logs.named("relay_broke")) == 1


async def test_waiting_for_a_receiver_ends_with_the_channel(ends: Ends) -> None:
    channel, _ = ends.open()
    await until(lambda: ends.takers)
    ends.takers[0].channel.pause()
    channel.send(wire.TEXT, b"x" * (WINDOW * 2))
    waiting = asyncio.create_task(channel.drain())
    await asyncio.sleep(0)
    ends.takers[0].channel.abort()
    with pytest.raises(LinkError):
        await waiting


async def test_end_of_the_connection_ends_all_channels(ends: Ends) -> None:
    mine = [ends.open()[1] for _ in range(3)]
    await until(lambda: len(ends.takers) == 3)
    ends.there.stream.abort()
    await until(lambda: all(taker.gone for taker in [*mine, *ends.takers]))
    with pytest.raises(LinkError):
        ends.open()


async def test_connection_that_is_not_wanted_ends_with_its_last_channel(ends: Ends) -> None:
    channel, mine = ends.open()
    await until(lambda: ends.takers)
    ends.here.retire()
    with pytest.raises(LinkError):
        ends.open()
    channel.send(wire.TEXT, b"last")
    await until(lambda: len(ends.takers[0].got) == 2)
    assert not mine.gone
    channel.close()
    await until(lambda: ends.takers[0].gone and ends.here.stream.ended)


async def test_more_channels_than_there_may_be_are_refused(ends: Ends) -> None:
    mine = [ends.open()[1] for _ in range(5)]
    await until(lambda: [taker.gone for taker in mine] == [False] * 3 + [True] * 2)
    assert len(ends.takers) == 3


async def test_frame_that_is_too_large_ends_its_channel(ends: Ends) -> None:
    channel, mine = ends.open()
    other, _ = ends.open()
    channel.send(wire.TEXT, b"x" * 1_100_000)
    other.send(wire.TEXT, b"y")
    await until(lambda: mine.gone and len(ends.takers[1].got) == 2)
