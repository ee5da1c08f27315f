from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flet_fastapi.app import assemble
from flet_fastapi.errors import OptionError
from flet_fastapi.manager import AppManager, app_manager
from flet_fastapi.options import Options
from flet_fastapi.session import Session
from tests.conftest import Logs
from tests.support.serving import make_manager


@pytest.fixture
async def manager() -> Any:
    manager = make_manager(max_sessions=3, max_sessions_per_browser=2)
    await manager.start()
    yield manager
    for session in list(manager.sessions()):
        manager._forget(session)
    await manager.shutdown()


def add(manager: AppManager, browser: str | None = None, app: str = "app") -> Session:
    session = Session(manager, app, object(), 3600)  # type: ignore[arg-type]
    session.browser = browser
    manager.add(session, object())
    return session


def gauge(manager: AppManager, state: str) -> float | None:
    return manager.metrics.registry.get_sample_value("flet_sessions", {"state": state})


async def test_start_and_shutdown_may_be_called_again() -> None:
    manager = make_manager()
    await manager.shutdown()
    for _ in range(3):
        await manager.start()
        await manager.start()
        assert len(manager.tasks) == 4
        await manager.shutdown()
        await manager.shutdown()
    assert len(asyncio.all_tasks()) == 1


def test_new_loop_starts_anew() -> None:
    manager = make_manager()
    for _ in range(2):
        asyncio.run(started(manager))


async def started(manager: AppManager) -> None:
    await manager.start()
    assert len(manager.tasks) == 4


async def test_wrong_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_MAX_SESSIONS", "many")
    manager = AppManager(CollectorRegistry())
    with pytest.raises(OptionError, match="FLET_MAX_SESSIONS"):
        await manager.start()
    assert len(asyncio.all_tasks()) == 1


async def test_limits_are_read_again_after_a_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = AppManager(CollectorRegistry())
    await manager.start()
    assert manager.limits.max_sessions == 10_000
    await manager.shutdown()
    monkeypatch.setenv("FLET_MAX_SESSIONS", "5")
    assert manager.limits.max_sessions == 5


def test_the_one_manager_counts_in_the_common_registry() -> None:
    assert isinstance(app_manager, AppManager)


async def test_sessions_are_found_by_their_names_only(manager: AppManager) -> None:
    session = add(manager)
    assert manager.find(session.secret_id) is session
    assert manager.find_session(session.key) is session
    assert manager.find(session.public_id) is manager.find(session.key) is None
    assert manager.find_session(session.secret_id) is None


async def test_room_is_made_by_who_left_first(manager: AppManager) -> None:
    first, second, third = (add(manager) for _ in range(3))
    assert not manager.make_room(None)
    for session in (second, first, third):
        manager.detached(session)
    assert manager.make_room(None)
    assert manager.find(second.secret_id) is None
    assert (gauge(manager, "connected"), gauge(manager, "detached")) == (0, 2)
    await drop_closing(manager)


async def test_browser_makes_room_among_its_own(manager: AppManager) -> None:
    other = add(manager, "b")
    manager.detached(other)
    mine = [add(manager, "a") for _ in range(2)]
    assert not manager.make_room("a")
    manager.detached(mine[1])
    assert manager.make_room("a")
    assert manager.find(other.secret_id) is other
    assert manager.find(mine[1].secret_id) is None
    await drop_closing(manager)


async def drop_closing(manager: AppManager) -> None:
    """These sessions have no page that could close."""
    manager.tasks.cancel()
    await asyncio.sleep(0)


async def test_bind_counts_for_the_browser(manager: AppManager) -> None:
    session = add(manager)
    manager.bind(session, "a")
    assert manager._browsers == {"a": 1}
    manager._forget(session)
    assert not manager._browsers


async def test_hub_lives_as_long_as_a_session_of_its_app(manager: AppManager) -> None:
    first = add(manager)
    hub = manager.hub("app")
    second = Session(manager, "app", object(), 3600)  # type: ignore[arg-type]
    manager.add(second, hub)
    manager._forget(first)
    assert manager.hub("app") is hub
    assert manager.hub("other") is None
    manager._forget(second)
    assert manager.hub("app") is None


async def test_forgetting_twice_counts_once(manager: AppManager) -> None:
    session = add(manager, "a")
    assert manager._forget(session)
    assert not manager._forget(session)
    assert gauge(manager, "connected") == 0


async def test_key_is_the_apps_or_that_of_the_run_directory(tmp_path: Path, logs: Logs) -> None:
    one, two = (make_manager(run_dir=tmp_path / "run") for _ in range(2))
    await one.start()
    await two.start()
    given = await one.keyring(Options.load(secret_key="k"))
    made, same, other = await one.keyring(), await one.keyring(Options.load()), await two.keyring()
    credential = made.sign_credential("a" * 22)
    assert same is made
    assert other.verify_credential(credential)
    assert given.verify_credential(credential) is None
    assert len(logs.named("secret_key_made")) == 2
    await one.shutdown()
    await two.shutdown()


async def test_preparations_run_at_each_start() -> None:
    manager, seen = make_manager(), list[int]()

    async def prepare() -> None:
        seen.append(1)

    manager.prepare(prepare)
    for _ in range(2):
        await manager.start()
        await manager.shutdown()
    assert seen == [1, 1]


class Endpoint:
    """What an app prepares; an app is a cycle, so it lives on until the collector comes."""

    def __init__(self, seen: list[str], name: str) -> None:
        self.seen, self.name, self.itself = seen, name, self

    async def prepare(self) -> None:
        self.seen.append(self.name)


async def test_apps_that_were_thrown_away_are_not_prepared() -> None:
    manager, seen = make_manager(), list[str]()
    kept = Endpoint(seen, "kept")
    manager.prepare(kept.prepare)
    for _ in range(100):
        manager.prepare(Endpoint(seen, "thrown away").prepare)
    await manager.start()
    await manager.shutdown()
    assert seen == ["kept"]
    assert len(manager._preparations) == 1


def assembled(manager: AppManager, upload_dir: Path) -> Any:
    return assemble(lambda page: None, Options.load(upload_dir=upload_dir), None, manager)


@pytest.mark.parametrize("started", [False, True])
async def test_an_app_that_was_thrown_away_does_not_fail_the_next(tmp_path: Path, started: bool) -> None:
    manager = make_manager()
    bad = assembled(manager, Path("/proc/nowhere/x"))
    if started:
        with pytest.raises(OptionError, match="upload_dir"):
            await manager.start()
    del bad
    good = assembled(manager, tmp_path / "up")
    await manager.start()
    await manager.shutdown()
    assert good
    assert (tmp_path / "up").is_dir()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FLET_SESSION_TIMEOUT", "soon"), ("FLET_MAX_UPLOAD_SIZE", "10MB"), ("FLET_UPLOAD_DIR", "/proc/nowhere/x")],
)
async def test_wrong_variable_of_an_app_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Where each endpoint is made per request, nothing has read it before."""
    monkeypatch.setenv(variable, value)
    manager = AppManager(CollectorRegistry())
    with pytest.raises(OptionError, match=variable):
        await manager.start()
    assert len(asyncio.all_tasks()) == 1


async def test_options_are_read_once_while_the_manager_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager()
    monkeypatch.setenv("FLET_SESSION_TIMEOUT", "5")
    assert manager.options(secret_key="k") is not manager.options(secret_key="k")
    await manager.start()
    for key in ("k", ["k", "older"], None):
        first = manager.options(secret_key=key)
        monkeypatch.setenv("FLET_SESSION_TIMEOUT", "soon")
        assert manager.options(secret_key=key) is first
        monkeypatch.setenv("FLET_SESSION_TIMEOUT", "5")
    assert first.session_timeout_seconds == 5
    await manager.shutdown()
    assert manager.options(secret_key="k") is not manager.options(secret_key="k")


async def test_what_is_alike_to_python_is_not_taken_for_the_same_option() -> None:
    manager = make_manager()
    await manager.start()
    assert manager.options(max_upload_size=1).max_upload_size == 1
    for wrong in ({"max_upload_size": True}, {"secret_key": [[]]}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            manager.options(**wrong)
    await manager.shutdown()


async def test_failing_preparation_fails_every_start() -> None:
    manager = make_manager()

    async def prepare() -> None:
        raise OSError("disk")

    manager.prepare(prepare)
    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            await manager.start()
    await manager.shutdown()
    await manager.tasks.stop()
