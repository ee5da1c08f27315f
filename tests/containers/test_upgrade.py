"""`make upgrade`: to what the repository has, looked at first, verified afterwards, and back if it does not work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.project import Appliance


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Operator", "-c", "user.email=operator@example.com")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def checkout(another: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Appliance:
    """The appliance as a clone of a repository, and running."""
    origin = tmp_path_factory.mktemp("origin")
    git(another.folder, "init", "--quiet", "--initial-branch=main")
    git(another.folder, "add", "--all")
    git(another.folder, "commit", "--quiet", "--message=first")
    git(origin, "clone", "--quiet", "--bare", str(another.folder), "origin.git")
    git(another.folder, "remote", "add", "origin", str(origin / "origin.git"))
    git(another.folder, "fetch", "--quiet")
    git(another.folder, "branch", "--quiet", "--set-upstream-to=origin/main")
    git(origin, "clone", "--quiet", "origin.git", "work")
    another.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "300")
    another.origin = origin / "work"
    return another


def publish(checkout: Appliance, file: str, old: str, new: str) -> str:
    """A new version in the repository."""
    assert checkout.origin is not None
    path = checkout.origin / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    git(checkout.origin, "commit", "--quiet", "--all", f"--message=change {file}")
    git(checkout.origin, "push", "--quiet")
    return git(checkout.origin, "rev-parse", "HEAD")


def test_without_a_new_version_nothing_happens(checkout: Appliance) -> None:
    ran = checkout.make("upgrade", "CHECK=1")
    assert ran.code == 0, ran.output
    assert "Up to date" in ran.output


def test_a_look_changes_nothing(checkout: Appliance) -> None:
    publish(checkout, "CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n- Something that operators should know.\n")
    before = git(checkout.folder, "rev-parse", "HEAD")
    ran = checkout.make("upgrade", "CHECK=1")
    assert ran.code == 0, ran.output
    assert "- Something that operators should know." in ran.output
    assert git(checkout.folder, "rev-parse", "HEAD") == before


def test_files_of_ones_own_stop_it_before_anything_changes(checkout: Appliance) -> None:
    readme = checkout.folder / "README.md"
    text = readme.read_text()
    readme.write_text(text + "mine\n")
    ran = checkout.make("upgrade")
    readme.write_text(text)
    assert ran.code != 0
    assert "files of the appliance were changed" in ran.output


def test_a_new_version_is_taken_and_verified(checkout: Appliance) -> None:
    target = publish(
        checkout, "nginx/templates/answers.conf", "add_header X-Content", "add_header X-New 1;\nadd_header X-Content"
    )
    ran = checkout.make("upgrade")
    assert ran.code == 0, ran.output
    assert git(checkout.folder, "rev-parse", "HEAD") == target
    assert "X-New" in checkout.inside("nginx", "cat /opt/roost-nginx/templates/answers.conf")
    assert len(list((checkout.folder / "backups").glob("before-upgrade-*.tar.gz"))) == 1


def test_a_version_that_does_not_work_is_taken_back(checkout: Appliance) -> None:
    before = git(checkout.folder, "rev-parse", "HEAD")
    publish(checkout, "nginx/templates/app.conf", "location / {\n", "location / {\n    return 404;\n")
    ran = checkout.make("upgrade")
    assert ran.code != 0
    assert "The version from before runs" in ran.output
    assert git(checkout.folder, "rev-parse", "HEAD") == before
    smoke = checkout.make("smoke")
    assert smoke.code == 0, smoke.output
