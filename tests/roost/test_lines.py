"""A line is one line: bounded, of plain values, and nobody's text begins another."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.lines import MAX_LINE, as_console, as_json, as_line
from roost.masking import MASK, Masks

LEADING = {"timestamp": "2026-01-01T00:00:00.123Z", "level": "info", "event": "e", "logger": "l", "worker": 1, "pid": 2}
CONSOLE = as_console(colours=False)
# the handler gives other names to fields that are called so
NAMES = st.text().filter(lambda name: name not in LEADING)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def line(error: BaseException | None = None, /, render: Any = as_json, **fields: Any) -> bytes:
    return as_line({**LEADING, **fields}, error, Masks(), render)


def entry(error: BaseException | None = None, /, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line(error, **fields))
    return found


def raised(depth: int = 0) -> BaseException:
    password = "a local variable"  # noqa: F841
    try:
        if depth:
            raise raised(depth - 1)
        raise ValueError("it failed")
    except ValueError as error:
        return error


@given(st.dictionaries(NAMES, ANY), st.text(), st.text())
def test_whatever_is_logged_is_one_json_object(fields: dict[str, Any], event: str, message: str) -> None:
    made = as_line({**LEADING, **fields, "event": event}, ValueError(message), Masks(), as_json)
    assert made.endswith(b"\n") and len(made) <= MAX_LINE
    (only,) = made.decode().splitlines()
    json.loads(only)
    assert re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", only) is None


@given(st.dictionaries(NAMES, ANY), st.text(), st.text())
def test_whatever_is_logged_is_one_line_on_the_console(fields: dict[str, Any], event: str, message: str) -> None:
    made = as_line({**LEADING, **fields, "event": event}, ValueError(message), Masks(), CONSOLE).decode()
    first, *rest = made.splitlines()
    assert first.startswith("00:00:00.123 ")
    assert all(other.startswith("    | ") for other in rest)
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", made) is None


@given(st.text())
def test_harmless_text_comes_back_as_it_was(text: str) -> None:
    harmless = re.sub(r"[=:?@%&\"',\\]|[A-Za-z0-9_~+=.-]{6,}", " ", text)[:500]
    assert entry(x=harmless)["x"] == harmless


def test_a_forged_line_stays_in_its_place() -> None:
    forged = 'x\n{"timestamp":"2026-01-01T00:00:00.000Z","level":"critical","event":"forged"}\r\n'
    assert line(x=forged).count(b"\n") == 1
    assert line(x=forged, render=CONSOLE).count(b"\n") == 1
    assert line(x="\x1b[2K\x1b[1A\x9b0m", render=CONSOLE).count(b"\x1b") == 0


class Hostile:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error

    __str__ = __repr__


class Shifting(dict[str, int]):
    def __iter__(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.parametrize("error", [ValueError, RecursionError, SystemExit, GeneratorExit])
def test_an_object_that_cannot_be_shown_is_named(error: type[BaseException]) -> None:
    shown = entry(x=Hostile(error), y=[Hostile(error)], z=Shifting(a=1))
    assert shown["x"] == f"<Hostile that cannot be shown: {error.__name__}>"
    assert shown["y"] == [shown["x"]]
    assert shown["z"] == "<Shifting>"


def test_an_exception_that_cannot_be_shown_is_named() -> None:
    class HostileError(Exception):
        __str__ = Hostile.__repr__
        error = KeyError

    (stack,) = entry(HostileError())["exception"]
    assert stack["message"] == "<HostileError that cannot be shown: KeyError>"


def test_values_are_plain() -> None:
    moment = datetime(2026, 1, 2)
    shown = entry(
        big=1 << 80, infinite=float("inf"), raw=b"\xff\x00a", when=moment, pairs=OrderedDict(a=(1, 2)), no=None,
        error=KeyError("k"), deep=[[[[[[[1]]]]]]], surrogate="a\ud800b",
    )  # fmt: skip
    assert shown["big"] == str(1 << 80)
    assert shown["infinite"] == "inf"
    assert shown["raw"] == "\\xff\x00a"
    assert shown["when"] == "2026-01-02 00:00:00"
    assert shown["pairs"] == {"a": [1, 2]}
    assert shown["error"] == "KeyError: 'k'"
    assert "…" in str(shown["deep"])
    assert shown["surrogate"] == "a\\ud800b"


def test_secrets_are_masked_at_any_depth() -> None:
    shown = entry(
        headers=[(b"cookie", b"a=1"), (b"host", b"x")], nested={"a": [{"password": "x"}]}, token="abc",
        url="redis://:pw@h/0", request_id="Hq7-xY2_kLm9Zp0aBcD4Ef",
    )  # fmt: skip
    assert shown["headers"] == [["cookie", MASK], ["host", "x"]]
    assert shown["nested"] == {"a": [{"password": MASK}]}
    assert shown["token"] == MASK
    assert shown["url"] == f"redis://{MASK}@h/0"
    assert shown["request_id"] == "Hq7-xY2_kLm9Zp0aBcD4Ef"


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "\x00" * 100_000}, {"x": "😀" * 100_000}, {"x": ["y" * 100] * 10_000},
        {f"f{n}": "x" * 900 for n in range(999)},
        {"x": {str(n): "\u2028" * 50 for n in range(500)}}, {"\x01" * 5000: 1}, {"event": "\x00" * 100_000},
        {"logger": "\x00" * 100_000}, {"x": b"\xff" * 1_000_000},
    ],
)  # fmt: skip
def test_a_line_is_never_longer_than_its_bound(fields: dict[str, Any]) -> None:
    made = line(raised(60), **fields)
    assert len(made) <= MAX_LINE
    assert json.loads(made)["truncated"] is True


def test_a_long_text_keeps_both_ends() -> None:
    shown = entry(x="begin " + "x" * 50_000 + " end")["x"]
    assert shown.startswith("begin ") and shown.endswith(" end") and len(shown) < 2100


def test_a_traceback_has_frames_and_causes_and_no_local_variables() -> None:
    (outer, cause) = entry(_chained())["exception"]
    assert outer["type"] == "RuntimeError" and outer["message"] == f"token={MASK}\nand more"
    assert cause["relation"] == "cause" and cause["message"] == "it failed"
    assert cause["frames"][-1]["function"] == "raised"
    assert set(cause["frames"][-1]) == {"file", "line", "function"}
    assert b"a local variable" not in line(_chained())


def _chained() -> BaseException:
    try:
        raise RuntimeError("token=abcdef12345\nand more") from raised()
    except RuntimeError as error:
        error.add_note("a note")
        return error


def test_a_group_of_exceptions_has_its_members() -> None:
    (stack,) = entry(ExceptionGroup("several", [ValueError("one"), ExceptionGroup("two", [KeyError("three")])]))[
        "exception"
    ]
    assert [member["message"] for member in stack["exceptions"]] == ["one", "two (1 sub-exception)"]
    assert stack["exceptions"][1]["exceptions"][0]["type"] == "KeyError"


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert [stack["message"] for stack in entry(one)["exception"]] == ["one", "two"]


def test_of_a_deep_recursion_both_ends_are_kept() -> None:
    def sink(depth: int) -> None:
        if depth:
            sink(depth - 1)
        raise ValueError

    try:
        sink(500)
    except ValueError as error:
        frames = entry(error)["exception"][0]["frames"]
    assert len(frames) == 25
    assert frames[0]["function"] == "test_of_a_deep_recursion_both_ends_are_kept"


def test_the_console_shows_a_traceback_below_its_line() -> None:
    first, *rest = line(_chained(), render=CONSOLE, a="b c", n=1).decode().splitlines()
    assert first == '00:00:00.123 info     e worker=1 a="b c" n=1 l'
    assert rest[0] == f"    | RuntimeError: token={MASK}\\nand more"
    assert "    | raised from ValueError: it failed" in rest
    assert "    |   a note" in rest


def test_colours_are_for_terminals() -> None:
    assert b"\x1b[" in line(render=as_console(colours=True))
    assert b"\x1b[" not in line(render=CONSOLE)
