"""Development: the app's folder is mounted, and a change of it is seen without a build."""

from __future__ import annotations

from roost.appliance.visitor import Broken
from tests.support.project import Appliance

PROGRAM = 'import flet as ft\n\ndef main(page):\n    page.add(ft.Text("before"))\n'


def texts(appliance: Appliance) -> set[str]:
    try:
        with appliance.visitor() as visitor:
            return visitor.visit().texts()
    except Broken:  # it starts again
        return set()


def test_a_change_is_seen_without_a_build(another: Appliance) -> None:
    program = another.folder / "apps/mine/main.py"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    files = another.environment.get("COMPOSE_FILE", "compose.yaml")
    another.set(COMPOSE_FILE=f"{files}:compose.dev.yaml", APP="./apps/mine")
    another.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "300")
    another.until(lambda: "before" in texts(another))
    program.write_text(PROGRAM.replace("before", "after"))
    another.until(lambda: "after" in texts(another))
