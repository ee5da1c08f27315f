"""Secrets are made once, with tight modes, and never changed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from roost.appliance.keys import CLUSTER_URL, SECRETS, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("app", "redis", "grafana"):
        (tmp_path / name).mkdir()
    return tmp_path


def texts(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in (*SECRETS, CLUSTER_URL)}


def test_the_first_start_makes_all_and_prints_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    made = texts(folder)
    assert len(set(made.values())) == len(made)
    assert all(len(text) >= 64 for text in made.values())
    said = "".join(capsys.readouterr())
    assert not any(text in said for text in made.values())


def test_modes_are_tight_and_nothing_else_is_left(folder: Path) -> None:
    main([str(folder)])
    modes = {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*/*")}
    assert modes == {**SECRETS, CLUSTER_URL: 0o600}


def test_later_starts_change_nothing(folder: Path) -> None:
    main([str(folder)])
    made = texts(folder)
    assert main([str(folder)]) == 0
    assert texts(folder) == made


def test_the_way_to_redis_follows_its_password(folder: Path) -> None:
    main([str(folder)])
    (folder / "redis/password").write_text("another-password-of-mine\n")
    assert main([str(folder)]) == 0
    assert (folder / CLUSTER_URL).read_text() == "redis://:another-password-of-mine@redis:6379/0"


@pytest.mark.parametrize("text", ["", "\n", "changeme"])
def test_an_empty_secret_stops_the_start(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    main([str(folder)])
    (folder / "app/secret_key").write_text(text)
    assert main([str(folder)]) == 1
    assert "app/secret_key is empty or too short" in capsys.readouterr().err


def test_a_secret_for_everybody_stops_the_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder)])
    (folder / "redis/password").chmod(0o644)
    assert main([str(folder)]) == 1
    assert "can be read by everybody" in capsys.readouterr().err


def test_a_look_makes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "check"]) == 1
    assert "app/secret_key is missing" in capsys.readouterr().err
    assert not list(folder.glob("*/*"))
    main([str(folder)])
    assert main([str(folder), "check"]) == 0
