"""What repeats is logged so often, then only counted."""

from __future__ import annotations

from roost.repeats import _MAX_KEYS, Key, Repeats
from tests.support.clock import Clock

KEY: Key = ("logger", "warning", "event")


def repeats(limit: int = 3) -> tuple[Repeats, Clock]:
    clock = Clock()
    return Repeats(limit, 10.0, clock.monotonic), clock


def test_an_event_is_counted_within_its_window() -> None:
    counter, clock = repeats()
    assert [counter.see(KEY) for _ in range(5)] == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]
    clock.now += 10
    assert counter.see(KEY) == (1, 2)
    assert counter.see(KEY) == (2, 0)


def test_events_are_counted_apart() -> None:
    counter, _ = repeats()
    for _ in range(9):
        counter.see(KEY)
    assert counter.see(("logger", "error", "event")) == (1, 0)
    assert counter.see(("other", "warning", "event")) == (1, 0)


def test_what_was_missed_is_told_once_when_its_window_has_ended() -> None:
    counter, clock = repeats()
    assert counter.ended(False) is None
    for _ in range(9):
        counter.see(KEY)
    assert counter.ended(False) == []
    clock.now += 10
    assert counter.ended(False) == [(KEY, 6)]
    assert counter.ended(False) is None
    assert counter.see(KEY) == (1, 0)


def test_at_the_end_all_is_told() -> None:
    counter, _ = repeats()
    for _ in range(9):
        counter.see(KEY)
    assert counter.ended(True) == [(KEY, 6)]


def test_an_event_within_the_limit_has_no_summary() -> None:
    counter, clock = repeats()
    for _ in range(3):
        counter.see(KEY)
    clock.now += 10
    assert counter.ended(True) is None
    assert counter.see(KEY) == (1, 0)


def test_the_number_of_events_that_are_told_apart_is_bounded() -> None:
    counter, _ = repeats()
    for _ in range(9):
        counter.see(KEY)
    for number in range(_MAX_KEYS * 2):
        counter.see(("logger", "info", str(number)))
    assert len(counter._windows) == _MAX_KEYS
    assert counter.ended(False) == [(KEY, 6)]
