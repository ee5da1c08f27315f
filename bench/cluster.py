"""What workers cost each other: `python -m bench.cluster`.

The same click for a session of a lone worker, of one among two, and of that one again through a relay in the other;
in turns of a tenth of a second, so that whatever else the machine does falls on all three alike. Every round has
servers of its own: two processes of one program differ by more than what is looked for here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.driver import CREDENTIAL, Clicker, Session, connect, counter
from bench.report import row
from bench.servers import KINDS, SHIPPED, Kind, Server, running, use_core
from tests.support.classic_client import register_message

PAIR = Kind("two workers", "shipped", SHIPPED, workers=2)
SESSIONS, TURNS, TURN_SECONDS = 100, 40, 0.1


class Pausing(Clicker):
    """Clicks only while it is its turn."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.going, self.waits = False, False

    def click(self) -> None:
        self.waits = self.going
        if self.going:
            super().click()


@dataclass
class Group:
    """Sessions, and the processes that work for them."""

    title: str
    clickers: list[Pausing]
    workers: set[int]
    rates: list[float] = field(default_factory=list)  # clicks/s, by turn
    costs: list[float] = field(default_factory=list)  # µs of the workers' processor time for a click, by turn

    async def take_a_turn(self) -> None:
        clicks, used, began = self._clicks(), self._used(), time.perf_counter()
        for clicker in self.clickers:
            clicker.going = True
            clicker.click()
        await asyncio.sleep(TURN_SECONDS)
        for clicker in self.clickers:
            clicker.going = False
        while any(clicker.waits for clicker in self.clickers):
            await asyncio.sleep(0.001)
        done = self._clicks() - clicks
        self.rates.append(done / (time.perf_counter() - began))
        self.costs.append((self._used() - used) / done / 1000)

    def _clicks(self) -> int:
        return sum(clicker.value for clicker in self.clickers)

    def _used(self) -> int:
        """Nanoseconds."""
        return sum(int(Path(f"/proc/{worker}/schedstat").read_text().split()[0]) for worker in self.workers)


async def one_round(lone: Server, pair: Server) -> list[Group]:
    groups = [await lone_worker(lone), *await two_workers(pair)]
    for group in groups:  # warms up
        await group.take_a_turn()
        group.rates.clear()
        group.costs.clear()
    for turn in range(TURNS):
        first = turn % len(groups)
        for group in groups[first:] + groups[:first]:
            await group.take_a_turn()
    return groups


async def lone_worker(server: Server) -> Group:
    sessions = [await counter(server.url) for _ in range(SESSIONS)]
    use_core(server.pid, first=True)
    return Group("a lone worker", [*map(Pausing, sessions)], {server.pid})


async def two_workers(server: Server) -> tuple[Group, Group]:
    """All sessions live in one worker, on the first core; the other one shares the driver's."""
    owner = 0
    sessions: list[Session] = []
    while len(sessions) < 2 * SESSIONS:
        session = await counter(server.url)
        if (worker := worker_of(session, server.pid)) != (owner or worker):
            session.transport.disconnect()
            continue
        owner = worker
        sessions.append(session)
    local = [*map(Pausing, sessions[:SESSIONS])]
    relayed = [Pausing(await moved(session, server, owner)) for session in sessions[SESSIONS:]]
    (other,) = {worker_of(clicker.session, server.pid) for clicker in relayed}
    use_core(owner, first=True)
    use_core(other, first=False)
    return Group("one of two workers", local, {owner}), Group("the same, relayed", relayed, {owner, other})


async def moved(session: Session, server: Server, owner: int) -> Session:
    """The same browser, come back to another worker than `owner`."""
    cookie = str(session.transport.response.headers["Set-Cookie"]).partition(";")[0]
    credential = next(found[1] for text in session.seen if (found := re.search(CREDENTIAL, text)))
    session.transport.disconnect()
    while True:
        other = await connect(server.url, cookie=cookie)
        if worker_of(other, server.pid) != owner:
            await other.after(register_message(credential.decode()).encode(), b'"iconbutton"')
            return other
        other.transport.disconnect()


def worker_of(session: Session, pid: int) -> int:
    """The process that has the other end of the connection: `pid` or one of its children."""
    socket = session.transport.underlying_transport
    here, there = (f":{socket.get_extra_info(name)[1]:04X}" for name in ("sockname", "peername"))
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inode = next(row[9] for row in rows if row[1].endswith(there) and row[2].endswith(here))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) == f"socket:[{inode}]":
                    return process
    raise LookupError("nobody has the other end")


def report(rounds: list[list[Group]]) -> str:
    lines = [row(["", "clicks/s", "processor time of the workers for a click (µs)"]), row(["---", "---:", "---:"])]
    for groups in zip(*rounds, strict=True):
        rates, costs = (middle([statistics.median(turns) for turns in each]) for each in (
            [group.rates for group in groups], [group.costs for group in groups]
        ))  # fmt: skip
        lines.append(row([groups[0].title, rates, costs]))
    lines += ["", row(["clicks/s, turn by turn", "reached", "to reach", ""]), row(["---", "---:", "---:", "---"])]
    for this, that, ratio in ((1, 0, 0.97), (2, 1, 0.6)):
        reached = [ratio_of(groups[this], groups[that]) for groups in rounds]
        met = "" if statistics.median(reached) >= ratio else "**no**"
        title = f"{rounds[0][this].title} against {rounds[0][that].title}"
        lines.append(row([title, middle(reached, ".2f", " x"), f"≥ {ratio} x", met]))
    return "\n".join(lines)


def ratio_of(this: Group, that: Group) -> float:
    return statistics.median(one / other for one, other in zip(this.rates, that.rates, strict=True))


def middle(values: list[float], form: str = ",.0f", unit: str = "") -> str:
    parts = (statistics.median(values), min(values), max(values))
    mid, low, high = (format(value, form) for value in parts)
    return f"{mid}{unit}" if len(values) == 1 else f"{mid}{unit} [{low}-{high}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    use_core(0, first=False)
    rounds: list[list[Group]] = []
    for number in range(options.rounds):
        print(f"round {number + 1}/{options.rounds}", file=sys.stderr)
        with running(KINDS["ours"], "counter") as lone, running(PAIR, "counter") as pair:
            rounds.append(uvloop.run(one_round(lone, pair)))
    print(report(rounds))


if __name__ == "__main__":
    main()
