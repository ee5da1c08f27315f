"""What the appliance is made of, as processes of this machine: `roost serve`, nginx, its exporter, Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.support.appliance import Appliance, appliance
from tests.support.nginx import Nginx, nginx_folder, nginx_server, wait_for
from tests.support.servers import ROOT, free_port, stop

PROMETHEUS = ROOT / "observability/prometheus"
PROGRAMS = Path(__file__).parent / "programs"
# The app's configuration in which a few seconds of traffic reach every bound.
BOUNDS = {
    "FLET_MAX_SESSIONS": "40",
    "FLET_SESSION_TIMEOUT": "5",
    "FLET_EVENTS_PER_SECOND": "100",
    "FLET_SEND_QUEUE_SIZE": "300000",
    "FLET_SEND_TIMEOUT": "3",
    "FLET_UPLOAD_DIR_QUOTA": "250000",
}
_INTERVAL = "1s"
_SECONDS = 90


@dataclass
class Prometheus:
    """A Prometheus that scrapes every second."""

    port: int

    def get(self, path: str, **arguments: object) -> Any:
        query = urllib.parse.urlencode({name: str(value) for name, value in arguments.items()})
        answer = _json(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}")
        assert answer["status"] == "success", answer
        return answer["data"]

    def at(self, expr: str, time: float) -> list[dict[str, Any]]:
        """The value of each series at that time."""
        found: list[dict[str, Any]] = self.get("query", query=expr, time=time)["result"]
        return found

    def over(self, expr: str, start: float, end: float, step: float = 1) -> list[dict[str, Any]]:
        """The values of each series from `start` to `end`."""
        found: list[dict[str, Any]] = self.get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return found

    def has_looked_since(self, then: float) -> bool:
        """Whether every target has been scraped, and every rule evaluated, once and a bit since `then`."""
        looked = self.get("query", query="min(timestamp(up))")["result"]
        rules = self.get("rules", type="alert")["groups"]
        evaluated = min(datetime.fromisoformat(group["lastEvaluation"]).timestamp() for group in rules)
        return min(float(looked[0]["value"][1]), evaluated) > then + 1

    def targets(self) -> dict[str, str]:
        """The health of each job."""
        return {target["labels"]["job"]: target["health"] for target in self.get("targets")["activeTargets"]}


@dataclass
class Stack:
    """All of it, answering."""

    app: Appliance
    nginx: Nginx
    prometheus: Prometheus


def _json(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.read().decode()}") from None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _running(log: Path, url: str, command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program until the end of the block, once `url` answers."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        wait_for(lambda: process.poll() is not None or _answers(url), f"{command[0]} answers", _SECONDS)
        assert process.poll() is None, f"{command[0]} ended:\n{log.read_text(errors='replace')}"
        yield process
    finally:
        stop(process)


@contextmanager
def nginx_exporter(folder: Path, nginx: Nginx) -> Iterator[int]:
    port = free_port()
    command = [
        "prometheus-nginx-exporter", f"-nginx.scrape-uri=http://127.0.0.1:{nginx.status_port}/stub_status",
        f"-web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with _running(folder / "exporter.log", f"http://127.0.0.1:{port}/metrics", command):
        yield port


@contextmanager
def prometheus_server(folder: Path, targets: dict[str, int]) -> Iterator[Prometheus]:
    """The appliance's Prometheus: its configuration and rules, with the ports of this machine for its names."""
    port = free_port()
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"].update(scrape_interval=_INTERVAL, evaluation_interval=_INTERVAL)
    config["rule_files"] = [str(PROMETHEUS / path) for path in config["rule_files"]]
    del config["alerting"]
    for job in config["scrape_configs"]:
        target = {**targets, "prometheus": port}[job["job_name"]]
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [
        "prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    prometheus = Prometheus(port)
    with _running(folder / "prometheus.log", f"http://127.0.0.1:{port}/-/ready", command):
        jobs = {*targets, "prometheus"}
        wait_for(lambda: prometheus.targets() == dict.fromkeys(jobs, "up"), "all targets are up")
        yield prometheus


@contextmanager
def whole_stack(folder: Path, program: str, **variables: str) -> Iterator[Stack]:
    """The program in `programs/`, with two workers; `variables` are of its environment."""
    with ExitStack() as running:
        text = (PROGRAMS / f"{program}.py").read_text(encoding="utf-8")
        app = running.enter_context(appliance(folder, text, **variables))
        names = {"APP_HOST": "127.0.0.1", "ROOST_INTERNAL_PORT": str(app.internal_port), "NGINX_TLS": "off"}
        nginx = running.enter_context(nginx_server(running.enter_context(nginx_folder()), **names))
        exporter = running.enter_context(nginx_exporter(folder, nginx))
        targets = {"roost": app.internal_port, "nginx": exporter}
        yield Stack(app, nginx, running.enter_context(prometheus_server(folder, targets)))


# --- the queries ---

DASHBOARDS = sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))
_CHOSEN = re.compile(r'=~"\$\w+"')
# What Grafana's variables are for a scrape interval of a second, and a run of half a minute.
_FIXED = {"$__rate_interval": "10s", "$__range": "60s", "$__interval": "10s"}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def as_sent(expr: str) -> str:
    """A query as Grafana sends it, with all of its choices."""
    expr = _CHOSEN.sub('=~".+"', expr)
    for name, value in _FIXED.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"an unknown variable: {expr}"
    return expr


def without_zero(expr: str) -> str:
    """The query without what it says if there is nothing."""
    return expr.removesuffix(" or vector(0)")


_COMPARISON = re.compile(r"(==|!=|<=|>=|<|>)(?!~)(?=[^{}]*(?:\{[^{}]*\}[^{}]*)*$)")
_UNLESS = re.compile(r"\bunless on \([^)]*\)")


def always_said(expr: str) -> list[str]:
    """The parts of an alert's expression that each must have data.

    Their comparisons answer 0 or 1, in place of nothing when all is well.
    """
    return [_COMPARISON.sub(r"\1 bool", part) for part in _UNLESS.split(expr)]
