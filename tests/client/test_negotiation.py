from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.client.negotiation import (
    Span,
    Unsatisfiable,
    choose_coding,
    choose_span,
    fold,
    http_date,
    precondition,
)

BOTH = ("br", "gzip")


@pytest.mark.parametrize(
    ("accept", "available", "expected"),
    [
        (None, BOTH, "identity"),
        ("", BOTH, "identity"),
        ("gzip, deflate, br, zstd", BOTH, "br"),
        ("gzip, deflate", BOTH, "gzip"),
        ("x-gzip", BOTH, "gzip"),
        ("BR", BOTH, "br"),
        ("br;q=0.5, gzip;q=0.8", BOTH, "gzip"),
        ("br;q=0, gzip", BOTH, "gzip"),
        ("br;q=0", BOTH, "identity"),
        ("*", BOTH, "br"),
        ("*;q=0.1, identity;q=0.5", BOTH, "identity"),
        ("gzip;q=0.001", BOTH, "gzip"),
        ("identity;q=1, *;q=0", BOTH, "identity"),
        ("identity;q=0", BOTH, None),
        ("identity;q=0, br", BOTH, "br"),
        ("identity;q=0, br", (), None),
        ("*;q=0", BOTH, None),
        ("*;q=0, gzip", BOTH, "gzip"),
        ("zstd", BOTH, "identity"),
        ("br", ("gzip",), "identity"),
        ("br ; Q=1 , gzip;q=1.0", BOTH, "br"),
        ("br;q=nonsense, gzip", BOTH, "gzip"),
        ("br;q=2, gzip", BOTH, "gzip"),
        ("br;q=nan, gzip", BOTH, "gzip"),
    ],
)
def test_coding_follows_the_weights(accept: str | None, available: tuple[str, ...], expected: str | None) -> None:
    assert choose_coding(accept, available) == expected


@given(st.text(alphabet="brgzipdentyq=;,.*01 -"))
def test_any_accept_encoding_gets_an_available_coding(accept: str) -> None:
    assert choose_coding(accept, BOTH) in (None, "identity", *BOTH)


NOW = 1_700_000_000
EARLIER, SAME, LATER = http_date(NOW - 1), http_date(NOW), http_date(NOW + 1)
TAG = '"abc"'


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"if-none-match": TAG}, 304),
        ({"if-none-match": f"W/{TAG}"}, 304),
        ({"if-none-match": f'"x", {TAG}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, None),
        ({"if-none-match": "abc"}, None),
        ({"if-none-match": '"x,y", "z"'}, None),
        ({"if-none-match": '"x"', "if-modified-since": LATER}, None),
        ({"if-modified-since": EARLIER}, None),
        ({"if-modified-since": SAME}, 304),
        ({"if-modified-since": LATER}, 304),
        ({"if-modified-since": "yesterday"}, None),
        ({"if-modified-since": "Tue, 99 Nov 99999 99:99:99 GMT"}, None),
        ({"if-match": TAG}, None),
        ({"if-match": "*"}, None),
        ({"if-match": f"W/{TAG}"}, 412),
        ({"if-match": '"x"'}, 412),
        ({"if-match": TAG, "if-none-match": TAG}, 304),
        ({"if-unmodified-since": EARLIER}, 412),
        ({"if-unmodified-since": SAME}, None),
        ({"if-unmodified-since": EARLIER, "if-match": TAG}, None),
    ],
)
def test_preconditions(headers: dict[str, str], expected: int | None) -> None:
    assert precondition(headers, TAG, NOW) == expected


def test_dates_mean_nothing_without_a_modification_time() -> None:
    assert precondition({"if-modified-since": LATER, "if-unmodified-since": EARLIER}, TAG, None) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-9", Span(0, 10)),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=90-", Span(90, 100)),
        ("bytes=-10", Span(90, 100)),
        ("bytes=-1000", Span(0, 100)),
        ("bytes=50-1000", Span(50, 100)),
        ("Bytes = 1 - 2", Span(1, 3)),
        ("bytes=9-1", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("", None),
    ],
)
def test_range_of_a_hundred_bytes(value: str, expected: Span | None) -> None:
    assert choose_span({"range": value}, 100, TAG, NOW) == expected


@pytest.mark.parametrize("value", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_range_outside_is_unsatisfiable(value: str) -> None:
    with pytest.raises(Unsatisfiable):
        choose_span({"range": value}, 100, TAG, NOW)


@pytest.mark.parametrize(
    ("value", "applies"),
    [(TAG, True), ('"x"', False), (f"W/{TAG}", False), (SAME, True), (LATER, False), (EARLIER, False), ("junk", False)],
)
def test_if_range_needs_the_same_representation(value: str, applies: bool) -> None:
    span = choose_span({"range": "bytes=0-1", "if-range": value}, 100, TAG, NOW)
    assert (span is not None) is applies


@given(st.text(alphabet="bytes=-0123456789, "), st.integers(0, 200))
def test_any_range_lies_inside(value: str, size: int) -> None:
    try:
        span = choose_span({"range": "bytes=" + value}, size, TAG, NOW)
    except Unsatisfiable:
        return
    assert span is None or 0 <= span.start < span.stop <= size


def test_repeated_headers_are_joined() -> None:
    assert fold([(b"Accept", b"a"), (b"accept", b"b"), (b"x", b"\xff")]) == {"accept": "a, b", "x": "ÿ"}
