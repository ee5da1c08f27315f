import ast
from collections.abc import Iterator
from pathlib import Path

import flet_core
import pytest

from flet_fastapi.generations.client_rules import CLIENT_WRITES, UNKNOWN_CONTROL_WRITES, accepts

GUARDS = ("disabled", "visible", "readonly", "read_only", "data", "password", "max_length", "i", "id")


def flet_core_control_types() -> set[str]:
    folder = Path(next(iter(flet_core.__path__)))
    return {name.lower() for source in folder.rglob("*.py") for name in control_names(source)}


def control_names(source: Path) -> Iterator[str]:
    for function in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef) and function.name == "_get_control_name":
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
                    yield str(node.value.value)


def test_the_table_has_the_control_types_of_flet_core_and_no_others() -> None:
    assert set(CLIENT_WRITES) == flet_core_control_types()


def test_all_names_are_lower_case() -> None:
    for control_type, properties in CLIENT_WRITES.items():
        assert control_type == control_type.lower()
        assert all(name == name.lower() for name in properties)


@pytest.mark.parametrize("control_type", [*CLIENT_WRITES, "somebody_elses"])
def test_no_control_lets_its_guards_be_changed(control_type: str) -> None:
    assert not any(accepts(control_type, guard, "false") for guard in GUARDS)


MEDIA = '{"padding":%s,"view_padding":%s,"view_insets":%s}' % ((('{"top":0,"right":1.5,"bottom":0,"left":0}'),) * 3)


@pytest.mark.parametrize(
    ("control_type", "name", "value"),
    [
        ("textfield", "value", "Ünï\ud83d"),
        ("textfield", "value", ""),
        ("dropdown", "value", ""),
        ("checkbox", "value", ""),
        ("switch", "value", "true"),
        ("slider", "value", "0.30000000000000004"),
        ("slider", "value", "-1e-7"),
        ("rangeslider", "startvalue", "10"),
        ("cupertinopicker", "selectedindex", "3"),
        ("tabs", "selectedindex", "0"),
        ("autocomplete", "selectedindex", "-1"),
        ("segmentedbutton", "selected", '["a","b"]'),
        ("segmentedbutton", "selected", "[]"),
        ("datepicker", "value", "2024-09-03T00:00:00.000"),
        ("datepicker", "value", "2024-09-03T00:00:00.000Z"),
        ("datepicker", "value", ""),
        ("timepicker", "value", "9:5"),
        ("alertdialog", "open", "false"),
        ("filepicker", "state", ""),
        ("listview", "method", ""),
        ("expansionpanel", "expanded", "true"),
        ("page", "width", "1280"),
        ("page", "windowwidth", ""),
        ("page", "windowfocused", ""),
        ("page", "route", "/store?id=1"),
        ("page", "platformbrightness", "dark"),
        ("page", "media", MEDIA),
        ("somebody_elses", "value", "1"),
    ],
)
def test_what_the_client_sends_is_accepted(control_type: str, name: str, value: str) -> None:
    assert accepts(control_type, name, value)


@pytest.mark.parametrize(
    ("control_type", "name", "value"),
    [
        ("text", "value", "changed"),
        ("textfield", "Value", "name not in lower case"),
        ("alertdialog", "open", "true"),
        ("filepicker", "state", "pickFiles"),
        ("listview", "method", "{}"),
        ("switch", "value", "yes"),
        ("slider", "value", ""),
        ("slider", "value", "nan"),
        ("slider", "value", "1e999"),
        ("slider", "value", "1_0"),
        ("slider", "value", "٣"),
        ("tabs", "selectedindex", ""),
        ("tabs", "selectedindex", "1.0"),
        ("tabs", "selectedindex", "9" * 5000),
        ("segmentedbutton", "selected", "[[]]"),
        ("segmentedbutton", "selected", "[" * 100_000),
        ("datepicker", "value", "soon"),
        ("datepicker", "value", "2024-09-03" + " " * 5000),
        ("timepicker", "value", "24:00"),
        ("page", "title", "mine"),
        ("page", "platformbrightness", "purple"),
        ("page", "media", "{}"),
        ("page", "media", MEDIA.replace("1.5", '"1"')),
        ("popupmenuitem", "checked", "true"),
        ("somebody_elses", "anything", "1"),
    ],
)
def test_what_the_client_never_sends_is_refused(control_type: str, name: str, value: str) -> None:
    assert not accepts(control_type, name, value)


def test_the_fallback_names_only_what_some_control_writes() -> None:
    assert set(UNKNOWN_CONTROL_WRITES) <= {name for properties in CLIENT_WRITES.values() for name in properties}
