from __future__ import annotations

import copy
import inspect
import json
from typing import Any

import flet_core as ft
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.errors import InvalidFrame
from flet_fastapi.generations import _flet_core, generation_for
from flet_fastapi.generations.base import Event, Outgoing, Register, Updates
from flet_fastapi.generations.classic import ADD, CLEAN, CRASH, METHOD, REMOVE, UPDATE, ClassicGeneration
from tests.support.classic_client import Mirror, event_message, register_message, update_message
from tests.support.serving import serving

generation = ClassicGeneration()


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_every_handler_is_classic_so_far() -> None:
    assert generation_for(print).name == "classic"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (event_message("_1", "click", "x"), Event("_1", "click", "x")),
        (event_message("_1", "click").replace('""', "null"), Event("_1", "click", "")),
        (update_message("_1", {"value": "ü"}), Updates([{"i": "_1", "value": "ü"}])),
        ('{"action":"updateControlProps","payload":{"props":[]}}', Updates([])),
        (event_message("", "").replace("{", '{"more":[],'), Event("", "", "")),
    ],
)  # fmt: skip
def test_decode(frame: str, message: Any) -> None:
    assert generation.decode(frame) == message


def test_decode_register() -> None:
    message = generation.decode(register_message("credential", route="/x"))
    assert isinstance(message, Register)
    assert message.credential == "credential"
    assert message.details["pageRoute"] == "/x"


@pytest.mark.parametrize("frame", [b"{}", "[", '{"action":"x","payload":{}}', "1" * 5000, '"\\ud83d"'])
def test_decode_refuses(frame: Any) -> None:
    with pytest.raises(InvalidFrame) as caught:
        generation.decode(frame)
    assert caught.value.code in (1003, 1007, 1008)


@given(st.text() | st.binary())
def test_decode_raises_nothing_else(frame: Any) -> None:
    with pytest.raises(InvalidFrame):
        generation.decode(frame)


def test_refusal_has_no_session() -> None:
    answer = json.loads(generation.refuse("full"))
    assert answer == {
        "action": "registerWebClient", "payload": {"session": None, "appInactive": False, "error": "full"},
    }  # fmt: skip


# --- what is sent -----------------------------------------------------------------------------------------------------

CONTROLS = [f"_{n}" for n in range(6)]
update = st.builds(
    lambda i, value: Outgoing(UPDATE, dumps({"i": i, "value": value}), False),
    st.sampled_from(CONTROLS),
    st.text(max_size=3),
)
remove = st.builds(
    lambda ids: Outgoing(REMOVE, b",".join(map(dumps, ids)), False),
    st.lists(st.sampled_from(CONTROLS), min_size=1, max_size=2),
)
clean = st.builds(lambda i: Outgoing(CLEAN, dumps(i), False), st.sampled_from([*CONTROLS, "page"]))
add = st.builds(
    lambda i: Outgoing(ADD, dumps({"controls": [{"t": "text", "i": i, "p": "page", "c": []}], "trimIDs": []}), False),
    st.sampled_from(CONTROLS),
)
method = st.builds(lambda name: Outgoing(METHOD, dumps({"methodName": name}), True), st.text(max_size=3))
crash = st.just(Outgoing(CRASH, dumps({"message": "x"}), False))


def applied(frames: list[Any]) -> tuple[Any, list[Any], int]:
    """What a browser has after these frames: its controls, what it was asked beside, and what it has ignored."""
    mirror = Mirror()
    mirror.controls["page"] = {"t": "page", "i": "page", "p": "", "c": []}
    for frame in frames:
        message = json.loads(frame)
        mirror.apply(message["action"], message["payload"])
    return mirror.controls, mirror.unknown, mirror.ignored


@given(st.lists(update | remove | clean | add | method | crash, min_size=1, max_size=20))
def test_frames_together_do_what_they_do_alone(messages: list[Outgoing]) -> None:
    together = generation.encode(messages)
    alone = [frame for message in messages for frame in generation.encode([message])]
    assert applied(together) == applied(alone)
    assert len(together) <= len(alone)


def test_updates_of_one_turn_share_a_frame() -> None:
    frames = generation.encode([Outgoing(UPDATE, dumps({"i": "_1", "value": str(n)}), False) for n in range(100)])
    assert len(frames) == 1


def test_nothing_that_the_client_ignores_is_in_a_batch() -> None:
    kinds = [UPDATE, METHOD, REMOVE, CRASH, UPDATE]
    frames = [json.loads(frame) for frame in generation.encode([Outgoing(kind, b"{}", False) for kind in kinds])]
    assert [frame["action"] for frame in frames] == [
        "updateControlProps", "invokeMethod", "removeControl", "sessionCrashed", "updateControlProps",
    ]  # fmt: skip


# --- every control of flet-core ---------------------------------------------------------------------------------------


def make(kind: Any) -> Any:
    """A control of this class with texts, numbers and children wherever its first parameters allow it; None if not."""
    for arguments in ({}, {"content": ft.Text("x")}, {"controls": [ft.Text("x")]}, {"value": "x"}, {"text": "x"}):
        try:
            control = kind(**arguments)
        except Exception:  # noqa: BLE001  it wants something else
            continue
        if isinstance(control, ft.Control):
            return control
    return None


def kinds() -> list[Any]:
    found = [
        kind for name, kind in vars(ft).items()
        if inspect.isclass(kind) and issubclass(kind, ft.Control) and not name.startswith("_")
        and kind not in (ft.Page, ft.View) and "_get_control_name" in dir(kind)
    ]  # fmt: skip
    return sorted({kind for kind in found if make(kind) is not None}, key=lambda kind: kind.__name__)


def shape(controls: dict[str, Any]) -> dict[str, Any]:
    return {i: {k: v for k, v in control.items() if k != "at" and v} for i, control in copy.deepcopy(controls).items()}


def test_most_controls_can_be_made() -> None:
    assert len(kinds()) > 90


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
async def test_resumed_tree_is_what_the_browser_had(kind: Any) -> None:
    """Each property goes through two encoders, that of updates and that of the tree: both must say the same."""
    added: list[bool] = []

    def main(page: ft.Page) -> None:
        control = make(kind)
        try:
            page.add(control)
        except Exception:  # noqa: BLE001  it belongs somewhere else, or wants more
            return
        finally:
            added.append(True)
        control.width, control.opacity, control.tooltip, control.expand = 10.0, 0.5, 'a "tip"\n', True
        control.visible = True
        page.add(ft.Text("end"))

    async with serving(main) as served:
        client = await served.visit()
        await served.until(lambda: added)
        if not served.session.page.argument.controls[-1].uid:
            pytest.skip("cannot stand alone on a page")
        await client.wait_for_control("text", value="end")
        before = shape(client.controls)
        await client.abort()
        other = await served.come_back(client)
        assert shape(other.controls) == before
        for control in other.controls.values():
            assert all(isinstance(value, str) for name, value in control.items() if name != "c")


# --- drags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "heard"),
    [
        ("accept", '{"src_id":"%s","x":1,"y":2}', True),
        ("leave", "%s", True),
        ("will_accept", "true", True),
        ("accept", '{"src_id":"page","x":1,"y":2}', False),
        ("accept", '{"src_id":["%s"]}', False),
        ("accept", "%s", False),
        ("accept", "[]", False),
        ("leave", "page", False),
        ("leave", "", False),
    ],
)
async def test_drag_names_what_can_be_dragged(name: str, data: str, heard: bool) -> None:
    seen: list[Any] = []

    async def hear(event: Any) -> None:
        seen.append(event)

    def main(page: ft.Page) -> None:
        page.add(
            ft.Draggable(content=ft.Text("x")),
            ft.DragTarget(content=ft.Text("y"), on_accept=hear, on_leave=hear, on_will_accept=hear),
        )

    async with serving(main) as served:
        client = await served.visit()
        target, source = await client.wait_for_control("dragtarget"), client.one("draggable")
        await client.event(target["i"], name, data.replace("%s", source["i"]))
        await served.until(lambda: seen or served.counted("flet_refused_total", kind="event_data"))
        assert bool(seen) is heard


async def test_event_that_is_quicker_than_the_apps_thread_waits_for_it() -> None:
    """flet_core sends new controls first, and learns their ids afterwards, with the lock held."""
    clicks: list[Any] = []

    async def clicked(event: Any) -> None:
        clicks.append(event)

    async with serving(lambda page: page.add(ft.ElevatedButton("go", on_click=clicked))) as served:
        client = await served.visit()
        button = (await client.wait_for_control("elevatedbutton"))["i"]
        page = served.session.page.argument
        await served.until(lambda: page.get_control(button))
        with _flet_core.update_lock(page):
            control = page.index.pop(button)
            await client.click(button)
            await served.until(lambda: served.session.heard == 1)
            page.index[button] = control
        await served.until(lambda: clicks)
        assert served.counted("flet_refused_total", kind="event_target") == 0
