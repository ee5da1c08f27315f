from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner

from flet_fastapi.errors import OptionError
from flet_fastapi.options import Limits, Options
from roost import cli, loader, process
from roost.settings import Settings, check_secrets, known_variables, markdown, unknown_variables, weakness


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
    monkeypatch.setattr(loader, "load", lambda _: None)
    monkeypatch.setattr(process, "tune", lambda: None)
    monkeypatch.setattr(uvicorn, "run", lambda _, **arguments: given.update(arguments))
    monkeypatch.setenv("ROOST_WS_PING_INTERVAL", "7")
    assert CliRunner().invoke(cli.main, ["run", "x.py"], catch_exceptions=False).exit_code == 0
    assert (given["ws_ping_interval"], given["ws_ping_timeout"]) == (7, 20)


def test_every_variable_is_documented() -> None:
    rows = (Path(__file__).parents[2] / "docs/settings.md").read_text().splitlines()
    assert "\n".join(line for line in rows if line.startswith("| `ROOST_")) == "\n".join(markdown().splitlines()[2:])


# --- what may be set -------------------------------------------------------------------------------------------------

SECRET = "aTcwq2N6Jm0kXvB9-uG4sRzY7eLdQhPo"


@pytest.mark.parametrize(
    ("text", "share", "size"),
    [
        ("85%", 0.85, None), ("0.85", 0.85, None), ("1", 1.0, None), ("600MB", None, 600 << 20),
        ("1.5GiB", None, 3 << 29), ("600m", None, 600 << 20), (" 64 kB ", None, 64 << 10), ("1000000", None, 1000000),
        ("2", None, 2), ("5B", None, 5),
    ],
)  # fmt: skip
def test_memory_is_a_share_or_a_size(text: str, share: float | None, size: int | None) -> None:
    assert Settings.load(app="x", max_memory=text).max_memory == (share, size)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_memory", "much"), ("max_memory", "0%"), ("max_memory", "120%"), ("max_memory", "-1"), ("max_memory", "0"),
        ("environment", "prod"), ("host", "http://x"), ("host", "a b"), ("internal_port", 70000), ("slot_port", 0),
        ("slot_port", 65535), ("internal_token", "short"), ("internal_token", "your-secret-token-here"),
        ("forwarded_allow_ips", "10.0.0.1/8"), ("root_path", "//host"), ("graceful_timeout", 0), ("log_level", "loud"),
        ("start_timeout", 0), ("worker_timeout", 1), ("max_requests", -1), ("log_client", "half"), ("workers", 513),
        ("log_format", "xml"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, field: str, value: object) -> None:
    monkeypatch.setenv(f"ROOST_{field.upper()}", str(value))
    with pytest.raises(OptionError, match=f"^ROOST_{field.upper()}: ") as raised:
        Settings.load(app="x", workers=None if field == "workers" else 4)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("port", "internal", "slots", "named"),
    [(8000, 8000, None, "INTERNAL_PORT"), (8101, 9000, 8100, "PORT"), (8000, 8102, 8100, "INTERNAL_PORT")],
)
def test_ports_must_differ(port: int, internal: int, slots: int | None, named: str) -> None:
    with pytest.raises(OptionError, match=f"ROOST_{named}: is also"):
        Settings.load(app="x", workers=3, port=port, internal_port=internal, slot_port=slots)


def test_a_token_that_is_refused_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_INTERNAL_TOKEN", "hunter2")
    with pytest.raises(OptionError, match="ROOST_INTERNAL_TOKEN") as raised:
        Settings.load(app="x")
    assert "hunter2" not in str(raised.value)


def test_a_token_may_be_in_a_file_and_there_may_be_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\nsecond-{SECRET}\n")
    monkeypatch.setenv("ROOST_INTERNAL_TOKEN_FILE", str(tmp_path / "token"))
    settings = Settings.load(app="x")
    assert [token.get_secret_value() for token in settings.internal_token or ()] == [SECRET, f"second-{SECRET}"]
    assert settings.source("internal_token") == "ROOST_INTERNAL_TOKEN_FILE"


def test_workers_are_the_cpus_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.cgroup.cpus", lambda: 3)
    assert Settings.load(app="x").worker_count == 3
    assert Settings.load({"workers": 1}, app="x").worker_count == 1
    monkeypatch.setenv("ROOST_WORKERS", "auto")
    assert Settings.load({"workers": 1}, app="x").worker_count == 3


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_SLOT_PORT", "")
    monkeypatch.setenv("ROOST_PORT", "")
    settings = Settings.load(app="x")
    assert (settings.slot_port, settings.port) == (None, 8000)


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "", "x", "secret", "changeme", "change-me-in-production", "CHANGE_ME_PLEASE_0123456789", "changeit-changeit-1",
        "your-secret-key-goes-here", "my secret key is long", "replace-this-with-a-key", "<put a key here, long one>",
        "${FLET_SECRET_KEY:-x}", "{{ secret_key_of_app }}", "example-key-0123456789abc", "insecure-key-0123456789",
        "aaaaaaaaaaaaaaaaaaaaaaaa", "1212121212121212121212", "placeholder-0123456789ab", "short-random-15",
        "xxxxxxxxxxxxxxxx", "django-insecure-0123456789abcdef",
    ],
)  # fmt: skip
def test_a_placeholder_is_no_secret(secret: str) -> None:
    assert weakness(secret) is not None
    assert "roost secret" in str(weakness(secret))


def test_what_roost_secret_makes_is_one() -> None:
    for _ in range(200):
        made = CliRunner().invoke(cli.main, ["secret"]).stdout.strip()
        assert len(made) >= 43
        assert weakness(made) is None


@pytest.mark.parametrize("secret", [SECRET, "0123456789abcdef" * 2, "correct horse battery staple"])
def test_what_cannot_be_guessed_is_a_secret(secret: str) -> None:
    assert weakness(secret) is None


def test_production_needs_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(app="x")
    with pytest.raises(OptionError, match=r"FLET_SECRET_KEY: .*roost secret"):
        check_secrets(settings, Options.load(), Limits.load())
    monkeypatch.setenv("FLET_SECRET_KEY", f"{SECRET},changeme")
    with pytest.raises(OptionError, match="FLET_SECRET_KEY: is a placeholder"):
        check_secrets(settings, Options.load(), Limits.load())
    monkeypatch.setenv("FLET_SECRET_KEY", f"{SECRET},older-{SECRET}")
    check_secrets(settings, Options.load(), Limits.load())


def test_development_needs_none() -> None:
    check_secrets(Settings.load({"environment": "development"}, app="x"), Options.load(), Limits.load())


# --- names that nobody reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ROOST_WORKER", "did you mean ROOST_WORKERS"), ("FLET_SECRET_KEYS", "did you mean FLET_SECRET_KEY"),
        ("FLET_SESION_TIMEOUT", "did you mean FLET_SESSION_TIMEOUT"), ("ROOST_", "is no setting"),
        ("FLET_SERVER_PORT", "is no setting"), ("ROOST_XYZZY", "changes nothing"),
        ("FLET_SECRET_KEY_FILES", "did you mean FLET_SECRET_KEY_FILE"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_warned_about(name: str, said: str) -> None:
    (sentence,) = unknown_variables({name: "x", "PATH": "y", "XROOST_PORT": "z", "roost_port": "1"})
    assert sentence.startswith(f"{name} ")
    assert said in sentence


def test_no_known_name_is_warned_about() -> None:
    known = [*known_variables(), "FLET_APP_STORAGE_DATA"]
    assert not list(unknown_variables(dict.fromkeys(known, "x")))


def test_the_documents_say_which_secrets_may_be_in_files() -> None:
    text = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    for name in known_variables():
        assert not name.endswith("_FILE") or name in text


def test_the_readme_has_the_settings_as_roost_lists_them() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    _, _, rest = readme.partition("<!-- roost settings -->\n")
    assert rest.partition("<!-- end -->")[0].strip() == markdown().strip()
