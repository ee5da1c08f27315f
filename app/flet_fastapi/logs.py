"""Loggers with key-values, over the standard library's.

Who serves the app decides by `logging` what becomes of them. A record carries its key-values in the attribute `fields`,
and in its message for those who look at nothing else. Tracebacks never show local variables: these hold secrets.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, WrappedLogger


def get_logger(name: str) -> BoundLogger:
    """The logger of a module: `log.info("what_happened", key=value)`."""
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _render],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def _render(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    exc_info = event.pop("exc_info", None)
    name = event.pop("event")
    # %-signs: the message is a format for the standard library as soon as there are arguments, so there are none
    message = " ".join([str(name), *(f"{key}={_shown(value)}" for key, value in event.items())])
    return (message,), {"exc_info": exc_info, "extra": {"event": name, "fields": event}}


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)
