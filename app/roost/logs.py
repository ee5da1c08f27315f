"""Logs: everything that this process says goes to stdout, one event per line, in one shape.

The library's loggers, structlog's, the standard library's, uvicorn's, gunicorn's, warnings and exceptions that nobody
caught meet in one handler of the root logger. `docs/logs.md` lists the events.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Protocol, TextIO
from urllib.parse import unquote

import gunicorn.glogging
import structlog
from pydantic import SecretStr
from structlog.contextvars import get_contextvars

from flet_fastapi.environment import given
from flet_fastapi.errors import OptionError
from flet_fastapi.logs import get_logger, render_to_record
from flet_fastapi.options import SECRETS

from .lines import LEADING, Entry, as_console, as_json, as_line, words
from .masking import Masks
from .outlet import Outlet
from .repeats import Key, Repeats

log = get_logger(__name__)
_warnings = get_logger("py.warnings")

_STDOUT = 1

# The client's whole address, in the context of its request, where only a part of it may be logged.
ADDRESS = "_address"

# A line for each request is what an access log is for.
_NEVER_REPEATED = "roost.access"
# Lines that are logged while lines are made: by an app's object that logs when it is shown.
_MAX_DEPTH = 3
_MAX_ADDRESS = 64

# What a record has of itself; the rest is what `extra` was given. The last ones are for other libraries' formatters.
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "websocket"}
# What our access line says, too.
_SAID_BY_ACCESS = re.compile(r'%s - "WebSocket %s"|connection (open$|closed$|rejected )')
_SERVERS = ("uvicorn", "gunicorn", "hypercorn", "websockets")
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4})(?![\w.])")
# Where we listen.
_OUR_ADDRESSES = frozenset({"127.0.0.1", "0.0.0.0", "::", "::1"})  # noqa: S104
_CLIENT_FIELDS = ("client", "client_ip", "client_address", "remote_addr", "remote_address", "ip", "peer")
_PASSWORD = re.compile(r"://[^/@]*:([^@]+)@")
# What differs between messages that are the same event.
_VARYING = re.compile(r"0x[0-9a-f]+|\d+")


class LogSettings(Protocol):
    """What is needed of the settings."""

    @property
    def environment(self) -> str:
        """`production` or `development`."""

    @property
    def log_format(self) -> str:
        """`json`, `console` or `auto`: by the environment."""

    @property
    def log_level(self) -> str: ...

    @property
    def log_client(self) -> str:
        """How much of a client's address is logged: `full`, `truncated` (its /24 or /48) or `none`."""


def configure(settings: LogSettings, slot: int | None = None) -> None:
    """Send all that this process logs to stdout; `slot` is the worker's.

    To call it again, in a worker or with other settings, changes what is different. Handlers that servers have given
    to their loggers go; uvicorn must be told `log_config=None`, or it brings new ones.
    """
    if _handler.outlet is None:
        _handler.outlet = Outlet(_STDOUT, _handler.dropped, _handler.due)
    else:
        _handler.outlet.redirect(_STDOUT)
    json = settings.log_format == "json" or (settings.log_format != "console" and settings.environment == "production")
    _handler.render = as_json if json else as_console(_has_colours())
    _handler.client, _handler.slot = settings.log_client, slot
    hide(*_secrets(settings))
    root = logging.getLogger()
    root.handlers = [_handler]
    root.setLevel(settings.log_level.upper())
    _take_over_servers()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            render_to_record,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    warnings.showwarning = _show_warning
    sys.excepthook, threading.excepthook, sys.unraisablehook = _uncaught, _thread_failed, _unraisable


def hide(*secrets: str) -> None:
    """Mask these texts in every line, whatever they look like."""
    _handler.known.update(secrets)
    _handler.masks = Masks(_handler.known)


def masked(text: str) -> str:
    """What the app has said of its failure, for a person to read: without what looks like a secret."""
    return _handler.masks.text(text)


def flush(seconds: float = 2.0) -> bool:
    """Wait until what was logged is written; whether it is."""
    return _handler.outlet is None or _handler.outlet.flush(seconds)


def shown_client(client: Any, mode: str) -> str | None:
    """The address of an ASGI scope's `client` as it is logged: whole, its network, or not at all."""
    host = str(client[0])[:_MAX_ADDRESS] if client and client[0] else None
    if host is None or mode == "none":
        return None
    return host if mode == "full" else _network(host)


def _network(host: str) -> str | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None  # a proxy's word, which may be anything
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False).network_address)


def _secrets(settings: Any) -> Iterator[str]:
    """The server's own secrets, and the library's."""
    for value in getattr(settings, "__dict__", {}).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, SecretStr):
                yield item.get_secret_value()
    for variable in SECRETS:
        with suppress(OptionError):  # whoever needs it says so
            found = given(variable, secret=True)
            for part in found.value.split(",") if found is not None else ():
                password = _PASSWORD.search(part)
                yield from (part.strip(),) if password is None else (password[1], unquote(password[1]))


def _has_colours() -> bool:
    # https://no-color.org and its opposite belong to the terminal, not to our settings
    forced = os.environ.get("FORCE_COLOR", "0")
    return not os.environ.get("NO_COLOR") and (forced not in ("", "0") or os.isatty(_STDOUT))


# --- the handler -----------------------------------------------------------------------------------------------------


class _Handler(logging.Handler):
    """Makes a line of each record and hands it to the outlet. Nothing that fails here reaches who logs."""

    def __init__(self) -> None:
        super().__init__()
        self.outlet: Outlet | None = None
        self.render: Callable[[Entry], str] = as_json
        self.known: set[str] = set()
        self.masks = Masks()
        self.client = "full"
        self.slot: int | None = None
        self.repeats = Repeats()
        self._depth = threading.local()

    def createLock(self) -> None:  # noqa: N802  logging's name
        """None: lines are made in the threads that log, and the outlet has a lock of its own."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        depth = getattr(self._depth, "now", 0)
        if depth >= _MAX_DEPTH or self.outlet is None:
            return
        self._depth.now = depth + 1
        try:
            self._emit(record, self.outlet)
        except Exception as error:  # noqa: BLE001  whatever it is, only this line is lost, and that is told
            self._failed(record, error, self.outlet)
        finally:
            self._depth.now = depth

    def _emit(self, record: logging.LogRecord, outlet: Outlet) -> None:
        level = _level(record.levelno)
        if record.name == "uvicorn.error" and _SAID_BY_ACCESS.match(words(record.msg)):
            if not logging.getLogger().isEnabledFor(logging.DEBUG):
                return
            level = "debug"
        if record.name != _NEVER_REPEATED and not self._is_admitted(record, level, outlet):
            return
        error = _error(record)
        outlet.put(self._line(self._entry(record, level), error, get_contextvars().get(ADDRESS)))

    def _is_admitted(self, record: logging.LogRecord, level: str, outlet: Outlet) -> bool:
        key = (record.name, level, _kind(record))
        seen, missed = self.repeats.see(key)
        if missed:
            outlet.put(self._summary(key, missed))
        if seen == self.repeats.limit + 1:
            outlet.wake()  # the summary comes by time
        return seen <= self.repeats.limit

    def _failed(self, record: logging.LogRecord, error: Exception, outlet: Outlet) -> None:
        try:
            place = f"{record.filename}:{record.lineno}"
            outlet.put(self._own("error", "log_line_failed", problem=type(error).__name__, place=place))
        except Exception:  # noqa: BLE001, S110  there is nobody left to tell
            pass

    # --- lines -------------------------------------------------------------------------------------------------------

    def _line(self, entry: Entry, error: BaseException | None = None, address: str | None = None) -> bytes:
        render = self.render
        if address is not None and self.client != "full":
            render = self._without(address, render)
        return as_line(entry, error, self.masks, render)

    def _entry(self, record: logging.LogRecord, level: str) -> Entry:
        event, fields = _said(record)
        if self.client != "full" and record.name.startswith(_SERVERS):
            event = _ADDRESS.sub(lambda match: self._reduced(match[0]), event)
        entry = self._leading(record.created, level, event, record.name)
        for name, value in (*get_contextvars().items(), *fields.items()):
            if name == ADDRESS:
                continue
            if self.client != "full" and name in _CLIENT_FIELDS:
                value = self._reduced(value)
            entry[f"{name}_" if name in LEADING or name == "exception" else name] = value
        return entry

    def _leading(self, created: float, level: str, event: str, logger: str) -> Entry:
        moment = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
        return {
            "timestamp": moment.replace("+00:00", "Z"), "level": level, "event": event, "logger": logger,
            "worker": self.slot, "pid": os.getpid(),
        }  # fmt: skip

    def _reduced(self, value: Any) -> Any:
        """What may be logged of an address; what is none stays."""
        host = value[0] if isinstance(value, tuple | list) and value else value
        network = _network(host) if isinstance(host, str) and host not in _OUR_ADDRESSES else None
        if network is None:
            return value
        return network if self.client == "truncated" else "-"

    def _without(self, address: str, render: Callable[[Entry], str]) -> Callable[[Entry], str]:
        """`render`, with the client's address reduced wherever it stands: in the app's own words, too."""
        pattern = re.compile(rf"(?<![\w.:]){re.escape(address)}(?![\w.])")
        return lambda entry: pattern.sub(str(self._reduced(address)), render(entry))

    # --- what logging has to say of itself ---------------------------------------------------------------------------

    def _own(self, level: str, event: str, logger: str = __name__, **fields: Any) -> bytes:
        return self._line({**self._leading(time.time(), level, event, logger), **fields})

    def dropped(self, count: int) -> bytes:
        return self._own("warning", "log_lines_dropped", lines=count)

    def due(self, everything: bool) -> list[bytes] | None:
        """The summaries whose time has come; None if no more are to be expected."""
        ended = self.repeats.ended(everything)
        return None if ended is None else [self._summary(*each) for each in ended]

    def _summary(self, key: Key, missed: int) -> bytes:
        logger, level, event = key
        return self._own(level, "log_repeats_suppressed", logger, repeated=event, suppressed=missed)


_handler = _Handler()


def _level(number: int) -> str:
    names = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
    return next((name for least, name in names if number >= least), "debug")


def _kind(record: logging.LogRecord) -> str:
    """What the record has in common with others that say the same."""
    event = getattr(record, "event", None)
    if isinstance(event, str) and hasattr(record, "fields"):
        return event
    text = words(record.msg)
    return text[:200] if record.args else _VARYING.sub("#", text[:200])


def _said(record: logging.LogRecord) -> tuple[str, Entry]:
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    if isinstance(event, str) and isinstance(fields, dict):
        return event, fields if not record.stack_info else {**fields, "stack": record.stack_info}
    extra = {name: value for name, value in vars(record).items() if name not in _OWN}
    if record.stack_info:
        extra["stack"] = record.stack_info
    if not record.args:
        return words(record.msg), extra
    try:
        return record.getMessage(), extra
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a format that its arguments do not fit, or what the app's class does
        return words(record.msg), {"args": record.args, "format_error": error, **extra}


def _error(record: logging.LogRecord) -> BaseException | None:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else record.exc_info
    return error if isinstance(error, BaseException) else None


# --- who else has something to say -----------------------------------------------------------------------------------


def _take_over_servers() -> None:
    for name in logging.getLogger().manager.loggerDict:
        if name.partition(".")[0] in _SERVERS:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.NOTSET)
    # requests are logged by `roost.access`: servers write the query, too
    for name in ("uvicorn.access", "gunicorn.access", "hypercorn.access"):
        logging.getLogger(name).propagate = False


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    if file is not None:  # somebody wants it elsewhere
        file.write(warnings.formatwarning(message, category, filename, lineno, line))
        return
    _warnings.warning("python_warning", category=category.__name__, message=words(message), file=filename, line=lineno)


def _uncaught(kind: type[BaseException], error: BaseException, place: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, place)
        return
    log.critical("uncaught_exception", exc_info=(kind, error, place))
    flush()


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and not issubclass(failure.exc_type, SystemExit):
        name = failure.thread.name if failure.thread is not None else None
        log.error("thread_failed", thread=name, exc_info=failure.exc_value)


def _unraisable(failure: Any) -> None:
    log.error(
        "unraisable_exception", where=failure.err_msg, of=type(failure.object).__name__, exc_info=failure.exc_value
    )


@dataclass(frozen=True)
class Defaults:
    """What is logged and how, where nobody has said so."""

    environment: str = "production"
    log_format: str = "json"
    log_level: str = "info"
    log_client: str = "full"


class GunicornLogger(gunicorn.glogging.Logger):  # type: ignore[misc]
    """gunicorn's `logger_class`."""

    def setup(self, cfg: Any) -> None:
        if _handler.outlet is None:
            configure(Defaults())
        self.cfg = cfg
        self._access_log_enabled = False
        self.loglevel = logging.getLogger().level
        self.error_log.setLevel(logging.NOTSET)
        # uvicorn's worker class gives these handlers to uvicorn's loggers and stops these from propagating
        self.error_log.handlers, self.error_log.propagate = [_handler], False
        self.access_log.handlers = []

    def access(self, *_: Any) -> None:
        """Nothing: requests are logged by `roost.access`."""

    def reopen_files(self) -> None:
        """Nothing: there are none."""
