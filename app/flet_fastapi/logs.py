"""Loggers with key-values, over the standard library's.

Who serves the app decides by `logging` what becomes of them. A record carries its key-values in the attribute `fields`,
and in its message for those who look at nothing else. Tracebacks never show local variables: these hold secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import Context
from typing import Any

import structlog
from starlette.types import Scope
from structlog.contextvars import bind_contextvars, get_contextvars
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, WrappedLogger

# Of a value in a message; whoever wants more of it has it in `fields`.
_MAX_SHOWN = 1_000
# Where a server that keeps an access log may put a dict: what it learns of a websocket's session gets there.
FACTS = "flet.facts"
# What servers bind for a request: its id, and the client's address as they show it and as it is.
_CARRIED = frozenset({"request_id", "client", "_address"})
_MAX_CARRIED = 64


def get_logger(name: str) -> BoundLogger:
    """The logger of a module: `log.info("what_happened", key=value)`."""
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, render_to_record],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def render_to_record(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[Any], dict[str, Any]]:
    """structlog's last step: arguments for a logger of the standard library."""
    exc_info, stack_info = event.pop("exc_info", None), event.pop("stack_info", False)
    name = event.pop("event")
    name = name if type(name) is str else _text(name)
    extra = {"event": name, "fields": event}
    return (_Message(name, event),), {"exc_info": exc_info, "stack_info": stack_info, "extra": extra}


def tell(scope: Scope, context: Context | None = None, **facts: str | None) -> None:
    """All that is logged from here on for this connection tells these `facts` of it; what `context` runs, too.

    The server's access log gets them, and `context` what else the server has bound (the id of the request).
    """
    known = scope.get(FACTS)
    if known is not None:
        known.update(facts)
    bind_contextvars(**facts)
    if context is not None:
        context.run(bind_contextvars, **get_contextvars())


def carried() -> dict[str, str]:
    """What another worker has to know to log for the same connection."""
    return {name: value for name, value in get_contextvars().items() if name in _CARRIED and isinstance(value, str)}


def carry(given: object) -> None:
    """Log for a connection that another worker has, as it says by `carried`."""
    if isinstance(given, Mapping):
        known = {name: value for name, value in given.items() if name in _CARRIED and isinstance(value, str)}
        bind_contextvars(**{name: value[:_MAX_CARRIED] for name, value in known.items()})


class _Message:
    """What is shown of an event by those who show messages; made when one does."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: EventDict) -> None:
        self.event = event
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.event, *(f"{key}={_shown(value)}" for key, value in self.fields.items())])


def _shown(value: object) -> str:
    text = _text(value)[:_MAX_SHOWN]
    return text if text.isprintable() and text and " " not in text else repr(text)


def _text(value: object) -> str:
    try:
        return str(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  the app's class
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
