"""The counter: one click, one property of one control."""

import flet_core as ft


async def main(page: ft.Page) -> None:
    counter = ft.Text("0", size=50, data=0)

    async def add_click(event: ft.ControlEvent) -> None:
        counter.data += 1
        counter.value = str(counter.data)
        counter.update()

    page.add(
        ft.IconButton(ft.icons.ADD, on_click=add_click),
        ft.Container(counter, alignment=ft.alignment.center, expand=True),
    )
