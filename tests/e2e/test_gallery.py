"""Every control of Flet's gallery, used as a person does: what it says arrives, and nothing honest is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator

from tests.support.browser import VIEW, Screen, until
from tests.support.servers import WEBSOCKETS, Server, uvicorn_server

E2E = Path(__file__).parent

# Kinds of refusals that honest clients cause.
HARMLESS = {"event_unheard", "client_error"}
_HEARD_SECONDS = 30
_TRIES, _TRY_SECONDS = 5, 5


class Section(Screen):
    """A section of the gallery on a screen, and what the server has heard of it."""

    server: Server
    client: httpx.AsyncClient
    name: str

    async def heard(self) -> list[list[str]]:
        notes: list[list[str]] = (await self.client.get(f"/heard/{self.name}")).json()
        return notes

    async def hears(self, *note: str | None) -> None:
        """Wait until the server has heard something that begins like `note`: label, event, data, value."""
        if not await self._hears_within(_HEARD_SECONDS, note):
            await self._fail(note)

    async def hears_when(self, gesture: Callable[[], Awaitable[None]], *note: str) -> None:
        """Make a gesture until the server has heard it, as people do.

        For gestures that Flutter knows by their pace, which a busy machine may break: where they may be made twice.
        """
        for _ in range(_TRIES):
            await gesture()
            if await self._hears_within(_TRY_SECONDS, note):
                return
        await self._fail(note)

    async def hears_while_held(self, target: str, *note: str, button: Literal["left", "right"] = "left") -> None:
        """Hold a mouse button down on `target` until the server has heard it."""

        async def hold() -> None:
            await self.hover(target)
            await self.page.mouse.down(button=button)
            await self._hears_within(_TRY_SECONDS, note)
            await self.page.mouse.up(button=button)

        await self.hears_when(hold, *note)

    async def _hears_within(self, seconds: float, note: tuple[str | None, ...]) -> bool:
        async def found() -> bool:
            return any(one[: len(note)] == list(note) for one in await self.heard())

        try:
            await until(found, seconds)
        except AssertionError:
            return False
        return True

    async def _fail(self, note: tuple[str | None, ...]) -> NoReturn:
        pytest.fail(f"nothing begins with {note} in {await self.heard()}", pytrace=False)

    async def press(self, name: str) -> None:
        await self.click(self.page.get_by_role("button", name=name, exact=True))

    async def tick(self, label: str) -> None:
        """Click what stands left of a label."""
        x, y = await self.place(label, 0)
        await self.page.mouse.click(x + 20, y)

    async def move_about(self, x: float, y: float) -> None:
        await self.page.mouse.move(x, y)
        await self.page.mouse.move(x + 5, y + 5, steps=3)

    def slider(self, number: int) -> Locator:
        return self.page.locator("flt-semantics:has(> input[type=range])").nth(number)


Open = Callable[[str], Awaitable[Section]]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("gallery") / "log"
    with uvicorn_server("gallery:app", E2E, log, *WEBSOCKETS) as server:
        yield server


async def refusals(client: httpx.AsyncClient) -> dict[str, float]:
    counts: dict[str, float] = (await client.get("/refused")).json()
    return {kind: count for kind, count in counts.items() if kind not in HARMLESS}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """One profile for all sections: the client is loaded from its cache."""
    context = await browser.new_context(viewport=VIEW)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def client(gallery: Server) -> AsyncIterator[httpx.AsyncClient]:
    # a connection that the server closes while it is asked again would be an error
    each_anew = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=gallery.url, timeout=_HEARD_SECONDS, limits=each_anew) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def section(gallery: Server, client: httpx.AsyncClient, context: BrowserContext) -> AsyncIterator[Open]:
    """Opens a section; in the end nothing honest was refused and no handler failed."""
    page = await context.new_page()

    async def show(name: str) -> Section:
        shown = Section(page)
        shown.server, shown.client, shown.name = gallery, client, name
        await shown.open(f"{gallery.url}/{name}")
        return shown

    before, said = await refusals(client), len(gallery.said())
    yield show
    await asyncio.sleep(0.2)  # what else the client says is on its way: nothing to wait for
    await page.close()
    assert await refusals(client) == before
    assert "app_error" not in gallery.said()[said:]


# --- what is entered -------------------------------------------------------------------------------------------------


async def test_text_field(section: Open) -> None:
    shown = await section("text_fields")
    await shown.type("Name", "a")
    await shown.hears("Name", "focus")
    await shown.hears("Name", "change", "a", "a")
    await shown.page.keyboard.type("b")
    await shown.hears("Name", "change", "ab", "ab")
    await shown.page.keyboard.press("Enter")
    await shown.hears("Name", "submit", "ab", "ab")
    await shown.click("Story")
    await shown.hears("Name", "blur", "", "ab")


async def test_text_field_takes_many_lines_and_any_script(section: Open) -> None:
    shown = await section("text_fields")
    await shown.type("Story", "Zeile 1")
    await shown.page.keyboard.press("Enter")
    await shown.page.keyboard.insert_text("第二行 😀 <b>")
    await shown.hears("Story", "change", "Zeile 1\n第二行 😀 <b>", "Zeile 1\n第二行 😀 <b>")


async def test_other_text_fields(section: Open) -> None:
    shown = await section("text_fields")
    await shown.type("Secret", "pass")
    await shown.hears("Secret", "change", "pass", "pass")
    await shown.type("Digits", "1x2")
    await shown.hears("Digits", "change", "12", "12")
    await shown.type("Apple", "pie")
    await shown.page.keyboard.press("Enter")
    await shown.hears("Apple", "change", "pie", "pie")
    await shown.hears("Apple", "submit", "pie", "pie")


async def test_dropdown(section: Open) -> None:
    shown = await section("dropdowns")
    await shown.press("Color")
    await shown.hears("Color", "focus")
    await shown.click("Green")
    await shown.hears("Color", "change", "green", "green")


async def test_sliders(section: Open) -> None:
    shown = await section("sliders")
    await shown.click(shown.slider(0), 0.5)
    await shown.hears("Slider", "change_start")
    await shown.hears("Slider", "change", "", "5.0")
    await shown.hears("Slider", "change_end", "5")
    start = await shown.place(shown.slider(3), 0.1)
    await shown.drag(start, (start[0] + 200, start[1]))
    await shown.hears("Cupertino", "change", "", "10.0")


async def test_range_slider(section: Open) -> None:
    shown = await section("sliders")
    start = await shown.place(shown.slider(2))
    await shown.drag(start, (start[0] + 290, start[1]))
    await shown.hears("Range", "change_start")
    await shown.hears("Range", "change", "", "7.0")
    await shown.hears("Range", "change_end")


async def test_switches(section: Open) -> None:
    shown = await section("switches")
    for label in ("Check", "Apple check", "Switch", "Apple switch"):
        await shown.tick(label)
        await shown.hears(label, "change", "true", "True")
        await shown.tick(label)
        await shown.hears(label, "change", "false", "False")
    await shown.page.keyboard.press("Tab")
    await shown.hears("Check", "focus")
    await shown.page.keyboard.press("Tab")
    await shown.hears("Check", "blur")


async def test_checkbox_with_three_states(section: Open) -> None:
    shown = await section("switches")
    for data, value in (("true", "True"), ("", None), ("false", "False")):
        await shown.tick("Tristate")
        await shown.hears("Tristate", "change", data, value)


async def test_radios(section: Open) -> None:
    shown = await section("radios")
    for value in "abc":
        await shown.tick(f"Letter {value}")
        await shown.hears("Letters", "change", value, value)


async def test_chips(section: Open) -> None:
    shown = await section("chips")
    await shown.press("Select me")
    await shown.hears("select", "select", "true", "True")
    await shown.press("Click me")
    await shown.hears("click", "click")
    await shown.press("Delete me")
    await shown.hears("delete", "delete")


async def test_segmented_buttons(section: Open) -> None:
    shown = await section("chips")
    await shown.click("Segment 3")
    await shown.hears("segments", "change", '["1","3"]')
    await shown.press("Apple 2")
    await shown.hears("apple", "change", "2", "2")
    await shown.press("Sliding 1")
    await shown.hears("sliding", "change", "1", "1")


async def test_search_bar(section: Open) -> None:
    shown = await section("search")
    await shown.press("Open view")
    await shown.shows("Choice 1")
    await shown.page.locator("input:focus").wait_for(state="attached")
    await shown.page.keyboard.type("cho")
    await shown.hears("Bar", "change", "cho", "cho")
    await shown.click("Choice 1")
    await shown.hears("Choice", "click", "", "cho")
    await shown.hides("Choice 1")


async def test_search_bar_submits(section: Open) -> None:
    shown = await section("search")
    await shown.click("Search")
    await shown.hears("Bar", "tap")
    await shown.page.locator("input:focus").wait_for(state="attached")
    await shown.page.keyboard.type("word")
    await shown.page.keyboard.press("Enter")
    await shown.hears("Bar", "submit", "word", "word")


async def test_autocomplete(section: Open) -> None:
    shown = await section("search")
    await shown.type(shown.page.locator("flt-semantics input").last, "fruit B")
    await shown.click("Banana")
    await shown.hears("Auto", "select", '{"key":"fruit Banana","value":"Banana"}', "1")


# --- pickers ---------------------------------------------------------------------------------------------------------


async def test_date_picker(section: Open) -> None:
    shown = await section("material_pickers")
    await shown.press("Pick date")
    await shown.click("20, Monday, May 20, 2024")
    await shown.press("OK")
    await shown.hears("Date", "change", "2024-05-20T00:00:00.000", "2024-05-20 00:00:00")
    await shown.press("Pick date")
    await shown.press("Cancel")
    await shown.hears("Date", "dismiss", "2024-05-20T00:00:00.000", "False")


async def test_time_picker(section: Open) -> None:
    shown = await section("material_pickers")
    await shown.press("Pick time")
    await shown.click("PM")
    await shown.press("OK")
    await shown.hears("Time", "change", "22:30", "22:30:00")
    await shown.press("Pick time")
    await shown.press("Cancel")
    await shown.hears("Time", "dismiss", "22:30", "False")


async def test_cupertino_pickers(section: Open) -> None:
    shown = await section("cupertino_pickers")
    for number, height in ((1, 32), (3, 32), (6, 40)):
        await shown.hover(shown.slider(number))
        await shown.page.mouse.wheel(0, height)
    await shown.hears("Date", "change", "2024-05-16T00:00:00.000", "2024-05-16 00:00:00")
    await shown.hears("Timer", "change", "7200", "7200")
    await shown.hears("Item", "change", "1", "1")


# --- where one goes --------------------------------------------------------------------------------------------------


async def test_tabs(section: Open) -> None:
    shown = await section("tabs")
    await shown.click(shown.page.get_by_text("Tab B"))
    await shown.hears("Tabs", "change", "1", "1")
    await shown.click(shown.page.get_by_text("Tab B"))
    await shown.hears("Tabs", "click", "1", "1")
    await shown.shows("Content B")


async def test_navigation_bar_and_rail(section: Open) -> None:
    shown = await section("navigation")
    for label in ("Bar", "Rail"):
        await shown.click(shown.page.get_by_text(f"{label} 2"))
        await shown.hears(label, "change", "2", "2")


async def test_cupertino_navigation_bar(section: Open) -> None:
    shown = await section("apple_navigation")
    await shown.click(shown.page.get_by_text("Apple 2"))
    await shown.hears("Apple", "change", "2", "2")


@pytest.mark.parametrize(("label", "outside"), [("Start", 0.9), ("End", 0.1)])
async def test_drawers(section: Open, label: str, outside: float) -> None:
    shown = await section("drawers")
    await shown.press(f"Open {label.lower()}")
    await shown.click(shown.page.get_by_text(f"{label} 2"))
    await shown.hears(label, "change", "2", "2")
    await shown.page.mouse.click(1000 * outside, 700)
    await shown.hears(label, "dismiss", "", "False")


async def test_routes_and_back(section: Open) -> None:
    shown = await section("routes")
    await shown.press("Go")
    await shown.hears("Route", "route_change", "/routes/shop?item=1", "/routes/shop?item=1")
    await shown.shows("At shop?item=1")
    assert shown.page.url == f"{shown.server.url}/routes/shop?item=1"
    await shown.page.go_back()
    await shown.hears("Route", "route_change", "/routes", "/routes")
    await shown.hides("At shop?item=1")
    await shown.page.go_forward()
    await shown.shows("At shop?item=1")
    await shown.press("Back")
    await shown.hears("Pop", "view_pop", "/routes/shop?item=1")
    await shown.shows("At home")


async def test_popup_menu(section: Open) -> None:
    shown = await section("menus")
    await shown.press("Show menu")
    await shown.hears("Menu", "open")
    await shown.click("Popup 1")
    await shown.hears("Item", "click")
    await shown.press("Show menu")
    await shown.shows("Popup 1")
    await shown.page.mouse.click(900, 700)
    await shown.hears("Menu", "cancel")


async def test_menu_bar(section: Open) -> None:
    shown = await section("menus")
    await shown.click("Branch")
    await shown.hears("Sub", "open")
    await shown.hears_when(partial(shown.hover, "Leaf"), "Leaf", "hover", "true")
    await shown.click("Leaf")
    await shown.hears("Leaf", "click")
    await shown.hears("Sub", "close")


# --- what opens and closes -------------------------------------------------------------------------------------------


async def test_alert_dialog_dismissed_by_the_user(section: Open) -> None:
    shown = await section("dialogs")
    await shown.press("Open alert")
    await shown.shows("Close alert")
    await shown.page.mouse.click(20, 780)
    await shown.hears("Alert", "dismiss", "", "False")


@pytest.mark.parametrize(
    ("opener", "closer", "label"), [("alert", "Close alert", "Alert"), ("apple", "Apple action", "Apple")]
)
async def test_dialog_closed_by_the_app(section: Open, opener: str, closer: str, label: str) -> None:
    shown = await section("dialogs")
    await shown.press(f"Open {opener}")
    await shown.press(closer)
    await shown.hears(label, "dismiss", "", "False")
    await shown.hides(closer)


@pytest.mark.parametrize("key", ["Escape", "Enter"], ids=["by the user", "by the app"])
async def test_field_in_a_dialog_says_that_it_lost_the_focus(section: Open, key: str) -> None:
    shown = await section("dialog_fields")
    await shown.press("Ask")
    await shown.hears("Inside", "focus")
    await shown.page.locator("input:focus").wait_for(state="attached")
    await shown.page.keyboard.press(key)
    await shown.hears("Dialog", "dismiss", "", "False")
    await shown.hears("Inside", "blur")


async def test_bottom_sheets(section: Open) -> None:
    shown = await section("dialogs")
    await shown.press("Open sheet")
    await shown.shows("Sheet content")
    await shown.page.mouse.click(20, 100)
    await shown.hears("Sheet", "dismiss", "", "False")
    await shown.press("Open apple sheet")
    await shown.press("Act")
    await shown.hears("Act", "click")
    await shown.page.mouse.click(20, 100)
    await shown.hears("Apple sheet", "dismiss", "", "False")


async def test_snack_bar_and_banner(section: Open) -> None:
    shown = await section("dialogs")
    await shown.press("Open snack")
    await shown.hears("Snack", "visible")
    await shown.press("Undo")
    await shown.hears("Snack", "action", "", "False")
    await shown.press("Open banner")
    await shown.hears("Banner", "visible")
    await shown.press("Close banner")
    await shown.hides("Banner content")


async def test_expansion(section: Open) -> None:
    shown = await section("expansion")
    await shown.click(shown.page.locator('flt-semantics[aria-label="Expand"]').nth(1))
    await shown.hears("Panels", "change", "1", "[False, True]")
    await shown.click("Tile")
    await shown.hears("Tile", "change", "true")


# --- pointers and keys -----------------------------------------------------------------------------------------------

BUTTONS = ["Elevated", "Outlined", "Texty", "Filled", "Tonal", "Iconic", "Floating", "Cupertino", "Cup filled"]


async def test_buttons(section: Open) -> None:
    shown = await section("buttons")
    for label in [*BUTTONS, "List tile", "Cup tile", "Span", "Box", "Add"]:
        await shown.click(label)
        await shown.hears(label, "click")
    await shown.click("Link")
    await shown.hears("Link", "tap_link", "https://example.test/")


async def test_buttons_hover_hold_and_focus(section: Open) -> None:
    shown = await section("buttons")
    for label in ("Elevated", "Outlined", "Texty", "Filled", "Tonal", "Box"):
        await shown.hears_when(partial(shown.hover, label), label, "hover", "true")
        await shown.hears_while_held(label, label, "long_press")
    await shown.hears("Elevated", "hover", "false")
    await shown.page.keyboard.press("Tab")
    await shown.hears("Elevated", "focus")
    await shown.page.keyboard.press("Tab")
    await shown.hears("Elevated", "blur")
    await shown.hears_when(partial(shown.hover, "Span"), "Span", "enter")
    await shown.hears_when(partial(shown.hover, "Box"), "Span", "exit")
    await shown.hears("Box", "tap_down")


async def test_gestures_of_a_click(section: Open) -> None:
    shown = await section("gestures")
    await shown.click("Area taps")
    await shown.click("Area taps", button="right")
    await shown.page.mouse.wheel(0, 50)
    await shown.hover("Area viewer")
    for name in ("enter", "hover", "tap_down", "tap_up", "tap", "scroll", "exit"):
        await shown.hears("taps", name)
    for name in ("secondary_tap_down", "secondary_tap_up", "secondary_tap"):
        await shown.hears("taps", name)


async def test_gestures_that_take_longer(section: Open) -> None:
    shown = await section("gestures")
    await shown.hears_when(partial(shown.double_tap, "Area double"), "double", "double_tap")
    await shown.hears("double", "double_tap_down")
    await shown.hears_while_held("Area long", "long", "long_press_start")
    await shown.hears("long", "long_press_end")
    await shown.hears_while_held("Area long", "long", "secondary_long_press_start", button="right")
    await shown.hears("long", "secondary_long_press_end")


async def test_gestures_that_drag(section: Open) -> None:
    shown = await section("gestures")
    names = {"pan": "pan", "horizontal": "horizontal_drag", "vertical": "vertical_drag", "scale": "scale"}
    for label, name in names.items():
        x, y = await shown.place(f"Area {label}", 0.3)
        await shown.hears_when(partial(shown.drag, (x, y), (x + 60, y + 60)), label, f"{name}_update")
        for part in ("start", "end"):
            await shown.hears(label, f"{name}_{part}")
    x, y = await shown.place("Area viewer", 0.3)
    await shown.hears_when(partial(shown.drag, (x, y), (x + 60, y + 20)), "viewer", "interaction_update")
    for part in ("start", "end"):
        await shown.hears("viewer", f"interaction_{part}")


async def test_drag_and_drop(section: Open) -> None:
    shown = await section("dragging")
    await shown.drag(await shown.place("Apple"), await shown.place("Basket"))
    await shown.hears("Drag", "dragStart")
    await shown.hears("Target", "will_accept", "true", "fruit")
    await shown.hears("Target", "move")
    await shown.hears("Target", "accept", "apple", "Apple")
    await shown.hears("Drag", "dragComplete")


async def test_drag_and_drop_of_what_does_not_belong(section: Open) -> None:
    shown = await section("dragging")
    await shown.drag(await shown.place("Pebble"), await shown.place("Basket"))
    await shown.hears("Target", "will_accept", "false", "fruit")


async def test_drag_across(section: Open) -> None:
    shown = await section("dragging")
    x, y = await shown.place("Basket")
    across = partial(shown.drag, await shown.place("Apple"), (x, y + 250), steps=40)
    await shown.hears_when(across, "Target", "leave")


async def test_dismissible(section: Open) -> None:
    shown = await section("dismissible")
    for label in ("Plain", "Confirmed"):
        x, y = await shown.place(label, 0.2, 0.5)
        await shown.drag((x, y), (x + 700, y))
        await shown.hears(label, "update")
        await shown.hears(label, "dismiss")
    await shown.hears("Swipe", "confirm_dismiss")


async def test_scroll_events(section: Open) -> None:
    shown = await section("scrolling")
    for label in ("Column", "List", "Grid"):
        await shown.hover(f"{label} 1")
        await shown.page.mouse.wheel(0, 60)
        await shown.hears(label, "onScroll")
    await shown.hover("Row 1")
    await shown.page.mouse.wheel(60, 0)
    await shown.hears("Row", "onScroll")
    await shown.page.mouse.move(700, 700)
    await shown.page.mouse.wheel(0, 100)
    await shown.hears("View", "onScroll")


async def test_scroll_to_is_taken_up(section: Open) -> None:
    shown = await section("scrolling")
    await shown.press("Jump")
    await shown.hears("Column", "onScroll")
    await shown.press("Scrolled")
    await shown.hears("Method", "", "", "")
    await shown.press("Jump")


async def test_keyboard_events(section: Open) -> None:
    shown = await section("keys")
    await shown.shows("Type")
    for press, note in (("a", ("A", "", "")), ("Control+Shift+k", ("K", "ctrl", "shift")), ("F2", ("F2", "", ""))):
        await shown.page.keyboard.press(press)
        await shown.hears("Key", *note)


# --- the page --------------------------------------------------------------------------------------------------------


async def test_window_resize(section: Open) -> None:
    shown = await section("window")
    await shown.shows("Window 1000")
    await shown.page.set_viewport_size({"width": 640, "height": 500})
    await shown.hears("Resized", "resized", "640", "640")


async def test_brightness_and_visibility(section: Open) -> None:
    shown = await section("window")
    await shown.shows("Window 1000")
    await shown.page.emulate_media(color_scheme="dark")
    await shown.hears("Light", "platformBrightnessChange", "dark", "dark")
    await shown.page.evaluate("window.dispatchEvent(new Event('blur'))")
    await shown.hears("Life", "app_lifecycle_state_change", "inactive")
    await shown.page.evaluate("window.dispatchEvent(new Event('focus'))")
    await shown.hears("Life", "app_lifecycle_state_change", "resume")


async def test_canvas_resize(section: Open) -> None:
    shown = await section("canvas")
    await shown.hears("Canvas", "resize", "0", "780")
    await shown.page.set_viewport_size({"width": 640, "height": 500})
    await shown.hears("Canvas", "resize", "0", "480")


async def test_table(section: Open) -> None:
    shown = await section("tables")
    await shown.click("Count")
    await shown.hears("Sort", "sort", '{"i":1,"a":true}')
    await shown.click("a")
    await shown.hears("Row", "select_changed", "true")
    await shown.click(shown.page.get_by_role("checkbox").first)
    await shown.hears("All", "select_all", "true")
    await shown.hears_when(partial(shown.double_tap, "Tap cell"), "Cell", "double_tap")
    await shown.hears_while_held("Tap cell", "Cell", "long_press")
    await shown.hears_while_held("Hold row", "Row", "long_press")


async def test_client_storage(section: Open) -> None:
    shown = await section("storage")
    await shown.press("Store")
    await shown.hears("Storage", "{'deep': [1, 'zwei']}", "True")
    await shown.hears("Keys", "['e2e.name']", "True")
    await shown.press("Store in thread")
    await shown.hears("Thread", "value")
    await shown.press("Launch")
    await shown.hears("Can launch", "True")


async def test_clipboard(section: Open) -> None:
    shown = await section("storage")
    await shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await shown.press("Clip")
    await shown.hears("Clipboard", "clipped text")


async def test_charts(section: Open) -> None:
    shown = await section("charts")
    for x, y, label in ((200, 100, "Line"), (210, 280, "Bar"), (430, 480, "Pie")):
        await shown.hears_when(partial(shown.move_about, x, y), label, "chart_event")


async def test_animation_ends_and_images_fail(section: Open) -> None:
    shown = await section("consequences")
    await shown.hears("Image", "imageError")
    await shown.press("Grow")
    await shown.hears("Grown", "animation_end")


async def test_field_that_is_locked_or_removed_while_it_has_the_focus(section: Open) -> None:
    shown = await section("consequences")
    await shown.press("Focus")
    await shown.page.locator("input:focus").wait_for()
    await shown.page.keyboard.type("x")
    await shown.hears("Blurred", "change", "x", "x")
    await shown.press("Lock")
    await shown.hears("Blurred", "blur", "", "x")
    await shown.press("Remove")
    await shown.hides("Locked soon")


async def test_context_menu(section: Open) -> None:
    shown = await section("wrappers")
    await shown.shows("Said Spoken")

    async def choose() -> None:
        await shown.hover("Context")
        await shown.page.mouse.down()
        await shown.shows("Context Context action")
        await shown.page.mouse.up()
        await shown.settles()
        await shown.page.mouse.click(600, 20)  # the menu, which has no element of its own

    await shown.hears_when(choose, "Context", "click")


async def test_selection(section: Open) -> None:
    shown = await section("wrappers")
    start, end = [await shown.place("Select these words", x) for x in (0.01, 0.99)]
    await shown.hears_when(partial(shown.drag, start, end), "Selection", "change", "Select these words")
