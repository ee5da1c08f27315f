import importlib
from collections.abc import Iterator
from pathlib import Path

import flet
import pytest

import flet_fastapi
from roost.loader import AppNotFound, is_asgi, load

PROGRAM = """
import flet as ft

def main(page: ft.Page):
    page.add(ft.Text("hello"))
"""


@pytest.fixture(autouse=True)
def _imports_nothing_for_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "program.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def endpoints(app: object) -> list[str]:
    return [route.path for route in app.router.routes]  # type: ignore[attr-defined]


def test_a_file_with_an_app_gives_that_app(tmp_path: Path) -> None:
    file = write(tmp_path, PROGRAM + "\nimport flet_fastapi\napp = flet_fastapi.app(main)\nother = app\n")
    assert isinstance(load(file), flet_fastapi.FastAPI)


def test_a_file_with_only_a_main_is_served(tmp_path: Path) -> None:
    assert "/ws" in endpoints(load(write(tmp_path, PROGRAM)))


@pytest.mark.parametrize("call", ["ft.app(main)", "ft.app(target=main)", "ft.app(main, view=ft.AppView.WEB_BROWSER)"])
def test_a_program_for_ft_app_is_served_and_starts_nothing_itself(tmp_path: Path, call: str) -> None:
    file = write(tmp_path, f"{PROGRAM.replace('main', 'start')}\n{call.replace('main', 'start')}\n")
    assert "/ws" in endpoints(load(file))


def test_ft_app_is_as_it_was_afterwards(tmp_path: Path) -> None:
    original = flet.app
    with pytest.raises(ZeroDivisionError):
        load(write(tmp_path, "1 / 0"))
    assert flet.app is original


def test_a_name_chooses_within_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, PROGRAM + "\nasync def other(page):\n    pass\n")
    assert "/ws" in endpoints(load(f"{file}:other"))


def test_a_module_is_found_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    write(tmp_path / "shop", PROGRAM, "front.py")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    assert "/ws" in endpoints(load("shop.front:main"))


def test_an_asgi_function_is_served_as_it_is(tmp_path: Path) -> None:
    file = write(tmp_path, "async def app(scope, receive, send):\n    pass\n")
    assert is_asgi(load(file))


@pytest.mark.parametrize("target", ["nowhere.py", "no_such_module", "no_such_package.module:main"])
def test_an_app_that_is_not_there_is_an_error_that_says_so(target: str) -> None:
    with pytest.raises(AppNotFound, match=target.partition(":")[0]):
        load(target)


def test_a_name_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(AppNotFound, match="the module has no nothing"):
        load(write(tmp_path, PROGRAM) + ":nothing")


def test_a_file_without_an_app_is_an_error_that_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(AppNotFound, match=":NAME"):
        load(write(tmp_path, "x = 1"))


def test_what_the_app_itself_lacks_is_not_blamed_on_its_name(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load(write(tmp_path, "import no_such_dependency"))


def test_the_assets_folder_beside_a_program_is_served(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    options = load(write(tmp_path, PROGRAM + "\nft.app(main)\n")).router.default._options  # type: ignore[attr-defined]
    assert options.assets_dir == tmp_path / "assets"


def test_a_program_that_awaits_ft_app_async_is_served(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"import asyncio\n{PROGRAM}\nasyncio.run(ft.app_async(main))\n".replace("def main", "def start").replace(
            "(main)", "(start)"
        ),
    )
    assert "/ws" in endpoints(load(file))


@pytest.mark.parametrize("main", ["functools.partial(begin, 'x')", "Begin()"], ids=["a partial function", "an object"])
def test_a_main_need_not_be_a_function(tmp_path: Path, main: str) -> None:
    program = f"""
import functools

def begin(word, page):
    pass

class Begin:
    async def __call__(self, page):
        pass

main = {main}
"""
    assert "/ws" in endpoints(load(write(tmp_path, program)))


def test_a_main_that_is_called_app_is_served(tmp_path: Path) -> None:
    assert "/ws" in endpoints(load(write(tmp_path, PROGRAM.replace("def main", "def app"))))
