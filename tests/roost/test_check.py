from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from roost import cli
from roost.check import without_password

ROOT = Path(__file__).parents[2]
KEY = "aTcwq2N6Jm0kXvB9-uG4sRzY7eLdQhPo"
PROGRAM = "def main(page):\n    pass\n"


def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str = PROGRAM, **variables: str) -> Result:
    (tmp_path / "program_to_check.py").write_text(program)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("ROOST_APP", str(tmp_path / "program_to_check.py"))
    for name, value in {"FLET_SECRET_KEY": KEY, **variables}.items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(cli.main, ["check"])


def row(result: Result, name: str) -> str:
    (found,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [name]]
    return " ".join(found.split())


def test_every_setting_is_shown_with_who_said_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(tmp_path, monkeypatch, ROOST_PORT="8123", FLET_MAX_SESSIONS="7", ROOST_WORKERS="auto")
    assert result.exit_code == 0
    assert row(result, "ROOST_PORT") == "ROOST_PORT 8123 ROOST_PORT"
    assert row(result, "ROOST_HOST") == "ROOST_HOST 127.0.0.1 default"
    assert row(result, "FLET_MAX_SESSIONS") == "FLET_MAX_SESSIONS 7 FLET_MAX_SESSIONS"
    assert row(result, "FLET_SESSION_TIMEOUT") == "FLET_SESSION_TIMEOUT 3600 default, or the app's"
    assert row(result, "FLET_DEBUG") == "FLET_DEBUG false default"
    assert "auto (" in row(result, "ROOST_WORKERS")


def test_secrets_are_masked_and_their_sources_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\nolder-{KEY}\n")
    variables = {
        "FLET_SECRET_KEY": "",
        "FLET_SECRET_KEY_FILE": str(tmp_path / "key"),
        "ROOST_INTERNAL_TOKEN": KEY[::-1],
    }
    result = check(tmp_path, monkeypatch, **variables)
    assert row(result, "FLET_SECRET_KEY") == "FLET_SECRET_KEY ********, ******** FLET_SECRET_KEY_FILE"
    assert row(result, "ROOST_INTERNAL_TOKEN") == "ROOST_INTERNAL_TOKEN ******** ROOST_INTERNAL_TOKEN"
    assert KEY not in result.output
    assert KEY[::-1] not in result.output


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"ROOST_PORT": "many"}, 2, "ROOST_PORT"),
        ({"FLET_SECRET_KEY": ""}, 2, "roost secret"),
        ({"FLET_SECRET_KEY": "changeme"}, 2, "placeholder"),
        ({"FLET_CSP": "maybe"}, 2, "FLET_CSP"),
        ({"ROOST_APP": "nowhere.py"}, 3, "no file nowhere.py"),
    ],
)
def test_what_is_wrong_gives_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], code: int, said: str
) -> None:
    monkeypatch.setenv("ROOST_APP", "")
    (tmp_path / "program_to_check.py").write_text(PROGRAM)
    for name, value in {
        "FLET_SECRET_KEY": KEY,
        "ROOST_APP": str(tmp_path / "program_to_check.py"),
        **variables,
    }.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli.main, ["check"])
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_an_app_that_fails_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(tmp_path, monkeypatch, "1 / 0")
    assert result.exit_code == 3
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ROOST_PROT", "1", "did you mean ROOST_PORT"),
        ("FLET_DEBUG", "true", "tracebacks"),
        ("ROOST_FORWARDED_ALLOW_IPS", "*", "any client"),
    ],
)
def test_what_is_most_likely_not_meant_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    result = check(tmp_path, monkeypatch, **{name: value})
    assert result.exit_code == 0
    assert said in result.stderr


def test_the_table_for_the_documents_is_printed() -> None:
    result = CliRunner().invoke(cli.main, ["settings", "--markdown"])
    assert "| `ROOST_WORKERS` | `auto` |" in result.stdout
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = document.read_text()
        assert "<!-- roost settings -->" not in text or result.stdout in text, document
    assert result.stdout in (ROOT / "docs/settings.md").read_text()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////data/cluster", "sqlite:////data/cluster"),
        ("redis://:hunter2@redis:6379/0", "redis://********@redis:6379/0"),
        ("redis://user:hunter2@a:1,b:2/1?password=hunter2", "redis://********@a:1,b:2/1?********"),
        ("redis://redis/0", "redis://redis/0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
