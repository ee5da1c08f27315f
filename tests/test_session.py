"""What of a session needs no connection; the rest is in tests/protocol."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import pytest

from flet_fastapi.errors import Disconnected
from flet_fastapi.generations.base import Outgoing
from flet_fastapi.manager import AppManager
from flet_fastapi.session import Session, is_async
from tests.support.serving import make_manager


class Wire:
    """A connection that remembers what it was asked."""

    def __init__(self) -> None:
        self.woken = 0
        self.cuts: list[int] = []

    def wake(self) -> None:
        self.woken += 1

    def cut(self, code: int, reason: str) -> None:
        self.cuts.append(code)


def message(size: int = 1, *, keep: bool = False) -> Outgoing:
    return Outgoing(0, b"x" * size, keep)


@pytest.fixture
async def manager() -> Any:
    manager = make_manager(send_queue_size=100)
    await manager.start()
    yield manager
    await manager.shutdown()


@pytest.fixture
def session(manager: AppManager) -> Session:
    return Session(manager, "app", object(), 3600)  # type: ignore[arg-type]


def test_names_differ_and_none_is_shown(session: Session) -> None:
    names = {session.secret_id, session.public_id, session.key}
    assert len(names) == 3
    assert not any(name in repr(session) for name in names)


async def test_messages_are_taken_in_order(session: Session) -> None:
    session.connection = Wire()
    sent = [message(n) for n in range(1, 5)]
    session.send(sent[:2])
    session.send(sent[2:])
    assert session.connection.woken == 2
    assert session.take() == sent
    assert not session.waiting


async def test_too_much_cuts_the_connection_and_holds_no_more(session: Session) -> None:
    session.connection = wire = Wire()
    for _ in range(50):
        session.send([message(30)])
    assert wire.cuts[:1] == [1013]
    assert sum(len(waiting.body) for waiting in session._outbox) <= 130


@pytest.mark.parametrize("sizes", [(500,), (30, 500), (500, 30, 30), (60, 500, 40)])
async def test_one_update_may_be_larger_than_the_queue(session: Session, sizes: tuple[int, ...]) -> None:
    session.connection = wire = Wire()
    for size in sizes:
        session.send([message(size - 10), message(10)])
    assert not wire.cuts
    assert len(session.take()) == 2 * len(sizes)


@pytest.mark.parametrize("sizes", [(500, 101), (101, 500), (500, 60, 41), (60, 41)])
async def test_too_much_beside_the_largest_update_cuts(session: Session, sizes: tuple[int, ...]) -> None:
    session.connection = wire = Wire()
    for size in sizes:
        assert not wire.cuts
        session.send([message(size)])
    assert wire.cuts == [1013]


async def test_what_was_taken_leaves_no_room_behind(session: Session) -> None:
    session.connection = wire = Wire()
    session.send([message(500)])
    session.take()
    session.send([message(60)])
    session.send([message(60)])
    assert wire.cuts == [1013]


async def test_large_call_that_waits_for_the_browser_does_not_cut_its_next_connection(session: Session) -> None:
    session.connection = wire = Wire()
    session.send([message(500, keep=True)])
    session._drop_updates()
    session.send([message(30)])
    assert not wire.cuts


async def test_only_what_must_arrive_waits_for_an_absent_browser(session: Session) -> None:
    session.send([message(), message(2, keep=True), message()])
    assert [len(waiting.body) for waiting in session.take()] == [2]


async def test_calls_to_an_absent_browser_are_bounded(session: Session) -> None:
    for _ in range(50):
        session.send([message(2, keep=True)])
    with pytest.raises(Disconnected):
        session.send([message(2, keep=True)])
    session.send([message(2)])
    assert len(session._outbox) == 50


async def test_closed_session_keeps_nothing(session: Session) -> None:
    session.closed = True
    session.send([message(keep=True)])
    assert not session.waiting


async def test_keyboard_interrupt_of_the_apps_code_is_its_failure(session: Session) -> None:
    assert not session._asked_to_end(KeyboardInterrupt())


async def test_ctrl_c_that_comes_as_an_exception_ends_the_server(session: Session) -> None:
    """As in a program that has nothing of its own for it, asyncio's runner neither."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert session._asked_to_end(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)


class Plain:
    def method(self) -> None: ...

    async def waits(self) -> None: ...

    @classmethod
    async def of_class(cls) -> None: ...

    @staticmethod
    async def static() -> None: ...


class Waits:
    async def __call__(self) -> None: ...


async def waits() -> None: ...


@pytest.mark.parametrize(
    "function", [waits, Plain().waits, Plain.of_class, Plain.static, Waits(), partial(waits), partial(partial(Waits())),
                 partial(Plain.waits, Plain()), partial(Plain().waits)]
)  # fmt: skip
def test_async_functions(function: Any) -> None:
    assert is_async(function)


@pytest.mark.parametrize("function", [print, Plain().method, Plain, lambda: None, partial(print), {}.get])
def test_plain_functions(function: Any) -> None:
    assert not is_async(function)
