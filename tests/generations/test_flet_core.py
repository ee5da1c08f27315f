"""Every private name of flet-core that `_flet_core` uses still means what it did."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flet_core as ft
import pytest
from flet_core.page import PageDisconnectedException
from flet_core.pubsub import PubSubHub
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.generations import _flet_core

GENERATIONS = Path(_flet_core.__file__).parent


class Link(ft.connection.Connection):  # type: ignore[misc,name-defined]
    """A connection that remembers commands and gives ids."""

    def __init__(self) -> None:
        super().__init__()
        self.pubsubhub = PubSubHub(asyncio.new_event_loop())
        self.commands: list[Any] = []
        self.ids = 0

    def send_command(self, session_id: str, command: Any) -> Any:
        return self.send_commands(session_id, [command])

    def send_commands(self, session_id: str, commands: Any) -> Any:
        self.commands += commands
        results = []
        for command in commands:
            if command.name == "add":
                ids = range(self.ids + 1, self.ids + 1 + len(command.commands))
                self.ids += len(command.commands)
                results.append(" ".join(f"_{number}" for number in ids))
        return SimpleNamespace(results=results, result="", error="")


@pytest.fixture
def link() -> Link:
    link = Link()
    yield link
    link.pubsubhub._PubSubHub__loop.close()


@pytest.fixture
def page(link: Link) -> Any:
    loop = asyncio.new_event_loop()
    yield ft.Page(link, "session", loop, ThreadPoolExecutor(1))
    loop.close()


def test_private_names_are_used_in_one_place_only() -> None:
    """A private attribute of something that is not ours, anywhere else in the library, would escape these tests."""
    for source in GENERATIONS.parent.rglob("*.py"):
        if source.name == "_flet_core.py":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith(("_Page__", "_Control__", "_PubSub")), f"{source}:{node.lineno}"


def test_the_version_is_the_one_that_was_read() -> None:
    from importlib.metadata import version

    assert version("flet-core") == "0.24.1"


def test_control_type(page: Any) -> None:
    assert _flet_core.control_type(page) == "page"
    assert _flet_core.control_type(ft.TextField()) == "textfield"
    assert _flet_core.control_type(ft.FloatingActionButton()) == "floatingactionbutton"


def test_set_property_is_not_sent_back(page: Any, link: Link) -> None:
    field = ft.TextField(value="a")
    page.add(field)
    link.commands.clear()
    _flet_core.set_property(field, "value", "b")
    assert field.value == _flet_core.get_property(field, "value") == "b"
    page.update()
    assert not link.commands


def test_first_properties_are_as_if_set_one_by_one(page: Any, link: Link) -> None:
    values = {"route": "/a", "width": "640", "platform": ""}
    other = ft.Page(link, "session", page.loop, page.executor)
    _flet_core.set_first_properties(page, values)
    for name, value in values.items():
        _flet_core.set_property(other, name, value)
    assert page._Control__attrs == other._Control__attrs
    assert (page.route, page.width) == ("/a", 640)
    page.update()
    assert not [command for command in link.commands if command.name == "set"]


def test_properties_are_what_an_update_would_send(page: Any, link: Link) -> None:
    control = ft.TextField(value="a", width=1.5, read_only=True, autofocus=False, label=None)
    page.add(control)
    sent = next(c for cmd in link.commands for c in cmd.commands if c.values == ["textfield"]).attrs
    found = dict(_flet_core.properties(control))
    assert {name: value for name, value in found.items() if name in sent} == sent
    assert found["readonly"] == "true"
    assert "label" not in found
    control.value = "unsent"
    assert dict(_flet_core.properties(control))["value"] == "unsent"


def test_dates_are_iso(page: Any) -> None:
    picker = ft.DatePicker(value=dt.datetime(2024, 9, 3, 10, 0), first_date=dt.datetime(2024, 1, 1))
    page.overlay.append(picker)
    page.update()
    assert dict(_flet_core.properties(picker))["value"] == "2024-09-03T10:00:00"


@pytest.mark.parametrize(
    ("own", "parent", "reach"),
    [
        ({}, {}, "USABLE"),
        ({"disabled": True}, {}, "DISABLED"),
        ({}, {"disabled": True}, "DISABLED"),
        ({"disabled": False}, {"disabled": True}, "DISABLED"),
        ({"visible": False}, {}, "HIDDEN"),
        ({}, {"visible": False}, "HIDDEN"),
        ({"visible": True}, {"visible": False}, "HIDDEN"),
        ({"disabled": True}, {"visible": False}, "HIDDEN"),
    ],
)
def test_reach(page: Any, own: dict[str, bool], parent: dict[str, bool], reach: str) -> None:
    button = ft.ElevatedButton("x", **own)
    page.add(ft.Row([ft.Container(button)], **parent))
    assert _flet_core.reach(button, page).name == reach


def test_page_that_is_disabled_disables_nothing(page: Any) -> None:
    button = ft.ElevatedButton("x")
    page.add(button)
    page.disabled = True
    assert _flet_core.reach(button, page) is _flet_core.Reach.USABLE
    page.views[0].disabled = True
    assert _flet_core.reach(button, page) is _flet_core.Reach.DISABLED


@pytest.mark.parametrize(
    ("dialog", "outer", "reach"),
    [
        ({"open": True}, {}, "USABLE"),
        ({"open": False}, {}, "CLOSED"),
        ({"open": False}, {"disabled": True}, "CLOSED"),
        ({"open": False}, {"visible": False}, "HIDDEN"),
        ({"open": False, "visible": False}, {}, "HIDDEN"),
    ],
)
def test_reach_in_a_dialog(page: Any, dialog: dict[str, bool], outer: dict[str, bool], reach: str) -> None:
    button = ft.ElevatedButton("x")
    alert = ft.AlertDialog(content=ft.Row([button]), **dialog)
    page.add(ft.Column([alert], **outer))
    assert _flet_core.reach(button, page).name == reach
    assert list(_flet_core.closed_dialogs(button, page)) == [alert] * (not dialog["open"])


def test_closed_dialogs_end_in_a_circle(page: Any) -> None:
    one, two = ft.AlertDialog(), ft.AlertDialog()
    one.parent, two.parent = two, one
    assert _flet_core.reach(one, page) is _flet_core.Reach.CLOSED
    assert len(list(_flet_core.closed_dialogs(one, page))) == 1000


def test_reach_ends_in_a_circle(page: Any) -> None:
    one, two = ft.Row(), ft.Row()
    one.parent, two.parent = two, one
    assert _flet_core.reach(one, page) is _flet_core.Reach.USABLE


def test_known_children_are_those_that_were_sent(page: Any) -> None:
    row = ft.Row([ft.Text("a")])
    page.add(row)
    row.controls.append(ft.Text("b"))
    assert [child.value for child in _flet_core.known_children(row)] == ["a"]
    row.update()
    assert [child.value for child in _flet_core.known_children(row)] == ["a", "b"]


def test_lock_is_held_while_an_update_is_sent(page: Any, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    send = link.send_commands
    lock = _flet_core.update_lock(page)
    monkeypatch.setattr(link, "send_commands", lambda *a: [seen.append(lock.locked()), send(*a)][1])
    page.add(ft.Text("x"))
    page.update()
    assert seen == [True, True]
    assert not _flet_core.update_lock(page).locked()


def test_close_lets_go_of_everything(page: Any, link: Link) -> None:
    unmounted = []

    class Control(ft.Column):  # type: ignore[misc]
        def will_unmount(self) -> None:
            unmounted.append(self)
            raise LookupError

    page.pubsub.subscribe(print)
    page.add(Control(), Control())
    _flet_core.close(page)
    assert len(unmounted) == 2
    assert page.connection is None
    assert not link.pubsubhub._PubSubHub__subscribers
    assert list(page.index) in ([], ["page"])
    with pytest.raises(PageDisconnectedException):
        page.update()


# --- GuardedPage ------------------------------------------------------------------------------------------------------


class Guarded(_flet_core.GuardedPage):
    def __init__(self, *args: Any) -> None:
        self.sent: list[tuple[str, dict[str, str]]] = []
        super().__init__(*args)

    def send_properties(self, uid: str, attributes: dict[str, str]) -> None:
        assert _flet_core.update_lock(self).locked()
        self.sent.append((uid, attributes))

    def on_event_loop(self) -> bool:
        return True


@pytest.fixture
def guarded(link: Link) -> Any:
    loop = asyncio.new_event_loop()
    yield Guarded(link, "session", loop, ThreadPoolExecutor(1))
    loop.close()


def test_the_short_way_sends_what_the_long_one_would(guarded: Any, page: Any, link: Link) -> None:
    texts = [ft.Text("a"), ft.Text("a")]
    for where, text in zip((guarded, page), texts, strict=True):
        where.add(text)
        text.value, text.size, text.color = "b", 5, None
    link.commands.clear()
    guarded.update(texts[0])
    page.update(texts[1])
    (command,) = link.commands
    assert guarded.sent == [(texts[0].uid, command.attrs)]
    guarded.update(texts[0])
    assert len(guarded.sent) == 1


class Late(ft.Column):  # type: ignore[misc]
    """Makes its children when it is updated."""

    def before_update(self) -> None:
        super().before_update()
        if self.data and not self.controls:
            self.controls.append(ft.Text("late"))


class Alone(ft.Column):  # type: ignore[misc]
    def is_isolated(self) -> bool:
        return True


KINDS: list[Callable[[], Any]] = [
    lambda: ft.Text("text"), lambda: ft.Row([ft.Text("inner")]), Late, Alone, ft.Column,
    lambda: ft.DatePicker(value=dt.datetime(2024, 9, 3)), lambda: ft.Container(ft.Switch(value=True), padding=3),
]  # fmt: skip


def edit(column: Any, what: str, at: int, number: int) -> None:
    """One change of the controls below a column."""
    controls = column.controls
    one = controls[at % len(controls)] if controls else column
    match what:
        case "insert":
            controls.insert(at % (len(controls) + 1), KINDS[number % len(KINDS)]())
        case "remove" if controls:
            controls.remove(one)
        case "turn":
            controls.reverse()
        case "visible":
            one.visible = bool(number % 2)
        case "width":
            one.width = number or None
        case "tooltip":
            one.tooltip = ft.Tooltip(str(number))
        case "data":
            one.data = number
        case "inner" if isinstance(one, ft.Row):
            one.controls.append(ft.Text(str(number)))
        case "value" if isinstance(one, ft.Text | ft.DatePicker):
            one.value = dt.datetime(2024, 9, 1 + number) if isinstance(one, ft.DatePicker) else str(number)


EDITS = st.tuples(
    st.sampled_from(["insert", "remove", "turn", "visible", "width", "tooltip", "data", "inner", "value"]),
    st.integers(0, 9), st.integers(0, 9),
)  # fmt: skip


@given(st.lists(st.lists(EDITS, max_size=8), max_size=6))
def test_an_update_sends_what_flets_own_sends(rounds: list[list[tuple[str, int, int]]]) -> None:
    loop, pool = asyncio.new_event_loop(), ThreadPoolExecutor(1)
    links, said = (Link(), Link()), []
    try:
        pages = [kind(link, "session", loop, pool) for kind, link in zip((ft.Page, Guarded), links, strict=True)]
        columns = [ft.Column() for _ in pages]
        for page, column, link in zip(pages, columns, links, strict=True):
            page.add(column)
            for edits in rounds:
                for one in edits:
                    edit(column, *one)
                page.update()
                if column.controls:
                    page.update(*column.controls[:2])
            said.append((link.commands, list(page.index)))
    finally:
        loop.close()
        pool.shutdown()
        for link in links:
            link.pubsubhub._PubSubHub__loop.close()
    assert said[0] == said[1]


def test_all_updates_go_through_what_is_overridden(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text, seen = ft.Text("x"), []
    column = ft.Column([text])
    guarded.add(column)
    monkeypatch.setattr(_flet_core, "_add_changes", lambda *a, **k: seen.append(a[0]))
    guarded.update()
    guarded.update(column, text)
    column.update()
    assert seen == [guarded, column, text, column]


def test_an_overridden_build_is_called(guarded: Any) -> None:
    class Mine(ft.Column):  # type: ignore[misc]
        calls = 0

        def build_update_commands(self, *args: Any, **kwargs: Any) -> None:
            self.calls += 1
            super().build_update_commands(*args, **kwargs)

    mine = Mine([ft.Text("x")])
    guarded.add(mine)
    guarded.update()
    assert mine.calls == 1


def test_before_update_is_called_on_the_short_way(guarded: Any) -> None:
    class Mine(ft.Text):  # type: ignore[misc]
        calls = 0

        def before_update(self) -> None:
            super().before_update()
            self.calls += 1

    text = Mine("a")
    guarded.add(text)
    before = text.calls
    guarded.update(text)
    assert text.calls == before + 1


def test_children_take_the_long_way(guarded: Any, link: Link) -> None:
    row = ft.Row()
    guarded.add(row)
    row.controls.append(ft.Text("x"))
    guarded.update(row)
    assert link.commands[-1].name == "add"
    row.controls.clear()
    guarded.update(row)
    assert link.commands[-1].name == "remove"
    assert not guarded.sent


def test_isolated_control_is_updated_by_itself(guarded: Any) -> None:
    class Mine(ft.Column):  # type: ignore[misc]
        def is_isolated(self) -> bool:
            return True

    mine = Mine()
    guarded.add(mine)
    mine.controls.append(ft.Text("x"))
    guarded.update()
    assert not _flet_core.known_children(mine)
    mine.update()
    assert len(_flet_core.known_children(mine)) == 1


def test_control_that_was_never_added(guarded: Any) -> None:
    guarded.update(ft.Text("x"))
    assert not guarded.sent


def test_short_way_of_a_closed_page_raises(guarded: Any) -> None:
    text = ft.Text("x")
    guarded.add(text)
    _flet_core.close(guarded)
    with pytest.raises(PageDisconnectedException):
        guarded.update(text)


def test_waiting_on_the_loop_is_refused_and_not_waiting_is_not(guarded: Any, link: Link) -> None:
    with pytest.raises(RuntimeError, match="_async"):
        guarded.get_clipboard()
    guarded.set_clipboard("x")
    assert link.commands[-1].name == "invokeMethod"


def test_overridden_methods_have_flets_parameters() -> None:
    for name in ("_invoke_method", "update"):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (_flet_core.GuardedPage, ft.Page))
        assert [p.kind for p in ours.parameters.values()] == [p.kind for p in theirs.parameters.values()]
    assert list(inspect.signature(_flet_core.GuardedPage._invoke_method).parameters) == list(
        inspect.signature(ft.Page._invoke_method).parameters
    )


def test_invoke_method_is_what_all_waiting_calls_go_through() -> None:
    """A waiting call that went another way would stop the loop."""
    for name in ("get_clipboard", "can_launch_url"):
        assert "_invoke_method(" in inspect.getsource(getattr(ft.Page, name))
    assert "_invoke_method(" in inspect.getsource(ft.Control.invoke_method)
