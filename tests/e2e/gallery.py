"""Flet's controls, a section per route, and what they tell the server: at `/heard/SECTION`, with the metrics' refusals.

Every handler notes the name and data of its event and one value of its control, as the app sees it at that moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import flet as ft
import flet.canvas as cv
from prometheus_client import REGISTRY

import flet_fastapi

Handler = Callable[[ft.ControlEvent], None]
_heard: defaultdict[str, list[list[Any]]] = defaultdict(list)
_sections: dict[str, Callable[[ft.Page, Ear], None]] = {}


class Ear:
    """Notes what a section's controls say."""

    def __init__(self, section: str) -> None:
        self._notes = _heard[section]
        self._notes.clear()

    def __call__(self, label: str, attribute: str = "value") -> Handler:
        def note(event: ft.ControlEvent) -> None:
            self.note(label, event.name, event.data, getattr(event.control, attribute, None))

        return note

    def note(self, *what: Any) -> None:
        self._notes.append([str(part) if part is not None else None for part in what])


def section(build: Callable[[ft.Page, Ear], None]) -> Callable[[ft.Page, Ear], None]:
    _sections[build.__name__] = build
    return build


def main(page: ft.Page) -> None:
    name = page.route.strip("/").split("/")[0]
    page.title = name
    _sections[name](page, Ear(name))


# --- what is entered -------------------------------------------------------------------------------------------------


@section
def text_fields(page: ft.Page, ear: Ear) -> None:
    ears = {"on_change": ear("Name"), "on_submit": ear("Name"), "on_focus": ear("Name"), "on_blur": ear("Name")}
    page.add(
        ft.TextField(label="Name", **ears),
        ft.TextField(label="Story", multiline=True, on_change=ear("Story")),
        ft.TextField(label="Secret", password=True, can_reveal_password=True, on_change=ear("Secret")),
        ft.TextField(label="Digits", input_filter=ft.NumbersOnlyInputFilter(), on_change=ear("Digits")),
        ft.CupertinoTextField(placeholder_text="Apple", on_change=ear("Apple"), on_submit=ear("Apple")),
    )


@section
def dropdowns(page: ft.Page, ear: Ear) -> None:
    options = [ft.dropdown.Option("red", "Red"), ft.dropdown.Option("green", "Green")]
    hear = ear("Color")
    page.add(ft.Dropdown(label="Color", options=options, on_change=hear, on_focus=hear, on_blur=hear, on_click=hear))


@section
def sliders(page: ft.Page, ear: Ear) -> None:
    def ears(label: str) -> dict[str, Handler]:
        return {f"on_{name}": ear(label) for name in ("change", "change_start", "change_end")}

    hear_range = ear("Range", "end_value")
    page.add(
        ft.Slider(min=0, max=10, divisions=10, label="{value}", **ears("Slider")),
        ft.RangeSlider(
            min=0, max=10, start_value=2, end_value=4, divisions=10,
            on_change=hear_range, on_change_start=hear_range, on_change_end=hear_range,
        ),
        ft.CupertinoSlider(min=0, max=10, divisions=10, **ears("Cupertino")),
    )  # fmt: skip


@section
def switches(page: ft.Page, ear: Ear) -> None:
    def ears(label: str) -> dict[str, Any]:
        return {"label": label, "on_change": ear(label), "on_focus": ear(label), "on_blur": ear(label)}

    page.add(
        ft.Checkbox(**ears("Check")),
        ft.Checkbox(tristate=True, value=False, **ears("Tristate")),
        ft.CupertinoCheckbox(**ears("Apple check")),
        ft.Switch(**ears("Switch")),
        ft.CupertinoSwitch(**ears("Apple switch")),
    )


@section
def radios(page: ft.Page, ear: Ear) -> None:
    group = ft.Column(
        [
            ft.Radio(value="a", label="Letter a", on_focus=ear("focus")),
            ft.Radio(value="b", label="Letter b"),
            ft.CupertinoRadio(value="c", label="Letter c"),
        ]
    )
    page.add(ft.RadioGroup(group, on_change=ear("Letters")))


@section
def chips(page: ft.Page, ear: Ear) -> None:
    segments = [ft.Segment(value, label=ft.Text(f"Segment {value}")) for value in "123"]
    page.add(
        ft.Chip(ft.Text("Select me"), on_select=ear("select", "selected")),
        ft.Chip(ft.Text("Click me"), on_click=ear("click"), on_delete=ear("delete"), delete_icon_tooltip="Delete me"),
        ft.SegmentedButton(
            segments, selected={"1"}, allow_multiple_selection=True, on_change=ear("segments", "selected")
        ),
        ft.CupertinoSegmentedButton(
            [ft.Text(f"Apple {n}") for n in range(3)], selected_index=0, on_change=ear("apple", "selected_index")
        ),
        ft.CupertinoSlidingSegmentedButton(
            [ft.Text(f"Sliding {n}") for n in range(3)], selected_index=0, on_change=ear("sliding", "selected_index")
        ),
    )


@section
def search(page: ft.Page, ear: Ear) -> None:
    ears = {"on_tap": ear("Bar"), "on_change": ear("Bar"), "on_submit": ear("Bar")}
    bar = ft.SearchBar(bar_hint_text="Search", view_hint_text="Type here", controls=[], **ears)

    def chosen(event: ft.ControlEvent) -> None:
        ear.note("Choice", event.name, event.data, bar.value)
        bar.close_view("chosen")

    bar.controls = [ft.ListTile(title=ft.Text(f"Choice {n}"), on_click=chosen) for n in range(2)]
    suggestions = [ft.AutoCompleteSuggestion(key=f"fruit {f}", value=f) for f in ("Apple", "Banana", "Cherry")]
    page.add(
        bar,
        ft.ElevatedButton("Open view", on_click=lambda _: bar.open_view()),
        ft.AutoComplete(suggestions, on_select=ear("Auto", "selected_index")),
    )


# --- pickers ---------------------------------------------------------------------------------------------------------


@section
def material_pickers(page: ft.Page, ear: Ear) -> None:
    import datetime as dt

    date = ft.DatePicker(
        value=dt.datetime(2024, 5, 15), first_date=dt.datetime(2024, 1, 1), last_date=dt.datetime(2024, 12, 31),
        on_change=ear("Date"), on_dismiss=ear("Date", "open"),
    )  # fmt: skip
    time = ft.TimePicker(value=dt.time(10, 30), on_change=ear("Time"), on_dismiss=ear("Time", "open"))
    page.add(
        ft.ElevatedButton("Pick date", on_click=lambda _: page.open(date)),
        ft.ElevatedButton("Pick time", on_click=lambda _: page.open(time)),
    )


@section
def cupertino_pickers(page: ft.Page, ear: Ear) -> None:
    import datetime as dt

    page.add(
        ft.Container(
            ft.CupertinoDatePicker(
                value=dt.datetime(2024, 5, 15, 10, 30), on_change=ear("Date"),
                date_picker_mode=ft.CupertinoDatePickerMode.DATE,
            ), height=180,
        ),
        ft.Container(ft.CupertinoTimerPicker(value=3600, on_change=ear("Timer")), height=180),
        ft.Container(
            ft.CupertinoPicker(
                [ft.Text(f"Item {n}") for n in range(5)], selected_index=0, item_extent=40,
                on_change=ear("Item", "selected_index"),
            ), height=180,
        ),
    )  # fmt: skip


# --- where one goes --------------------------------------------------------------------------------------------------


@section
def tabs(page: ft.Page, ear: Ear) -> None:
    hear = ear("Tabs", "selected_index")
    parts = [ft.Tab(text=f"Tab {n}", content=ft.Text(f"Content {n}")) for n in "ABC"]
    page.add(ft.Tabs(parts, on_change=hear, on_click=hear, height=200))


@section
def navigation(page: ft.Page, ear: Ear) -> None:
    def destinations(kind: Any, label: str) -> list[Any]:
        return [kind(icon=ft.icons.HOME, label=f"{label} {n}") for n in range(3)]

    page.navigation_bar = ft.NavigationBar(
        destinations(ft.NavigationBarDestination, "Bar"), on_change=ear("Bar", "selected_index")
    )
    rail = ft.NavigationRail(
        destinations(ft.NavigationRailDestination, "Rail"), label_type=ft.NavigationRailLabelType.ALL,
        selected_index=0, on_change=ear("Rail", "selected_index"), height=300,
    )  # fmt: skip
    page.add(rail)


@section
def apple_navigation(page: ft.Page, ear: Ear) -> None:
    destinations = [ft.NavigationBarDestination(icon=ft.icons.HOME, label=f"Apple {n}") for n in range(3)]
    page.navigation_bar = ft.CupertinoNavigationBar(destinations, on_change=ear("Apple", "selected_index"))
    page.update()


@section
def drawers(page: ft.Page, ear: Ear) -> None:
    def drawer(label: str) -> ft.NavigationDrawer:
        parts = [ft.NavigationDrawerDestination(label=f"{label} {n}", icon=ft.icons.HOME) for n in range(3)]
        return ft.NavigationDrawer(parts, on_change=ear(label, "selected_index"), on_dismiss=ear(label, "open"))

    start, end = drawer("Start"), drawer("End")
    page.drawer, page.end_drawer = start, end
    page.add(
        ft.ElevatedButton("Open start", on_click=lambda _: page.open(start)),
        ft.ElevatedButton("Open end", on_click=lambda _: page.open(end)),
    )


@section
def routes(page: ft.Page, ear: Ear) -> None:
    def show(event: ft.RouteChangeEvent) -> None:
        ear.note("Route", event.name, event.data, page.route)
        place = page.route.removeprefix("/routes").strip("/")
        page.views[:] = page.views[:1]
        if place:
            page.views.append(ft.View(page.route, [ft.AppBar(title=ft.Text("Sub")), ft.Text(f"At {place}")]))
        page.update()

    def back(event: ft.ViewPopEvent) -> None:
        ear.note("Pop", event.name, page.views[-1].route)
        page.views.pop()
        page.go(page.views[-1].route or "/routes")

    page.on_route_change, page.on_view_pop = show, back
    page.views[0].route = "/routes"
    page.add(ft.Text("At home"), ft.ElevatedButton("Go", on_click=lambda _: page.go("/routes/shop", item="1")))


@section
def menus(page: ft.Page, ear: Ear) -> None:
    items = [ft.PopupMenuItem(text=f"Popup {n}", on_click=ear("Item")) for n in range(2)]
    checked = ft.PopupMenuItem(text="Checked", checked=False, on_click=ear("Checked"))
    popup = ft.PopupMenuButton(
        items=[*items, ft.PopupMenuItem(), checked], tooltip="Menu", on_open=ear("Menu"), on_cancel=ear("Menu"),
        on_cancelled=ear("Menu"),
    )  # fmt: skip
    hear = ear("Sub")
    leaf = ft.MenuItemButton(ft.Text("Leaf"), on_click=ear("Leaf"), on_hover=ear("Leaf"), on_focus=ear("Leaf"))
    branch = ft.SubmenuButton(ft.Text("Branch"), [leaf], on_open=hear, on_close=hear, on_hover=hear)
    page.add(popup, ft.MenuBar([branch]))


# --- what opens and closes -------------------------------------------------------------------------------------------


@section
def dialog_fields(page: ft.Page, ear: Ear) -> None:
    hear = ear("Inside")
    inside = ft.TextField(label="Inside", autofocus=True, on_focus=hear, on_blur=hear)
    dialog = ft.AlertDialog(title=ft.Text("Question"), content=inside, on_dismiss=ear("Dialog", "open"))
    inside.on_submit = lambda _: page.close(dialog)
    page.add(ft.ElevatedButton("Ask", on_click=lambda _: page.open(dialog)))


@section
def dialogs(page: ft.Page, ear: Ear) -> None:
    def closing(label: str, control: Any) -> ft.TextButton:
        return ft.TextButton(f"Close {label}", on_click=lambda _: page.close(control))

    alert = ft.AlertDialog(title=ft.Text("Alert title"), on_dismiss=ear("Alert", "open"))
    alert.actions = [closing("alert", alert)]
    apple = ft.CupertinoAlertDialog(title=ft.Text("Apple title"), on_dismiss=ear("Apple", "open"))
    apple.actions = [ft.CupertinoDialogAction("Apple action", on_click=lambda _: page.close(apple))]
    sheet = ft.BottomSheet(ft.Text("Sheet content"), on_dismiss=ear("Sheet", "open"))
    actions = [ft.CupertinoActionSheetAction("Act", on_click=ear("Act"))]
    apple_sheet = ft.CupertinoBottomSheet(
        ft.CupertinoActionSheet(title=ft.Text("Actions"), actions=actions), on_dismiss=ear("Apple sheet", "open")
    )
    snack = ft.SnackBar(
        ft.Text("Snack content"), action="Undo", on_action=ear("Snack", "open"), on_visible=ear("Snack", "open")
    )
    banner = ft.Banner(
        ft.Text("Banner content"), actions=[ft.TextButton("Banner action")], on_visible=ear("Banner", "open")
    )
    banner.actions = [closing("banner", banner)]
    opened = {"alert": alert, "apple": apple, "sheet": sheet, "apple sheet": apple_sheet, "snack": snack}
    for label, control in {**opened, "banner": banner}.items():
        page.add(ft.ElevatedButton(f"Open {label}", on_click=lambda _, control=control: page.open(control)))


@section
def expansion(page: ft.Page, ear: Ear) -> None:
    panels = [
        ft.ExpansionPanel(header=ft.ListTile(title=ft.Text(f"Panel {n}")), content=ft.Text(f"Inside {n}"))
        for n in range(2)
    ]

    def changed(event: ft.ControlEvent) -> None:
        ear.note("Panels", event.name, event.data, [panel.expanded for panel in panels])

    tile = ft.ExpansionTile(ft.Text("Tile"), controls=[ft.Text("Inside tile")], on_change=ear("Tile"))
    page.add(ft.ExpansionPanelList(panels, on_change=changed), tile)


# --- pointers and keys -----------------------------------------------------------------------------------------------


@section
def buttons(page: ft.Page, ear: Ear) -> None:
    def ears(label: str, *names: str) -> dict[str, Handler]:
        return {f"on_{name}": ear(label) for name in names}

    def all_of(label: str) -> dict[str, Handler]:
        return ears(label, "click", "hover", "long_press", "focus", "blur")

    page.add(
        ft.Row([
            ft.ElevatedButton("Elevated", **all_of("Elevated")),
            ft.OutlinedButton("Outlined", **all_of("Outlined")),
            ft.TextButton("Texty", **all_of("Texty")),
            ft.FilledButton("Filled", **ears("Filled", "click", "hover", "long_press")),
            ft.FilledTonalButton("Tonal", **ears("Tonal", "click", "hover", "long_press")),
        ]),
        ft.Row([
            ft.IconButton(ft.icons.STAR, tooltip="Iconic", **ears("Iconic", "click", "focus", "blur")),
            ft.FloatingActionButton(text="Floating", **ears("Floating", "click")),
            ft.CupertinoButton("Cupertino", **ears("Cupertino", "click")),
            ft.CupertinoFilledButton("Cup filled", **ears("Cup filled", "click")),
        ]),
        ft.ListTile(title=ft.Text("List tile"), **ears("List tile", "click", "long_press")),
        ft.CupertinoListTile(title=ft.Text("Cup tile"), **ears("Cup tile", "click")),
        ft.Text(spans=[ft.TextSpan("Span", **ears("Span", "click", "enter", "exit"))]),
        ft.Markdown("[Link](https://example.test/)", **ears("Link", "tap_link")),
        ft.Container(
            ft.Text("Box"), width=200, height=40, **ears("Box", "click", "hover", "long_press", "tap_down"),
        ),
    )  # fmt: skip
    page.floating_action_button = ft.FloatingActionButton(icon=ft.icons.ADD, tooltip="Add", **ears("Add", "click"))
    page.update()


_GESTURES = {
    "taps": "tap tap_down tap_up secondary_tap secondary_tap_down secondary_tap_up hover enter exit scroll",
    "double": "double_tap double_tap_down",
    "long": "long_press_start long_press_end secondary_long_press_start secondary_long_press_end",
    "pan": "pan_start pan_update pan_end",
    "horizontal": "horizontal_drag_start horizontal_drag_update horizontal_drag_end",
    "vertical": "vertical_drag_start vertical_drag_update vertical_drag_end",
    "scale": "scale_start scale_update scale_end",
}


@section
def gestures(page: ft.Page, ear: Ear) -> None:
    page.spacing = 4
    for label, names in _GESTURES.items():
        ears = {f"on_{name}": ear(label) for name in names.split()}
        box = ft.Container(ft.Text(f"Area {label}"), width=300, height=70, bgcolor=ft.colors.AMBER_100)
        page.add(ft.Row([ft.GestureDetector(box, drag_interval=0, hover_interval=0, **ears)]))
    hear = ear("viewer")
    picture = ft.Container(ft.Text("Area viewer"), width=300, height=70, bgcolor=ft.colors.LIME_100)
    viewer = {f"on_interaction_{part}": hear for part in ("start", "update", "end")}
    page.add(ft.Row([ft.InteractiveViewer(picture, width=300, height=70, **viewer)]))


@section
def dragging(page: ft.Page, ear: Ear) -> None:
    def box(label: str) -> ft.Container:
        return ft.Container(ft.Text(label), width=150, height=60, bgcolor=ft.colors.AMBER_100)

    def accepted(event: ft.DragTargetEvent) -> None:
        source = page.get_control(event.src_id)
        ear.note("Target", "accept", source.data, source.content.content.value)

    drag = ft.Draggable(
        group="fruit", content=box("Apple"), data="apple", on_drag_start=ear("Drag"), on_drag_complete=ear("Drag")
    )
    other = ft.Draggable(group="stone", content=box("Pebble"))
    hear = ear("Target", "group")
    target = ft.DragTarget(
        group="fruit", content=box("Basket"), on_accept=accepted, on_will_accept=hear, on_leave=hear, on_move=hear
    )
    page.add(ft.Row([drag, other], spacing=100), ft.Container(height=100), target)


@section
def dismissible(page: ft.Page, ear: Ear) -> None:
    def confirm(event: ft.DismissibleDismissEvent) -> None:
        ear.note("Swipe", event.name, event.direction, "asked")
        event.control.confirm_dismiss(True)

    def item(label: str, **more: Any) -> ft.Dismissible:
        box = ft.Container(ft.Text(label), height=60, bgcolor=ft.colors.AMBER_100)
        hear = ear(label, "visible")
        return ft.Dismissible(box, on_dismiss=hear, on_update=hear, on_resize=hear, background=ft.Container(), **more)

    page.add(item("Plain"), item("Confirmed", on_confirm_dismiss=confirm))


@section
def scrolling(page: ft.Page, ear: Ear) -> None:
    def rows(label: str) -> list[ft.Control]:
        return [ft.Text(f"{label} {n}", key=f"{label}{n}", height=40, width=150) for n in range(30)]

    column = ft.Column(rows("Column"), height=150, width=200, scroll=ft.ScrollMode.ALWAYS, on_scroll=ear("Column"))
    lists = ft.ListView(rows("List"), height=150, width=200, on_scroll=ear("List"))
    grid = ft.GridView(rows("Grid"), height=150, width=200, max_extent=100, on_scroll=ear("Grid"))
    row = ft.Row(rows("Row"), width=400, scroll=ft.ScrollMode.ALWAYS, on_scroll=ear("Row"))
    for scrollable in (column, lists, grid, row):
        scrollable.on_scroll_interval = 0

    def jump(_: ft.ControlEvent) -> None:
        column.scroll_to(offset=400, duration=0)

    page.add(ft.Row([column, lists, grid]), row, ft.ElevatedButton("Jump", on_click=jump))
    page.views[0].scroll, page.on_scroll = ft.ScrollMode.AUTO, ear("View")
    page.add(ft.ElevatedButton("Scrolled", on_click=lambda e: ear.note("Method", "", column._get_attr("method"), "")))
    page.add(ft.Container(height=800), ft.Text("Bottom"))


@section
def keys(page: ft.Page, ear: Ear) -> None:
    def pressed(event: ft.KeyboardEvent) -> None:
        ear.note("Key", event.key, "ctrl" if event.ctrl else "", "shift" if event.shift else "")

    page.on_keyboard_event = pressed
    page.add(ft.Text("Type"))


# --- the page --------------------------------------------------------------------------------------------------------


@section
def window(page: ft.Page, ear: Ear) -> None:
    page.on_resized = lambda event: ear.note("Resized", event.name, f"{event.width:.0f}", f"{page.width:.0f}")
    page.on_app_lifecycle_state_change = lambda event: ear.note("Life", event.name, event.state.value, "")
    page.on_platform_brightness_change = lambda event: ear.note("Light", event.name, event.data, _light(page))
    page.on_media_change = lambda event: ear.note("Media", event.name, event.data, page.media is not None)
    page.add(ft.Text(f"Window {page.width:.0f}"), ft.TextField(label="Field"))


def _light(page: ft.Page) -> str:
    return str(page.platform_brightness.value)


@section
def canvas(page: ft.Page, ear: Ear) -> None:
    def resized(event: cv.CanvasResizeEvent) -> None:
        ear.note("Canvas", event.name, f"{event.width:.0f}", f"{event.height:.0f}")

    shapes = [cv.Circle(50, 50, 40), cv.Line(0, 0, 90, 90), cv.Text(5, 5, "Drawn")]
    page.add(cv.Canvas(shapes, on_resize=resized, resize_interval=0, expand=True))


@section
def tables(page: ft.Page, ear: Ear) -> None:
    hear = ear("Cell")
    ears = {"on_tap": hear, "on_double_tap": hear, "on_long_press": hear, "on_tap_down": hear, "on_tap_cancel": hear}
    first = ft.DataRow([ft.DataCell(ft.Text("a")), ft.DataCell(ft.Text("1"))])
    first.on_select_changed = ear("Row", "selected")
    second = ft.DataRow([ft.DataCell(ft.Text("b")), ft.DataCell(ft.Text("Tap cell"), **ears)])
    third = ft.DataRow([ft.DataCell(ft.Text("Hold row")), ft.DataCell(ft.Text("3"))])
    third.on_long_press = ear("Row")
    columns = [
        ft.DataColumn(ft.Text("Name"), on_sort=ear("Sort")),
        ft.DataColumn(ft.Text("Count"), numeric=True, on_sort=ear("Sort")),
    ]
    page.add(
        ft.DataTable(
            columns, [first, second, third], show_checkbox_column=True, on_select_all=ear("All"), sort_column_index=0
        )
    )


@section
def storage(page: ft.Page, ear: Ear) -> None:
    async def store(_: ft.ControlEvent) -> None:
        kept = page.client_storage
        await kept.set_async("e2e.name", {"deep": [1, "zwei"]})
        ear.note("Storage", await kept.get_async("e2e.name"), await kept.contains_key_async("e2e.name"))
        ear.note("Keys", await kept.get_keys_async("e2e."), await kept.remove_async("e2e.name"))

    def store_in_thread(_: ft.ControlEvent) -> None:
        page.client_storage.set("e2e.thread", "value")
        ear.note("Thread", page.client_storage.get("e2e.thread"))

    async def clip(_: ft.ControlEvent) -> None:
        await page.set_clipboard_async("clipped text")
        ear.note("Clipboard", await page.get_clipboard_async())

    async def launch(_: ft.ControlEvent) -> None:
        ear.note("Can launch", await page.can_launch_url_async("https://example.test"))

    page.add(
        ft.ElevatedButton("Store", on_click=store),
        ft.ElevatedButton("Store in thread", on_click=store_in_thread),
        ft.ElevatedButton("Clip", on_click=clip),
        ft.ElevatedButton("Launch", on_click=launch),
    )


@section
def charts(page: ft.Page, ear: Ear) -> None:
    hear = ear("Line", "interactive")
    points = [ft.LineChartDataPoint(x, x) for x in range(5)]
    page.add(
        ft.LineChart([ft.LineChartData(points)], on_chart_event=hear, width=400, height=180),
        ft.BarChart(
            [ft.BarChartGroup(x=0, bar_rods=[ft.BarChartRod(to_y=5, width=200)])], on_chart_event=ear("Bar"),
            width=400, height=180,
        ),
        ft.PieChart([ft.PieChartSection(10), ft.PieChartSection(20)], on_chart_event=ear("Pie"), height=180),
    )  # fmt: skip


@section
def consequences(page: ft.Page, ear: Ear) -> None:
    """What follows from changes that the app makes, and controls that speak without being asked."""
    box = ft.Container(
        ft.Text("Growing"), width=100, height=50, bgcolor=ft.colors.AMBER, animate=100, on_animation_end=ear("Grown")
    )
    field = ft.TextField(label="Locked soon", on_blur=ear("Blurred"), on_change=ear("Blurred"))

    def grow(_: ft.ControlEvent) -> None:
        box.width = 300
        page.update()

    def lock(_: ft.ControlEvent) -> None:
        box.disabled = field.disabled = True
        page.update()

    def gone(_: ft.ControlEvent) -> None:
        page.remove(field)

    def focus(_: ft.ControlEvent) -> None:
        field.focus()

    page.add(box, field, ft.Row([ft.ElevatedButton("Grow", on_click=grow), ft.ElevatedButton("Focus", on_click=focus)]))
    page.add(ft.Row([ft.ElevatedButton("Lock", on_click=lock), ft.ElevatedButton("Remove", on_click=gone)]))
    page.add(ft.CircleAvatar(foreground_image_src="/missing.png", on_image_error=ear("Image")))


@section
def wrappers(page: ft.Page, ear: Ear) -> None:
    menu = [ft.CupertinoContextMenuAction(text="Context action", on_click=ear("Context"))]
    page.add(
        ft.SelectionArea(ft.Text("Select these words"), on_change=ear("Selection")),
        ft.CupertinoContextMenu(ft.Container(ft.Text("Context"), width=100, height=40), menu),
        # the client shows nothing without `container`
        ft.Semantics(ft.Text("Spoken"), label="Said", container=True),
    )


app = flet_fastapi.FastAPI()


@app.get("/heard/{section}")
async def heard(section: str) -> list[list[Any]]:
    """What the section's controls have said since its page was loaded last."""
    return _heard[section]


@app.get("/refused")
async def refused() -> dict[str, float]:
    """How often the checks of the library refused something, by kind."""
    samples = [sample for metric in REGISTRY.collect() if metric.name == "flet_refused" for sample in metric.samples]
    return {s.labels["kind"]: s.value for s in samples if s.name == "flet_refused_total" and s.value}


flet_fastapi.app(main, fastapi_app=app)
