"""Lines reach stdout whole and in order; a reader that stalls, leaves or has no room costs lines, never the app."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.outlet import Outlet

APP = Path(__file__).parents[2] / "app"
_START = """
import logging, os, sys, threading, time
from roost import logs
from roost.logs import Defaults
logs.configure(Defaults(), 1)
log = logging.getLogger("test")
"""


def report(count: int) -> bytes:
    return b"dropped %d\n" % count


def nothing(_: bool) -> None:
    return None


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.read = b""

    def until(self, ending: bytes) -> bytes:
        """Read on until the last line is `ending`."""
        while not self.read.endswith(ending):
            self.read += os.read(self.reader, 1 << 20)
        return self.read

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self.reader = self.writer = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, report, nothing)
    for number in range(1000):
        outlet.put(b"%d\n" % number)
    assert pipe.until(b"\n999\n") == b"".join(b"%d\n" % number for number in range(1000))
    outlet.close()


def test_nobody_waits_for_a_reader_that_stalls(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, report, nothing, max_waiting=100_000)
    line = b"x" * 999 + b"\n"
    for _ in range(5000):  # 5 MB: the queue holds 100 KB, the pipe some more, and nobody reads
        outlet.put(line)
    dropped = outlet.dropped
    assert 4000 < dropped < 5000
    assert not outlet.flush(0.01)
    told: list[bytes] = []  # in parts, if the writer was late
    while sum(map(int, told)) < dropped or pipe.read.count(line) < 5000 - dropped:
        pipe.read += os.read(pipe.reader, 1 << 20)
        told = re.findall(rb"dropped (\d+)\n", pipe.read)
    assert sum(map(int, told)) == dropped
    assert len(pipe.read) == sum(map(len, map(report, map(int, told)))) + len(line) * (5000 - dropped)
    outlet.put(b"all is well again\n")
    pipe.until(b"all is well again\n")
    outlet.close()


@pytest.mark.parametrize("closed", ["pipe without a reader", "descriptor", "/dev/full"])
def test_where_nothing_can_be_written_lines_are_counted(closed: str, pipe: Pipe) -> None:
    if closed == "/dev/full":
        os.close(pipe.writer)
        pipe.writer = os.open("/dev/full", os.O_WRONLY)
    elif closed == "pipe without a reader":
        os.close(pipe.reader)
        pipe.reader = -1
    fd = 10_000 if closed == "descriptor" else pipe.writer
    outlet = Outlet(fd, report, nothing)
    for _ in range(100):
        outlet.put(b"lost\n")
    assert outlet.flush()
    assert outlet.dropped == outlet.dropped_in_total == 100
    other = Pipe()
    outlet.redirect(other.writer)
    outlet.put(b"back\n")
    assert other.until(b"dropped 100\n") == b"back\ndropped 100\n"
    outlet.close()
    other.close()


def test_a_pipe_that_does_not_block_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    outlet = Outlet(pipe.writer, report, nothing)
    for number in range(2000):
        outlet.put(b"%0200d\n" % number)
    assert pipe.until(b"1999\n").count(b"\n") == 2000
    outlet.close()


def test_what_time_brings_is_asked_for_after_a_wake(pipe: Pipe) -> None:
    asked = 0

    def due(_: bool) -> list[bytes] | None:
        nonlocal asked
        asked += 1
        return [b"due\n"] if asked == 3 else [] if asked < 3 else None

    outlet = Outlet(pipe.writer, report, due)
    outlet.wake()
    assert pipe.until(b"due\n") == b"due\n"
    outlet.close()


def test_a_finalizer_may_log_while_its_thread_logs(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, report, nothing)
    with outlet._lock:
        outlet.put(b"from within\n")
    assert pipe.until(b"within\n") == b"from within\n"
    outlet.close()


def test_many_threads_lose_nothing(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, report, nothing)
    threads = [threading.Thread(target=lambda: [outlet.put(b"x\n") for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    while pipe.read.count(b"\n") < 4000:
        pipe.read += os.read(pipe.reader, 1 << 20)
    for thread in threads:
        thread.join()
    assert outlet.dropped_in_total == 0
    outlet.close()


def test_after_the_end_lines_are_written_at_once(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, report, nothing)
    outlet.put(b"one\n")
    outlet.close()
    outlet.put(b"two\n")
    assert os.read(pipe.reader, 100) == b"one\ntwo\n"


# --- processes -------------------------------------------------------------------------------------------------------


def run(program: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", _START + program]
    environment = {**os.environ, "PYTHONPATH": str(APP)}
    ended: subprocess.CompletedProcess[bytes] = subprocess.run(
        command, env=environment, timeout=60, check=False, stdout=stdout, stderr=subprocess.PIPE
    )
    return ended


@pytest.mark.parametrize(
    ("ending", "code", "last"),
    [
        ("", 0, "line"), ("sys.exit(4)", 4, "line"), ("1/0", 1, "uncaught_exception"),
        ("import atexit; atexit.register(log.info, 'goodbye')", 0, "goodbye"),
        ("threading.Thread(target=lambda: [time.sleep(0.1), log.info('late')]).start()", 0, "late"),
        ("logs.flush(); os.kill(os.getpid(), 15)", -15, "line"),
    ],
)  # fmt: skip
def test_all_is_written_before_the_process_ends(ending: str, code: int, last: str) -> None:
    # a logger of its own for each: they do not count as repeats
    ended = run(f"for n in range(1500): logging.getLogger(f'test{{n}}').info('line')\n{ending}")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert (ended.returncode, ended.stderr) == (code, b"")
    assert sum(line["event"] == "line" for line in lines) == 1500
    assert lines[-1]["event"] == last


def test_a_reader_that_stalls_does_not_hold_up_the_end() -> None:
    reader, writer = os.pipe()
    ended = run("for n in range(5000): logging.getLogger(f'test{n}').info('xyz ' * 400)", stdout=writer)
    os.close(writer)
    os.close(reader)
    assert ended.returncode == 0


@pytest.mark.parametrize("stdout", ["closed", "/dev/full", "no reader"])
def test_an_app_lives_on_without_stdout(stdout: str) -> None:
    program = "for n in range(100): log.error('x')\nlogs.flush()\nos.write(2, b'alive')"
    if stdout == "closed":
        program = "os.close(1)\nlogs.configure(Defaults())\n" + program
        ended = run(program)
    elif stdout == "/dev/full":
        with open(stdout, "wb") as full:
            ended = run(program, stdout=full.fileno())
    else:
        reader, writer = os.pipe()
        os.close(reader)
        ended = run(program, stdout=writer)
        os.close(writer)
    assert ended.returncode == 0
    assert ended.stderr == b"alive"


def test_a_file_that_gets_the_number_of_stdout_gets_no_lines(tmp_path: Path) -> None:
    database = tmp_path / "database"
    ended = run(f"os.close(1)\nassert os.open({str(database)!r}, os.O_CREAT | os.O_WRONLY) == 1\nlog.info('hello')")
    assert json.loads(ended.stdout)["event"] == "hello"
    assert database.read_bytes() == b""


def test_a_forked_process_logs_for_itself_and_repeats_nothing() -> None:
    ended = run("""
for n in range(50): log.info("of the parent %d", n)
pid = os.fork()
log.info("%s", "parent" if pid else "child")
if pid: os.waitpid(pid, 0)
""")
    events = [json.loads(line)["event"] for line in ended.stdout.splitlines()]
    assert sorted(events[-2:]) == ["child", "parent"]
    assert len(events) == 52
    assert ended.stderr == b""


def test_lines_of_several_processes_stay_whole() -> None:
    """The workers share one pipe, of which the kernel keeps only 4 KiB together."""
    reader, writer = os.pipe()
    program = f"""{_START}
sys.stdin.read()  # until all are here
for n in range(300):
    logging.getLogger(f"test{{n}}").info("%s", sys.argv[1] * 1900, extra={{f"f{{k}}": "y" * 900 for k in range(9)}})
"""
    environment = {**os.environ, "PYTHONPATH": str(APP)}
    start, begin = os.pipe()
    workers = [
        subprocess.Popen([sys.executable, "-c", program, letter], stdin=start, stdout=writer, env=environment)
        for letter in "wxyz"
    ]
    for fd in (start, begin, writer):
        os.close(fd)
    with os.fdopen(reader, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    assert [worker.wait(30) for worker in workers] == [0] * 4
    assert len(lines) == 4 * 300
    assert all(len(set(line["event"])) == 1 for line in lines)
