"""Every event that the code logs is listed in docs/logs.md with its level and fields, and no other is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from roost.lines import LEADING
from roost.masking import Hiding, hiding

ROOT = Path(__file__).parents[1]
SOURCES = sorted(file for file in (ROOT / "app").rglob("*.py") if "examples" not in file.parts)
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# Lines that the handler makes itself, whose second argument is the event.
OWN = "_own"
# What is no field of its own, and what it gives.
ARGUMENTS = {"exc_info": "exception", "stack_info": "stack"}
ROW = re.compile(r"^\| `(\w+)` \|([^|\n]*)\|([^|\n]*)\|", re.MULTILINE)


class Call(NamedTuple):
    place: str
    event: str | None
    levels: frozenset[str]
    fields: frozenset[str]


def calls(file: Path) -> Iterator[Call]:
    tree = ast.parse(file.read_text())
    loggers = set(_loggers(tree))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            method, owner = node.func.attr, node.func.value.id
            if (owner in loggers and method in METHODS) or (owner, method) == ("self", OWN):
                yield _call(file, node, method)


def _loggers(tree: ast.Module) -> Iterator[str]:
    """The names of the module's loggers with key-values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Name | ast.Attribute) and ast.unparse(function).endswith("get_logger"):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _call(file: Path, node: ast.Call, method: str) -> Call:
    level, arguments = method, list(node.args)
    if method in ("log", OWN):
        level = ast.unparse(arguments.pop(0)).lower()
    event = arguments[0].value if arguments and isinstance(arguments[0], ast.Constant) else None
    names = {word for word in METHODS if re.search(rf"\b{word}\b", level)}
    levels = {"error" if name == "exception" else name for name in names or {"that of the event"}}
    fields = {ARGUMENTS.get(keyword.arg or "**", keyword.arg or "**") for keyword in node.keywords}
    if method == "exception":
        fields.add("exception")
    return Call(f"{file.relative_to(ROOT)}:{node.lineno}", event, frozenset(levels), frozenset(fields))


CALLS = [call for file in SOURCES for call in calls(file)]


def listed() -> dict[str, tuple[set[str], set[str]]]:
    text = (ROOT / "docs/logs.md").read_text()
    events = text[text.index("## Access") :]
    return {
        event: ({level.strip() for level in levels.split(",")}, set(re.findall(r"`(\w+)`", fields)))
        for event, levels, fields in ROW.findall(events)
    }


def test_the_search_finds_what_is_there() -> None:
    found = {call.event for call in CALLS}
    assert {"app_error", "request", "websocket", "log_lines_dropped", "task_failed", "worker_ready"} <= found
    assert len(CALLS) > 40


@pytest.mark.parametrize("call", CALLS, ids=[call.place for call in CALLS])
def test_an_event_has_a_constant_name_and_named_fields(call: Call) -> None:
    assert isinstance(call.event, str) and re.fullmatch(r"[a-z][a-z0-9_]*", call.event), "the name must be constant"
    assert "**" not in call.fields, "fields must be named"


def test_every_event_is_listed_and_no_other() -> None:
    assert {call.event for call in CALLS} == set(listed())


@pytest.mark.parametrize("event", sorted({str(call.event) for call in CALLS}))
def test_levels_and_fields_are_listed(event: str) -> None:
    of_event = [call for call in CALLS if call.event == event]
    levels, fields = listed().get(event, (set(), set()))
    assert levels == set().union(*(call.levels for call in of_event))
    assert fields == set().union(*(call.fields for call in of_event))


def test_no_field_is_masked_by_its_name_or_hides_one_of_every_line() -> None:
    fields = set().union(*(call.fields for call in CALLS))
    assert not [field for field in fields if hiding(field) in (Hiding.SECRET, Hiding.SECRET_OR_COUNT)]
    assert not fields & set(LEADING)
