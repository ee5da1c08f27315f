"""`roost check`: what is in effect, who said it, and what is wrong with it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

import flet_fastapi
from flet_fastapi.environment import given
from flet_fastapi.options import SECRETS, Limits, Options

from .forwarded import EVERYBODY
from .settings import Settings, unknown_variables, variable_of

_MASK = "********"


class Row(NamedTuple):
    """One setting in effect."""

    name: str
    value: str
    source: str


def rows(settings: Settings, options: Options, limits: Limits) -> Iterator[Row]:
    """All settings: the server's, those of apps, those of a worker. Secrets are masked."""
    for name in type(settings).model_fields:
        value = shown(getattr(settings, name))
        if name == "workers" and settings.workers == "auto":
            value = f"auto ({settings.worker_count})"
        yield Row(variable_of(name), value, settings.source(name))
    apps = inspect.signature(flet_fastapi.app).parameters
    for group in (options, limits):
        for name, field in type(group).model_fields.items():
            if variable := str(field.validation_alias or ""):
                found = given(variable, secret=variable in SECRETS)
                value = shown(getattr(group, name))
                if found and variable == "FLET_CLUSTER_URL":
                    value = without_password(found.value)
                default = "default, or the app's" if name in apps else "default"
                yield Row(variable, value, found.variable if found else default)


def shown(value: object) -> str:
    """A value for a person to read; nothing of a secret but that it is there."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ", ".join(shown(part) for part in value)
    if isinstance(value, SecretStr):
        return _MASK
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "value", value))


def without_password(url: str) -> str:
    """A URL that was accepted, without what is secret in it: user, password, and the query, which may hold them too."""
    parts = urlsplit(url)
    _, at, hosts = parts.netloc.rpartition("@")
    query = f"?{_MASK}" if parts.query else ""
    return f"{parts.scheme}://{_MASK if at else ''}{at}{hosts}{parts.path}{query}"


def table(rows: Iterable[Row]) -> str:
    """Rows as lines of three columns."""
    listed = list(rows)
    widths = [max(len(row[column]) for row in listed) for column in (0, 1)]
    return "\n".join(f"{row.name:{widths[0]}}  {row.value:{min(widths[1], 50)}}  {row.source}" for row in listed)


def warnings(settings: Settings, limits: Limits) -> Iterator[str]:
    """What is allowed and most likely not meant."""
    yield from unknown_variables()
    if settings.production and limits.debug:
        yield "FLET_DEBUG shows users the app's tracebacks"
    if settings.production and EVERYBODY in settings.forwarded_allow_ips:
        yield "ROOST_FORWARDED_ALLOW_IPS believes everybody: any client can pretend to be another address"
