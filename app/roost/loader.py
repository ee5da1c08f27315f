"""Find the user's app: an ASGI application, or a `main(page)` to make one of."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import flet

import flet_fastapi
from flet_fastapi.errors import OptionError

ASGIApp = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# What `ft.app()` of a program takes and an app served by us has, too.
_SHARED_PARAMETERS = ("assets_dir", "upload_dir", "web_renderer", "use_color_emoji", "route_url_strategy")


class AppNotFound(OptionError):
    """There is no app at the place that was named."""


def load(target: str) -> ASGIApp:
    """The app at `target`: `path/to/file.py` or `package.module`, with `:name` or without.

    The name may be an ASGI application or a `main(page)`; without one it is `app`, else what the module gives to
    `ft.app()`, else `main`.

    Raises:
        AppNotFound: nothing there can be served.
    """
    place, _, name = target.partition(":")
    with _captured() as programs:
        module = _import(place)
    if name:
        return _asgi(target, _attribute(target, module, name))
    if is_asgi(getattr(module, "app", None)):
        return module.app  # type: ignore[no-any-return]
    if programs:
        return _from_program(Path(module.__file__ or place), **programs[-1])
    for name in ("main", "app"):
        if callable(getattr(module, name, None)):
            return _asgi(target, getattr(module, name))
    raise AppNotFound("APP", f"{place} has neither an app nor a main(page); name another one as {place}:NAME")


def is_asgi(candidate: Any) -> bool:
    """Whether `candidate` is an ASGI application rather than a `main(page)`: it needs three arguments."""
    if not callable(candidate) or inspect.isclass(candidate):
        return False
    parameters = inspect.signature(candidate).parameters.values()
    return sum(parameter.default is parameter.empty and parameter.kind in _POSITIONAL for parameter in parameters) == 3


def _asgi(target: str, candidate: Any) -> ASGIApp:
    if is_asgi(candidate):
        return candidate  # type: ignore[no-any-return]
    if callable(candidate):
        return flet_fastapi.app(candidate, assets_dir=_assets_beside(candidate))
    raise AppNotFound("APP", f"{target} is neither an ASGI application nor a main(page)")


def _assets_beside(main: Any) -> str | None:
    module = sys.modules.get(getattr(inspect.unwrap(getattr(main, "func", main)), "__module__", type(main).__module__))
    folder = Path(module.__file__).parent / "assets" if module is not None and module.__file__ else None
    return str(folder) if folder is not None and folder.is_dir() else None


def _attribute(target: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise AppNotFound("APP", f"{target}: the module has no {name}")
    return found


def _import(place: str) -> ModuleType:
    path = Path(place)
    if place.endswith(".py") or path.is_file():
        return _import_file(path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise  # the app is there, something that it needs is not
        raise AppNotFound("APP", f"no module {place}, nor a file of that name") from None


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise AppNotFound("APP", f"no file {path}")
    sys.path.insert(0, str(path.absolute().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise AppNotFound("APP", f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


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
