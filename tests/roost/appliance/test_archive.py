"""Volumes become one file and come back; what is no whole backup changes nothing."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from roost.appliance.archive import MANIFEST, BadArchive, check, main, restore, save


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two volumes: a file, a folder that others may not enter, a link."""
    uploads = tmp_path / "volumes/data/uploads"
    uploads.mkdir(parents=True)
    (uploads / "kept.txt").write_text("kept")
    (uploads / "link").symlink_to("kept.txt")
    secrets = tmp_path / "volumes/secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "secret_key").write_text("k" * 32)
    (secrets / "secret_key").chmod(0o600)
    return tmp_path / "volumes"


@pytest.fixture
def database(root: Path) -> Iterator[sqlite3.Connection]:
    """An open database in WAL mode, whose newest row is not yet in its file."""
    with closing(sqlite3.connect(root / "data/cluster.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE kept (word TEXT)")
        connection.execute("INSERT INTO kept VALUES ('newest')")
        connection.commit()
        yield connection


def saved(root: Path) -> io.BytesIO:
    out = io.BytesIO()
    save(root, out)
    return io.BytesIO(out.getvalue())


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """An archive made by somebody else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return io.BytesIO(out.getvalue())


MANIFEST_MEMBER = tarfile.TarInfo(MANIFEST), json.dumps({"format": 1, "made": "", "volumes": ["data"]}).encode()
END_MEMBER = tarfile.TarInfo(f"{MANIFEST}.end"), b""


def contents(root: Path) -> dict[str, tuple[int, str]]:
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
    return {name: (p.lstat().st_mode, p.read_text() if p.is_file() else "") for name, p in paths.items()}


def test_everything_comes_back_as_it_was(root: Path) -> None:
    before, backup = contents(root), saved(root)
    (root / "data/uploads/kept.txt").write_text("changed")
    (root / "data/newer").write_text("newer")
    (root / "secrets/secret_key").unlink()
    restore(root, backup)
    assert contents(root) == before
    assert os.readlink(root / "data/uploads/link") == "kept.txt"


def test_a_database_is_copied_as_it_is_now(root: Path, database: sqlite3.Connection) -> None:
    restore(root, saved(root))
    assert sorted(path.name for path in (root / "data").iterdir()) == ["cluster.sqlite", "uploads"]
    with closing(sqlite3.connect(root / "data/cluster.sqlite")) as copy:
        assert copy.execute("SELECT word FROM kept").fetchall() == [("newest",)]


def test_a_database_that_is_locked_for_writing_is_copied(root: Path, database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO kept VALUES ('not yet')")
    restore(root, saved(root))
    with closing(sqlite3.connect(root / "data/cluster.sqlite")) as copy:
        assert copy.execute("SELECT word FROM kept").fetchall() == [("newest",)]


def test_a_damaged_database_is_said_and_not_saved(root: Path, database: sqlite3.Connection) -> None:
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = root / "data/damaged.sqlite"
    whole = (root / "data/cluster.sqlite").read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises((BadArchive, sqlite3.DatabaseError)):
        saved(root)


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_a_backup_that_is_cut_off_changes_nothing(root: Path, part: float) -> None:
    (root / "data/big").write_bytes(os.urandom(200_000))
    before, whole = (root / "data/uploads/kept.txt").read_text(), saved(root).getvalue()
    (root / "data/since").touch()
    cut = whole[: int(len(whole) * part)]
    with pytest.raises(BadArchive):
        check(io.BytesIO(cut))
    with pytest.raises(BadArchive):
        restore(root, io.BytesIO(cut))
    assert (root / "data/since").exists()
    assert (root / "data/uploads/kept.txt").read_text() == before


@pytest.mark.parametrize("name", ["data/../../outside", "other/file", "../outside", "/outside"])
def test_names_that_lead_elsewhere_are_refused(root: Path, name: str) -> None:
    backup = archive(MANIFEST_MEMBER, (tarfile.TarInfo(name), b"x"), END_MEMBER)
    with pytest.raises(BadArchive, match="holds what no volume does"):
        check(backup)


def test_a_link_leads_no_file_elsewhere(root: Path, tmp_path: Path) -> None:
    link = tarfile.TarInfo("data/way")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    folder = tarfile.TarInfo("data")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o700
    inside = tarfile.TarInfo("data/way/outside"), b"x"
    backup = archive(MANIFEST_MEMBER, (folder, b""), (link, b""), inside, END_MEMBER)
    with pytest.raises(BadArchive, match="through a link"):
        restore(root, backup)
    assert not (tmp_path / "outside").exists()


def test_what_is_no_backup_is_said_in_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadArchive, match="no backup"):
        check(archive((tarfile.TarInfo("some/file"), b"x")))
    with pytest.raises(BadArchive, match="cannot be read"):
        check(io.BytesIO(b"plain text"))
    assert main(["unknown", str(root)]) == 1
    assert capsys.readouterr().err == "ERROR: no such command: unknown\n"


def test_a_backup_of_a_later_version_is_refused() -> None:
    later = tarfile.TarInfo(MANIFEST), json.dumps({"format": 2, "volumes": []}).encode()
    with pytest.raises(BadArchive, match="format 2"):
        check(archive(later))
