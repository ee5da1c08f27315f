"""An app to visit: it counts, says which process it is in, and takes an upload."""

import os

import flet as ft

import flet_fastapi


async def main(page: ft.Page) -> None:
    count = ft.Text("0", data=0, key="count")
    link = ft.Text("", key="link")

    async def add(_: ft.ControlEvent) -> None:
        count.data += 1
        count.value = str(count.data)
        await page.update_async()

    async def upload(_: ft.ControlEvent) -> None:
        link.value = page.get_upload_url("big.bin", 600)
        await page.update_async()

    await page.add_async(
        count,
        ft.Text(str(os.getpid()), key="pid"),
        ft.Text(str(page.client_ip), key="client"),
        ft.ElevatedButton("Add", on_click=add),
        ft.ElevatedButton("Upload", on_click=upload),
        link,
    )


app = flet_fastapi.app(main)
