"""Whatever a client sends, the server neither fails nor forgets: it closes with a code of its own, or goes on."""

from __future__ import annotations

import json
from typing import Any

import flet as ft  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Logs
from tests.support.classic_client import event_message, method_result_message, register_message, update_message
from tests.support.serving import serving

ALLOWED_CODES = {1003, 1007, 1008, 1009}

texts = st.text(max_size=20) | st.sampled_from(["page", "_1", "_2", "_5", "_9", "click", "change", "value", "i", ""])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
actions = st.sampled_from(["registerWebClient", "pageEventFromWeb", "updateControlProps", "invokeMethod", "x"]) | values

ids = st.sampled_from(["page", *(f"_{n}" for n in range(1, 16)), "_99", ""])
names = st.sampled_from(
    """click change focus blur submit select dismiss result upload accept will_accept leave move resized route_change
    view_pop keyboard_event mediaChange app_lifecycle_state_change invoke_method_result platformBrightnessChange
    close error connect disconnect authorize scroll onScroll pan_update visible""".split()
)
properties = st.sampled_from(
    """value open state method selected selectedindex expanded startvalue endvalue width height route media
    visible""".split()
)
data = texts | values.map(lambda value: json.dumps(value, default=str))

valid = st.one_of(
    st.builds(event_message, ids, names, data),
    st.builds(lambda i, name, value: update_message(i, {name: value}), ids, properties, data),
    st.builds(method_result_message, texts, st.none() | texts, st.none() | texts),
    st.builds(lambda session, route: register_message(session, route=route), texts, texts),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid frame with something replaced, left out or cut."""
    frame = draw(valid)
    match draw(st.integers(0, 3)):
        case 0:
            at = draw(st.integers(0, len(frame)))
            return frame[:at] + draw(texts) + frame[at + draw(st.integers(0, 3)) :]
        case 1:
            return frame[: draw(st.integers(0, len(frame)))]
        case 2:
            message = json.loads(frame)
            message["payload"][draw(st.sampled_from(sorted(message["payload"])))] = draw(values)
            return json.dumps(message)
        case _:
            message = json.loads(frame)
            del message["payload"][draw(st.sampled_from(sorted(message["payload"])))]
            return json.dumps(message)


arbitrary = st.one_of(
    values.map(json.dumps),
    st.builds(lambda action, payload: json.dumps({"action": action, "payload": payload}), actions, values),
    st.text(max_size=50),
    st.binary(max_size=20),
)
frames = st.lists(valid | mutated() | arbitrary, min_size=1, max_size=12)


def gallery(page: ft.Page) -> None:
    async def heard(event: Any) -> None:
        pass

    page.on_keyboard_event = page.on_resized = page.on_view_pop = page.on_route_change = page.on_media_change = heard
    page.on_app_lifecycle_state_change = page.on_platform_brightness_change = page.on_error = heard
    page.overlay.append(ft.FilePicker(on_result=heard, on_upload=heard))
    page.overlay.append(ft.DatePicker(on_change=heard))
    page.add(
        ft.TextField(on_change=heard),
        ft.Slider(on_change=heard),
        ft.Checkbox(on_change=heard, disabled=True),
        ft.Dropdown(on_change=heard, visible=False),
        ft.Tabs(on_change=heard),
        ft.GestureDetector(ft.Text("x"), on_pan_update=heard),
        ft.Draggable(group="a", content=ft.Text("y")),
        ft.DragTarget(group="a", content=ft.Text("z"), on_accept=heard, on_move=heard, on_leave=heard),
        ft.SegmentedButton([ft.Segment("1")], selected={"1"}, on_change=heard),
    )


async def attack(sent: list[str | bytes], *, registered: bool) -> None:
    async with serving(gallery) as served:
        client = await served.open()
        if registered:
            await client.register()
            await client.wait_for_control("segmentedbutton")
        for frame in sent:
            await client.send_raw(frame)
        await client.send_raw("the end")
        code = await client.wait_closed()
        assert code in ALLOWED_CODES, f"closed with {code} {client.close_reason}"
        if registered:
            assert len(served.sessions) == 1
            other = await served.come_back(client)
            assert other.all("segmentedbutton")
            assert len(served.sessions) == 1


QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@QUICK
@given(frames)
async def test_any_frames_after_registering(logs: Logs, sent: list[str | bytes]) -> None:
    await attack(sent, registered=True)
    assert not logs.named("connection_failed")
    assert not logs.named("app_error")


@QUICK
@given(frames)
async def test_any_frames_before_registering(logs: Logs, sent: list[str | bytes]) -> None:
    await attack(sent, registered=False)
    assert not logs.named("connection_failed")
