"""Backup, volumes destroyed, restore: everything is as it was."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import Appliance

# what an app keeps: a file, and a database that is written to
WRITE = """
import pathlib, sqlite3
folder = pathlib.Path("/data/app")
folder.mkdir(exist_ok=True)
(folder / "note.txt").write_text("kept")
with sqlite3.connect(folder / "app.sqlite") as database:
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS kept (word TEXT)")
    database.execute("INSERT INTO kept VALUES ('kept')")
"""
READ = """
import pathlib, sqlite3
print((pathlib.Path("/data/app/note.txt")).read_text())
print(sqlite3.connect("/data/app/app.sqlite").execute("SELECT word FROM kept").fetchall())
"""


@pytest.fixture(scope="module")
def backup(appliance: Appliance) -> Iterator[Path]:
    appliance.compose("exec", "-T", "app", "python", "-c", WRITE)
    ran = appliance.make("backup")
    assert ran.code == 0, ran.output
    (file,) = (appliance.folder / "backups").iterdir()
    yield file
    file.unlink()


def state(appliance: Appliance) -> tuple[str, ...]:
    """Secrets, certificate, data, all with their owners and modes."""
    return (
        appliance.inside(
            "app", "cksum /secrets/app/* && stat -c '%n %a %u %g' /secrets/app/* /data /data/app/note.txt"
        ),
        appliance.inside("nginx", "cd /etc/nginx/tls && cksum */* && stat -c '%n %a %u %g' . */*"),
        appliance.compose("exec", "-T", "app", "python", "-c", READ).output,
    )


def test_a_backup_is_one_file_for_its_owner_only(backup: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert backup.name.endswith(".tar.gz")


def test_everything_survives_the_loss_of_all_volumes(appliance: Appliance, backup: Path) -> None:
    before = state(appliance)
    appliance.compose("down", "--volumes")
    assert "roosttest_data" not in appliance.docker("volume", "ls", "--quiet").split()
    ran = appliance.make("restore", f"FILE={backup}")
    assert ran.code == 0, ran.output
    assert "click: 'add' was answered" in ran.output
    assert state(appliance) == before


def test_what_came_after_a_backup_is_gone_with_it(appliance: Appliance, backup: Path) -> None:
    appliance.inside("app", "echo later >/data/app/later.txt; echo changed >/data/app/note.txt")
    assert appliance.make("restore", f"FILE={backup}").code == 0
    assert appliance.inside("app", "ls /data/app; cat /data/app/note.txt").split() == ["app.sqlite", "note.txt", "kept"]


@pytest.mark.parametrize("kept", [0, 300, 0.9])
def test_half_a_backup_changes_nothing(appliance: Appliance, backup: Path, tmp_path: Path, kept: float) -> None:
    before = appliance.containers("app")
    whole = backup.read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: int(kept * len(whole) if isinstance(kept, float) else kept)])
    ran = appliance.make("restore", f"FILE={tmp_path / 'half.tar.gz'}")
    assert ran.code != 0
    assert "cannot be restored" in ran.output
    assert appliance.containers("app") == before


def test_a_backup_that_fails_leaves_no_file(appliance: Appliance, tmp_path: Path) -> None:
    ran = appliance.make("backup", f"FILE={tmp_path / 'x.tar.gz'}", COMPOSE_PROJECT_NAME="roosttest-not-there")
    assert ran.code != 0
    assert not list(tmp_path.iterdir())
