import importlib
from collections.abc import Iterator
from pathlib import Path

import flet
import pytest

import flet_fastapi
from flet_fastapi.errors import OptionError
from roost.loader import AppBroken, AppError, AppNotFound, folder_of, is_asgi, load

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
    with pytest.raises(AppBroken, match="ZeroDivisionError"):
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
    with pytest.raises(AppBroken, match=r"program\.py, line 1: .*no_such_dependency.*requirements"):
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


WRONG = [
    # the program, the name: what is said
    ("def main(page)", "", r"program\.py, line 1: SyntaxError: expected ':'"),
    ("x = 1\n  y = 2", "", r"program\.py, line 2: IndentationError"),
    ("b = 1\0", "", r"program\.py.*(null bytes|source code)"),
    ("raise ValueError('one\\ntwo')", "", r"program\.py, line 1: ValueError: one two"),
    ("def f():\n    1 / 0\n\n\nf()", "", r"program\.py, line 2: ZeroDivisionError"),
    ("import json\njson.loads('{')", "", r"program\.py, line 2: JSONDecodeError"),
    ("from . import sibling", "", r"relative import.*name the app as package\.module"),
    ("import flet as ft\nft.nothing()", "", r"line 2: AttributeError"),
    ("raise SystemExit", "", r"ended the process by sys\.exit\(\)"),
    ("import sys\nsys.exit('no database')", "", r"line 2 ended the process"),
    ("raise BaseException('x')", "", r"BaseException: x"),
    ("raise ExceptionGroup('several', [ValueError('x')])", "", r"ExceptionGroup: several"),
    ("import asyncio\nraise asyncio.CancelledError", "", r"CancelledError"),
    ("x = 1", "", r"has neither an app nor a main\(page\)"),
    ("main = 5", "", r"has neither"),
    ("def main():\n    pass", "", r"program\.py:main must take one argument"),
    ("def create_app():\n    pass", "create_app", r"must take one argument"),
    ("def main(page, settings):\n    pass", "", r"takes two arguments, as a WSGI application does"),
    ("def app(environ, start_response):\n    pass", "app", r"WSGI"),
    ("class App:\n    def __init__(self, page):\n        pass", "App", r"App is a class"),
    ("class app:\n    async def __call__(self, scope, receive, send):\n        pass", "app", r"app is a class"),
    ("def main(page):\n    yield", "", r"main is a generator"),
    ("async def main(page):\n    yield", "", r"main is a generator"),
    ("import json", "json", r"json is a module"),
    ("app = 'text'", "app", r"is neither an ASGI application nor a main\(page\): it is of type str"),
    ("app = None", "app", r"of type NoneType"),
    ("def main(page):\n    pass", "mian", r"has no mian; did you mean main\?"),
    ("def main(page):\n    pass", "main.page", r"has no main\.page"),
    ("def main(page):\n    pass", "not a name", r"no name of Python's"),
    ("import flet as ft\nft.app(5)", "", r"what is given to ft\.app\(\) is neither"),
    ("def __getattr__(name):\n    raise AttributeError(name)", "lazy", r"has no lazy"),
]


@pytest.mark.parametrize(("program", "name", "said"), WRONG)
def test_whatever_is_wrong_is_one_line(tmp_path: Path, program: str, name: str, said: str) -> None:
    file = write(tmp_path, program)
    with pytest.raises(AppError, match=said) as raised:
        load(f"{file}:{name}" if name else file)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("ROOST_APP: ")


PLACES = [
    ("programm.py", r"no file programm\.py; did you mean program\.py\?"),
    ("nowhere/program.py", "no file nowhere/program.py"),
    ("program.pyc", "no module program.pyc"),
    ("notes.txt", r"notes\.txt is not a Python file"),
    ("empty", "folder empty has no Python file"),
    ("several", "folder several has no main.py and several other files"),
    ("my-app", "neither a file nor the name of a module"),
    (".relative", "neither a file nor the name of a module"),
    ("a..b:main", "neither a file nor the name of a module"),
    (":main", "names no file and no module"),
    ("a" * 5000, "no module"),
    ("nul\0.py", "no file"),
    ("program.py:", "has neither"),
]


@pytest.mark.parametrize(("target", "said"), PLACES)
def test_a_place_without_an_app_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "x = 1")
    write(tmp_path, "x = 1", "notes.txt")
    for folder in ("empty", "several"):
        (tmp_path / folder).mkdir()
    for name in ("a.py", "b.py"):
        write(tmp_path / "several", PROGRAM, name)
    with pytest.raises(AppError, match=said):
        load(target)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, PROGRAM)
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # root may read everything
    with pytest.raises(AppNotFound, match="may not be read"):
        load(file)


def test_a_helper_that_fails_is_named_and_not_the_program(tmp_path: Path) -> None:
    write(tmp_path, "\nraise OSError('no such table')", "helper_that_fails.py")
    with pytest.raises(AppBroken, match=r"helper_that_fails\.py, line 2: OSError: no such table"):
        load(write(tmp_path, "import helper_that_fails"))


@pytest.mark.parametrize("names", [("main.py", "app.py", "x.py"), ("app.py", "x.py"), ("counter.py",)])
def test_a_folders_app_is_its_main_file(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names[1:]:
        write(tmp_path, "raise AssertionError", name)
    write(tmp_path, PROGRAM, names[0])
    write(tmp_path, "", "__init__.py")
    assert "/ws" in endpoints(load(str(tmp_path)))
    assert "/ws" in endpoints(load(f"{tmp_path}:main"))
    assert folder_of(f"{tmp_path}:main") == tmp_path


@pytest.mark.parametrize("name", ["json.py", "flet.py", "asyncio.py", "click.py"])
def test_a_program_may_have_the_name_of_a_module_of_ours(tmp_path: Path, name: str) -> None:
    before = importlib.import_module(name.removesuffix(".py"))
    assert "/ws" in endpoints(load(write(tmp_path, "def main(page):\n    pass\n", name)))
    assert importlib.import_module(name.removesuffix(".py")) is before


def test_what_failed_is_not_kept(tmp_path: Path) -> None:
    file = write(tmp_path, "raise ValueError", "mended_later.py")
    with pytest.raises(AppBroken):
        load(file)
    write(tmp_path, PROGRAM + "# longer", "mended_later.py")
    assert "/ws" in endpoints(load(file))


def test_a_colon_may_be_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    file = write(tmp_path / "a:b", PROGRAM)
    assert "/ws" in endpoints(load(file))
    assert "/ws" in endpoints(load(f"{file}:main"))


def test_a_wrong_option_of_the_app_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SESSION_TIMEOUT", "soon")
    with pytest.raises(OptionError, match="FLET_SESSION_TIMEOUT"):
        load(write(tmp_path, PROGRAM))
