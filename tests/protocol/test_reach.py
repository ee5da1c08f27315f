"""What a page offers changes with what is open, read-only or newly made."""

from __future__ import annotations

from typing import Any

import flet as ft
import pytest

from tests.support.serving import serving


class Lazy(ft.Column):
    """A control whose children are made when it is first updated."""

    def before_update(self) -> None:
        super().before_update()
        if self.data == "full":
            self.controls = [ft.Text("made late")]


async def test_children_that_before_update_makes_are_sent() -> None:
    async def main(page: ft.Page) -> None:
        lazy = Lazy()

        async def clicked(event: Any) -> None:
            lazy.data = "full"
            lazy.update()

        page.add(lazy, ft.ElevatedButton("go", on_click=clicked))

    async with serving(main) as served:
        client = await served.visit()
        await client.wait_for_control("elevatedbutton")
        await client.click(client.one("elevatedbutton")["i"])
        await client.wait_for_control("text", value="made late")


def dialogs(clicks: list[str]) -> Any:
    async def main(page: ft.Page) -> None:
        async def clicked(event: Any) -> None:
            clicks.append(event.control.text)

        async def shown(event: Any) -> None:
            page.open(dialog)

        dialog = ft.AlertDialog(content=ft.OutlinedButton("inside", on_click=clicked))
        page.overlay.append(dialog)
        page.add(ft.ElevatedButton("show", on_click=shown))

    return main


async def test_a_button_in_a_dialog_works_only_while_the_dialog_is_open() -> None:
    clicks: list[str] = []
    async with serving(dialogs(clicks)) as served:
        client = await served.visit()
        inside = (await client.wait_for_control("outlinedbutton"))["i"]
        await client.click(inside)
        await served.until(lambda: served.counted("flet_refused_total", kind="event_invisible") == 1)
        await client.click(client.one("elevatedbutton")["i"])
        await client.wait_for_control("alertdialog", open="true")
        await client.click(inside)
        await served.until(lambda: clicks == ["inside"])


def field_in_dialog(heard: list[str], *, hidden: bool = False) -> Any:
    """A dialog with a field that hears everything, and two buttons: one shows it, one closes it again."""

    async def main(page: ft.Page) -> None:
        async def hear(event: Any) -> None:
            heard.append(event.name)

        async def show(event: Any) -> None:
            page.open(dialog)

        async def close(event: Any) -> None:
            page.close(dialog)

        field = ft.TextField(value="mine", on_blur=hear, on_focus=hear, on_change=hear, on_submit=hear)
        dialog = ft.AlertDialog(content=ft.Column([field], visible=not hidden), on_dismiss=hear)
        page.overlay.append(dialog)
        page.add(ft.ElevatedButton("show", on_click=show), ft.FilledButton("close", on_click=close))

    return main


async def left_dialog(served: Any, closed_by: str) -> tuple[Any, str]:
    """A client that had the dialog open until just now, and the id of the field in it."""
    client = await served.visit()
    field = (await client.wait_for_control("textfield"))["i"]
    await client.click(client.one("elevatedbutton", text="show")["i"])
    dialog = await client.wait_for_control("alertdialog", open="true")
    if closed_by == "client":
        await client.update(dialog["i"], open="false")
    else:
        await client.click(client.one("elevatedbutton", text="close")["i"])
        await client.wait_for_control("alertdialog", open="false")
    await client.event(dialog["i"], "dismiss")
    return client, field


@pytest.mark.parametrize("closed_by", ["client", "app"])
async def test_what_follows_the_closing_of_a_dialog_is_heard(closed_by: str) -> None:
    heard: list[str] = []
    async with serving(field_in_dialog(heard)) as served:
        client, field = await left_dialog(served, closed_by)
        await client.event(field, "blur")
        await served.until(lambda: heard == ["dismiss", "blur"])


@pytest.mark.parametrize("event", ["focus", "change", "submit"])
async def test_input_into_a_dialog_that_was_closed_is_refused(event: str) -> None:
    heard: list[str] = []
    async with serving(field_in_dialog(heard)) as served:
        client, field = await left_dialog(served, "client")
        await client.update(field, value="forged")
        await client.event(field, event, "forged")
        await served.until(lambda: served.counted("flet_refused_total", kind="event_invisible") == 1)
        assert served.counted("flet_refused_total", kind="update_invisible") == 1
        assert served.session.page.argument.get_control(field).value == "mine"
        assert heard == ["dismiss"]


async def test_nothing_follows_the_closing_of_a_dialog_that_was_never_open() -> None:
    heard: list[str] = []
    async with serving(field_in_dialog(heard)) as served:
        client = await served.visit()
        field = (await client.wait_for_control("textfield"))["i"]
        await client.update(client.one("alertdialog")["i"], open="false")
        await client.event(field, "blur")
        await served.until(lambda: served.counted("flet_refused_total", kind="event_invisible") == 1)
        assert not heard


async def test_what_the_app_has_hidden_in_a_dialog_stays_silent() -> None:
    heard: list[str] = []
    async with serving(field_in_dialog(heard, hidden=True)) as served:
        client, field = await left_dialog(served, "client")
        await client.event(field, "blur")
        await served.until(lambda: served.counted("flet_refused_total", kind="event_invisible") == 1)
        assert heard == ["dismiss"]


async def test_dialogs_that_were_open_are_remembered_up_to_a_bound() -> None:
    heard: list[str] = []
    async with serving(field_in_dialog(heard)) as served:
        client = await served.visit()
        field = (await client.wait_for_control("textfield"))["i"]
        page = served.session.page.argument
        first = client.one("alertdialog")["i"]
        for dialog in [page.get_control(first), *(ft.AlertDialog(title=ft.Text("")) for _ in range(100))]:
            page.open(dialog)
            page.close(dialog)
        await client.event(field, "blur")
        await served.until(lambda: served.counted("flet_refused_total", kind="event_invisible") == 1)
        page.open(page.get_control(first))
        page.close(page.get_control(first))
        await client.event(field, "blur")
        await served.until(lambda: heard == ["blur"])


async def test_a_read_only_field_takes_no_value() -> None:
    async def main(page: ft.Page) -> None:
        page.add(ft.TextField(value="mine", read_only=True, on_change=lambda event: None))

    async with serving(main) as served:
        client = await served.visit()
        field = (await client.wait_for_control("textfield"))["i"]
        await client.update(field, value="forged")
        await client.event(field, "change", "forged")
        await served.until(lambda: served.counted("flet_refused_total", kind="event_read_only") == 1)
        assert served.counted("flet_refused_total", kind="update_read_only") == 1
        assert served.session.page.argument.get_control(field).value == "mine"


async def test_run_task_takes_no_plain_function() -> None:
    failures: list[str] = []

    async def main(page: ft.Page) -> None:
        with pytest.raises(TypeError, match="run_thread") as failure:
            page.run_task(print)  # type: ignore[arg-type]
        failures.append(str(failure.value))

    async with serving(main) as served:
        await served.visit()
        await served.until(lambda: len(failures) == 1)
