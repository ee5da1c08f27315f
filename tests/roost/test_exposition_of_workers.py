"""The numbers of real processes, which are killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.appliance import Appliance, appliance
from tests.support.classic_client import ClassicClient
from tests.support.servers import Server, free_port

APP = str(Path(__file__).parents[2] / "app")
PROGRAMS = Path(__file__).parents[1] / "protocol" / "programs"
OPENMETRICS = {"accept": "application/openmetrics-text"}

Numbers = dict[tuple[str, ...], float]


def read(text: str) -> tuple[Numbers, Numbers]:
    """Gauges and counters, those of histograms included, by name and label values."""
    gauges: Numbers = {}
    counters: Numbers = {}
    for family in text_string_to_metric_families(text):
        into = gauges if family.type == "gauge" else counters
        for sample in family.samples:
            into[sample.name, *sample.labels.values()] = sample.value
    return gauges, counters


def fallen(before: Numbers, after: Numbers) -> dict[tuple[str, ...], tuple[float, float]]:
    return {key: (value, after.get(key, 0)) for key, value in before.items() if after.get(key, 0) < value}


# --- processes without a server --------------------------------------------------------------------------------------

# Kills workers in the same four slots again and again while it collects; says what it has seen.
MASTER = """
import json, os, random, signal, sys, time
from pathlib import Path
from roost import metrics
from flet_fastapi.manager import app_manager

directory = metrics.begin(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

def work(slot):
    metrics.begin_worker(slot)
    numbers = app_manager.metrics
    numbers.appear()
    numbers.connected.set(10)
    os.write(ready[1], b"x")
    while True:
        numbers.sessions_started.inc()
        numbers.event_seconds.add([1] * 14, 0.5)
        numbers.http_requests.labels(f"/{random.randrange(20)}", "GET", "200").inc()
        time.sleep(0.002)

def start(slot):
    pid = os.fork()
    if not pid:
        work(slot)
    os.read(ready[0], 1)
    return pid

def numbers():
    return metrics.exposition._encode(metrics._OPENMETRICS, packed=False).decode()

ready = os.pipe()
workers = {slot: start(slot) for slot in range(4)}
seen = []
for _ in range(20):
    for slot, pid in list(workers.items()):
        seen.append(numbers())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        metrics.end_worker(slot)
        seen.append(numbers())
        workers[slot] = start(slot)
files = sorted(os.listdir(directory)), sum(path.stat().st_size for path in directory.iterdir())
for pid in workers.values():
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
for slot in workers:
    metrics.end_worker(slot)
print(json.dumps({"seen": seen, "files": files, "last": numbers(), "directory": str(directory)}))
"""


@pytest.fixture(scope="module")
def killed() -> dict[str, Any]:
    """What a master has seen of four slots, in which 80 workers were killed."""
    ran = subprocess.run([sys.executable, "-c", MASTER], env=_environment(), capture_output=True, timeout=100)
    assert ran.returncode == 0, ran.stderr.decode()
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": APP, "PYTHONUNBUFFERED": "1", **variables}


def test_counters_of_killed_workers_never_fall(killed: dict[str, Any]) -> None:
    counters = [read(text)[1] for text in killed["seen"]]
    assert len(counters) == 160
    assert [fell for before, after in pairwise(counters) if (fell := fallen(before, after))] == []
    assert counters[-1]["flet_sessions_started_total",] >= 80


def test_gauges_count_the_living_only(killed: dict[str, Any]) -> None:
    gauges = [read(text)[0] for text in killed["seen"]]
    all_live, one_dead = gauges[::2], gauges[1::2]
    assert {each["flet_sessions", "connected"] for each in all_live} == {40}
    assert {each["flet_sessions", "connected"] for each in one_dead} == {30}
    assert {sum(key[0] == "flet_worker_ready" for key in each) for each in one_dead} == {3}
    assert read(killed["last"])[0] == {}


def test_files_are_bounded_by_slots(killed: dict[str, Any]) -> None:
    names, size = killed["files"]
    assert {re.sub(r"_\d+\.db$", "", name) for name in names} <= set(KINDS)
    assert {name.rpartition("_")[2] for name in names} == {"0.db", "1.db", "2.db", "3.db"}
    assert size <= 4 * 1024 * 1024


KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemin")


def test_own_directory_goes_with_the_master(killed: dict[str, Any]) -> None:
    assert not Path(killed["directory"]).exists()


# --- roost serve -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with appliance(tmp_path_factory.mktemp("appliance"), workers=2) as server:
        yield server


def exposed(server: Appliance) -> tuple[Numbers, Numbers]:
    answer = httpx.get(f"http://127.0.0.1:{server.internal_port}/metrics", headers=OPENMETRICS, timeout=30)
    assert answer.status_code == 200
    return read(answer.text)


async def visit(server: Appliance, slot: int) -> ClassicClient:
    client = ClassicClient(f"ws://127.0.0.1:{server.slot_port + slot}/ws")
    return await (await client.connect()).register()


async def test_both_workers_are_in_one_answer_and_the_killed_ones_gauges_go(served: Appliance) -> None:
    clients = [await visit(served, slot) for slot in (0, 0, 0, 1, 1)]
    assert httpx.get(served.url).status_code == 200
    served.until(lambda: exposed(served)[1]["flet_frames_received_total",] >= 5)
    served.until(lambda: exposed(served)[0].get(("flet_worker_memory_bytes", "1")))
    gauges, counters = exposed(served)
    assert gauges["flet_sessions", "connected"] == 5
    assert (gauges["flet_worker_sessions", "0"], gauges["flet_worker_sessions", "1"]) == (3, 2)
    assert (gauges["flet_worker_ready", "0"], gauges["flet_worker_ready", "1"]) == (1, 1)
    assert gauges["flet_worker_memory_bytes", "0"] > 10_000_000
    assert counters["flet_sessions_started_total",] == 5
    assert counters["flet_http_requests_total", "GET", "/*", "200"] == 1

    os.kill(served.workers_now()[1], signal.SIGKILL)
    served.until(lambda: exposed(served)[0]["flet_sessions", "connected"] == 3)
    after = exposed(served)
    assert after[0]["flet_connections",] == 3
    assert fallen(counters, after[1]) == {}
    served.until(lambda: exposed(served)[0].get(("flet_worker_ready", "1")) == 1)
    again, counted = exposed(served)
    assert again["flet_worker_start_time_seconds", "1"] > gauges["flet_worker_start_time_seconds", "1"]
    assert again["flet_worker_sessions", "1"] == 0
    clients += [await visit(served, 1)]
    served.until(lambda: exposed(served)[0]["flet_worker_sessions", "1"] == 1)
    assert fallen(counted, exposed(served)[1]) == {}
    assert exposed(served)[1]["flet_sessions_started_total",] == 6
    for client in clients:
        await client.abort()


def test_numbers_are_not_for_clients(served: Appliance) -> None:
    for port in (served.port, served.slot_port):
        assert "flet_sessions" not in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_promtool_has_nothing_to_say(served: Appliance) -> None:
    text = httpx.get(f"http://127.0.0.1:{served.internal_port}/metrics").content
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


# --- without roost ---------------------------------------------------------------------------------------------------


@contextmanager
def gunicorn(directory: Path, folder: Path) -> Iterator[Server]:
    """The document's own command, with prometheus_client's own variable."""
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "--no-control-socket",
        "--bind", f"127.0.0.1:{port}", "counter:app",
    ]  # fmt: skip
    environment = _environment(
        PROMETHEUS_MULTIPROC_DIR=str(directory), FLET_RUN_DIR=str(folder), FLET_SECRET_KEY="k" * 32
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=PROGRAMS, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Server(port, process.pid, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def collected(directory: Path) -> Numbers:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {(s.name, *s.labels.values()): s.value for s in samples}


async def test_library_alone_counts_in_prometheus_clients_own_directory(tmp_path: Path) -> None:
    directory, run = tmp_path / "numbers", tmp_path / "run"
    directory.mkdir()
    run.mkdir(mode=0o700)
    with gunicorn(directory, run) as server:
        await until(lambda: sum(key[0] == "flet_worker_ready" for key in collected(directory)) == 2, server)
        clients = [await ClassicClient(f"ws://127.0.0.1:{server.port}/ws").connect() for _ in range(8)]
        for client in clients:
            await client.register()
        await until(lambda: collected(directory)["flet_frames_received_total",] == 8, server)
        numbers = collected(directory)
        sessions = {key[1]: value for key, value in numbers.items() if key[0] == "flet_worker_sessions"}
        assert numbers["flet_sessions", "connected"] == sum(sessions.values()) == 8
        dead = max(sessions, key=sessions.__getitem__)
        os.kill(int(dead), signal.SIGKILL)
        # the one that takes its place looks around when it starts
        await until(lambda: ("flet_worker_sessions", dead) not in collected(directory), server)
        assert collected(directory)["flet_sessions", "connected"] == 8 - sessions[dead]
        assert collected(directory)["flet_sessions_started_total",] == 8
        for client in clients:
            await client.abort()


async def until(condition: Any, server: Server) -> None:
    try:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(server.said()) from None
