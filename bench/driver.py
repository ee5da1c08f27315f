"""The load: `python -m bench.driver JOB URL [name=value ...]` prints what it measured as one line of JSON.

A process of its own, on picows and uvloop, that does little per frame: it looks for the bytes it waits for. `cpu` in
its answer is the share of one core that it used; near 1 would mean that the driver and not the server was measured.
"""

import asyncio
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.servers import use_core
from tests.support.classic_client import event_message, register_message

REGISTER = register_message().encode()
ECHOED = event_message("_4", "click").encode()
BUTTON = {"icon": re.compile(rb'"t":"iconbutton"'), "outlined": re.compile(rb'"t":"outlinedbutton"')}
ID = re.compile(rb'"i":"(_\d+)"')
CREDENTIAL = re.compile(rb'"session":\{"id":"([^"]+)"')
LAST_ROW = b'"row 1999"'

# What a browser sends with the handshake: the server keeps it for as long as the connection lives.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Accept-Language": "en-US,en;q=0.9",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
}
DEFLATE_OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}

Result = dict[str, float]


class Session(WSListener):
    """One browser tab. `on_text` gets every text; `wait_for` waits for one with certain bytes in it."""

    def __init__(self) -> None:
        self.transport: WSTransport
        self.frames = 0
        self.on_text: Callable[[bytes], None] = self.keep
        self.seen: list[bytes] = []
        self.wanted = b""
        self.found: asyncio.Future[float] | None = None
        self.inflate: Callable[[bytes], bytes] | None = None
        self.each_alone = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        agreed = transport.response.headers.get("Sec-WebSocket-Extensions", "")
        self.each_alone = "server_no_context_takeover" in agreed

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.frames += 1
            text = frame.get_payload_as_bytes()
            self.on_text(self.inflated(text) if frame.rsv1 else text)

    def inflated(self, data: bytes) -> bytes:
        if self.inflate is None or self.each_alone:
            self.inflate = zlib.decompressobj(wbits=-15).decompress
        return self.inflate(data + b"\x00\x00\xff\xff")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.found is not None and not self.found.done():
            self.found.set_exception(ConnectionError(f"server closed: {transport.close_handshake}"))

    def send(self, message: bytes) -> None:
        self.transport.send(WSMsgType.TEXT, message)

    def keep(self, text: bytes) -> None:
        self.seen.append(text)
        self.look(text)

    def look(self, text: bytes) -> None:
        if self.found is not None and self.wanted in text and not self.found.done():
            self.found.set_result(time.perf_counter())

    async def after(self, message: bytes, wanted: bytes) -> float:
        """Seconds from sending `message` until a text with `wanted` in it has come."""
        self.wanted, self.found = wanted, asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self.send(message)
        async with asyncio.timeout(30):
            return await self.found - began

    def button(self, kind: str = "icon") -> bytes:
        """The click on the first button of a kind, whatever order the server writes a control's members in."""
        for text in self.seen:
            for control in re.findall(rb"\{[^{}]*\}", text):
                if BUTTON[kind].search(control) and (found := ID.search(control)):
                    return event_message(found[1].decode(), "click").encode()
        raise LookupError(kind)

    async def start(self, wanted: bytes) -> float:
        return await self.after(REGISTER, wanted)


async def connect(url: str, deflate: bool = False, cookie: str = "") -> Session:
    origin = {"Origin": url.replace("ws://", "http://").removesuffix("/ws")}
    headers = BROWSER | origin | (DEFLATE_OFFER if deflate else {}) | ({"Cookie": cookie} if cookie else {})
    # A small first buffer: the driver holds thousands of connections.
    _, session = await ws_connect(Session, url, extra_headers=headers, read_buffer_init_size=2048)
    return session  # type: ignore[return-value]


async def counter(url: str, deflate: bool = False) -> Session:
    session = await connect(url, deflate)
    await session.start(b'"iconbutton"')
    return session


async def many(number: int, make: Callable[[], Awaitable[Session]]) -> list[Session]:
    sessions: list[Session] = []
    while len(sessions) < number:
        batch = min(20, number - len(sessions))
        sessions += await asyncio.gather(*(make() for _ in range(batch)))
    return sessions


class Clock:
    """Wall time and the driver's share of a core between two moments."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def result(self, **values: float) -> Result:
        wall = time.perf_counter() - self.wall
        return values | {"cpu": (time.process_time() - self.cpu) / wall, "seconds": wall}


async def per_second(count: Callable[[], int], seconds: float) -> Result:
    await asyncio.sleep(0.5)
    clock, before = Clock(), count()
    await asyncio.sleep(seconds)
    done = count() - before
    result = clock.result()
    return result | {"rate": done / result["seconds"]}


# Jobs


async def echo(url: str, sessions: int = 50, seconds: float = 3, deflate: int = 0) -> Result:
    """Round trips per second when every session sends its next text as soon as the last is back."""
    all_sessions = await many(sessions, lambda: connect(url, bool(deflate)))
    for session in all_sessions:
        ping_pong(session)
    return await per_second(lambda: sum(session.frames for session in all_sessions), seconds)


def ping_pong(session: Session) -> None:
    session.on_text = lambda text: session.send(ECHOED)
    session.send(ECHOED)


async def clicks(url: str, sessions: int = 50, seconds: float = 3, deflate: int = 0) -> Result:
    """The same with clicks: the next is sent when the counter's new value has come."""
    all_sessions = await many(sessions, lambda: counter(url, bool(deflate)))
    clickers = [Clicker(session) for session in all_sessions]
    for clicker in clickers:
        clicker.click()
    return await per_second(lambda: sum(clicker.value for clicker in clickers), seconds)


class Clicker:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.message = session.button()
        self.value = 0
        session.on_text = self.take

    def click(self) -> None:
        self.session.send(self.message)

    def take(self, text: bytes) -> None:
        if b'"%d"' % (self.value + 1) in text:
            self.value += 1
            self.click()


async def light(url: str, sessions: int = 20, seconds: float = 5, pause: float = 0.1) -> Result:
    """Latencies in milliseconds when every session clicks ten times a second."""
    all_sessions = await many(sessions, lambda: counter(url))
    clock = Clock()
    rows = await asyncio.gather(*(click_slowly(session, seconds, pause) for session in all_sessions))
    return clock.result(**percentiles([latency for row in rows for latency in row]))


async def click_slowly(session: Session, seconds: float, pause: float) -> list[float]:
    message, latencies = session.button(), []
    session.on_text = session.look
    for value in range(1, int(seconds / pause) + 1):
        await asyncio.sleep(pause)
        latencies.append(await session.after(message, b'"%d"' % value))
    return latencies[5:]


def percentiles(values: list[float]) -> Result:
    ordered = sorted(values)
    return {"p50": ordered[len(ordered) // 2] * 1000, "p99": ordered[int(len(ordered) * 0.99)] * 1000}


async def starts(url: str, workers: int = 8, seconds: float = 3) -> Result:
    """Sessions started per second: connect, register, receive the page, leave."""
    clock = Clock()
    done = await asyncio.gather(*(start_and_leave(url, clock.wall + seconds) for _ in range(workers)))
    result = clock.result()
    return result | {"rate": sum(done) / result["seconds"]}


async def start_and_leave(url: str, end: float) -> int:
    done = 0
    while time.perf_counter() < end:
        session = await counter(url)
        session.transport.disconnect()
        done += 1
    return done


async def idle(url: str, pid: int = 0, sessions: int = 1000, deflate: int = 0, bare: int = 0) -> Result:
    """KB of the server's resident memory per session that is open and does nothing."""
    make = connect if bare else counter
    kept = await many(100, lambda: make(url, bool(deflate)))
    before = await settled(pid)
    kept += await many(sessions, lambda: make(url, bool(deflate)))
    after = await settled(pid)
    return {"kb": (after - before) / sessions / 1024, "open": len(kept)}


async def settled(pid: int) -> int:
    """Resident bytes once they have stayed the same for half a second."""
    last = 0
    while (now := resident(pid)) != last:
        last = now
        await asyncio.sleep(0.5)
    return now


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def page(url: str, repeat: int = 5, deflate: int = 0) -> Result:
    """Milliseconds for the first delivery of 2,000 controls, for an update of all, and for one of one."""
    rows = [await one_page(url, bool(deflate)) for _ in range(repeat)]
    return {name: sorted(row[name] for row in rows)[repeat // 2] * 1000 for name in rows[0]}


async def one_page(url: str, deflate: bool) -> Result:
    session = await connect(url, deflate)
    first = await session.start(LAST_ROW)
    update_all = await session.after(session.button("icon"), b'"v1 1999"')
    update_one = await session.after(session.button("outlined"), b'"v2 one"')
    session.transport.disconnect()
    return {"first": first, "all": update_all, "one": update_one}


async def updates(url: str, repeat: int = 5) -> Result:
    """Milliseconds from the click until the last of 2,000 updates of one handler has come."""
    session = await connect(url)
    await session.start(b'"iconbutton"')
    message, before = session.button(), session.frames
    session.on_text = session.look
    times = [await session.after(message, b'"v%d 1999"' % number) for number in range(1, repeat + 1)]
    return {"ms": sorted(times)[repeat // 2] * 1000, "frames": (session.frames - before) / repeat}


JOBS: dict[str, Callable[..., Awaitable[Result]]] = {
    job.__name__: job for job in (echo, clicks, light, starts, idle, page, updates)
}


def arguments(pairs: list[str]) -> dict[str, Any]:
    return {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)}


if __name__ == "__main__":
    use_core(0, first=False)
    job, url, *pairs = sys.argv[1:]
    print(json.dumps(uvloop.run(JOBS[job](url, **arguments(pairs)))))  # type: ignore[arg-type]
