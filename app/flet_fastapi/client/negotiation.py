"""The arithmetic of HTTP: content codings, preconditions and ranges (RFC 9110). Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime

# Smallest first: with equal weights the server chooses.
PREFERENCE = ("br", "gzip", "identity")

_ETAG = re.compile(r'(W/)?("[^"]*")')
_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
# 19 digits hold any file size; longer numbers would only cost time to parse
_MAX_DIGITS = 19


def fold(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header lines as a dict; lines of the same name are joined with commas (RFC 9110, 5.3)."""
    folded: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        folded[name] = f"{folded[name]}, {value}" if name in folded else value
    return folded


def choose_coding(accept_encoding: str | None, available: Collection[str]) -> str | None:
    """The content coding to send out of `available` and identity; None if the client refuses all (RFC 9110, 12.5.3)."""
    if accept_encoding is None:
        return "identity"
    weights = _weights(accept_encoding)
    others = weights.get("*")
    best, best_weight = None, 0.0
    for coding in PREFERENCE:
        if coding != "identity" and coding not in available:
            continue
        weight = weights.get(coding, others)
        if weight is None:
            # not named: identity stays acceptable, but whatever was asked for comes first
            weight = 1e-6 if coding == "identity" else 0.0
        if weight > best_weight:
            best, best_weight = coding, weight
    return best


def _weights(header: str) -> dict[str, float]:
    weights = {}
    for item in header.split(","):
        name, _, parameters = item.partition(";")
        if name := name.strip().lower():
            weights[name.removeprefix("x-")] = _weight(parameters)
    return weights


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0
    return 1.0


def http_date(timestamp: float) -> str:
    return formatdate(timestamp, usegmt=True)


def precondition(headers: Mapping[str, str], etag: str, modified: int | None) -> int | None:
    """The status that the request's preconditions demand, 304 or 412, or None to go on (RFC 9110, 13.2.2).

    `etag` is the current strong tag with its quotes, `modified` the time of the last change in whole seconds.
    """
    if (match := headers.get("if-match")) is not None:
        if not _matches(match, etag, weak=False):
            return 412
    elif modified is not None and _older(headers.get("if-unmodified-since"), modified):
        return 412
    if (match := headers.get("if-none-match")) is not None:
        return 304 if _matches(match, etag, weak=True) else None
    since = _date(headers.get("if-modified-since"))
    return 304 if modified is not None and since is not None and modified <= since else None


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    return any(tag == etag and (weak or not mark) for mark, tag in _ETAG.findall(header))


def _older(header: str | None, modified: int) -> bool:
    date = _date(header)
    return date is not None and modified > date


def _date(header: str | None) -> int | None:
    if header is None:
        return None
    try:
        parsed = parsedate_to_datetime(header)
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int


class Unsatisfiable(Exception):
    """The range asked for lies outside the representation: 416."""


def choose_span(headers: Mapping[str, str], size: int, etag: str, modified: int | None) -> Span | None:
    """The part that the request asks for, or None for the whole.

    A malformed header and several ranges at once get the whole, as RFC 9110 (14.2) allows: nothing that shows Flet
    apps asks for several, and answering them is how servers were made to send a file many times over.

    Raises:
        Unsatisfiable
    """
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or not _if_range(headers.get("if-range"), etag, modified):
        return None
    first, last = match.groups()
    if len(first) > _MAX_DIGITS or len(last) > _MAX_DIGITS or not (first or last):
        return None
    if not first:
        return _suffix(int(last), size)
    start, stop = int(first), int(last) + 1 if last else size
    if stop <= start and last:
        return None
    if start >= size:
        raise Unsatisfiable
    return Span(start, min(stop, size))


def _suffix(length: int, size: int) -> Span:
    if length == 0 or size == 0:
        raise Unsatisfiable
    return Span(max(0, size - length), size)


def _if_range(header: str | None, etag: str, modified: int | None) -> bool:
    if header is None:
        return True
    header = header.strip()
    if header.startswith(('"', "W/")):
        return header == etag
    return modified is not None and _date(header) == modified
