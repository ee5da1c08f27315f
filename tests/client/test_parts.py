from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flet_fastapi.client import parts
from flet_fastapi.client.parts import Part, fetch_parts, missing_parts


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Part:
    """The only part there is, with three sources: none, a wrong file, the right one."""
    part = Part("fonts/a.ttf", hashlib.sha256(b"right").hexdigest())
    monkeypatch.setattr(parts, "PARTS", (part,))
    monkeypatch.setattr(parts, "ROBOTO", part)
    return part


def _gone(scratch: Path) -> dict[Part, Path]:
    raise FileNotFoundError("not here")


def _holds(content: bytes) -> parts.Source:
    def source(scratch: Path) -> dict[Part, Path]:
        (scratch / "file").write_bytes(content)
        return {parts.ROBOTO: scratch / "file"}

    return source


def test_next_source_is_tried(part: Part, tmp_path: Path) -> None:
    parts._fetch(tmp_path, (part,), (_gone, _holds(b"wrong"), _holds(b"right")))
    assert (tmp_path / part.path).read_bytes() == b"right"
    assert missing_parts(tmp_path, (part,)) == []


def test_wrong_file_is_never_kept(part: Part, tmp_path: Path) -> None:
    parts._fetch(tmp_path, (part,), (_holds(b"wrong"),))
    assert list(tmp_path.iterdir()) == []
    assert missing_parts(tmp_path, (part,)) == [part]


def test_damaged_part_is_missing(part: Part, tmp_path: Path) -> None:
    (tmp_path / "fonts").mkdir()
    (tmp_path / part.path).write_bytes(b"righ")
    assert missing_parts(tmp_path, (part,)) == [part]


def test_nothing_is_fetched_twice(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_CANVASKIT_SOURCES", (_holds(b"right"),))
    assert fetch_parts(tmp_path) == []
    monkeypatch.setattr(parts, "_CANVASKIT_SOURCES", (_holds(b"wrong"),))
    assert fetch_parts(tmp_path) == []


def test_what_could_not_be_had_is_returned(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_CANVASKIT_SOURCES", (_gone,))
    monkeypatch.setattr(parts, "_ROBOTO_SOURCES", (_gone,))
    assert fetch_parts(tmp_path) == [part]
