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


LABEL = re.compile(r"`(\w+)`(?:: ((?:`\w+`(?:, )?)+))?")

Labels = dict[str, set[str]]


def code_metrics() -> dict[str, tuple[str, Labels]]:
    """Type, labels and their known values, by the name that is exposed."""
    metrics = Metrics(CollectorRegistry())
    suffixes = {"counter": "_total"}
    return {
        family.name + suffixes.get(family.type, ""): (
            family.type,
            {label: set(known) for label, known in metrics.label_values[family.name].items()},
        )
        for family in metrics.registry.collect()
    }


def listed_metrics() -> dict[str, tuple[str, Labels]]:
    rows = [line.strip("|").split("|") for line in (DOCS / "metrics.md").read_text().splitlines() if "| `" in line[:3]]
    return {row[0].strip(" `"): (row[1].strip(), listed_labels(row[2].strip())) for row in rows}


def listed_labels(cell: str) -> Labels:
    parts = [LABEL.fullmatch(part) for part in cell.split("; ") if part]
    assert all(parts), cell
    return {part[1]: set(re.findall(r"`(\w+)`", part[2] or "")) for part in parts if part}


def options() -> dict[str, FieldInfo]:
    return {**Options.model_fields, **Limits.model_fields}


def listed_variables() -> set[str]:
    rows = [line for line in (DOCS / "settings.md").read_text().splitlines() if line.startswith("| ")]
    return {found for row in rows for found in re.findall(r"^\| (?:(?:`\w+` )?\| )?`(FLET_\w+)`", row)}


def test_every_metric_is_listed_and_no_other() -> None:
    assert listed_metrics().keys() == code_metrics().keys()


def test_metrics_are_listed_with_their_types_labels_and_values() -> None:
    assert listed_metrics() == code_metrics()


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
