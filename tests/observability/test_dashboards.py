"""The dashboards are what their definition says, can be read, and show what is counted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.stack import DASHBOARDS, panels
from tests.observability.test_rules import alerts
from tests.support.servers import ROOT

GRAFANA = ROOT / "observability/grafana"
SELECTOR = re.compile(r"\b(flet_\w+)(?:\{([^}]*)\})?")
# prometheus_client's own metrics of a histogram and of a counter
PARTS = re.compile(r"_(bucket|sum|count)$")
# What lines of a panel are told apart by: replicas, workers, and lists that are in docs/metrics.md.
LEGENDS = {"code", "direction", "error", "generation", "instance", "kind", "operation", "outcome", "path", "provider",
           "reason", "result", "route", "state", "status", "where", "worker"}  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def documented() -> dict[str, dict[str, set[str]]]:
    """The metrics of docs/metrics.md, the labels of each, and their values if they are listed."""
    rows = re.findall(r"^\| `(flet_\w+)` \| \w+ \|([^|]*)\|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    found: dict[str, dict[str, set[str]]] = {}
    for name, cell in rows:
        labels = (re.findall(r"`(\w+)`", part) for part in cell.split(";"))
        found[name] = {label: set(values) for label, *values in filter(None, labels)}
    return found


def expressions() -> list[Any]:
    """Every query, by what it is of."""
    found = {f"alert {name}": rule["expr"] for name, rule in alerts().items()}
    for path in DASHBOARDS:
        dashboard = load(path)
        for panel in panels(dashboard):
            for target in panel["targets"]:
                found[f"{path.stem}/{panel['title']}/{target['refId']}"] = target["expr"]
        found.update({f"{path.stem}/{mark['name']}": mark["expr"] for mark in dashboard["annotations"]["list"]})
    return [pytest.param(expr, id=name) for name, expr in found.items()]


def every_panel() -> list[Any]:
    found = [(path.stem, panel) for path in DASHBOARDS for panel in panels(load(path))]
    return [pytest.param(panel, id=f"{name}/{panel['title']}") for name, panel in found]


def test_files_are_what_the_definition_says(tmp_path: Path) -> None:
    code = "import make_dashboards, json; print(json.dumps(make_dashboards.texts()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=GRAFANA, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_can_be_loaded_by_any_grafana(path: Path) -> None:
    dashboard = load(path)
    assert dashboard["uid"] == f"roost-{path.stem}"
    assert len(dashboard["uid"]) <= 40
    assert "id" not in dashboard
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(dashboard)))
    assert used == known
    places = [set(_cells(panel["gridPos"])) for panel in dashboard["panels"]]
    assert sum(map(len, places)) == len(set().union(*places)), "panels lie on each other"
    assert all(column < 24 for cells in places for column, _ in cells)


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return [(column, row) for column in columns for row in rows]


@pytest.mark.parametrize("panel", every_panel())
def test_panel_can_be_read(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(set(legends)) == len(legends)
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= LEGENDS
        # what the lines differ in is what the legend says
        grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in by.split(",")}
        assert panel["type"] == "table" or grouped - {"le"} == shown


@pytest.mark.parametrize("expr", expressions())
def test_query_is_of_what_is_counted_by_the_labels_that_it_has(expr: str) -> None:
    metrics = documented()
    for name, where in SELECTOR.findall(expr):
        labels = metrics[name if name in metrics else PARTS.sub("", name)]
        for label, value in re.findall(r'(\w+)(?:=~|!=|!~|=)"([^"]*)"', where):
            if label not in ("job", "instance"):
                assert set(value.split("|")) <= labels[label] or not labels[label], f"{name}: {label}={value}"
    assert "$" not in expr or not re.search(r"\[(?!\$__)", expr) or "changes" in expr, "it does not follow the zoom"


def test_everything_that_is_counted_is_on_a_dashboard() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DASHBOARDS)
    assert [name for name in documented() if name not in text] == []


def test_provisioning_names_what_is_there() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    config = yaml.safe_load((ROOT / "observability/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert source["type"] == "prometheus" and source["isDefault"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/roost.yml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"] == "/etc/grafana/dashboards"
