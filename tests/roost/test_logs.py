"""Whatever says something in this process says it in one shape."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from gunicorn.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.contextvars import bind_contextvars, bound_contextvars

from flet_fastapi.logs import get_logger
from roost import logs
from roost.logs import ADDRESS, GunicornLogger, shown_client
from tests.support.logs import Said, configured

LEADING = ["timestamp", "level", "event", "logger", "worker", "pid"]


@pytest.fixture
def said() -> Iterator[Said]:
    with configured(slot=3) as said:
        yield said


def from_library() -> None:
    get_logger("flet_fastapi.test").warning("something", number=1)


def from_structlog() -> None:
    structlog.get_logger("app.test").warning("something", number=1)


def from_stdlib() -> None:
    logging.getLogger("stdlib.test").warning("some%s", "thing", extra={"number": 1})


def from_uvicorn() -> None:
    logging.getLogger("uvicorn.error").warning("something", extra={"color_message": "x", "number": 1})


def from_gunicorn() -> None:
    GunicornLogger(Config()).warning("some%s", "thing", extra={"number": 1})


@pytest.mark.parametrize("speak", [from_library, from_structlog, from_stdlib, from_uvicorn, from_gunicorn])
def test_a_line_has_one_shape_whoever_logs(said: Said, speak: Any) -> None:
    speak()
    entry = said.entry()
    assert list(entry) == [*LEADING, "number"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["timestamp"])
    assert (entry["level"], entry["event"], entry["worker"], entry["pid"]) == ("warning", "something", 3, os.getpid())


def test_a_process_without_a_slot_says_so() -> None:
    with configured() as said:
        from_library()
        assert said.entry()["worker"] is None


def test_uvicorn_speaks_in_this_shape_in_gunicorns_worker_class(said: Said) -> None:
    """It gives gunicorn's handlers to uvicorn's loggers, and stops these from propagating."""
    made = GunicornLogger(Config())
    logger = logging.getLogger("uvicorn.error")
    logger.handlers, logger.propagate = made.error_log.handlers, False
    logger.error("before")
    logs._take_over_servers()
    logger.error("after")
    assert [(entry["event"], entry["worker"]) for entry in said.entries()] == [("before", 3), ("after", 3)]


def test_access_lines_of_servers_are_not_written(said: Said) -> None:
    for name in ("uvicorn.access", "gunicorn.access", "hypercorn.access"):
        logging.getLogger(name).info("GET /upload?t=SECRET")
    logs._take_over_servers()
    for name in ("uvicorn.access", "gunicorn.access", "hypercorn.access"):
        logging.getLogger(name).info("GET /upload?t=SECRET")
    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "192.0.2.1:5", "/ws")
    logging.getLogger("uvicorn.error").info("connection open")
    assert said.text() == ""


def test_warnings_are_events(said: Said) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._show_warning
        warnings.warn("careful:\nthis", UserWarning, stacklevel=1)
    entry = said.entry()
    assert (entry["event"], entry["category"], entry["message"]) == ("python_warning", "UserWarning", "careful:\nthis")
    assert entry["file"] == __file__


async def test_what_asyncio_reports_is_an_event(said: Said) -> None:
    async def fail() -> None:
        raise ValueError("lost")

    asyncio.get_running_loop().set_exception_handler(None)
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    (entry,) = said.entries()
    assert entry["logger"] == "asyncio"
    assert entry["exception"][0]["message"] == "lost"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_uncaught_exceptions_are_events(said: Said) -> None:
    def fail() -> None:
        raise ValueError("in a thread")

    threading.excepthook = logs._thread_failed
    thread = threading.Thread(target=fail, name="worker-thread")
    thread.start()
    thread.join()
    try:
        raise KeyError("everywhere")
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    first, second = said.entries()
    assert (first["event"], first["thread"]) == ("thread_failed", "worker-thread")
    assert (second["event"], second["level"]) == ("uncaught_exception", "critical")
    assert second["exception"][0]["type"] == "KeyError"


def test_an_exception_in_a_finalizer_is_an_event(said: Said) -> None:
    class Leaving:
        def __del__(self) -> None:
            raise ValueError("last words")

    sys.unraisablehook = logs._unraisable
    Leaving()
    gc.collect()
    assert said.entry()["event"] == "unraisable_exception"


def test_a_traceback_is_structured(said: Said) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        get_logger("x").exception("failed")
        logging.getLogger("y").exception("failed")
    for entry in said.entries():
        assert entry["level"] == "error"
        assert entry["exception"][0]["frames"][-1]["function"] == "test_a_traceback_is_structured"


def test_the_context_is_on_every_line(said: Said) -> None:
    with bound_contextvars(request_id="abcdefgh", session="0a1b2c3d"):
        from_library()
        logging.getLogger("x").warning("y")
    from_library()
    first, second, third = said.entries()
    assert first["request_id"] == second["request_id"] == "abcdefgh"
    assert first["session"] == "0a1b2c3d"
    assert "request_id" not in third


def test_fields_do_not_take_the_place_of_what_every_line_has(said: Said) -> None:
    get_logger("x").warning("real", level="critical", timestamp="yesterday", exception="none")
    logging.getLogger("y").warning("real", extra={"event": "forged", "pid": 1})
    first, second = said.entries()
    assert (first["event"], first["level"], first["level_"], first["exception_"]) == (
        "real",
        "warning",
        "critical",
        "none",
    )
    assert (second["event"], second["event_"], second["pid"], second["pid_"]) == ("real", "forged", os.getpid(), 1)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_lines_below_the_level_are_not_written(level: str) -> None:
    with configured(log_level=level) as said:
        for each in ("debug", "info", "warning", "error", "critical"):
            getattr(logging.getLogger("x"), each)("y")
        assert said.entries()[0]["level"] == level


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Logging:
    def __str__(self) -> str:
        logging.getLogger("within").warning("shown %s", self)
        return "shown"


def test_nothing_that_fails_while_logging_reaches_who_logs(said: Said) -> None:
    logging.getLogger().handlers = [logs._handler]  # pytest's own lets it through
    get_logger("a").error("event", value=Hostile())
    get_logger("a").error(Hostile())  # type: ignore[arg-type]
    structlog.get_logger("a").error("event", value=[Hostile()])
    logging.getLogger("a").error("%s", Hostile())
    logging.getLogger("a").error("%d and %s", "x")
    logging.getLogger("a").error(Hostile())
    logging.getLogger("a").error("event", extra={"x": Hostile()})
    logging.getLogger("a").error("recursive %s", Logging())
    logging.getLogger("a").handle(logging.makeLogRecord({"msg": "bare", "exc_info": 7, "levelno": 20}))
    entries = said.entries()
    assert "<Hostile that cannot be shown: RuntimeError>" in [entry["event"] for entry in entries]
    assert entries[4]["event"] == "%d and %s" and "TypeError" in entries[4]["format_error"]
    assert entries[-1]["event"] == "bare"


def test_a_line_that_cannot_be_made_is_told(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    original = logs._Handler._entry

    def fail(handler: Any, record: Any, level: str) -> Any:
        monkeypatch.setattr(logs._Handler, "_entry", original)
        raise ValueError

    monkeypatch.setattr(logs._Handler, "_entry", fail)
    logging.getLogger("x").error("y")
    entry = said.entry()
    assert (entry["event"], entry["problem"]) == ("log_line_failed", "ValueError")
    assert entry["place"].startswith("test_logs.py:")


def test_the_library_survives_values_that_cannot_be_shown_under_any_server(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError

    get_logger("flet_fastapi.x").warning("event", value=Bad(), text="two\nlines", long="x" * 5000)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        r"event value='<Bad that cannot be shown: ValueError>' text='two\nlines' long=x"
    )
    assert len(record.getMessage()) < 1200


def test_secrets_of_the_settings_are_masked_whatever_they_look_like() -> None:
    with configured() as said:
        tokens = SecretStr("open sesame"), SecretStr("second one")
        logs.hide(*logs._secrets(SimpleNamespace(tokens=tokens, other=SecretStr("third time lucky"), port=1)))
        logging.getLogger("x").warning("the open sesame, the second one and the third time lucky")
        assert said.entry()["event"] == "the ***, the *** and the ***"


def test_secrets_of_the_library_are_masked_whatever_they_look_like(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("newest one\nolder one\n")
    monkeypatch.setenv("FLET_SECRET_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("FLET_CLUSTER_URL", "redis://user:pass%20word@host:6379/0")
    monkeypatch.setenv("FLET_CLUSTER_SECRET_FILE", "/nowhere")  # told by whoever needs it
    with configured() as said:
        logging.getLogger("x").warning("newest one, older one, pass%20word, pass word")
        assert said.entry()["event"] == "***, ***, ***, ***"


def test_what_repeats_is_counted(said: Said) -> None:
    log, std = get_logger("flet_fastapi.x"), logging.getLogger("std")
    for number in range(250):
        log.warning("again", number=number)
        std.warning("try %d of something", number)
        std.warning(f"failed after {number} ms")
    logs._handler.repeats._windows = {key: (0.0, count) for key, (_, count) in logs._handler.repeats._windows.items()}
    logs._handler.outlet.wake()  # type: ignore[union-attr]
    entries = said.entries()
    deadline = time.monotonic() + 10
    while sum(entry["event"] == "log_repeats_suppressed" for entry in entries) < 3 and time.monotonic() < deadline:
        entries += said.entries()
    summaries = [entry for entry in entries if entry["event"] == "log_repeats_suppressed"]
    assert {(entry["logger"], entry["repeated"], entry["suppressed"], entry["level"]) for entry in summaries} == {
        ("flet_fastapi.x", "again", 150, "warning"),
        ("std", "try %d of something", 150, "warning"),
        ("std", "failed after # ms", 150, "warning"),
    }
    assert len(entries) == 3 * 100 + 3


def test_a_line_for_each_request_is_no_repetition(said: Said) -> None:
    for _ in range(300):
        get_logger("roost.access").info("request")
    assert len(said.entries()) == 300


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.binary() | st.floats()))
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nobody_can_begin_a_line(log_format: str, text: str, values: dict[str, Any]) -> None:
    with configured(log_format=log_format) as said:
        structlog.get_logger("a").warning(text, **{"values": values, **{f"x{key}": key for key in values}})
        logging.getLogger("b").warning(text)
        logging.getLogger("c").warning("%s", text)
        lines = said.text().splitlines()
    assert len(lines) == 3
    if log_format == "json":
        assert [json.loads(line)["logger"] for line in lines] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("environment", "log_format", "is_json"),
    [("production", "auto", True), ("development", "auto", False), ("production", "console", False),
     ("development", "json", True)],
)  # fmt: skip
def test_the_format_follows_the_environment(environment: str, log_format: str, is_json: bool) -> None:
    with configured(environment=environment, log_format=log_format) as said:
        from_library()
        assert said.text().startswith("{") is is_json


@pytest.mark.parametrize(
    ("variables", "has_colours"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
     ({"FORCE_COLOR": "0"}, False)],
)  # fmt: skip
def test_colours_are_for_terminals_and_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], has_colours: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with configured(log_format="console") as said:
        from_library()
        assert ("\x1b[" in said.text()) is has_colours


# --- the client's address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0"), ("2001:db8:1:2:3::4", "2001:db8:1::"), ("::ffff:203.0.113.77", "203.0.113.0"),
        ("fe80::1%eth0", "fe80::"), ("::1", "::"), ("unknown", None), ("203.0.113.77\n", None), ("", None),
    ],
)  # fmt: skip
def test_a_truncated_address_is_its_network(address: str, network: str | None) -> None:
    assert shown_client((address, 1), "truncated") == network
    assert shown_client((address, 1), "none") is None
    assert shown_client((address, 1), "full") == (address or None)
    assert shown_client(None, "full") is None


@pytest.mark.parametrize(("mode", "shown"), [("truncated", "203.0.113.0"), ("none", "-"), ("full", "203.0.113.77")])
def test_the_address_is_as_short_wherever_it_stands(mode: str, shown: str) -> None:
    with configured(log_client=mode) as said:
        bind_contextvars(**({} if mode == "full" else {ADDRESS: "203.0.113.77"}))
        logging.getLogger("app").warning("user of 203.0.113.77 did it", extra={"n": {"from": "203.0.113.77"}})
        logging.getLogger("uvicorn.error").warning('%s - "WebSocket" 403', "203.0.113.77:1234")
        get_logger("x").warning("y", client="203.0.113.77", ip=("203.0.113.77", 1))
        text = said.text()
    assert text.count("203.0.113.77") == (0 if mode != "full" else 5)
    assert f"user of {shown} did it" in text and f"{shown}:1234" in text
    assert "_address" not in text


def test_where_a_server_listens_is_no_client() -> None:
    with configured(log_client="none") as said:
        logging.getLogger("uvicorn.error").warning("Uvicorn running on http://127.0.0.1:8000 and [::1]:80 and 0.0.0.0")
        assert said.entry()["event"] == "Uvicorn running on http://127.0.0.1:8000 and [::1]:80 and 0.0.0.0"
