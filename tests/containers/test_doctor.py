"""`make doctor` finds planted mistakes, and says the cure of each."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.containers.test_certs import certificate
from tests.support.project import Appliance


def wrong(appliance: Appliance) -> list[str]:
    ran = appliance.make("doctor")
    lines = ran.output.splitlines()
    found = [
        f"{line.strip()} {cure.strip()}" for line, cure in zip(lines, [*lines[1:], ""], strict=True) if "WRONG" in line
    ]
    assert (ran.code == 0) == (not found), ran.output
    assert all(" cure: " in each for each in found), ran.output
    return found


def test_where_nothing_is_wrong_it_says_so(appliance: Appliance) -> None:
    assert wrong(appliance) == []


@contextmanager
def folder(appliance: Appliance, **files: str) -> Iterator[None]:
    """An app's folder with these files."""
    place = appliance.folder / "apps/planted"
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name.replace("_", ".")).write_text(text)
    appliance.set(APP="./apps/planted")
    try:
        yield
    finally:
        appliance.set(APP=None)
        shutil.rmtree(place.parent)


@contextmanager
def setting(appliance: Appliance, **settings: str) -> Iterator[None]:
    appliance.set(**settings)
    try:
        yield
    finally:
        appliance.set(**dict.fromkeys(settings))


@contextmanager
def text_file(appliance: Appliance, name: str, text: str, mode: int = 0o600) -> Iterator[None]:
    (appliance.folder / name).write_text(text)
    (appliance.folder / name).chmod(mode)
    try:
        yield
    finally:
        (appliance.folder / name).unlink()


@contextmanager
def empty_secret(appliance: Appliance) -> Iterator[None]:
    run = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "secrets", "-c")
    appliance.compose(*run, "cp /secrets/app/cluster_secret /secrets/app/.kept && : >/secrets/app/cluster_secret")
    try:
        yield
    finally:
        appliance.compose(*run, "mv /secrets/app/.kept /secrets/app/cluster_secret")


@contextmanager
def unwritable_data(appliance: Appliance) -> Iterator[None]:
    appliance.inside("app", "chmod 500 /data")
    try:
        yield
    finally:
        appliance.inside("app", "chmod 700 /data")


@contextmanager
def two_apps(appliance: Appliance) -> Iterator[None]:
    appliance.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", "app=2", "app")
    try:
        yield
    finally:
        appliance.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", "app=1", "app")


@contextmanager
def nginx_away(appliance: Appliance) -> Iterator[None]:
    appliance.compose("stop", "nginx")
    try:
        yield
    finally:
        appliance.compose("start", "nginx")
        appliance.until(lambda: "healthy" in appliance.compose("ps", "nginx").output)


@contextmanager
def foreign_certificate(appliance: Appliance) -> Iterator[None]:
    made = appliance.folder.parent / "certificate"
    assert appliance.make("certs", *certificate(made, "other.example.com", days=5)).code == 0
    try:
        with setting(appliance, NGINX_HOSTS="localhost"):
            yield
    finally:
        assert appliance.make("certs", "REMOVE=1").code == 0


def test_each_of_many_mistakes_is_found_beside_the_others(appliance: Appliance) -> None:
    with ExitStack() as planted:
        planted.enter_context(setting(appliance, FLET_DEBUG="true", HTTPS_PROT="1"))
        planted.enter_context(folder(appliance, a_py="", b_py="", requirements_txt="flet==0.28.3\n"))
        planted.enter_context(text_file(appliance, "app.env", "DB_PASSWORD=x\n", 0o644))
        planted.enter_context(foreign_certificate(appliance))
        planted.enter_context(two_apps(appliance))
        planted.enter_context(unwritable_data(appliance))
        planted.enter_context(empty_secret(appliance))
        found = wrong(appliance)
    said = (
        "FLET_DEBUG is in .env", "HTTPS_PROT in .env is no setting", "apps/planted has no main.py",
        "pins a part of the server", "chmod 600 app.env", "expires within two weeks", "is not for localhost",
        "signs itself", "2 containers of the app run in place of 1", "cannot write to /data",
        "cluster_secret is empty or too short", "are newer than what runs",
    )  # fmt: skip
    assert [words for words in said if not any(words in each for each in found)] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"APP_CPUS": "many"}, "the configuration cannot be read"),
        ({"APP": "./app/examples/counter/counter.py"}, "APP is a file"),
        ({"APP": "./apps/nothing"}, "there is no such folder"),
    ],
)
def test_a_wrong_setting_is_found(appliance: Appliance, settings: dict[str, str], said: str) -> None:
    with setting(appliance, **settings):
        (found,) = wrong(appliance)
    assert said in found


def test_a_port_that_another_program_has_is_found(appliance: Appliance) -> None:
    with nginx_away(appliance), socket.create_server(("127.0.0.1", appliance.https_port)):
        found = wrong(appliance)
    assert len(found) == 2
    assert f"port {appliance.https_port} is in use by another program" in found[0]
    assert "nginx is exited" in found[1]


def test_an_app_that_does_not_start_is_found(another: Appliance) -> None:
    app = another.folder / "apps/broken"
    app.mkdir(parents=True)
    (app / "main.py").write_text("import there_is_no_such_module\n")
    another.set(APP="./apps/broken")
    another.compose("build", "app")
    assert another.make("up", START_TIMEOUT="60").code != 0
    another.until(lambda: any("the app does not start" in each for each in wrong(another)))


def test_no_engine_is_found(appliance: Appliance) -> None:
    ran = appliance.make("doctor", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert ran.code != 0
    assert "the Docker engine does not answer" in ran.output
    assert "systemctl start docker" in ran.output


def test_no_docker_is_found(appliance: Appliance, tmp_path: Path) -> None:
    for program in ("sh", "make", "dirname", "printf", "sed", "awk", "tail", "id"):
        (tmp_path / program).symlink_to(shutil.which(program) or "/bin/false")
    ran = appliance.make("doctor", PATH=str(tmp_path))
    assert ran.code != 0
    assert "docker is not installed" in ran.output
