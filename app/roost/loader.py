"""Find the user's app: an ASGI application, or a `main(page)` to make one of.

Whatever is wrong with it, the error is one line: for the person who has just written the app, or deploys it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import flet

import flet_fastapi
from flet_fastapi.errors import OptionError

from .lines import words
from .logs import masked

ASGIApp = Callable[..., Any]

_VARIABLE = "ROOST_APP"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# What a folder's app is looked for in.
_USUAL_FILES = ("main.py", "app.py")
# What `ft.app()` of a program takes and an app served by us has, too.
_SHARED_PARAMETERS = ("assets_dir", "upload_dir", "web_renderer", "use_color_emoji", "route_url_strategy")


class AppError(OptionError):
    """There is no app that could be served; the text is one line."""

    def __init__(self, problem: str) -> None:
        super().__init__(_VARIABLE, " ".join(problem.split()))


class AppNotFound(AppError):
    """There is no app at the place that was named."""


class AppBroken(AppError):
    """The app's own code failed while it was imported; `__cause__` is how."""


def load(target: str) -> ASGIApp:
    """The app at `target`: `path/to/file.py`, `package.module` or a folder, with `:name` or without.

    The name may be an ASGI application or a `main(page)`; without one it is `app`, else what the module gives to
    `ft.app()`, else `main`. Of a folder the file is `main.py`, else `app.py`, else the only one.

    Raises:
        AppNotFound: nothing there can be served.
        AppBroken: the app fails while it is imported.
        OptionError: an option of the app or a `FLET_*` variable is wrong.
    """
    place, name = _split(target)
    with _captured() as programs:
        module = _import(place)
    if name:
        return _asgi(f"{place}:{name}", _attribute(place, module, name))
    if is_asgi(getattr(module, "app", None)):
        return module.app  # type: ignore[no-any-return]
    if programs:
        return _from_program(Path(module.__file__ or place), **programs[-1])
    for name in ("main", "app"):
        if callable(getattr(module, name, None)):
            return _asgi(f"{place}:{name}", getattr(module, name))
    raise AppNotFound(f"{place} has neither an app nor a main(page); name another one as {place}:NAME")


def folder_of(target: str) -> Path:
    """Where the files of the app at `target` are."""
    path = Path(_split(target)[0])
    if _exists(path.is_dir) and not _is_package(str(path)):
        return path
    return path.parent if _exists(path.is_file) else Path.cwd()


def is_asgi(candidate: Any) -> bool:
    """Whether `candidate` is an ASGI application rather than a `main(page)`: it needs three arguments."""
    return not inspect.isclass(candidate) and _arguments(candidate) == 3


def _arguments(candidate: Any) -> int | None:
    """How many arguments `candidate` needs; None if it is not called, or does not say."""
    try:
        parameters = inspect.signature(candidate).parameters.values()
    except (TypeError, ValueError):
        return None
    return sum(parameter.default is parameter.empty and parameter.kind in _POSITIONAL for parameter in parameters)


def _split(target: str) -> tuple[str, str]:
    """The place and the name; a colon may be part of a file's name."""
    place, colon, name = target.rpartition(":")
    if not colon or _exists(Path(target).exists):
        return target, ""
    if not place:
        raise AppNotFound(f"{target} names no file and no module")
    if name and not _NAME.fullmatch(name):
        raise AppNotFound(f"{name!r} in {target} is no name of Python's")
    return place, name


def _asgi(target: str, candidate: Any) -> ASGIApp:
    if is_asgi(candidate):
        return candidate  # type: ignore[no-any-return]
    if (problem := _problem(candidate)) is not None:
        raise AppNotFound(f"{target} {problem}")
    try:
        return flet_fastapi.app(candidate, assets_dir=_assets_beside(candidate))
    except OptionError as error:
        if error.name != "session_handler":
            raise
        raise AppNotFound(f"{target} {error.problem}") from None


def _problem(candidate: Any) -> str | None:
    """Why `candidate` is no `main(page)`, as far as that can be seen."""
    if inspect.isclass(candidate):
        return "is a class: name a function, or an object of the class"
    if inspect.ismodule(candidate):
        return "is a module: name what is in it"
    if inspect.iscoroutine(candidate):
        return "was called already: name the function itself, without ()"
    if not callable(candidate):
        return f"is neither an ASGI application nor a main(page): it is of type {type(candidate).__name__}"
    if hasattr(candidate, "wsgi_app") or _arguments(candidate) == 2:
        return "takes two arguments, as a WSGI application does: only ASGI applications and main(page) can be served"
    if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
        return "is a generator, of which nothing would run: there is a yield in it"
    return None


def _assets_beside(main: Any) -> str | None:
    module = sys.modules.get(getattr(inspect.unwrap(getattr(main, "func", main)), "__module__", type(main).__module__))
    folder = Path(module.__file__).parent / "assets" if module is not None and module.__file__ else None
    return str(folder) if folder is not None and folder.is_dir() else None


def _attribute(place: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AppNotFound(f"{place}: the module has no {name}{_similar(part, dir(found))}") from None
    return found


def _similar(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, [each for each in names if not each.startswith("__")], n=1)
    return f"; did you mean {found[0]}?" if found else ""


# --- the import ------------------------------------------------------------------------------------------------------


def _import(place: str) -> ModuleType:
    path = Path(place)
    if _exists(path.is_dir) and not _is_package(place):
        return _import_file(_file_of(path))
    if place.endswith(".py") or _exists(path.is_file):
        return _import_file(path)
    return _import_module(place)


def _exists(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OSError, ValueError):  # a name that is too long or has NUL in it, a folder that may not be entered
        return False


def _is_package(place: str) -> bool:
    """Whether `place` is rather the name of a package below the working directory than a path."""
    return _NAME.fullmatch(place) is not None and (Path(place) / "__init__.py").is_file()


def _file_of(folder: Path) -> Path:
    files = sorted(path for path in folder.glob("*.py") if path.is_file() and not path.name.startswith("_"))
    usual = [folder / name for name in _USUAL_FILES if folder / name in files]
    if usual or len(files) == 1:
        return (usual or files)[0]
    if files:
        raise AppNotFound(f"folder {folder} has no main.py and several other files: name one of them")
    raise AppNotFound(f"folder {folder} has no Python file")


def _import_file(path: Path) -> ModuleType:
    if not _exists(path.is_file):
        there = path.parent.glob("*.py") if path.parent.is_dir() else ()
        raise AppNotFound(f"no file {path}{_similar(path.name, (each.name for each in there))}")
    if not os.access(path, os.R_OK):
        raise AppNotFound(f"file {path} may not be read by this user")
    folder = str(path.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # a file may have the name of a module that the server is made of
    name = path.stem if path.stem not in sys.modules else f"{path.stem} (app)"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppNotFound(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _blamed(str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(place: str) -> ModuleType:
    if not _NAME.fullmatch(place):
        raise AppNotFound(f"{place} is neither a file nor the name of a module")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    with _blamed(place):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise  # the app is there, something that it needs is not
            raise AppNotFound(f"no module {place}, nor a file of that name") from None


@contextmanager
def _blamed(place: str) -> Iterator[None]:
    """Whatever the app raises while it is imported becomes one line that says where."""
    try:
        yield
    except (AppError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise AppBroken(f"{_line(place, error)} ended the process by sys.exit() while it was imported") from error
    except BaseException as error:
        raise AppBroken(f"{_line(place, error)}: {_said(error)}{_hint(error)}") from error


def _line(place: str, error: BaseException) -> str:
    """The innermost line of the app itself, or what comes nearest."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    folders = tuple(f"{folder}/" for folder in {str(Path(place).absolute().parent), str(Path.cwd())})
    own = [frame for frame in frames if frame.filename.startswith(folders) and "/site-packages/" not in frame.filename]
    own = [frame for frame in own if Path(frame.filename) != Path(__file__)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else place


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else words(error)
    if not isinstance(error, OptionError):  # whose words are ours: they name secrets, and show none
        text = masked(text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return " (is it among the app's requirements?)"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return " (name the app as package.module)"
    return ""


# --- programs for `ft.app()` -----------------------------------------------------------------------------------------


@contextmanager
def _captured() -> Iterator[list[dict[str, Any]]]:
    """While a program is imported its `ft.app(main)` starts nothing, but tells what the app is."""
    programs: list[dict[str, Any]] = []
    original = flet.app, flet.app_async

    def app(target: Any, *_: Any, **arguments: Any) -> None:
        programs.append({"target": target, **arguments})

    async def app_async(target: Any, *_: Any, **arguments: Any) -> None:
        app(target, **arguments)

    flet.app, flet.app_async = app, app_async
    try:
        yield programs
    finally:
        flet.app, flet.app_async = original


def _from_program(file: Path, target: Any, **arguments: Any) -> ASGIApp:
    if (problem := _problem(target)) is not None:
        raise AppNotFound(f"{file}: what is given to ft.app() {problem}")
    options = {name: arguments[name] for name in _SHARED_PARAMETERS if arguments.get(name) is not None}
    # Flet takes these relative to the program
    for name in ("assets_dir", "upload_dir"):
        if name in options:
            options[name] = str(file.absolute().parent / options[name])
    if not Path(options.get("assets_dir", file.absolute().parent / "assets")).is_dir():
        options.pop("assets_dir", None)
    else:
        options.setdefault("assets_dir", str(file.absolute().parent / "assets"))
    return flet_fastapi.app(target, **options)
