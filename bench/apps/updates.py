"""One handler that updates one property 2,000 times."""

import flet_core as ft

UPDATES = 2000


async def main(page: ft.Page) -> None:
    text = ft.Text("idle")
    version = 0

    async def run(event: ft.ControlEvent) -> None:
        nonlocal version
        version += 1
        for number in range(UPDATES):
            text.value = f"v{version} {number}"
            text.update()

    page.add(text, ft.IconButton(ft.icons.ADD, on_click=run))
