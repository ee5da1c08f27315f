"""What may go from one worker's app to another's, and what may not."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import sys
import threading
import uuid
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType, packb

from flet_fastapi.cluster import typed
from flet_fastapi.cluster.typed import CannotCross, UnknownClass, dumps, loads


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    OWN = enum.auto()


class Level(enum.IntEnum):
    HIGH = 9


class Word(str, enum.Enum):  # noqa: UP042  an app may still write it so
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    user: str
    text: str = "hi"


@dataclasses.dataclass(kw_only=True)
class Base:
    items: list[Any]


@dataclasses.dataclass(kw_only=True)
class Derived(Base):
    when: dt.datetime


class Plain:
    made = 0

    def __init__(self, value: Any) -> None:
        type(self).made += 1
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class Slotted(Plain):
    """With a `__dict__` by its base, a private name, and a slot that is never set."""

    __slots__ = ("__secret", "unset")

    def __init__(self, secret: Any) -> None:
        super().__init__(secret)
        self.__secret = secret

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, Slotted) and other.__secret == self.__secret

    __hash__ = None  # type: ignore[assignment]


class Trap:
    """Whatever of this runs when it is made from the wire is a hole."""

    def __init__(self) -> None:
        self.value = 1

    def __new__(cls, *args: Any) -> Trap:
        if args == ():
            return object.__new__(cls)
        raise AssertionError("__new__ ran")

    def __reduce__(self) -> Any:
        raise AssertionError("__reduce__ ran")

    def __getstate__(self) -> Any:
        raise AssertionError("__getstate__ ran")

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("__setstate__ ran")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value) if name == "value" else pytest.fail("__setattr__ ran")

    @property
    def looked(self) -> int:
        return 1

    @looked.setter
    def looked(self, value: int) -> None:
        raise AssertionError("a property ran")


VALUES: list[Any] = [
    None, True, 0, -1, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**400, -(10**400), 1.5, float("inf"), "", "日本",
    "half of an emoji: \ud83d", b"\0\xff", bytearray(b"x"), (), (1, (2, [3])), [], {1, "a"}, frozenset({(1, 2)}),
    {"a": 1, (1, 2): [3], None: 4, 1.5: {}, b"k": (), Colour.RED: 1},
    dt.datetime(2024, 2, 29, 23, 59, 59, 999_999), dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5, seconds=1), "here")),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    dt.date(1, 1, 1), dt.time(1, 2, 3, 4), dt.time(1, tzinfo=dt.UTC), dt.timedelta(-1, 5, 7), dt.timedelta.max,
    decimal.Decimal("1.10"), decimal.Decimal("-Infinity"), uuid.UUID(int=5), 1 - 2j, fractions.Fraction(1, 3),
    ipaddress.ip_address("::1"), Colour.RED, Colour.BLUE, Rights.READ, Rights.READ | Rights.OWN, Rights(0), Level.HIGH,
    Word.YES, Point(1, [2]), Frozen("ann"), Derived(items=[Frozen("b")], when=dt.datetime(2024, 1, 1)),
    Plain({"a": Plain(1)}), Slotted((1, 2)), collections.OrderedDict(b=1, a=2), collections.Counter("aab"),
    collections.deque([1, 2], 3),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_value_arrives_as_it_was(value: Any) -> None:
    found = loads(dumps(value))
    assert found == value
    assert type(found) is type(value)
    assert getattr(found, "tzinfo", None) == getattr(value, "tzinfo", None)
    assert getattr(found, "fold", None) == getattr(value, "fold", None)


def test_nan_arrives() -> None:
    assert str(loads(dumps([float("nan"), decimal.Decimal("NaN")]))) == "[nan, Decimal('NaN')]"


def test_members_of_enums_are_the_very_ones() -> None:
    assert loads(dumps(Colour.RED)) is Colour.RED


_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates(),
    st.datetimes(timezones=st.timezones()), st.times(), st.timedeltas(), st.uuids(), st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False), st.sampled_from(Colour),
)  # fmt: skip
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text() | st.integers(), inner),
        st.builds(Plain, inner), st.builds(Point, st.integers(), inner), st.builds(Base, items=st.lists(inner)),
    ),
    max_leaves=20,
)  # fmt: skip


@given(_values)
def test_any_nesting_arrives(value: Any) -> None:
    assert loads(dumps(value)) == value


@given(st.sets(st.integers() | st.text()), st.frozensets(st.binary()))
def test_sets_arrive(one: Any, other: Any) -> None:
    assert loads(dumps([one, other])) == [one, other]


# --- what cannot go --------------------------------------------------------------------------------------------------


class OwnList(list[int]):
    pass


def local() -> Any:
    class Inner:
        pass

    return Inner()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (threading.Lock(), "_thread.lock"),
        (threading.Event(), "threading.Event"),
        (asyncio.Event(), "asyncio.locks.Event"),
        (asyncio.Queue(), "asyncio.queues.Queue"),
        (lambda: 0, "function"),
        (object(), "object"),
        (int, "type"),
        (Exception("x"), "Exception"),
        (OwnList(), "test_typed.OwnList"),
        (local(), "local.<locals>.Inner"),
        (iter([]), "list_iterator"),
        (sys, "module"),
        (memoryview(b""), "memoryview"),
        (sys.stdout, ""),
        ([{"a": (Plain([threading.Lock()]),)}], "_thread.lock"),
        (Frozen(threading.Lock()), "_thread.lock"),  # type: ignore[arg-type]
    ],
)
def test_error_names_the_type_that_cannot_go(value: Any, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        dumps(value)
    assert name in str(caught.value)


def test_error_says_where_it_is() -> None:
    with pytest.raises(CannotCross, match=r"at Plain\.value\.Plain\.value"):
        dumps(Plain([Plain(threading.Lock())]))


def _cycle() -> Any:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _own_owner() -> Any:
    owner = Plain(None)
    owner.value = owner
    return owner


def _bomb() -> Any:
    bomb: list[Any] = [1.5]
    for _ in range(40):
        bomb = [bomb] * 10
    return bomb


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_cycle, "refers to itself"),
        (_own_owner, "refers to itself"),
        (_bomb, "parts"),
        (lambda: [0.5] * 1_000_000, "parts"),
        (lambda: b"x" * (typed.MAX_SIZE + 1), "bytes"),
        (lambda: ["x" * 1000] * 100_000, "bytes"),
    ],
)
def test_what_has_no_end_is_an_error(make: Any, problem: str) -> None:
    with pytest.raises(CannotCross, match=problem):
        dumps(make())


def test_object_that_is_there_twice_arrives_as_two() -> None:
    one = Plain(1)
    first, second = loads(dumps([one, one]))
    assert first == second == one
    assert first is not second


# --- what a receiver does --------------------------------------------------------------------------------------------


def test_no_code_of_the_class_runs() -> None:
    trap = loads(dumps(Trap()))
    assert type(trap) is Trap
    assert trap.value == 1
    Plain.made = 0
    loads(packb(ExtType(typed._OBJECT, packb([Plain.__module__, "Plain", {"value": 1}]))))
    assert Plain.made == 0
    looked = loads(packb(ExtType(typed._OBJECT, packb([Trap.__module__, "Trap", {"looked": 7}]))))
    assert looked.looked == 1, "the property is the class's still"


def crafted(code: int, *parts: Any) -> bytes:
    return packb(ExtType(code, packb(list(parts))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "data",
    [
        crafted(typed._OBJECT, "not_imported_at_all", "Thing", {}),
        crafted(typed._OBJECT, __name__, "Missing", {}),
        crafted(typed._OBJECT, __name__, "Plain.__init__", {}),
        crafted(typed._OBJECT, "builtins", "list", {}),
        crafted(typed._OBJECT, "builtins", "object", {}),
        crafted(typed._OBJECT, "builtins", "eval", {}),
        crafted(typed._OBJECT, "subprocess", "Popen.__init__", {}),
        crafted(typed._OBJECT, "os", "system", {}),
        crafted(typed._OBJECT, "_thread", "lock", {}),
        crafted(typed._OBJECT, None, None, {}),
        crafted(typed._ENUM, __name__, "Colour", "GREEN"),
        crafted(typed._ENUM, __name__, "Plain", "x"),
        crafted(typed._FLAG, __name__, "Rights", ["READ", "ALL"]),
        crafted(typed._NAMEDTUPLE, __name__, "Point", [1]),
        crafted(typed._NAMEDTUPLE, "builtins", "list", []),
    ],
)
def test_class_that_is_not_here_or_is_not_plain_is_not_made(data: bytes) -> None:
    before = set(sys.modules)
    with pytest.raises(UnknownClass):
        loads(data)
    assert set(sys.modules) == before, "nothing was imported"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError, UnknownClass):
        loads(data)


@given(st.integers(-128, 127), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_any_extension_is_a_value_or_an_error(code: int, value: Any) -> None:
    with contextlib.suppress(ValueError, UnknownClass, OverflowError):
        loads(packb(ExtType(code % 128, packb(value))))


def test_nesting_that_a_stranger_made_is_an_error() -> None:
    data = packb([])
    for _ in range(5000):
        data = packb(ExtType(typed._TUPLE, data))
    with pytest.raises(ValueError, match="not a message"):
        loads(data)
