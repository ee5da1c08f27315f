"""Real gunicorn processes: what becomes of a server when something dies, blocks, fails or is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.support.appliance import PROGRAM, ROOST, Appliance, appliance, stop
from tests.support.classic_client import register_message
from tests.support.servers import free_ports

BLOCKS = (
    PROGRAM
    + """
import fastapi, flet_fastapi, time, os
app = flet_fastapi.FastAPI()

@app.get("/pid")
def pid(request: fastapi.Request):
    return os.getpid()

@app.get("/client")
async def client(request: fastapi.Request):
    return {"client": request.client.host, "scheme": request.url.scheme, "pid": os.getpid()}

@app.get("/block")
async def block():
    while True:
        time.sleep(1)

@app.get("/slow")
async def slow():
    import asyncio
    await asyncio.sleep(1.5)
    return "done"

app.mount("/", flet_fastapi.app(main))
"""
)
BREAKS = (
    """
import os, pathlib
if pathlib.Path("broken").exists():
    raise RuntimeError("the database is away")
"""
    + PROGRAM
)


@contextmanager
def websocket(server: Appliance, port: int | None = None) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{port or server.port}/ws"
    with connect(url, origin=Origin(url.replace("ws:", "http:").removesuffix("/ws"))) as client:
        client.send(register_message())
        yield client


def kill(server: Appliance, slot: int) -> int:
    pid = server.workers_now()[slot]
    os.kill(pid, signal.SIGKILL)
    return pid


# --- listeners -------------------------------------------------------------------------------------------------------


def test_each_listener_serves_what_is_its_own(tmp_path: Path) -> None:
    with appliance(tmp_path) as server:
        assert server.ask("/slots") == (200, f"{server.slot_port}\n{server.slot_port + 1}\n")
        for port in (server.port, server.slot_port, server.slot_port + 1):
            assert "flet-websocket-endpoint-path" in httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text
            for path in ("/livez", "/readyz", "/startupz", "/slots", "/metrics"):
                assert httpx.get(f"http://127.0.0.1:{port}{path}", headers={"accept": "*/*"}).status_code == 404
        assert server.ask("/")[0] == server.ask("/ws")[0] == server.ask("/livez/x")[0] == 404
        assert server.health("/livez")[0] == server.health("/startupz")[0] == 200
        assert server.health()[1]["status"] == "ready"
        assert "flet_sessions" in server.ask("/metrics")[1]
        environment = {**os.environ, "ROOST_INTERNAL_PORT": str(server.internal_port)}
        for command, code in ((["livez"], 0), (["startupz"], 0), ([], 0), (["nothing"], 2)):
            assert subprocess.run([ROOST, "health", *command], env=environment, check=False).returncode == code
    assert subprocess.run([ROOST, "health"], env=environment, check=False).returncode == 1


def test_slot_listeners_are_those_of_their_workers(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS) as server:
        pids = [int(server.ask("/pid", server.slot_port + slot)[1]) for slot in (0, 1)]
        assert {0: pids[0], 1: pids[1]} == server.workers_now()


def test_there_are_no_slot_listeners_if_none_are_wanted(tmp_path: Path) -> None:
    with appliance(tmp_path, slots=False, workers=1) as server:
        assert server.ask("/slots") == (200, "")


def test_workers_with_slots_share_their_private_directory(tmp_path: Path) -> None:
    with appliance(tmp_path, FLET_SECRET_KEY="", ROOST_ENVIRONMENT="development", ROOST_LOG_FORMAT="json") as server:
        for slot in (0, 1):
            with websocket(server, server.slot_port + slot) as client:
                assert "registerWebClient" in str(client.recv(timeout=10))
        (shared,) = (tmp_path / "run").iterdir()
        assert shared.name.startswith("socket-")


SPOOFED = [
    # listener, trusted networks, X-Forwarded-For, X-Forwarded-Proto: client, scheme
    ("public", "10.9.9.9", "198.51.100.7", "https", "127.0.0.1", "http"),
    ("public", "127.0.0.1", "198.51.100.7", "https", "198.51.100.7", "https"),
    ("public", "127.0.0.1", "6.6.6.6, 198.51.100.7", "https", "198.51.100.7", "https"),
    ("public", "127.0.0.0/8,10.0.0.0/8", "6.6.6.6, 198.51.100.7, 10.0.0.4", "http", "198.51.100.7", "http"),
    ("public", "127.0.0.1", "not an address", "gopher", "127.0.0.1", "http"),
    ("slot", "10.9.9.9", "198.51.100.7", "https", "198.51.100.7", "https"),
    ("slot", "10.9.9.9", "6.6.6.6, 198.51.100.7", "https", "198.51.100.7", "https"),
    ("slot", "10.9.9.9", "6.6.6.6, 198.51.100.7, 10.9.9.9", "https", "198.51.100.7", "https"),
]


@pytest.mark.parametrize("trusted", sorted({row[1] for row in SPOOFED}))
def test_forwarded_headers_are_believed_by_listener_and_network(tmp_path: Path, trusted: str) -> None:
    with appliance(tmp_path, BLOCKS, workers=1, ROOST_FORWARDED_ALLOW_IPS=trusted) as server:
        for listener, _, chain, proto, client, scheme in (row for row in SPOOFED if row[1] == trusted):
            port = server.slot_port if listener == "slot" else server.port
            headers = {"X-Forwarded-For": chain, "X-Forwarded-Proto": proto, "X-Real-IP": "6.6.6.6"}
            seen = httpx.get(f"http://127.0.0.1:{port}/client", headers=headers, timeout=30).json()
            assert (seen["client"], seen["scheme"]) == (client, scheme), (listener, chain)


def test_the_internal_listener_wants_its_token_from_elsewhere(tmp_path: Path) -> None:
    host = local_address()
    token = "tOk3n-of-a-Prometheus-elsewhere"
    with appliance(tmp_path, workers=1, ROOST_INTERNAL_HOST="0.0.0.0", ROOST_INTERNAL_TOKEN=token) as server:
        url = f"http://{host}:{server.internal_port}"
        assert server.ask("/livez")[0] == 200
        spoofed = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Host": "127.0.0.1"}
        for headers in ({}, spoofed, {"Authorization": "Bearer wrong"}, {"Authorization": token}):
            for path in ("/livez", "/readyz", "/startupz", "/metrics", "/slots"):
                assert httpx.get(url + path, headers=headers).status_code == 401
        assert httpx.get(f"{url}/livez").headers["www-authenticate"].startswith("Bearer")
        assert httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def local_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


# --- workers that die ------------------------------------------------------------------------------------------------


def test_a_killed_workers_slot_is_taken_over_while_its_siblings_serve(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS) as server, websocket(server, server.slot_port + 1) as sibling:
        slots = server.ask("/slots")
        killed = kill(server, 0)
        server.until(lambda: server.workers_now()[0] != killed)
        assert server.ask("/slots") == slots
        assert int(server.ask("/pid", server.slot_port)[1]) == server.workers_now()[0]
        sibling.ping().wait(5)
        assert server.process.poll() is None


def test_a_blocked_worker_is_replaced_and_says_where_it_was(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS, ROOST_WORKER_TIMEOUT=3) as server:
        blocked = server.workers_now()[0]
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{server.slot_port}/block", timeout=30)
        server.until(lambda: server.workers_now()[0] != blocked)
        (entry,) = server.logged("worker_blocked")
        assert "time.sleep(1)" in entry["stack"][-1]
        assert entry["worker"] == 0


def test_the_end_of_the_master_is_the_end_of_its_workers(tmp_path: Path) -> None:
    with appliance(tmp_path) as server:
        os.kill(server.process.pid, signal.SIGKILL)
        server.until(lambda: not any(is_alive(pid) for pid in server.workers_now().values()))


FORKS = """
import multiprocessing, os, time, flet_fastapi
app = flet_fastapi.FastAPI()

@app.get("/fork")
def fork():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid()
"""


def test_what_the_app_has_forked_keeps_no_port_from_the_worker_that_comes_after(tmp_path: Path) -> None:
    with appliance(tmp_path, FORKS) as server:
        killed = int(server.ask("/fork", server.slot_port)[1])
        os.kill(killed, signal.SIGKILL)
        server.until(lambda: server.workers_now()[0] != killed)
        assert server.ask("/slots", server.slot_port)[0] == 404
        assert not server.logged("worker_start_failed")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- apps that do not start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "problem"),
    [
        ("raise RuntimeError('the database is away')", "program.py, line 1: RuntimeError: the database is away"),
        ("def main(page)", "line 1: SyntaxError"),
        ("x = 1", "has neither an app nor a main(page)"),
        ("import os; os._exit(3)", "a worker ended while it started the app"),
        ("import sys; sys.exit(4)", "sys.exit()"),
        (
            "import flet_fastapi, contextlib\n@contextlib.asynccontextmanager\nasync def life(app):\n"
            "    raise RuntimeError('the queue\\nis away')\n    yield\napp = flet_fastapi.FastAPI(lifespan=life)",
            "is away",
        ),
        ("raise OSError('postgres://me:hunter2-for-it@db/app')", "OSError: postgres://***@db/app"),
        (
            "import flet_fastapi, contextlib\n@contextlib.asynccontextmanager\nasync def life(app):\n"
            "    raise OSError('postgres://me:hunter2-for-it@db/app')\n    yield\n"
            "app = flet_fastapi.FastAPI(lifespan=life)",
            "OSError: postgres://***@db/app",
        ),
    ],
    ids=["raises", "syntax", "nothing", "kills itself", "exits", "lifespan", "secret", "secret of its lifespan"],
)
def test_an_app_that_cannot_start_ends_the_server_with_one_error(tmp_path: Path, app: str, problem: str) -> None:
    began = time.monotonic()
    with appliance(tmp_path, app, workers=3, wait=False) as server:
        assert server.ended() == 3
        assert time.monotonic() - began < 30
        (line,) = server.err.read_text().splitlines()
        assert line.startswith("roost: ")
        assert problem in line
        assert "Traceback" not in server.out.read_text()
        assert '"level":"error"' not in server.out.read_text() or "os._exit" in app


def test_an_app_that_takes_too_long_ends_the_server_and_is_told_where(tmp_path: Path) -> None:
    app = "import time\n\ndef wait():\n    time.sleep(600)\n\nwait()\n"
    with appliance(tmp_path, app, wait=False, ROOST_START_TIMEOUT=3) as server:
        status, body = server.until(server.health)
        assert (status, body["parts"]["app"]["ok"]) == (503, False)
        assert server.health("/livez")[0] == 200
        assert server.health("/startupz")[0] == 503
        assert server.ask("/nothing")[0] == 404
        assert server.ended() == 3
        assert "3 seconds (ROOST_START_TIMEOUT)" in server.err.read_text()
        assert "line 4, in wait" in server.err.read_text()


def test_a_worker_that_cannot_start_again_backs_off_until_the_app_is_mended(tmp_path: Path) -> None:
    with appliance(tmp_path, BREAKS) as server, websocket(server, server.slot_port + 1) as sibling:
        killed = server.workers_now()[0]
        (tmp_path / "broken").touch()
        kill(server, 0)
        server.until(lambda: len(server.logged("worker_start_failed")) >= 2)
        first, second = server.logged("worker_start_failed")[:2]
        assert "the database is away" in first["problem"]
        assert first["slot"] == 0
        assert second["next_try_seconds"] > first["next_try_seconds"]
        assert server.process.poll() is None
        assert server.health()[0] == 200
        sibling.ping().wait(5)
        (tmp_path / "broken").unlink()
        server.until(lambda: server.workers_now()[0] != killed)


def test_a_worker_alone_that_cannot_start_again_is_tried_again_too(tmp_path: Path) -> None:
    with appliance(tmp_path, BREAKS, workers=1) as server:
        killed = server.workers_now()[0]
        (tmp_path / "broken").touch()
        kill(server, 0)
        server.until(lambda: server.logged("worker_start_failed"))
        (tmp_path / "broken").unlink()
        server.until(lambda: server.workers_now()[0] != killed)
        assert server.health()[0] == 200


def test_an_app_that_exits_with_gunicorns_own_codes_does_not_end_its_siblings(tmp_path: Path) -> None:
    app = BLOCKS.replace("while True:\n        time.sleep(1)", "os._exit(3)")
    with appliance(tmp_path, app) as server:
        first = server.workers_now()[0]
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{server.slot_port}/block", timeout=30)
        server.until(lambda: server.workers_now()[0] != first)
        assert server.process.poll() is None


# --- stops -----------------------------------------------------------------------------------------------------------


def test_sigterm_tells_websockets_lets_requests_finish_and_ends_in_time(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS, ROOST_GRACEFUL_TIMEOUT=10) as server, websocket(server) as client:
        with httpx.stream("GET", f"{server.url}/slow", timeout=30) as _:
            pass  # warm: routes are looked up once
        with socket.create_connection(("127.0.0.1", server.port)) as request:
            request.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            time.sleep(0.3)  # it has been read by then, or the answer is none
            server.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: request.recv(4096), b""))
        assert b'"done"' in answer
        with suppress(ConnectionClosed):
            for _ in client:
                pass
        assert client.close_code == 1012
        assert server.ended(10) == 0
        assert not server.logged("app_shutdown_cut")


def test_a_stop_waits_no_longer_than_the_graceful_timeout(tmp_path: Path) -> None:
    app = BLOCKS.replace("asyncio.sleep(1.5)", "asyncio.sleep(600)")
    with appliance(tmp_path, app, workers=1, ROOST_GRACEFUL_TIMEOUT=4) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as request:
            request.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            server.until(lambda: server.ask("/livez")[0] == 200)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.ended(8) == 0
        assert time.monotonic() - began < 5.5


def test_sigint_ends_the_server_at_once(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS) as server, websocket(server):
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.ended(10) == 0
        assert time.monotonic() - began < 5


def test_sighup_replaces_the_workers_one_by_one_in_their_slots_after_their_users(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS, FLET_SESSION_TIMEOUT=0) as server:
        before = server.workers_now()
        with websocket(server, server.slot_port) as client:
            client.recv(timeout=10)
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda: server.logged("worker_draining"))
            client.ping().wait(5)
            assert server.health()[0] == 200
        server.until(lambda: not set(before.values()) & set(server.workers_now().values()))
        assert server.ask("/slots")[1].split() == [str(server.slot_port), str(server.slot_port + 1)]
        assert int(server.ask("/pid", server.slot_port + 1)[1]) == server.workers_now()[1]


def test_the_number_of_workers_follows_ttin_and_ttou(tmp_path: Path) -> None:
    with appliance(tmp_path, workers=1) as server:
        server.process.send_signal(signal.SIGTTIN)
        server.until(lambda: len(server.workers_now()) == 2)
        assert len(server.ask("/slots")[1].split()) == 2
        server.process.send_signal(signal.SIGTTOU)
        server.until(lambda: server.ask("/slots")[1].split() == [str(server.slot_port)])
        server.until(lambda: not is_alive(server.workers_now()[1]))
        assert server.health()[0] == 200


def test_a_worker_that_has_served_its_requests_drains_before_it_is_replaced(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS, ROOST_MAX_REQUESTS=5, ROOST_GRACEFUL_TIMEOUT=20) as server:
        first = server.workers_now()[0]
        with websocket(server, server.slot_port) as client:
            client.recv(timeout=10)
            with suppress(httpx.ConnectError):  # it listens no more
                for _ in range(8):
                    httpx.get(f"http://127.0.0.1:{server.slot_port}/pid", timeout=30)
            server.until(lambda: server.logged("worker_draining"))
            client.ping().wait(5)
            assert is_alive(first)
            assert server.until(lambda: server.health()[0] == 200)
        # nobody is left but a session that waits for its browser
        server.until(lambda: server.workers_now()[0] != first, 40)


# --- admission -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "reason"), [({"ROOST_MAX_MEMORY": "1MB"}, "ROOST_MAX_MEMORY"), ({"FLET_MAX_SESSIONS": 1}, "MAX_SESS")]
)
def test_a_full_worker_is_not_ready_and_says_so_to_new_users(
    tmp_path: Path, variables: dict[str, object], reason: str
) -> None:
    with appliance(tmp_path, workers=1, **variables) as server, websocket(server) as client:
        client.recv(timeout=10)
        server.until(lambda: server.health()[0] == 503)
        body = server.health()[1]
        assert reason in body["parts"]["room"]["reason"]
        assert server.health("/livez")[0] == server.health("/startupz")[0] == 200
        with websocket(server) as refused:
            assert "The server is full" in str(refused.recv(timeout=10))


def test_room_that_is_free_again_is_given_again(tmp_path: Path) -> None:
    with appliance(tmp_path, workers=1, FLET_MAX_SESSIONS=1) as server:
        with websocket(server) as client:
            client.recv(timeout=10)
            server.until(lambda: server.health()[0] == 503)
        server.until(lambda: server.health()[0] == 200)


def test_a_broken_upload_disk_degrades_and_stops_nothing(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    with appliance(tmp_path, workers=1, FLET_UPLOAD_DIR=uploads) as server:
        assert server.health()[1]["parts"]["uploads"] == {"ok": True}
        uploads.rmdir()
        uploads.write_text("a file where the directory was")
        status, body = server.until(lambda: found if (found := server.health())[1]["status"] != "ready" else None)
        assert (status, body["status"]) == (200, "degraded")
        assert body["parts"]["uploads"]["reason"]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"FLET_SECRET_KEY": ""}, "FLET_SECRET_KEY"),
        ({"FLET_SECRET_KEY": "change-me-please-now"}, "roost secret"),
        ({"FLET_MAX_FRAME_SIZE": "much"}, "FLET_MAX_FRAME_SIZE"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(tmp_path: Path, variables: dict[str, str], named: str) -> None:
    with appliance(tmp_path, wait=False, **variables) as server:
        assert server.ended() == 2
        (line,) = server.err.read_text().splitlines()
        assert named in line


def test_a_port_that_is_taken_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        appliance(tmp_path, wait=False, ROOST_PORT=taken.getsockname()[1]) as server,
    ):
        assert server.ended() == 2
        (line,) = server.err.read_text().splitlines()
        assert "ROOST_PORT" in line
        assert "in use" in line


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
@pytest.mark.parametrize("variable", ["ROOST_HOST", "ROOST_INTERNAL_HOST"])
def test_an_address_that_is_another_machines_is_named(tmp_path: Path, variable: str, host: str) -> None:
    with appliance(tmp_path, wait=False, **{variable: host}) as server:
        assert server.ended() == 2
        (line,) = server.err.read_text().splitlines()
        assert line.startswith(f"roost: {variable}: {host}:")


def test_a_misspelled_setting_is_warned_about_by_name(tmp_path: Path) -> None:
    with appliance(tmp_path, workers=1, ROOST_WORKER="4") as server:
        (entry,) = server.logged("setting_suspicious")
        assert "did you mean ROOST_WORKERS?" in entry["problem"]


def test_changed_files_replace_the_workers(tmp_path: Path) -> None:
    with appliance(tmp_path, BLOCKS, "--reload", workers=1) as server:
        before = server.ask("/pid", server.slot_port)
        (tmp_path / "program.py").write_text(BLOCKS.replace("return os.getpid()", "return 'changed'"))
        server.until(lambda: server.ask("/pid", server.slot_port)[1] == '"changed"')
        assert server.logged("app_changed")
        assert before[1] != '"changed"'


def test_nothing_of_a_secret_is_in_the_log(tmp_path: Path) -> None:
    token = "tOk3n-of-a-Prometheus-elsewhere"
    with appliance(tmp_path, workers=1, ROOST_INTERNAL_TOKEN=token, ROOST_LOG_LEVEL="debug") as server:
        assert token not in server.said()
        assert server.ask("/livez")[0] == 200


# --- servers that are not ours ---------------------------------------------------------------------------------------


def test_the_library_alone_runs_in_plain_gunicorn(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(f"{PROGRAM}\nimport flet_fastapi\napp = flet_fastapi.app(main)\n")
    port = free_ports(1)
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "plain:app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--bind", f"127.0.0.1:{port}"], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    server = Appliance(process, tmp_path / "log", tmp_path / "log", port, port, port, 2)
    try:
        server.until(lambda: server.ask("/")[0] == 200)
        with websocket(server) as client:
            assert "registerWebClient" in str(client.recv(timeout=10))
        process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    finally:
        stop(process)
