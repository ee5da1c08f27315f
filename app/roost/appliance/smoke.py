"""`python -m roost.appliance.smoke URL`: see the app as a visitor does, its page, its websocket and a click."""

from __future__ import annotations

import argparse
import re
import sys
import time

from .said import fail, say
from .visitor import Broken, Visitor, clickable, names

# What every page has, before its app has put anything on it.
_EMPTY = frozenset({"page", "view", "offstage"})

# What a user reads when a handler of the app has failed; the library puts it onto the page.
_FAILURE = re.compile(r"\berror id [0-9a-f]{8}\b|^Error [0-9a-f]{8}\n")


def main(arguments: list[str] | None = None) -> int:
    """The exit code is 0 if a visitor finds a working app."""
    parser = argparse.ArgumentParser(prog="python -m roost.appliance.smoke", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--via", metavar="HOST:PORT", help="connect to this address, whatever its certificate says")
    parser.add_argument("--click", default="auto", metavar="NAME", help="key, text, tooltip or icon; `auto`; `off`")
    parser.add_argument("--wait", type=float, default=0, help="seconds within which it has to succeed")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.wait
    while True:
        try:
            visit(options.url, options.via, options.click)
            return 0
        except Broken as error:
            if time.monotonic() > end:
                return fail(str(error))
            time.sleep(0.5)


def visit(url: str, via: str | None = None, click: str = "auto") -> None:
    """Raises:
    Broken: saying what does not work.
    """
    with Visitor(url, via) as visitor:
        _see(visitor)
        if click != "off":
            _click(visitor, click)


def _see(visitor: Visitor) -> None:
    started = time.monotonic()
    status, page = visitor.get()
    if status != 200:
        raise Broken(f"{visitor.url} answers {status}")
    say(f"page: {len(page)} bytes, {_since(started)}")
    started = time.monotonic()
    visitor.open(page)
    # one control is the page itself
    if not visitor.read_until(
        lambda: any(control["t"] not in ("page", "view") for control in visitor.controls.values()), 15
    ):
        say("websocket: registered; the app's page is empty")
        return
    visitor.settle()
    say(f"websocket: registered, {len(visitor.controls)} controls, {_since(started)}")


def _click(visitor: Visitor, wanted: str) -> None:
    """A control that was named must answer; of one that was not, it is unknown what it does."""
    auto = wanted == "auto"
    found = (c for c in clickable(visitor.controls) if auto or wanted in names(c, visitor.controls))
    control = next(found, None)
    if control is None and auto:
        say("click: there is no button on the page")
        return
    if control is None:
        raise Broken(f"there is nothing to click that is called {wanted!r} (SMOKE_CLICK)")
    name = next(iter(names(control, visitor.controls)), control["t"])
    started = time.monotonic()
    answered, took = visitor.click(control), _since(started)
    visitor.settle()
    if failure := next((text for text in visitor.texts() if _FAILURE.search(text)), None):
        raise Broken(f"a click on {name!r} fails: {failure.splitlines()[0]}")
    if answered:
        say(f"click: {name!r} was answered, {took}")
    elif auto:
        say(f"click: {name!r} changed nothing on the page")
    else:
        raise Broken(f"a click on {name!r} is not answered")


def _since(started: float) -> str:
    return f"{(time.monotonic() - started) * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
