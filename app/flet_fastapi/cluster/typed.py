"""What one worker's app tells another's: msgpack, with Python's own types and the app's plain classes kept.

A class travels as its qualified name and its fields. The receiver takes classes that it has imported already, and makes
an object without running any code of theirs: no `__init__`, no `__reduce__`, no `__setstate__`, no property. Objects
that are in a message twice arrive as two.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache, reduce
from operator import or_
from types import MemberDescriptorType, ModuleType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType, Packer, unpackb

from ..errors import FletFastAPIError

# Deeper than any message that somebody writes; what refers to itself has no end.
_MAX_DEPTH = 50
# Each costs about a microsecond on the event loop.
_MAX_NODES = 200_000
MAX_SIZE = 8 * 1024 * 1024

(
    _TUPLE, _SET, _FROZENSET, _BYTEARRAY, _BIG, _COMPLEX, _DECIMAL, _UUID, _DATETIME, _DATE, _TIME, _TIMEDELTA, _ENUM,
    _FLAG, _NAMEDTUPLE, _OBJECT, _ORDERED, _COUNTER, _DEQUE,
) = range(1, 20)  # fmt: skip

# What tasks and threads share with each other: written in Python, but a copy of it is of no use to anybody.
_TIED = frozenset({"asyncio", "threading"})

_HEAP_TYPE = 1 << 9  # made by a class statement (Py_TPFLAGS_HEAPTYPE)
_POINTER = 8


class CannotCross(FletFastAPIError, TypeError):
    """A message cannot go to other workers. `type_name` is the type that cannot, `problem` why."""

    def __init__(self, type_name: str, problem: str, path: str = "") -> None:
        where = f" (at {path})" if path else ""
        super().__init__(f"{type_name} cannot be sent to other workers: {problem}{where}")
        self.type_name = type_name
        self.problem = problem
        self.path = path


class UnknownClass(FletFastAPIError, LookupError):
    """A message holds an object of a class that this worker has not imported, or cannot make."""


def dumps(value: Any) -> bytes:
    """`value` for another worker; from any thread.

    Raises:
        CannotCross: something in it cannot go, or it is too deep or too large.
    """
    writer = _Writer()
    data = writer.pack(writer.plain(value, 0))
    if len(data) > MAX_SIZE:
        raise CannotCross(_name(type(value)), f"it takes more than {MAX_SIZE} bytes")
    return data


def loads(data: bytes) -> Any:
    """What `dumps` was given, or its like.

    Raises:
        UnknownClass: it holds an object of a class that is not here.
        ValueError: `data` is nothing that `dumps` writes.
    """
    try:
        return _Reader().unpack(data)
    except UnknownClass:
        raise
    except Exception as error:  # noqa: BLE001  msgpack, dates and numbers each complain in their own way
        raise ValueError(f"not a message: {type(error).__name__}") from None


# --- to the wire -----------------------------------------------------------------------------------------------------


class _Writer:
    """Writes one message."""

    __slots__ = ("_left", "_room")

    def __init__(self) -> None:
        self._left = _MAX_NODES
        self._room = MAX_SIZE

    def pack(self, plain: Any) -> bytes:
        packed: bytes = Packer(strict_types=True, unicode_errors="surrogatepass").pack(plain)
        return packed

    def plain(self, value: Any, depth: int) -> Any:
        """`value` made of what msgpack knows."""
        kind: Any = type(value)
        self._left -= 1
        if self._left < 0:
            raise CannotCross("the message", f"it has more than {_MAX_NODES} parts")
        if value is None or kind is bool or kind is float:
            return value
        if depth > _MAX_DEPTH:
            raise CannotCross(_name(kind), f"it is nested more than {_MAX_DEPTH} deep, or refers to itself")
        write = _WRITERS.get(kind)
        if write is not None:
            return write(self, value, depth + 1)
        if issubclass(kind, Enum):
            return self._enum(value, depth)
        if issubclass(kind, tuple):
            return self._namedtuple(value, depth)
        return self._object(value, depth)

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise CannotCross("the message", f"it takes more than {MAX_SIZE} bytes")

    def _ext(self, code: int, value: Any) -> ExtType:
        return ExtType(code, self.pack(value))

    def _all(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self.plain(value, depth) for value in values]

    def _text(self, value: str, depth: int) -> str:
        self._take(len(value))
        return value

    def _bytes(self, value: bytes, depth: int) -> bytes:
        self._take(len(value))
        return value

    def _int(self, value: int, depth: int) -> Any:
        if -(1 << 63) <= value < 1 << 64:
            return value
        size = value.bit_length() // 8 + 1
        self._take(size)
        return ExtType(_BIG, value.to_bytes(size, "big", signed=True))

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        return self._all(value.copy(), depth)

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        return {self.plain(key, depth): self.plain(each, depth) for key, each in list(value.items())}

    def _enum(self, value: Enum, depth: int) -> ExtType:
        kind: Any = type(value)
        if isinstance(value, Flag):
            names = [member.name for member in value]
            if reduce(or_, (kind[str(name)] for name in names), kind(0)) == value:
                return self._ext(_FLAG, [*_named(kind), names])
        elif value.name in kind.__members__:
            return self._ext(_ENUM, [*_named(kind), value.name])
        raise CannotCross(_name(kind), "it is no member of its class")

    def _namedtuple(self, value: Any, depth: int) -> ExtType:
        kind: Any = type(value)
        fields = getattr(kind, "_fields", None)
        if type(fields) is not tuple or len(fields) != len(value) or getattr(value, "__dict__", None):
            raise CannotCross(_name(kind), "of classes that are tuples, only named tuples can")
        return self._ext(_NAMEDTUPLE, [*_named(kind), self._all(tuple(value), depth + 1)])

    def _object(self, value: Any, depth: int) -> ExtType:
        kind: Any = type(value)
        if not _is_plain(kind):
            raise CannotCross(_name(kind), "it is neither a plain value nor an object of a plain class")
        state: dict[str, Any] = {}
        for name, each in _state(value):
            try:
                state[name] = self.plain(each, depth + 1)
            except CannotCross as error:
                path = f"{kind.__name__}.{name}" if not error.path else f"{kind.__name__}.{name}.{error.path}"
                raise CannotCross(error.type_name, error.problem, path[:200]) from None
        return self._ext(_OBJECT, [*_named(kind), state])


def _zone(zone: tzinfo | None, at: datetime | time) -> Any:
    """None, the name of a zone, or the offset in microseconds with a name or without."""
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    offset = at.utcoffset()
    if offset is None:
        raise CannotCross(_name(type(zone)), "it has no fixed offset")
    # the zones of other libraries become the offset that they had then
    name = zone.tzname(None) if type(zone) is timezone else None
    return [offset // timedelta(microseconds=1), name]


def _datetime(writer: _Writer, value: datetime, depth: int) -> ExtType:
    parts = value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
    return writer._ext(_DATETIME, [*parts, value.fold, _zone(value.tzinfo, value)])


def _time(writer: _Writer, value: time, depth: int) -> ExtType:
    parts = value.hour, value.minute, value.second, value.microsecond
    return writer._ext(_TIME, [*parts, value.fold, _zone(value.tzinfo, value)])


def _deque(writer: _Writer, value: deque[Any], depth: int) -> ExtType:
    return writer._ext(_DEQUE, [value.maxlen, writer._all(value.copy(), depth)])


def _bytearray(writer: _Writer, value: bytearray, depth: int) -> ExtType:
    writer._take(len(value))
    return ExtType(_BYTEARRAY, bytes(value))


def _collection(code: int) -> Callable[[_Writer, Any, int], ExtType]:
    return lambda writer, value, depth: writer._ext(code, writer._all(value.copy() if code == _SET else value, depth))


def _mapping(code: int) -> Callable[[_Writer, Any, int], ExtType]:
    def write(writer: _Writer, value: Any, depth: int) -> ExtType:
        pairs = [[writer.plain(key, depth), writer.plain(each, depth)] for key, each in list(value.items())]
        return writer._ext(code, pairs)

    return write


_WRITERS: dict[type, Callable[[_Writer, Any, int], Any]] = {
    str: _Writer._text,
    int: _Writer._int,
    bytes: _Writer._bytes,
    list: _Writer._list,
    dict: _Writer._dict,
    tuple: _collection(_TUPLE),
    set: _collection(_SET),
    frozenset: _collection(_FROZENSET),
    bytearray: _bytearray,
    complex: lambda writer, value, depth: writer._ext(_COMPLEX, [value.real, value.imag]),
    Decimal: lambda writer, value, depth: writer._ext(_DECIMAL, str(value)),
    UUID: lambda writer, value, depth: ExtType(_UUID, value.bytes),
    datetime: _datetime,
    date: lambda writer, value, depth: writer._ext(_DATE, [value.year, value.month, value.day]),
    time: _time,
    timedelta: lambda writer, value, depth: writer._ext(_TIMEDELTA, [value.days, value.seconds, value.microseconds]),
    OrderedDict: _mapping(_ORDERED),
    Counter: _mapping(_COUNTER),
    deque: _deque,
}


# --- from the wire ---------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one message. What `dumps` writes is never so deep that Python's stack, or C's, would not hold it."""

    __slots__ = ("_depth",)

    def __init__(self) -> None:
        self._depth = 0

    def unpack(self, data: bytes) -> Any:
        self._depth += 1
        if self._depth > 2 * _MAX_DEPTH:
            raise ValueError("too deep")
        try:
            return unpackb(data, ext_hook=self._read, strict_map_key=False, unicode_errors="surrogatepass")
        finally:
            self._depth -= 1

    def _read(self, code: int, data: bytes) -> Any:
        if code == _UUID:
            return UUID(bytes=data)
        if code == _BYTEARRAY:
            return bytearray(data)
        if code == _BIG:
            return int.from_bytes(data, "big", signed=True)
        return _READERS[code](self.unpack(data))


def _read_zone(said: Any) -> tzinfo | None:
    if said is None:
        return None
    if type(said) is str:
        return ZoneInfo(said)
    offset, name = timedelta(microseconds=said[0]), said[1]
    if not offset and name == "UTC":
        return timezone.utc  # noqa: UP017  the very object
    return timezone(offset) if name is None else timezone(offset, name)


def _read_datetime(parts: list[Any]) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = parts
    return datetime(year, month, day, hour, minute, second, microsecond, _read_zone(zone), fold=fold)


def _read_time(parts: list[Any]) -> time:
    hour, minute, second, microsecond, fold, zone = parts
    return time(hour, minute, second, microsecond, _read_zone(zone), fold=fold)


def _read_enum(parts: list[Any]) -> Any:
    kind = _class(parts[0], parts[1])
    if not issubclass(kind, Enum) or parts[2] not in kind.__members__:
        raise UnknownClass(f"{parts[0]}.{parts[1]} has no such member")
    return kind.__members__[parts[2]]


def _read_flag(parts: list[Any]) -> Any:
    kind = _class(parts[0], parts[1])
    if not issubclass(kind, Flag) or not set(parts[2]) <= kind.__members__.keys():
        raise UnknownClass(f"{parts[0]}.{parts[1]} has no such members")
    return reduce(or_, (kind.__members__[name] for name in parts[2]), kind(0))


def _read_namedtuple(parts: list[Any]) -> Any:
    kind = _class(parts[0], parts[1])
    if not issubclass(kind, tuple) or len(getattr(kind, "_fields", ())) != len(parts[2]):
        raise UnknownClass(f"{parts[0]}.{parts[1]} is no named tuple of so many fields")
    return tuple.__new__(kind, parts[2])


def _read_object(parts: list[Any]) -> Any:
    kind = _class(parts[0], parts[1])
    if not _is_plain(kind):
        raise UnknownClass(f"{parts[0]}.{parts[1]} is no plain class")
    made: Any = object.__new__(kind)
    slots = _slots(kind)
    for name, value in parts[2].items():
        if name in slots:
            slots[name].__set__(made, value)
        else:
            _attributes(made)[name] = value
    return made


_READERS: dict[int, Callable[[Any], Any]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _COMPLEX: lambda parts: complex(*parts),
    _DECIMAL: Decimal,
    _DATETIME: _read_datetime,
    _DATE: lambda parts: date(*parts),
    _TIME: _read_time,
    _TIMEDELTA: lambda parts: timedelta(*parts),
    _ENUM: _read_enum,
    _FLAG: _read_flag,
    _NAMEDTUPLE: _read_namedtuple,
    _OBJECT: _read_object,
    _ORDERED: OrderedDict,
    _COUNTER: lambda pairs: Counter(dict(pairs)),
    _DEQUE: lambda parts: deque(parts[1], parts[0]),
}


# --- classes ---------------------------------------------------------------------------------------------------------


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(1024)
def _named(kind: type) -> tuple[str, str]:
    """The module and the qualified name by which other workers find the class.

    Raises:
        CannotCross: they would not.
    """
    name = str(kind.__module__), kind.__qualname__
    try:
        found = _class(*name)
    except UnknownClass:
        found = None
    if found is not kind:
        raise CannotCross(_name(kind), "its class is not found under its name: it must stand at the top of a module")
    return name


def _class(module: Any, qualname: Any) -> type:
    """
    Raises:
        UnknownClass: no such class has been imported here.
    """
    found: Any = sys.modules.get(module) if type(module) is type(qualname) is str else None
    for part in str(qualname).split("."):
        # not getattr: a module may have a `__getattr__` that imports
        if not isinstance(found, ModuleType | type):
            break
        found = vars(found).get(part)
    if not isinstance(found, type):
        raise UnknownClass(f"{module}.{qualname} has not been imported here")
    return found


@lru_cache(1024)
def _is_plain(kind: type) -> bool:
    """Whether its objects are their `__dict__` and `__slots__`, and nothing that only C knows (as `copyreg` asks)."""
    if kind is object or not kind.__flags__ & _HEAP_TYPE or kind.__itemsize__:
        return False
    if any(str(base.__module__).partition(".")[0] in _TIED for base in kind.__mro__):
        return False
    size = object.__basicsize__ + _POINTER * len(_slots(kind))
    size += _POINTER * ((kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0))
    if kind.__basicsize__ > size:
        return False
    try:
        object.__new__(kind)
    except TypeError:  # an abstract class, or one that is made in C
        return False
    return True


@lru_cache(1024)
def _slots(kind: type) -> dict[str, MemberDescriptorType]:
    """The descriptors of `__slots__`, those of base classes too."""
    return {
        name: each
        for base in reversed(kind.__mro__)
        for name, each in vars(base).items()
        if type(each) is MemberDescriptorType and each.__objclass__ is base
    }


def _state(value: Any) -> list[tuple[str, Any]]:
    """The fields of an object of a plain class that are set."""
    found: list[tuple[str, Any]] = []
    kind: Any = type(value)
    for name, slot in _slots(kind).items():
        try:
            found.append((name, slot.__get__(value)))
        except AttributeError:
            continue
    return found + list(_attributes(value).items())


def _attributes(value: Any) -> dict[str, Any]:
    """The `__dict__` of an object, whatever its class says of that name."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}
