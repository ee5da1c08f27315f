from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flet_fastapi.errors import OptionError
from roost import cli
from roost.settings import Settings


def test_an_argument_goes_before_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_PORT", "1234")
    assert Settings.load(app="x.py", port=80).port == 80


def test_a_variable_goes_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_PORT", "1234")
    assert Settings.load(app="x.py", port=None).port == 1234


@pytest.mark.parametrize(
    ("name", "value"), [("port", 65536), ("port", -1), ("workers", 0), ("workers", "many"), ("ws_ping_interval", 0)]
)
def test_a_bad_value_names_the_variable(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"ROOST_{name.upper()}"):
        Settings.load(app="x.py", **{name: value})


def test_an_app_must_be_named() -> None:
    with pytest.raises(OptionError, match="ROOST_APP"):
        Settings.load()


def test_pings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_WS_PING_TIMEOUT", "5.5")
    settings = Settings.load(app="x.py")
    assert (settings.ws_ping_interval, settings.ws_ping_timeout) == (20, 5.5)


def test_server_gets_the_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(cli, "load", lambda _: None)
    monkeypatch.setattr(cli, "tune", lambda: None)
    monkeypatch.setattr(cli.uvicorn, "run", lambda _, **arguments: given.update(arguments))
    monkeypatch.setenv("ROOST_APP", "")  # what run() sets is undone
    monkeypatch.setenv("ROOST_WS_PING_INTERVAL", "7")
    assert CliRunner().invoke(cli.main, ["run", "x.py"], catch_exceptions=False).exit_code == 0
    assert (given["ws_ping_interval"], given["ws_ping_timeout"]) == (7, 20)


def test_every_variable_is_documented() -> None:
    rows = (Path(__file__).parents[2] / "docs/settings.md").read_text().splitlines()
    listed = {line.split("`")[1] for line in rows if line.startswith("| `ROOST_")}
    assert listed == {f"ROOST_{name}".upper() for name in Settings.model_fields}
