"""`make deploy`: a good version takes over without a failed request, a broken one changes nothing for anybody."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from roost.appliance.visitor import Visitor
from tests.support.project import Appliance

GOOD = """\
import flet as ft

async def main(page):
    counter = ft.Text("0")

    def add(_):
        counter.value = str(int(counter.value) + 1)
        page.update()

    page.add(ft.Text("VERSION"), counter, ft.ElevatedButton("Add", on_click=add))
"""
NO_IMPORT = "import there_is_no_such_module\n"
NO_PAGE = "def main(page):\n    raise ValueError('no page')\n"
NO_CLICK = GOOD.replace("counter.value = str", "raise ValueError('no click')\n        counter.value = str")
NOT_BEHIND_TLS = """
import flet_fastapi

inner = flet_fastapi.app(main)

async def app(scope, receive, send):
    assert scope.get("scheme") not in ("https", "wss")
    await inner(scope, receive, send)
"""


@pytest.fixture(scope="module")
def deployed(appliance: Appliance) -> Iterator[Appliance]:
    """The appliance with an app of its own, as its owner has made it."""
    # a name of its own, or it would be removed with the version before the last
    appliance.docker("tag", f"{appliance.name}-app", f"{appliance.name}-app:example")
    assert appliance.make("new-app", "NAME=mine").code == 0
    (appliance.folder / "apps/mine/main.py").write_text(GOOD.replace("VERSION", "one"))
    appliance.set(APP="./apps/mine")
    ran = appliance.make("deploy")
    assert ran.code == 0, ran.output
    yield appliance
    appliance.set(APP=None)
    shutil.rmtree(appliance.folder / "apps")
    appliance.docker("tag", f"{appliance.name}-app:example", f"{appliance.name}-app")
    appliance.compose("up", "--detach", "--wait")


@pytest.fixture
def visitor(deployed: Appliance) -> Iterator[Visitor]:
    with deployed.visitor() as visitor:
        yield visitor.visit()


def write(deployed: Appliance, program: str, requirements: str = "") -> None:
    (deployed.folder / "apps/mine/main.py").write_text(program)
    (deployed.folder / "apps/mine/requirements.txt").write_text(requirements)


def texts(deployed: Appliance) -> set[str]:
    with deployed.visitor() as visitor:
        return visitor.visit().texts()


def image_id(deployed: Appliance) -> str:
    return deployed.docker("image", "inspect", "--format", "{{.Id}}", f"{deployed.name}-app")


def unnamed_images(deployed: Appliance) -> set[str]:
    return set(deployed.docker("images", "--quiet", "--filter", "dangling=true").split())


@contextmanager
def asking(deployed: Appliance) -> Iterator[Counter[int]]:
    """Somebody asks for the page all the time; the answers' statuses."""
    answers: Counter[int] = Counter()
    enough = threading.Event()

    def ask() -> None:
        while not enough.wait(0.05):
            answers[deployed.get(deployed.url)[0]] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        enough.set()
        thread.join()


def test_a_good_version_takes_over_without_a_failed_request(deployed: Appliance) -> None:
    before, unnamed = deployed.containers("app"), unnamed_images(deployed)
    write(deployed, GOOD.replace("VERSION", "two"))
    with asking(deployed) as answers:
        ran = deployed.make("deploy")
    assert ran.code == 0, ran.output
    phases = [line for line in ran.output.splitlines() if line.startswith("Phase")]
    assert phases == [
        "Phase 1: no impact yet", "Phase 2: nginx asks the new version", "Phase 3: verify through nginx",
    ]  # fmt: skip
    assert "click: 'Add' was answered" in ran.output
    assert "two" in texts(deployed)
    assert set(answers) == {200}
    assert not set(before) & set(deployed.containers("app"))
    assert len(deployed.containers("app")) == len(before)
    assert unnamed_images(deployed) <= unnamed


@pytest.mark.parametrize(
    ("program", "said", "seen"),
    [
        (NO_IMPORT, "there_is_no_such_module", {200}),
        (NO_PAGE, "the app failed", {200}),
        (NO_CLICK, "a click on 'Add' fails", {200}),
        ("x = 1\n", "has neither an app nor a main(page)", {200}),
        # new visitors see it until it has been found out, a second or two
        (GOOD + NOT_BEHIND_TLS, "does not work through nginx", {200, 500}),
    ],
    ids=["import", "page", "click", "no app", "behind nginx"],
)
def test_a_broken_version_is_rolled_back(deployed: Appliance, program: str, said: str, seen: set[int]) -> None:
    before, image, shown = deployed.containers("app"), image_id(deployed), texts(deployed)
    unnamed = unnamed_images(deployed)
    write(deployed, program)
    with deployed.visitor() as visitor, asking(deployed) as answers:
        visitor.visit()
        ran = deployed.make("deploy")
        assert visitor.click(visitor.find("Add"))
    assert ran.code != 0
    assert said in ran.output
    assert "Nothing has changed: the version from before goes on." in ran.output
    assert "1" in visitor.texts()  # the session that was there goes on
    assert texts(deployed) == shown
    assert (deployed.containers("app"), image_id(deployed)) == (before, image)
    assert set(answers) <= seen
    assert unnamed_images(deployed) <= unnamed


@pytest.mark.parametrize(
    ("requirements", "said"),
    [("flet==0.28.3", "your requirements are unsatisfiable"), ("no-such-package-at-all-here==1", "no-such-package")],
)
def test_a_wrong_requirement_is_said_in_plain_words(deployed: Appliance, requirements: str, said: str) -> None:
    before = deployed.containers("app")
    write(deployed, GOOD, requirements)
    ran = deployed.make("deploy")
    assert ran.code != 0
    assert said in ran.output
    assert "The app's requirements.txt could not be installed" in ran.output
    assert deployed.containers("app") == before


def test_a_setting_that_is_wrong_is_found_before_anything_changes(deployed: Appliance) -> None:
    before = deployed.containers("app")
    write(deployed, GOOD)
    (deployed.folder / "app.env").write_text("FLET_MAX_SESSIONS=many\n")
    ran = deployed.make("deploy")
    (deployed.folder / "app.env").unlink()
    assert ran.code != 0
    assert "FLET_MAX_SESSIONS" in ran.output
    assert deployed.containers("app") == before


def test_requirements_and_own_variables_reach_the_app(deployed: Appliance) -> None:
    program = "import os, humanize\n" + GOOD.replace('"VERSION"', 'humanize.intcomma(int(os.environ["NUMBER"]))')
    write(deployed, program, "humanize>=4\n")
    (deployed.folder / "app.env").write_text("NUMBER=1234567\n")
    ran = deployed.make("deploy")
    (deployed.folder / "app.env").unlink()
    assert ran.code == 0, ran.output
    assert "1,234,567" in texts(deployed)


def test_what_an_interrupted_deployment_left_is_cleared_away(deployed: Appliance) -> None:
    write(deployed, GOOD.replace("VERSION", "last"))
    (container,) = deployed.containers("app")
    address = deployed.inspect(container)["NetworkSettings"]["Networks"]["roosttest_edge"]["IPAddress"]
    deployed.inside("nginx", f"echo {address} >/run/roost-nginx/app_host")
    deployed.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", "app=2", "app")
    ran = deployed.make("deploy")
    assert ran.code == 0, ran.output
    assert "an interrupted deployment is cleared away" in ran.output
    assert len(deployed.containers("app")) == 1
    assert "last" in texts(deployed)
    assert deployed.inside("nginx", "ls /run/roost-nginx/app_host 2>&1 || true").endswith("No such file or directory")


def test_two_deployments_do_not_meet(deployed: Appliance) -> None:
    lock = deployed.folder / ".roost.lock"
    lock.mkdir()
    (lock / "pid").write_text(str(os.getpid()))
    ran = deployed.make("deploy")
    shutil.rmtree(lock)
    assert ran.code != 0
    assert "another command is at work" in ran.output
