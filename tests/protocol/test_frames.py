"""What the protocol does not allow ends the connection; what the page does not offer is dropped."""

from __future__ import annotations

import json
from typing import Any

import flet as ft  # type: ignore[import-untyped]
import pytest

from tests.conftest import Logs
from tests.protocol.conftest import Serve
from tests.protocol.test_handlers import click
from tests.protocol.test_resume import counted, counter
from tests.support.classic_client import ClassicClient, dumps, event_message, register_message, update_message
from tests.support.serving import Served

DEEP = "[" * 100_000 + "]" * 100_000


def event(target: Any = "_1", name: Any = "click", data: Any = "") -> str:
    return dumps("pageEventFromWeb", {"eventTarget": target, "eventName": name, "eventData": data})


def result(data: str) -> str:
    return event_message("page", "invoke_method_result", data)


MANY = {f"x{n}": "" for n in range(1000)}

BROKEN: list[tuple[str, str | bytes, int, str]] = [
    ("binary", b"\x81\xa1x", 1003, "binary"),
    ("empty", "", 1007, "json"),
    ("no JSON", "{", 1007, "json"),
    ("NaN", '{"action":NaN}', 1007, "json"),
    ("deep JSON", DEEP, 1007, "json"),
    ("deep JSON in a payload", '{"action":"pageEventFromWeb","payload":' + DEEP + "}", 1007, "json"),
    ("list", "[]", 1008, "shape"),
    ("number", "1", 1008, "shape"),
    ("null", "null", 1008, "shape"),
    ("no action", '{"payload":{}}', 1008, "action"),
    ("no payload", '{"action":"pageEventFromWeb"}', 1008, "shape"),
    ("payload is a list", dumps("pageEventFromWeb", []), 1008, "shape"),
    ("unknown action", dumps("pageClose", {}), 1008, "action"),
    ("action of the server", dumps("invokeMethod", {}), 1008, "action"),
    ("action is a list", '{"action":[],"payload":{}}', 1008, "action"),
    ("event without data", dumps("pageEventFromWeb", {"eventTarget": "page", "eventName": "x"}), 1008, "type"),
    ("target is a number", event(1, "x", ""), 1008, "type"),
    ("target is a list", event([], "x", ""), 1008, "type"),
    ("name is null", event("_1", None, ""), 1008, "type"),
    ("data is an object", event("_1", "a", {}), 1008, "type"),
    ("long target", event_message("x" * 65, "a"), 1008, "type"),
    ("long name", event_message("x", "a" * 129), 1008, "type"),
    ("props is an object", dumps("updateControlProps", {"props": {}}), 1008, "type"),
    ("props without i", dumps("updateControlProps", {"props": [{"value": "x"}]}), 1008, "type"),
    ("props of strings", dumps("updateControlProps", {"props": ["i"]}), 1008, "type"),
    ("i is a number", dumps("updateControlProps", {"props": [{"i": 1}]}), 1008, "type"),
    ("many changes", dumps("updateControlProps", {"props": [{"i": "page", "x": "y"}] * 501}), 1009, "too_many"),
    ("wide change", dumps("updateControlProps", {"props": [{"i": "page", **MANY}]}), 1009, "too_many"),
    ("second register", register_message(), 1008, "registered"),
    ("method result is no JSON", result("x"), 1008, "type"),
    ("method result is a list", result("[]"), 1008, "type"),
    ("method result is a number", result('{"method_id":"a","result":1,"error":null}'), 1008, "type"),
    ("method result has more", result('{"method_id":"a","result":null,"error":null,"self":1}'), 1008, "type"),
    ("method id is a list", result('{"method_id":[],"result":null,"error":null}'), 1008, "type"),
]  # fmt: skip
IDS = [name for name, *_ in BROKEN]


@pytest.mark.parametrize(("name", "frame", "code", "kind"), BROKEN, ids=IDS)
async def test_broken_frame_ends_the_connection_and_not_the_session(
    serve: Serve, name: str, frame: str | bytes, code: int, kind: str
) -> None:
    served = await serve(counter)
    client = await served.visit()
    await click(client)
    await counted(client, "1")
    await client.send_raw(frame)
    assert await client.wait_closed() == code
    assert client.close_reason
    assert served.counted("flet_invalid_frames_total", kind=kind) == 1
    await counted(await served.come_back(client), "1")


REGISTER: dict[str, Any] = json.loads(register_message())["payload"]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        *[(frame, code) for name, frame, code, _ in BROKEN if name != "second register"],
        (event_message("page", "x"), 1008),
        (update_message("page", {}), 1008),
        *[(dumps("registerWebClient", REGISTER | {name: 1}), 1008) for name in REGISTER],
        *[(dumps("registerWebClient", REGISTER | {name: "x" * 8193}), 1008) for name in REGISTER],
        (register_message(pageWidth="wide"), 1008),
        (register_message(pageWidth="nan"), 1008),
        (register_message(windowTop="1_0"), 1008),
        (register_message(pageHeight="Infinity"), 1008),
    ],
)
async def test_first_frame_must_register(play: Serve, frame: str | bytes, code: int) -> None:
    served = await play(counter)
    client = await served.open()
    await client.send_raw(frame)
    assert await client.wait_closed() == code
    assert not served.sessions


@pytest.mark.parametrize("payload", [{}, {"sessionId": None}, dict.fromkeys(REGISTER)])
async def test_register_may_leave_things_out(play: Serve, payload: dict[str, None]) -> None:
    served = await play(counter)
    client = await served.open()
    await client.send("registerWebClient", payload)
    await counted(client, "0")


@pytest.mark.parametrize("media", ["", "{", "[]", '{"padding":5}', '{"x":1}', "null"])
async def test_media_that_no_client_sends_does_not_harm_the_app(play: Serve, media: str) -> None:
    def main(page: ft.Page) -> None:
        page.add(ft.Text(type(page.media).__name__))

    served = await play(main)
    client = await (await served.open()).register(media=media)
    await client.wait_for_control("text")


@pytest.mark.parametrize("size", [1000, 2_000_000])
async def test_oversized_frame(serve: Serve, size: int) -> None:
    served = await serve(counter, max_frame_size=900)
    client = await served.visit()
    await client.send_raw(event_message("page", "x", "x" * size))
    assert await client.wait_closed() == 1009
    assert served.counted("flet_invalid_frames_total", kind="too_big") == 1
    await served.come_back(client)
    assert len(served.sessions) == 1


async def test_size_of_a_frame_is_counted_in_bytes(play: Serve) -> None:
    served = await play(counter, max_frame_size=1000)
    client = await served.visit()
    await client.send_raw(event_message("page", "x", "€").replace("\\u20ac", "€" * 400))
    assert await client.wait_closed() == 1009


async def test_client_that_does_not_register_is_cut(serve: Serve) -> None:
    served = await serve(counter, register_timeout_seconds=1)
    client = await served.open()
    assert await client.wait_closed() == 1008
    assert not served.sessions


async def test_client_that_leaves_without_registering_leaves_nothing(serve: Serve) -> None:
    served = await serve(counter)
    client = await served.open()
    await client.abort()
    await served.until(lambda: not served.manager.connections)
    assert served.manager.unregistered == 0


async def test_too_many_unregistered_connections_are_refused(serve: Serve) -> None:
    served = await serve(counter, max_unregistered=2)
    clients = [await served.open() for _ in range(2)]
    await served.until(lambda: served.manager.unregistered == 2)
    with pytest.raises(Exception, match=r"403|503|1013"):
        await served.open()
    await clients[0].register()
    await served.visit()


@pytest.mark.parametrize("surrogate", ["\\ud83d", "\\udc00x", "a\\ud800b"])
async def test_lone_surrogates_from_the_client(serve: Serve, surrogate: str) -> None:
    """Half an emoji in a text field: Dart sends it escaped."""

    def main(page: ft.Page) -> None:
        async def changed(event: Any) -> None:
            echo.value = event.control.value + event.data
            page.update()

        echo = ft.Text("")
        page.add(ft.TextField(on_change=changed), echo)

    served = await serve(main)
    client = await served.visit()
    field = (await client.wait_for_control("textfield"))["i"]
    await client.send_raw(update_message(field, {"value": "@"}).replace("@", surrogate))
    await client.send_raw(event_message(field, "change", "@").replace("@", surrogate))
    await client.wait_for_control("text", value=json.loads(f'"{surrogate}"') * 2)
    await client.abort()
    other = await served.come_back(client)
    assert other.one("text", value=json.loads(f'"{surrogate}"') * 2)


async def test_lone_surrogate_in_a_method_result(play: Serve) -> None:
    got: list[str] = []

    async def main(page: ft.Page) -> None:
        got.append(await page.get_clipboard_async())

    served = await play(main)
    client = await served.open()
    client.methods["getClipboard"] = lambda arguments: "\ud83d"
    await client.register()
    await served.until(lambda: got)
    assert got == ["\ud83d"]


async def test_lone_surrogates_of_the_app(serve: Serve) -> None:
    served = await serve(lambda page: page.add(ft.Text("a\ud83db"), ft.Text("plain")))
    client = await served.visit()
    await client.wait_for_control("text", value="a\ud83db")
    await client.abort()
    assert (await served.come_back(client)).one("text", value="a\ud83db")


# --- what the page does not offer ------------------------------------------------------------------------------------


def offers(page: ft.Page) -> None:
    def hit(event: Any) -> None:
        page.add(ft.Text("hit"))

    page.on_error = page.on_login = hit
    page.add(
        ft.ElevatedButton("disabled", on_click=hit, disabled=True),
        ft.Column([ft.OutlinedButton("inner", on_click=hit)], disabled=True),
        ft.FilledButton("hidden", on_click=hit, visible=False),
        ft.Row([ft.TextButton("inner hidden", on_click=hit)], visible=False),
        ft.IconButton("add"),
        ft.TextField("read only", read_only=True, data="mine"),
        ft.Checkbox(value=False, disabled=True),
        ft.Switch(value=False, visible=False),
        ft.Container(ft.Text("here")),
    )


async def offered(serve: Serve) -> tuple[Served, ClassicClient]:
    served = await serve(offers)
    client = await served.visit()
    await client.wait_for_control("text", value="here")
    here = client.one("text", value="here")["i"]
    await served.until(lambda: served.session.page.argument.get_control(here))  # the app's thread may be behind
    return served, client


async def still_well(served: Served, client: ClassicClient) -> None:
    """No handler ran, the connection lives, and the session can be resumed."""
    assert client.open
    await client.abort()
    other = await served.come_back(client)
    assert not other.all("text", value="hit")
    assert len(served.sessions) == 1


@pytest.mark.parametrize(
    ("kind", "control", "name", "refusal"),
    [
        ("elevatedbutton", {"text": "disabled"}, "click", "event_disabled"),
        ("outlinedbutton", {}, "click", "event_disabled"),
        ("textbutton", {}, "click", "event_invisible"),
        ("elevatedbutton", {"text": "hidden"}, "click", "event_invisible"),
        ("iconbutton", {}, "click", "event_unheard"),
        ("iconbutton", {}, "no_such_event", "event_name"),
        ("iconbutton", {}, "__class__", "event_name"),
        *[("page", {}, name, "event_internal") for name in ("authorize", "connect", "disconnect", "close", "change")],
        ("page", {}, "error", "client_error"),
        ("page", {}, "nonsense", "event_name"),
        ("page", {}, "view_pop", "event_data"),
    ],
)
async def test_event_that_the_page_does_not_offer_is_dropped(
    play: Serve, kind: str, control: dict[str, str], name: str, refusal: str
) -> None:
    served, client = await offered(play)
    page = served.session.page.argument
    target = next(c.uid for c in page.index.values() if type(c)._get_control_name(c).lower() == kind
                  and all(c._get_attr(key) == value for key, value in control.items()))  # fmt: skip
    await client.event(target, name, "x")
    await served.until(lambda: served.counted("flet_refused_total", kind=refusal) == 1)
    await still_well(served, client)


@pytest.mark.parametrize("target", ["_99", "", "x", "Page", "page ", "__class__"])
async def test_event_for_a_control_that_does_not_exist_is_dropped(play: Serve, target: str) -> None:
    served, client = await offered(play)
    await client.event(target, "click")
    await served.until(lambda: served.counted("flet_refused_total", kind="event_target") == 1)
    await still_well(served, client)


@pytest.mark.parametrize(
    "name", ["disabled", "visible", "readonly", "read_only", "data", "value ", "__class__", "t", "c"]
)
async def test_property_that_no_client_sets_is_not_set(play: Serve, name: str) -> None:
    served, client = await offered(play)
    field = client.one("textfield")["i"]
    await client.update(field, **{name: "false"})
    await served.until(lambda: served.counted("flet_refused_total", kind="update_property") == 1)
    control = served.session.page.argument.get_control(field)
    assert (control.read_only, control.data, control.visible) == (True, "mine", True)
    await still_well(served, client)


async def test_many_properties_in_one_frame_are_looked_at(play: Serve) -> None:
    served, client = await offered(play)
    await client.send_raw(dumps("updateControlProps", {"props": [{"i": "page", "x": "y"}] * 500}))
    await served.until(lambda: served.counted("flet_refused_total", kind="update_property") == 500)
    await still_well(served, client)


async def test_property_of_an_unknown_control_is_dropped(play: Serve) -> None:
    served, client = await offered(play)
    await client.send_raw(update_message("_99", {"value": "x"}))
    await served.until(lambda: served.counted("flet_refused_total", kind="update_target") == 1)
    await still_well(served, client)


async def test_value_of_a_disabled_or_hidden_control_is_not_set(play: Serve) -> None:
    served, client = await offered(play)
    page = served.session.page.argument
    disabled, hidden = (next(c for c in page.index.values() if type(c) is kind) for kind in (ft.Checkbox, ft.Switch))
    await client.send_raw(update_message(disabled.uid, {"value": "true"}))
    await client.send_raw(update_message(hidden.uid, {"value": "true"}))
    await served.until(lambda: served.counted("flet_refused_total", kind="update_invisible") == 1)
    assert served.counted("flet_refused_total", kind="update_disabled") == 1
    assert (disabled.value, hidden.value) == (False, False)


@pytest.mark.parametrize("value", [1, True, None, [], {}])
async def test_property_values_are_texts(play: Serve, value: Any) -> None:
    _, client = await offered(play)
    props = [{"i": client.one("textfield")["i"], "value": value}]
    await client.send_raw(dumps("updateControlProps", {"props": props}))
    assert await client.wait_closed() == 1008


async def test_refusals_are_logged_once_per_kind(play: Serve, logs: Logs) -> None:
    served, client = await offered(play)
    for _ in range(50):
        await client.event("_99", "click")
    await served.until(lambda: served.counted("flet_refused_total", kind="event_target") == 50)
    assert len(logs.named("refused")) == 1
    assert client.session_id not in logs.text


@pytest.mark.parametrize("name", ["clientip", "clientuseragent", "pwa", "web", "title", "windowmaximized"])
async def test_client_cannot_rewrite_what_the_page_knows_of_it(play: Serve, name: str) -> None:
    served, client = await offered(play)
    before = served.session.page.argument._get_attr(name)
    await client.send_raw(update_message("page", {name: "forged"}))
    await served.until(lambda: served.counted("flet_refused_total", kind="update_property") == 1)
    assert served.session.page.argument._get_attr(name) == before
