"""A log entry as a line: of plain values, bounded, without what would forge another line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import orjson

from .masking import MASK, MAX_NAME, Hiding, Masks, hides, hiding

Entry = dict[str, Any]

# Docker's log drivers cut longer lines in pieces, which are no JSON any more.
MAX_LINE = 16 * 1024
# What is read of a text before its secrets are masked: the masks cost some microseconds for a kilobyte.
_MAX_READ = 8 * 1024
_MAX_FUNCTION = 100
_MAX_DEPTH = 5
_MAX_FIELDS = 60
# Values of these fields were made here, or were checked: they may look random.
_IDS = frozenset({"request_id", "trace_id", "span_id", "logger"})
# Which fields come first in a line, and which are in every one.
LEADING = ("timestamp", "level", "event", "logger", "worker", "pid")
_MADE_HERE = frozenset({"timestamp", "level", "worker", "pid"})

# C0 and C1 controls, and what Unicode takes for line ends or uses to turn or hide text.
_UNSEEN = "\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_CONTROL = re.compile(f"[{_UNSEEN}\ud800-\udfff]")
_NOT_IN_JSON = re.compile(f"[{_UNSEEN}]")
_NEEDS_QUOTES = re.compile(r"[\s=\"]")
_COLOURS = {"debug": 36, "info": 32, "warning": 33, "error": 31, "critical": 35}


class Size:
    """How much of an entry is kept."""

    def __init__(self, total: int, text: int, items: int, stacks: int, frames: int) -> None:
        self.total, self.text, self.items, self.stacks, self.frames = total, text, items, stacks, frames


# Tried one after the other, until the line is short enough: control characters take six bytes each.
_SIZES = (Size(12_000, 2_000, 50, 4, 25), Size(4_000, 600, 20, 2, 12), Size(900, 150, 5, 1, 4))


def as_line(entry: Entry, error: BaseException | None, masks: Masks, render: Callable[[Entry], str]) -> bytes:
    """One line for `entry`, ended by a newline, of at most `MAX_LINE` bytes."""
    for size in _SIZES:
        kept = _Plain(size, masks).entry(entry, error)
        line = render(kept).encode("utf-8", "backslashreplace") + b"\n"
        if len(line) <= MAX_LINE:
            return line
    bare = {name: kept[name] for name in LEADING if name in kept}
    return render({**bare, "truncated": True}).encode("utf-8", "backslashreplace") + b"\n"


# --- plain values ----------------------------------------------------------------------------------------------------


class _Plain:
    """Values as JSON has them: what is in a log line was looked at here first."""

    def __init__(self, size: Size, masks: Masks) -> None:
        self._size = size
        self._masks = masks
        self._left = size.total
        self._cut = False

    def entry(self, entry: Entry, error: BaseException | None) -> Entry:
        plain: Entry = {}
        for name, value in entry.items():
            if len(plain) >= _MAX_FIELDS:
                self._cut = True
                break
            if name in _MADE_HERE:
                plain[name] = value
            else:
                name = self._name(name)
                plain[name] = self.value(value, name)
        if error is not None:
            plain["exception"] = self._chain(error)
        if self._cut:
            plain["truncated"] = True
        return plain

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        if value is None or value is True or value is False:
            return value
        try:
            by_name = hiding(name)
            if by_name is not Hiding.NOTHING and name not in _IDS and hides(by_name, value):
                return MASK
            return self._value(value, name, depth)
        except Exception:  # noqa: BLE001  the app's class, or a collection that changes meanwhile
            return self._text(f"<{type(value).__name__}>")

    def _value(self, value: Any, name: str, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value, ids=name in _IDS)
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 64 else self._text(_said(value))
        if kind is float:
            return value if abs(value) < float("inf") else str(value)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._items(value, depth)
        return self._text(_said(value), ids=name in _IDS)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        if depth >= _MAX_DEPTH:
            return self._text("{…}")
        plain = {}
        for index, key in enumerate(value):
            if index >= self._size.items or self._left <= 0:
                self._cut = True
                break
            name = self._name(key)
            plain[name] = self.value(value[key], name, depth + 1)
        return plain

    def _items(self, value: Any, depth: int) -> Any:
        if depth >= _MAX_DEPTH:
            return self._text("[…]")
        plain: list[Any] = []
        # a header or a parameter as a pair
        pair = isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str | bytes)
        name = _said(value[0])[:MAX_NAME] if pair else ""
        for index, item in enumerate(value):
            if index >= self._size.items or self._left <= 0:
                self._cut = True
                break
            plain.append(self.value(item, name if index else "", depth + 1))
        return plain

    def _name(self, name: Any) -> str:
        text = self._masks.name(name if type(name) is str else _said(name))
        self._left -= len(text)
        return text

    def _text(self, text: str, *, ids: bool = False, most: int = 0) -> str:
        """`text` without secrets, and without its middle if it is long: the cause of a failure stands at its end."""
        if len(text) > _MAX_READ:
            text = _without_middle(text, _MAX_READ)
            self._cut = True
        text = self._masks.text(text, ids=ids)
        most = max(0, min(most or self._size.text, self._left))
        if len(text) > most:
            text = _without_middle(text, most)
            self._cut = True
        self._left -= len(text)
        return text

    # --- exceptions --------------------------------------------------------------------------------------------------

    def _chain(self, error: BaseException) -> list[Entry]:
        """The exception, then what it was raised from. Local variables are never among it: they hold secrets."""
        stacks: list[Entry] = []
        seen: set[int] = set()
        current: BaseException | None = error
        relation = None
        while current is not None and id(current) not in seen:
            if len(stacks) >= self._size.stacks:
                self._cut = True
                break
            seen.add(id(current))
            stacks.append(self._stack(current, relation))
            if current.__cause__ is not None:
                relation, current = "cause", current.__cause__
            else:
                relation, current = "context", None if current.__suppress_context__ else current.__context__
        return stacks

    def _stack(self, error: BaseException, relation: str | None, depth: int = 0) -> Entry:
        kind = type(error)
        place = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        stack: Entry = {
            "type": self._text(f"{place}{kind.__qualname__}", ids=True),
            "message": self._text(words(error)),
        }
        if relation is not None:
            stack["relation"] = relation
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list) and notes:
            stack["notes"] = self._items([_said(note) for note in notes[: self._size.items]], 0)
        stack["frames"] = self._frames(error.__traceback__)
        if isinstance(error, BaseExceptionGroup) and depth < self._size.stacks:
            members = error.exceptions
            stack["exceptions"] = [self._stack(e, None, depth + 1) for e in members[: self._size.stacks]]
            self._cut |= len(members) > self._size.stacks
        return stack

    def _frames(self, place: TracebackType | None) -> list[Entry]:
        frames = list(traceback.walk_tb(place))
        first = self._size.frames // 4
        if len(frames) > self._size.frames:
            self._cut = True
            frames = frames[:first] + frames[first - self._size.frames :]
        return [self._frame(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in frames]

    def _frame(self, file: str, line: int, function: str) -> Entry:
        file = _without_middle(file, 200)
        self._left -= len(file) + 40
        return {"file": file, "line": line, "function": function[:_MAX_FUNCTION]}


def _said(value: Any) -> str:
    """What a value says of itself."""
    if isinstance(value, bytes | bytearray):
        return bytes(value[: 2 * _MAX_READ]).decode("utf-8", "backslashreplace")
    text = words(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {text}" if text else type(value).__name__
    return text


def words(value: Any) -> str:
    """`str(value)`, whatever its class does."""
    try:
        text = str(value)
        return text if type(text) is str else "".join(text)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  the app's class
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = most // 3
    tail = most - head
    return f"{text[:head]}…[{len(text) - most} more]…{text[len(text) - tail :] if tail else ''}"


# --- lines -----------------------------------------------------------------------------------------------------------


def as_json(entry: Entry) -> str:
    """The entry as JSON that is one line for every reader, those who know more line ends than JSON does included."""
    try:
        line = orjson.dumps(entry).decode()
    except TypeError:  # lone surrogates, which came in as JSON escapes
        line = orjson.dumps(_without_surrogates(entry)).decode()
    return _NOT_IN_JSON.sub(_json_escape, line)


def _json_escape(match: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(match[0].encode("utf-16-le")).cast("H"))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


def as_console(colours: bool) -> Callable[[Entry], str]:
    """How a developer reads entries: one line each, a traceback in indented lines below it."""

    def painted(text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colours else text

    def render(entry: Entry) -> str:
        fields = dict(entry)
        time = visible(str(fields.pop("timestamp", "")))[11:23]
        level = visible(str(fields.pop("level", "")))
        event, logger = visible(str(fields.pop("event", ""))), visible(str(fields.pop("logger", "")))
        stacks = fields.pop("exception", None)
        fields.pop("pid", None)
        if fields.get("worker") is None:
            fields.pop("worker", None)
        line = f"{painted(time, 2)} {painted(f'{level:<8}', _COLOURS.get(level, 37))} {painted(event, 1)}"
        for name, value in fields.items():
            line += f" {painted(visible(name).replace(' ', '_'), 36)}={_shown(value)}"
        line += f" {painted(logger, 2)}"
        for text in _traceback(stacks) if isinstance(stacks, list) else ():
            line += f"\n    | {text}"
        return line

    return render


def visible(text: str) -> str:
    """`text` on one line, its control characters as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        return visible(orjson.dumps(_without_surrogates(value), default=repr).decode())
    text = visible(value)
    return text if text and not _NEEDS_QUOTES.search(text) else '"' + text.replace('"', '\\"') + '"'


def _traceback(stacks: list[Entry], indent: str = "") -> list[str]:
    lines = []
    for stack in stacks:
        relation = {"cause": "raised from ", "context": "while handling "}.get(stack.get("relation", ""), "")
        lines.append(f"{indent}{relation}{visible(stack['type'])}: {visible(stack['message'])}")
        lines += [f"{indent}  {visible(note)}" for note in stack.get("notes", ())]
        lines += [
            f"{indent}  {visible(frame['file'])}:{frame['line']} in {visible(frame['function'])}"
            for frame in reversed(stack["frames"])
        ]
        lines += _traceback(stack.get("exceptions", []), indent + "  ")
    return lines
