"""What the documents list is what the code has, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic.fields import FieldInfo

from flet_fastapi.metrics import Metrics
from flet_fastapi.options import Limits, Options

DOCS = Path(__file__).parents[1] / "docs"
FIRST = re.compile(r"^\| `(\w+)`", re.MULTILINE)


def code_metrics() -> set[str]:
    families = Metrics(CollectorRegistry()).registry.collect()
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def options() -> dict[str, FieldInfo]:
    return {**Options.model_fields, **Limits.model_fields}


def listed_variables() -> set[str]:
    rows = [line for line in (DOCS / "settings.md").read_text().splitlines() if line.startswith("| ")]
    return {found for row in rows for found in re.findall(r"^\| (?:(?:`\w+` )?\| )?`(FLET_\w+)`", row)}


def test_every_metric_is_listed_and_no_other() -> None:
    assert set(FIRST.findall((DOCS / "metrics.md").read_text())) == code_metrics()


def test_labels_of_metrics_are_listed() -> None:
    text = (DOCS / "metrics.md").read_text()
    for collector in vars(Metrics(CollectorRegistry())).values():
        for label in getattr(collector, "_labelnames", ()):
            (row,) = [line for line in text.splitlines() if line.startswith(f"| `{collector._name}")][:1]
            assert f"`{label}`" in row, collector._name


def test_every_variable_is_listed_and_no_other() -> None:
    variables = {str(field.validation_alias) for field in options().values() if field.validation_alias}
    assert listed_variables() == variables


def test_every_parameter_is_listed_and_no_other() -> None:
    text = (DOCS / "settings.md").read_text().partition("## A worker")[0]
    own = {name for name in Options.model_fields if f"| `{name}` |" in text}
    assert set(FIRST.findall(text)) == own
    assert {name for name, field in Options.model_fields.items() if not field.validation_alias} <= own


@pytest.mark.parametrize(
    "variable",
    sorted(str(f.validation_alias) for f in options().values() if type(f.default) is int and f.validation_alias),
)
def test_listed_defaults_are_those_of_the_code(variable: str) -> None:
    (row,) = [line for line in (DOCS / "settings.md").read_text().splitlines() if f"| `{variable}` |" in line]
    (field,) = [field for field in options().values() if field.validation_alias == variable]
    assert f"| {field.default} |" in row
