"""How a dashboard looks as Grafana's JSON. What is on the dashboards is in `definitions.py`.

The classic dashboard model, which every Grafana since 10 loads from a file: a row is 24 columns wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

Json = dict[str, Any]

SCHEMA_VERSION = 41
_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` may name labels, as in `{{state}}`. A table shows `legend` as the column."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture. `unit` is Grafana's; `steps` are (value, colour), the first without a value."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    no_value: str | None = None
    maximum: float | None = None
    stacked: bool = False
    units: tuple[tuple[str, str], ...] = ()

    def json(self) -> Json:
        shape = {"timeseries": self._timeseries, "stat": self._stat, "table": self._table}[self.kind]()
        shared = {"type": self.kind, "title": self.title, "description": self.description, "datasource": _SOURCE}
        return {
            **shared,
            **shape,
            "targets": [self._target(*found) for found in zip(ascii_uppercase, self.queries, strict=False)],
        }

    def _target(self, ref: str, query: Query) -> Json:
        table = self.kind == "table"
        return {
            "refId": ref,
            "datasource": _SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": "table" if table else "time_series",
            "instant": table,
            "range": not table,
        }

    def _defaults(self, custom: Json, **more: Any) -> Json:
        defaults: Json = {"unit": self.unit, "custom": custom, "thresholds": self._thresholds(), **more}
        if self.no_value is not None:
            defaults["noValue"] = self.no_value
        if self.maximum is not None:
            defaults["max"] = self.maximum
        return defaults

    def _thresholds(self) -> Json:
        return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in self.steps]}

    def _timeseries(self) -> Json:
        custom = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 40 if self.stacked else 10,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
        }
        return {
            "fieldConfig": {
                "defaults": self._defaults(custom, min=0, color={"mode": "palette-classic"}),
                "overrides": [],
            },
            "options": {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
        }

    def _stat(self) -> Json:
        return {
            "fieldConfig": {"defaults": self._defaults({}, color={"mode": "thresholds"}), "overrides": []},
            "options": {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "colorMode": "value",
                "graphMode": "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
            },
        }

    def _table(self) -> Json:
        """One row per set of labels, one column per query."""
        names = {f"Value #{ref}": query.legend for ref, query in zip(ascii_uppercase, self.queries, strict=False)}
        if len(self.queries) == 1:
            names["Value"] = self.queries[0].legend
        overrides = [
            {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "unit", "value": unit}]}
            for column, unit in self.units
        ]
        return {
            "fieldConfig": {"defaults": self._defaults({"align": "auto"}), "overrides": overrides},
            "options": {"showHeader": True, "cellHeight": "sm"},
            "transformations": [
                {"id": "merge", "options": {}},
                {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
            ],
        }


@dataclass(frozen=True)
class Choice:
    """A list at the top, `$name`, of what to look at: the values that `label` has in `selector`; all, unless chosen."""

    name: str
    title: str
    selector: str
    label: str

    def json(self) -> Json:
        query = f"label_values({self.selector}, {self.label})"
        return {
            "type": "query", "name": self.name, "label": self.title, "datasource": _SOURCE, "definition": query,
            "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "allValue": ".+", "includeAll": True,
            "multi": True, "hide": 0, "options": [], "refresh": 2, "regex": "", "sort": 1, "skipUrlSync": False,
        }  # fmt: skip


@dataclass(frozen=True)
class Dashboard:
    """One file, `<name>.json`, at the address `/d/roost-<name>`.

    `rows` are panels by the heading over them, laid out from left to right; `marks` are expressions by their name,
    drawn over time on all panels.
    """

    name: str
    title: str
    description: str
    rows: Mapping[str, Sequence[Panel]]
    choices: tuple[Choice, ...]
    marks: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Json:
        return {
            "uid": f"roost-{self.name}",
            "title": f"Roost / {self.title}",
            "description": self.description,
            "tags": ["roost"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "15s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "",
            "links": [_to_all()],
            "annotations": {"list": [_mark(name, expr) for name, expr in self.marks.items()]},
            "templating": {"list": [_datasource(), *(choice.json() for choice in self.choices)]},
            "panels": self._panels(),
        }

    def _panels(self) -> list[Json]:
        placed: list[Json] = []
        top = 0
        for title, panels in self.rows.items():
            placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], **_at(0, top, _WIDTH, 1)})
            top += 1
            for line in _lines(panels):
                left = 0
                for panel in line:
                    placed.append({**panel.json(), **_at(left, top, panel.width, panel.height)})
                    left += panel.width
                top += max(panel.height for panel in line)
        return [{"id": number, **panel} for number, panel in enumerate(placed, 1)]


def _lines(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Break after 24 columns."""
    lines: list[list[Panel]] = [[]]
    for panel in panels:
        if sum(other.width for other in lines[-1]) + panel.width > _WIDTH:
            lines.append([])
        lines[-1].append(panel)
    return lines


def _at(left: int, top: int, width: int, height: int) -> Json:
    return {"gridPos": {"x": left, "y": top, "w": width, "h": height}}


def _to_all() -> Json:
    return {
        "type": "dashboards", "tags": ["roost"], "title": "Roost", "asDropdown": False, "icon": "external link",
        "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": "",
    }  # fmt: skip


def _mark(name: str, expr: str) -> Json:
    return {
        "name": name, "datasource": _SOURCE, "enable": True, "hide": False, "iconColor": "purple", "expr": expr,
        "step": "15s", "titleFormat": name, "textFormat": "",
    }  # fmt: skip


def _datasource() -> Json:
    return {
        "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {},
        "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "", "skipUrlSync": False,
    }  # fmt: skip
