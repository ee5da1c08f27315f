"""@NAME@: what each visitor sees. Every visitor has a page, and so a `main`, of their own."""

import flet as ft


async def main(page: ft.Page):
    page.title = "@NAME@"
    page.theme_mode = ft.ThemeMode.SYSTEM
    name = ft.TextField(label="Your name", autofocus=True)
    greeting = ft.Text(size=24)

    async def greet(_):
        greeting.value = f"Hello, {name.value.strip() or 'world'}!"
        page.update()

    name.on_submit = greet
    page.add(name, ft.ElevatedButton("Say hello", on_click=greet), greeting)
