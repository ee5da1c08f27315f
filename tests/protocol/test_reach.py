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
