"""The exposition, requests, the directory of the workers' numbers; processes are in `test_exposition_of_workers.py`."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import flet_core as ft
import httpx
import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import flet_fastapi
from flet_fastapi.errors import OptionError
from flet_fastapi.manager import app_manager
from flet_fastapi.metrics import Metrics
from roost import metrics as module
from roost.metrics import Exposition, HttpMetrics, begin, begin_worker, choose_format, end_worker, template

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# as Prometheus 2 and 3 send it
PROMETHEUS = [
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
]


async def main(page: ft.Page) -> None:
    page.add(ft.Text("hello"))


def busy() -> Metrics:
    """Metrics with something in each of them."""
    metrics = Metrics(CollectorRegistry(), "3")
    for name, labels in metrics.label_values.items():
        metric = vars(metrics).get(name.removeprefix("flet_"))
        if labels and metric is not None:
            metric.labels(*['a\\b"c\n' for _ in labels])
    metrics.events.note(0.3)
    metrics.http_request_seconds.labels("/a").observe(0.2)
    metrics.http_requests.labels("/a", "GET", "200").inc()
    metrics.appear()
    metrics.settle()
    return metrics


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


async def ask(metrics: Metrics, **headers: str) -> httpx.Response:
    async with client_of(Exposition(lambda: metrics.registry)) as client:
        return await client.get("/metrics", headers=headers)


# --- the exposition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; version=1.0.0", OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", TEXT),
        ("application/openmetrics-text;q=many", TEXT),
        ("application/openmetrics-text;version=1\r\nx: y", OPENMETRICS),
        (";;,,=;q", TEXT),
        *((accept, OPENMETRICS) for accept in PROMETHEUS),
    ],
)
def test_format_is_the_one_asked_for(accept: str, kind: str) -> None:
    assert choose_format(accept) == kind


async def test_openmetrics_is_what_its_parser_reads() -> None:
    metrics = busy()
    answer = await ask(metrics, accept=PROMETHEUS[0])
    assert answer.headers["content-type"] == OPENMETRICS
    families = {family.name: family for family in parse_openmetrics(answer.text)}
    assert families.keys() == metrics.label_values.keys()
    assert families["flet_sessions_started"].type == "counter"
    samples = [sample for sample in families["flet_http_requests"].samples if sample.labels["route"] == "/a"]
    assert (samples[0].labels, samples[0].value) == ({"route": "/a", "method": "GET", "status": "200"}, 1)


async def test_prometheus_text_is_what_its_parser_reads() -> None:
    metrics = busy()
    answer = await ask(metrics)
    assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT)
    assert answer.headers["cache-control"] == "no-store"
    read = {family.name for family in parse_text(answer.text) if not family.name.endswith("_created")}
    assert read == metrics.label_values.keys()


async def test_promtool_has_nothing_to_say() -> None:
    answer = await ask(busy())
    checked = subprocess.run(["promtool", "check", "metrics"], input=answer.content, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


async def test_who_takes_gzip_gets_it() -> None:
    async with client_of(Exposition(lambda: busy().registry)) as client:
        async with client.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as answer:
            packed = b"".join([chunk async for chunk in answer.aiter_raw()])
        plain = await client.get("/metrics", headers={"accept-encoding": "identity"})
    assert answer.headers["content-encoding"] == "gzip"
    assert b"flet_sessions_started_total" in gzip.decompress(packed)
    assert len(packed) < len(plain.content) / 4
    assert "content-encoding" not in plain.headers


async def test_head_and_other_methods() -> None:
    async with client_of(Exposition(lambda: busy().registry)) as client:
        head, post = await client.head("/metrics"), await client.post("/metrics")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000
    assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")


async def test_event_loop_goes_on_while_numbers_are_collected_once_for_all_who_ask() -> None:
    went_on, collected = threading.Event(), 0

    def collect() -> CollectorRegistry:
        nonlocal collected
        collected += 1
        assert went_on.wait(30)
        return busy().registry

    async with client_of(Exposition(collect)) as client:
        asking = [asyncio.create_task(client.get("/metrics")) for _ in range(5)]
        async with asyncio.timeout(30):
            while not collected:
                await asyncio.sleep(0)
        went_on.set()
        answers = await asyncio.gather(*asking)
        assert {answer.status_code for answer in answers} == {200}
        assert collected == 1
        assert (await client.get("/metrics")).status_code == 200
        assert collected == 2


async def test_who_asks_and_leaves_does_not_disturb_the_next() -> None:
    exposition = Exposition(lambda: busy().registry)
    async with client_of(exposition) as client:
        leaving = asyncio.create_task(client.get("/metrics"))
        while not exposition._collecting:
            await asyncio.sleep(0)
        leaving.cancel()
        assert (await client.get("/metrics")).status_code == 200


# --- requests --------------------------------------------------------------------------------------------------------


def application() -> fastapi.FastAPI:
    """Routes of every kind."""
    inner = fastapi.APIRouter(prefix="/deep/{key}")
    inner.add_api_route("/items/{item}", lambda key, item: item)
    router = fastapi.APIRouter(prefix="/r")
    router.include_router(inner)
    router.add_api_route("/file/{path:path}", lambda path: path)
    shop = fastapi.FastAPI()
    shop.add_api_route("/order/{number}", lambda number: number)
    app = flet_fastapi.FastAPI()
    app.include_router(router, prefix="/api")
    app.add_api_route("/orders/{number}", lambda number: number)
    app.add_api_route("/fails", fails)
    app.add_api_route("/teapot", lambda: PlainTextResponse("", 418))
    app.mount("/tenant/{tenant}", flet_fastapi.app(main))
    app.mount("/shop", CORSMiddleware(shop))
    app.mount("/", flet_fastapi.app(main))
    return app


def fails() -> None:
    raise LookupError("secret")


def scope(path: str, method: str = "GET", host: str = "test") -> Scope:
    return {
        "type": "http", "path": path, "root_path": "", "method": method, "query_string": b"",
        "headers": [(b"host", host.encode())],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "method", "route"),
    [
        ("/orders/7", "GET", "/orders/{number}"),
        ("/api/r/deep/3/items/4", "GET", "/api/r/deep/{key}/items/{item}"),
        ("/api/r/file/x/y/z", "GET", "/api/r/file/{path}"),
        ("/api/r/file/x/y/z", "DELETE", "/*"),
        ("/tenant/5/", "GET", "/tenant/{tenant}/*"),
        ("/tenant/6/main.dart.js", "GET", "/tenant/{tenant}/*"),
        ("/tenant/6/oauth_callback", "GET", "/tenant/{tenant}/oauth_callback"),
        ("/shop/order/3", "GET", "/shop/order/{number}"),
        ("/shop/nothing", "GET", "/shop/*"),
        ("/", "GET", "/*"),
        ("/_b/0123456789abcdef/main.dart.js", "GET", "/*"),
        ("/wp-login.php", "POST", "/*"),
        ("/oauth_callback", "GET", "/oauth_callback"),
        ("/upload", "PUT", "/upload"),
    ],
)
async def test_route_is_the_template_of_what_the_app_takes(path: str, method: str, route: str) -> None:
    assert template(application(), scope(path, method)) == route


async def test_route_behind_middleware_and_hosts_is_found() -> None:
    inner = Router([Mount("/m", routes=[Route("/z/{q:int}", PlainTextResponse("z"))])])
    routes = [Host("{name}.example.org", inner), Route("/only/{x}", PlainTextResponse("x"))]
    app = CORSMiddleware(Starlette(routes=routes))
    assert template(app, scope("/m/z/4", host="a.example.org")) == "/m/z/{q}"
    assert template(app, scope("/only/1")) == "/only/{x}"
    assert template(app, scope("/only/1", "POST")) == "/only/{x}"


async def test_app_without_routes_is_one_route() -> None:
    async def raw(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("x")(scope, receive, send)

    assert template(raw, scope("/a/b")) == "/*"
    assert template(Starlette(routes=[Mount("/raw", raw)]), scope("/raw/b")) == "/raw/*"


async def test_route_that_breaks_is_other() -> None:
    class Breaking(Route):
        def matches(self, scope: Scope) -> Any:
            raise LookupError

    assert template(Starlette(routes=[Breaking("/x", PlainTextResponse("x"))]), scope("/x")) == "other"


def counted(**labels: str) -> float:
    samples = [sample for family in app_manager.metrics.registry.collect() for sample in family.samples]
    return sum(s.value for s in samples if s.name == "flet_http_requests_total" and labels.items() <= s.labels.items())


async def test_requests_are_counted_by_route_method_and_status() -> None:
    async with client_of(HttpMetrics(application())) as client:
        for number in range(3):
            await client.get(f"/orders/{number}?token=secret")
        await client.post("/teapot")
        await client.get("/teapot")
        await client.get("/fails")
        await client.request("BREW", "/orders/1")
    assert counted(route="/orders/{number}", method="GET", status="200") == 3
    assert counted(route="/teapot", status="418") == 1
    assert counted(route="/fails", status="500") == 1
    assert counted(method="other") == 1
    assert counted() == 7
    observed = app_manager.metrics.registry.get_sample_value
    assert observed("flet_http_request_seconds_count", {"route": "/orders/{number}"}) == 3


async def test_files_of_the_web_client_are_one_route() -> None:
    async with client_of(HttpMetrics(application())) as client:
        for path in ("/", "/index.html", "/manifest.json", "/flutter.js", "/no/such/file.js"):
            await client.get(path)
    assert counted(route="/*") == counted() == 5


async def test_failure_of_the_app_goes_on_and_is_counted() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await HttpMetrics(broken)(scope("/"), None, None)  # type: ignore[arg-type]
    assert counted(status="500") == 1


async def test_routes_are_bounded() -> None:
    routes = [Route(f"/{number}", PlainTextResponse("x")) for number in range(300)]
    async with client_of(HttpMetrics(Starlette(routes=routes))) as client:
        for number in range(300):
            await client.get(f"/{number}")
    assert counted(route="other") == 100
    assert counted() == 300


async def test_websockets_pass() -> None:
    passed = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    await HttpMetrics(app)({"type": "websocket"}, None, None)  # type: ignore[arg-type]
    await HttpMetrics(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert passed == ["websocket", "lifespan"]
    assert counted() == 0


# --- the directory ---------------------------------------------------------------------------------------------------


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `begin` and `begin_worker` change in a process is undone."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    taken: list[int] = []
    lock = module._lock

    def noted(path: Path) -> int | None:
        if (file := lock(path)) is not None:
            taken.append(file)
        return file

    monkeypatch.setattr(module, "_lock", noted)
    yield
    for file in taken:
        with module.suppress(OSError):
            os.close(file)


undone = pytest.mark.usefixtures("as_before")


@undone
def test_begin_wipes_numbers_and_nothing_else(tmp_path: Path) -> None:
    for name in ("counter_0.db", "gauge_livesum_17.db", "gauge_all_3.db", "histogram_2.db", "summary_2.db"):
        (tmp_path / name).write_bytes(b"x" * 100)
    (tmp_path / "sessions.db").write_bytes(b"mine")
    (tmp_path / "counter_0.db.bak").write_bytes(b"mine")
    assert begin(tmp_path) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_0.db.bak", "sessions.db"]
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path)


@undone
def test_begin_makes_a_private_directory(tmp_path: Path) -> None:
    assert begin(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@undone
def test_two_servers_do_not_share_a_directory(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(OptionError, match="ROOST_METRICS_DIR: another server"):
        begin(tmp_path)


@undone
def test_directory_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match=r"ROOST_METRICS_DIR: cannot be used: .*file"):
        begin(tmp_path / "file")


@undone
def test_directory_of_a_killed_master_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEMORY", tmp_path)
    living, dead, young = begin(), tmp_path / "roost-metrics-dead", tmp_path / "roost-metrics-young"
    for path in (dead, young):
        path.mkdir()
    for path in (dead, living):
        os.utime(path, (time.time() - 3600,) * 2)
    assert begin().parent == tmp_path
    assert living.exists() and young.exists() and not dead.exists()


@undone
def test_full_disk_costs_the_numbers_and_not_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    begin(tmp_path)
    before = values.ValueClass
    monkeypatch.setattr(os, "posix_fallocate", full)
    begin_worker(0)
    assert values.ValueClass is before
    Metrics(CollectorRegistry()).sessions_started.inc()


@undone
def test_worker_writes_to_the_files_of_its_slot_and_takes_what_the_last_one_counted(tmp_path: Path) -> None:
    begin(tmp_path)
    for _ in range(3):
        begin_worker(4)
        metrics = Metrics(CollectorRegistry(), "4")
        metrics.sessions_started.inc(2)
        metrics.connections.inc()
        metrics.appear()
    assert {path.name.rpartition("_")[2] for path in tmp_path.iterdir()} == {"4.db"}
    exposed = parse_openmetrics(Exposition()._encode(OPENMETRICS, packed=False).decode())
    found = {s.name: s.value for family in exposed for s in family.samples}
    assert found["flet_sessions_started_total"] == 6
    assert found["flet_connections"] == 1
    assert app_manager.slot == 4


@undone
def test_files_have_room_before_they_are_written_to(tmp_path: Path) -> None:
    begin(tmp_path)
    begin_worker(0)
    metrics = Metrics(CollectorRegistry(), "0")
    before = {path: path.stat().st_size for path in tmp_path.iterdir()}
    assert all(path.stat().st_blocks * 512 >= size for path, size in before.items())
    for route in range(20):
        metrics.http_request_seconds.labels(f"/some/route/of/the/application/{route}").observe(1)
        for status in (200, 304, 404, 500):
            metrics.http_requests.labels(f"/some/route/of/the/application/{route}", "GET", status).inc()
    assert {path: path.stat().st_size for path in tmp_path.iterdir()} == before


@undone
def test_file_that_is_being_made_does_not_disturb(tmp_path: Path) -> None:
    begin(tmp_path)
    begin_worker(0)
    Metrics(CollectorRegistry(), "0").sessions_started.inc()
    (tmp_path / "gauge_livesum_1.db").touch()
    (tmp_path / "notes.txt").write_text("x")
    assert b"flet_sessions_started_total 1.0" in Exposition()._encode(TEXT, packed=False)


@undone
async def test_all_workers_numbers_are_what_parsers_read(tmp_path: Path) -> None:
    begin(tmp_path)
    for slot in (0, 1):
        begin_worker(slot)
        metrics = Metrics(CollectorRegistry(), str(slot))
        metrics.connected.set(3)
        metrics.http_requests.labels('/a"b\\c', "GET", "200").inc()
        metrics.lags.note(0.02)
        metrics.build_info.labels("1", "2", "3").set(1)
        metrics.store_up.set(1 - slot)
        metrics.appear()
        metrics.settle()
    async with client_of(Exposition()) as client:
        openmetrics = (await client.get("/metrics", headers={"accept": PROMETHEUS[1]})).text
        text = (await client.get("/metrics")).content
    samples = [s for family in parse_openmetrics(openmetrics) for s in family.samples]
    found = {(s.name, *s.labels.values()): s.value for s in samples}
    assert found["flet_sessions", "connected"] == 6
    assert found["flet_http_requests_total", "GET", '/a"b\\c', "200"] == 2
    assert found["flet_event_loop_lag_seconds_count",] == 2
    assert (found["flet_worker_ready", "0"], found["flet_worker_ready", "1"]) == (1, 1)
    assert [s.value for s in samples if s.name == "flet_build_info"] == [1]
    assert found["flet_store_up",] == 0
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@undone
def test_gauges_of_a_dead_worker_go_and_its_counters_stay(tmp_path: Path) -> None:
    begin(tmp_path)
    for slot in (0, 1):
        begin_worker(slot)
        metrics = Metrics(CollectorRegistry(), str(slot))
        metrics.connected.set(5)
        metrics.here.set(5)
        metrics.sessions_started.inc(5)
    end_worker(1)
    text = Exposition()._encode(TEXT, packed=False)
    assert b'flet_sessions{state="connected"} 5.0' in text
    assert b'flet_worker_sessions{worker="1"}' not in text
    assert b"flet_sessions_started_total 10.0" in text
