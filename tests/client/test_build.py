from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest

from flet_fastapi.client import __main__ as setup
from flet_fastapi.client import build
from flet_fastapi.client.build import Build, gather, load, prepare, writable_root


@pytest.fixture
def found(web: Path, prepared: Path) -> Build:
    return gather(web, [prepared])


def test_name_changes_with_any_content(web: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(web, tmp_path / "web")
    before = gather(copy, []).name
    assert before == gather(web, []).name
    (copy / "assets/FontManifest.json").write_text("[ ]")
    assert gather(copy, []).name != before


def test_parts_are_found_in_any_root(web: Path, prepared: Path, tmp_path: Path) -> None:
    assert gather(web, [tmp_path, prepared]).missing() == []
    assert len(gather(web, [tmp_path]).missing()) == 4


def test_scripts_are_adapted(found: Build) -> None:
    loader = bytes(found.files["flutter.js"].content)
    bootstrap = bytes(found.files["flutter_bootstrap.js"].content)
    assert b"canvasKitBaseUrl: base" in loader
    assert bootstrap.index(b"canvasKitBaseUrl: base") < bootstrap.index(b"serviceWorkerSettings: {")
    assert b"export default" in bytes(found.files["canvaskit/canvaskit.js"].content)


def test_every_coding_decodes_to_the_plain_file(found: Build, tmp_path: Path, web: Path) -> None:
    ready = prepare(found, tmp_path, 2)
    file = ready.files["main.dart.js"]
    assert brotli.decompress(file.encoded["br"].read_bytes()) == (web / "main.dart.js").read_bytes()
    assert set(file.encoded) == {"br", "gzip"}
    assert "br" not in ready.files["favicon.png"].encoded


def test_preparing_again_changes_nothing(found: Build, tmp_path: Path) -> None:
    first = prepare(found, tmp_path, 2)
    state = _state(tmp_path)
    assert prepare(found, tmp_path, 2) == first
    assert prepare(found, tmp_path, 1) == first
    assert _state(tmp_path) == state


def _state(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def test_better_quality_replaces_the_quick_one(found: Build, tmp_path: Path) -> None:
    prepare(found, tmp_path, 1)
    prepare(found, tmp_path, 3)
    assert load(found, [tmp_path]).quality == 3


def test_builders_at_once_make_one_build(web: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    builders = [context.Process(target=_build, args=(web, tmp_path)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert len(list(tmp_path.glob("*-q*"))) == 1
    assert not list(tmp_path.glob(".making-*"))


def _build(web: Path, root: Path) -> None:
    assert prepare(gather(web, [root]), root, 1).quality == 1


def test_leftovers_of_a_dead_builder_are_swept(found: Build, tmp_path: Path) -> None:
    (tmp_path / ".making-dead/br").mkdir(parents=True)
    (tmp_path / ".making-dead/br/main.dart.js").write_bytes(b"half")
    prepare(found, tmp_path, 1)
    assert not list(tmp_path.glob(".making-*"))


@pytest.mark.parametrize("damage", ["truncate", "remove", "listing", "empty"])
def test_damaged_build_is_not_served_and_is_made_again(found: Build, tmp_path: Path, damage: str) -> None:
    ready = prepare(found, tmp_path, 1)
    folder = next(tmp_path.glob("*-q1"))
    _damage(folder, damage)
    assert load(found, [tmp_path]) is found
    assert prepare(found, tmp_path, 1) == ready


def _damage(folder: Path, how: str) -> None:
    victim = folder / "br/main.dart.js"
    actions: dict[str, Callable[[], object]] = {
        "truncate": lambda: os.truncate(victim, 3),
        "remove": victim.unlink,
        "listing": lambda: (folder / "files.json").write_text('{"quality": 11'),
        "empty": lambda: (folder / "files.json").write_text("[]"),
    }
    actions[how]()


def test_failed_build_leaves_nothing(found: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_write", _full_disk)
    with pytest.raises(OSError):
        prepare(found, tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_oldest_builds_are_removed(found: Build, tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / f"old{number}-q1"
        folder.mkdir()
        os.utime(folder, (time.time() - 86400 + number,) * 2)
    prepare(found, tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("old*")) == ["old2-q1", "old3-q1", "old4-q1"]


def test_first_writable_root_is_taken(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert writable_root([blocked / "x", tmp_path / "new"]) == tmp_path / "new"
    with pytest.raises(PermissionError):
        writable_root([blocked / "x"])


def test_cache_follows_the_xdg_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.default_roots()[1] == tmp_path / "flet_fastapi/client"


def test_set_up_offline_warns_of_what_is_missing(
    web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "web_folder", lambda: web)
    assert setup.main(["--root", str(tmp_path), "--quality", "1", "--offline"]) == 0
    assert "no canvaskit/canvaskit.wasm" in capsys.readouterr().err
    assert json.loads(next(tmp_path.glob("*-q1/files.json")).read_text())["quality"] == 1


def test_set_up_without_the_flet_package_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert setup.main(["--root", str(tmp_path), "--offline"]) == 1
    assert "install flet==0.24.1" in capsys.readouterr().err
