"""A page of 2,000 controls. The button changes all of them; a click on the first text changes one."""

import flet_core as ft

ROWS = 2000


async def main(page: ft.Page) -> None:
    rows = [ft.Text(f"row {number}") for number in range(ROWS)]
    version = 0

    async def change_all(event: ft.ControlEvent) -> None:
        nonlocal version
        version += 1
        for number, row in enumerate(rows):
            row.value = f"v{version} {number}"
        page.update()

    async def change_one(event: ft.ControlEvent) -> None:
        nonlocal version
        version += 1
        rows[-1].value = f"v{version} one"
        page.update()

    page.add(
        ft.IconButton(ft.icons.ADD, on_click=change_all),
        ft.OutlinedButton("one", on_click=change_one),
        ft.Column(rows),
    )
