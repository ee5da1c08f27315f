from __future__ import annotations

from pathlib import Path

import pytest

from flet_fastapi.environment import given
from flet_fastapi.errors import OptionError
from flet_fastapi.options import Limits, Options

KEY = "aTcwq2N6Jm0kXvB9-uG4sRzY7eLdQhPo"


def test_a_secret_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("FLET_SECRET_KEY_FILE", str(tmp_path / "key"))
    options = Options.load()
    assert options.secret_key is not None
    assert [key.get_secret_value() for key in options.secret_key] == [KEY]
    assert Options.written("secret_key") == "FLET_SECRET_KEY_FILE"


@pytest.mark.parametrize("text", ["new\nold", "new,old", "\r\n new \r\n\r\n old\r\n", "new, \nold,"])
def test_a_file_may_hold_a_list_in_which_the_first_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "key").write_text(text)
    monkeypatch.setenv("FLET_SECRET_KEY_FILE", str(tmp_path / "key"))
    assert [key.get_secret_value() for key in Options.load().secret_key or ()] == ["new", "old"]


def test_the_clusters_url_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("sqlite:////data/cluster\n")
    monkeypatch.setenv("FLET_CLUSTER_URL_FILE", str(tmp_path / "url"))
    url = Limits.load().cluster_url
    assert url is not None
    assert url.get_secret_value() == "sqlite:////data/cluster"


def test_only_one_of_both_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SECRET_KEY", KEY)
    monkeypatch.setenv("FLET_SECRET_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(OptionError, match="FLET_SECRET_KEY: is set, and FLET_SECRET_KEY_FILE too"):
        Options.load()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"), (b"", "is empty"), (b" \n\n", "is empty"),
        (b"\xff\xfe", "file of text"), (b"x" * 70_000, "too large"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_secret_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    monkeypatch.setenv("FLET_SECRET_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(OptionError, match=f"FLET_SECRET_KEY_FILE: .*{said}"):
        Options.load()


def test_what_is_in_a_file_is_never_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("redis//:hunter2@host")
    monkeypatch.setenv("FLET_CLUSTER_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(OptionError, match="FLET_CLUSTER_URL_FILE") as raised:
        Limits.load()
    assert "hunter2" not in str(raised.value)


def test_what_is_no_secret_is_not_looked_for_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "size").write_text("5")
    monkeypatch.setenv("FLET_MAX_UPLOAD_SIZE_FILE", str(tmp_path / "size"))
    assert Options.load().max_upload_size is None


@pytest.mark.parametrize("path", ["/dev/null/x", "/tmp", "/proc/1/mem\0x"])
def test_a_path_that_is_no_file_is_told(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("os.environ", {"FLET_SECRET_KEY_FILE": path})
    with pytest.raises(OptionError, match="FLET_SECRET_KEY_FILE"):
        given("FLET_SECRET_KEY", secret=True)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SECRET_KEY", "")
    monkeypatch.setenv("FLET_SECRET_KEY_FILE", "")
    assert given("FLET_SECRET_KEY", secret=True) is None
