"""The whole project on a real engine: the first start, how tight it is, and what comes back after a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from roost.appliance.visitor import Broken, Visitor
from roost.settings import Settings
from tests.support.project import Appliance, Ran

SERVICES = ("app", "nginx")
SECRET_FILES = (
    "/volumes/secrets/secret_key", "/volumes/secrets/cluster_secret", "/volumes/redis-secret/password",
    "/volumes/grafana-secret/admin_password", "/volumes/tls/self-signed/privkey.pem",
)  # fmt: skip


@pytest.fixture(scope="module")
def secrets(appliance: Appliance) -> dict[str, str]:
    """Every secret that was made, by its place."""
    read = "import sys, pathlib; sys.stdout.write('\\0'.join(pathlib.Path(p).read_text() for p in sys.argv[1:]))"
    ran = appliance.compose("run", "--rm", "-T", "--entrypoint", "python", "archive", "-c", read, *SECRET_FILES)
    texts = [text.strip() for text in ran.output.split("\0")]
    key = "".join(line for line in texts[-1].splitlines() if not line.startswith("-----"))
    return dict(zip(SECRET_FILES, [*texts[:-1], key], strict=True))


@pytest.fixture
def visitor(appliance: Appliance) -> Iterator[Visitor]:
    with appliance.visitor() as visitor:
        yield visitor.visit()


def count(visitor: Visitor) -> str:
    return next(text for text in visitor.texts() if text.isdigit())


def click(visitor: Visitor) -> str:
    assert visitor.click(visitor.find("add"))
    return count(visitor)


# --- the first start -------------------------------------------------------------------------------------------------


def test_the_first_start_shows_the_example_over_tls(appliance: Appliance, visitor: Visitor) -> None:
    assert [click(visitor), click(visitor)] == ["1", "2"]


def test_plain_http_leads_to_tls(appliance: Appliance) -> None:
    assert appliance.head(f"http://localhost:{appliance.http_port}/page?x=1") == (301, f"{appliance.url}page?x=1")


@pytest.mark.parametrize("path", ["metrics", "livez", "readyz", "startupz", "slots"])
def test_what_is_internal_is_closed_from_outside(appliance: Appliance, path: str) -> None:
    assert appliance.get(appliance.url + path)[0] == 404


def test_nothing_but_nginx_is_published(appliance: Appliance) -> None:
    published = {
        service: appliance.inspect(appliance.containers(service)[0])["NetworkSettings"]["Ports"] for service in SERVICES
    }
    assert not any(published["app"].values())
    assert {port["HostPort"] for ports in published["nginx"].values() for port in ports or ()} == {
        str(appliance.http_port), str(appliance.https_port),
    }  # fmt: skip


def test_secrets_are_unlike_each_other_and_long(secrets: dict[str, str]) -> None:
    assert len(set(secrets.values())) == len(SECRET_FILES)
    assert all(len(text) >= 64 for text in secrets.values())


def test_secrets_have_tight_modes(appliance: Appliance) -> None:
    listing = "find /volumes -type f -path '*secret*' -o -type f -path '*/tls/*' | xargs stat -c '%a %u %n'"
    lines = appliance.compose("run", "--rm", "-T", "--entrypoint", "sh", "archive", "-c", listing).output.splitlines()
    found = {line.split()[2]: (line.split()[0], line.split()[1]) for line in lines}
    assert set(SECRET_FILES) < set(found)
    assert {mode for mode, _ in found.values()} == {"600", "640"}
    assert {name for name, (mode, _) in found.items() if mode == "640"} == set(SECRET_FILES[2:4])
    assert {owner for name, (_, owner) in found.items() if "/tls/" not in name} == {"10001"}


def test_secrets_are_printed_nowhere(appliance: Appliance, secrets: dict[str, str]) -> None:
    said = appliance.first_start + appliance.compose("logs", "--no-color").output
    assert not [place for place, text in secrets.items() if text in said]


@pytest.mark.parametrize("service", [*SERVICES, "secrets"])
def test_secrets_are_in_no_environment_or_argument(appliance: Appliance, secrets: dict[str, str], service: str) -> None:
    container = appliance.compose("ps", "--all", "--quiet", service).output.strip()
    described = str(appliance.inspect(container))
    assert not [place for place, text in secrets.items() if text in described]


def test_secrets_are_in_no_process_environment(appliance: Appliance, secrets: dict[str, str]) -> None:
    for service in SERVICES:
        environments = appliance.inside(
            service, "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"
        )
        assert not [place for place, text in secrets.items() if text in environments]


def test_secrets_are_in_no_image(appliance: Appliance, secrets: dict[str, str]) -> None:
    for image in ("app", "nginx"):
        name = f"{appliance.name}-{image}"
        place = "/secrets" if image == "app" else "/etc/nginx/tls"
        assert (
            appliance.docker("run", "--rm", "--network=none", "--entrypoint", "find", name, place, "-type", "f") == ""
        )
        assert not [text for text in secrets.values() if text in appliance.docker("history", "--no-trunc", name)]


def test_nobody_has_the_secrets_of_another(appliance: Appliance) -> None:
    def volumes(service: str) -> set[str]:
        mounts = appliance.inspect(appliance.containers(service)[0])["Mounts"]
        return {mount["Name"].removeprefix(f"{appliance.name}_") for mount in mounts if mount["Type"] == "volume"}

    assert volumes("app") == {"data", "run", "secrets"}
    assert volumes("nginx") == {"tls", "acme"}


def test_a_second_start_makes_no_new_secrets(appliance: Appliance) -> None:
    before = appliance.inside("app", "cksum /secrets/app/*")
    appliance.compose("up", "--detach", "--wait")
    assert appliance.inside("app", "cksum /secrets/app/*") == before
    assert "0 made, 4 were there" in appliance.compose("logs", "secrets").output


# --- how tight it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "uid"), [("app", "10001"), ("nginx", "101")])
def test_no_process_is_root_or_can_become_it(appliance: Appliance, service: str, uid: str) -> None:
    wanted = "^(Uid|Gid|CapEff|CapPrm|CapBnd|NoNewPrivs)"
    script = f"for p in /proc/[0-9]*; do grep -hE '{wanted}' $p/status; done 2>/dev/null || true"
    lines = {tuple(line.split()) for line in appliance.inside(service, script).splitlines()}
    assert {line[1:] for line in lines if line[0] == "Uid:"} == {(uid,) * 4}
    assert "0" not in {number for line in lines if line[0] == "Gid:" for number in line[1:]}
    assert {line[1] for line in lines if line[0].startswith("Cap")} == {"0000000000000000"}
    assert {line[1] for line in lines if line[0] == "NoNewPrivs:"} == {"1"}


@pytest.mark.parametrize(
    ("service", "writable"),
    [
        ("app", {"/data", "/run/roost", "/tmp"}),
        ("nginx", {"/etc/nginx/tls", "/run/roost-nginx", "/tmp", "/var/cache/nginx"}),
    ],
)
def test_the_root_is_read_only(appliance: Appliance, service: str, writable: set[str]) -> None:
    system = r"^/(dev|proc|sys|etc/(hosts|hostname|resolv\.conf))"
    mounts = [line.split() for line in appliance.inside(service, "cat /proc/mounts").splitlines()]
    open_ = {place for _, place, _, options, *_ in mounts if options.startswith("rw") and not re.match(system, place)}
    assert open_ == writable
    assert "Read-only file system" in appliance.inside(service, "touch /opt/x 2>&1 || true")


@pytest.mark.parametrize("service", SERVICES)
def test_resources_are_bounded(appliance: Appliance, service: str) -> None:
    host: dict[str, Any] = appliance.inspect(appliance.containers(service)[0])["HostConfig"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"] == {"max-file": "5", "max-size": "20m"}
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Init"] is True


def test_every_service_is_hardened(appliance: Appliance) -> None:
    """Those of the profiles, too, as compose reads them."""
    services = json.loads(appliance.compose("--profile", "*", "config", "--format", "json").output)["services"]
    assert {"redis", "prometheus", "grafana", "nginx-exporter", "acme", "smoke", "archive"} < set(services)
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["logging"]["options"], name
        assert service["init"] is True, name
        assert service["user"].split(":")[0] != "0" or name == "archive", name
        assert not service.get("privileged"), name
        assert not [v for v in service.get("volumes", ()) if "docker.sock" in str(v)], name


def test_a_stop_has_more_time_than_the_server_takes(appliance: Appliance) -> None:
    service = json.loads(appliance.compose("config", "--format", "json").output)["services"]["app"]
    assert service["stop_grace_period"] == "45s"
    assert Settings.model_fields["graceful_timeout"].default < 45


# --- a secret that cannot be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["/nowhere", "/secrets/app"])
def test_the_app_refuses_to_start_without_its_key(appliance: Appliance, file: str) -> None:
    ran = appliance.run(
        "docker", "compose", "run", "--rm", "-T", "--no-deps", "-e", f"FLET_SECRET_KEY_FILE={file}", "app"
    )
    assert ran.code == 2, ran.output
    assert "FLET_SECRET_KEY_FILE" in ran.output


def test_an_image_alone_refuses_to_start_without_a_key(appliance: Appliance) -> None:
    ran = appliance.run("docker", "run", "--rm", f"{appliance.name}-app")
    assert ran.code == 2
    assert "`roost secret`" in ran.output


def run_redis(appliance: Appliance, script: str) -> Ran:
    image = appliance.environment.get("REDIS_IMAGE", "valkey/valkey:8.1-bookworm")
    mount = f"{appliance.folder}/scripts/image:/roost:ro"
    alone = ("docker", "run", "--rm", "--network=none", "--user=999", "--entrypoint=sh", "-v", mount, image)
    return appliance.run(*alone, "-c", script)


@pytest.mark.parametrize("password", ["", "short", "with space and more"])
def test_redis_refuses_to_start_without_a_password(appliance: Appliance, password: str) -> None:
    elsewhere = "sed 's|^file=.*|file=/tmp/p|' /roost/redis >/tmp/r"
    ran = run_redis(appliance, f"printf '%s' '{password}' >/tmp/p && {elsewhere} && exec sh /tmp/r")
    assert ran.code == 1, ran.output
    assert "redis: the password in /tmp/p" in ran.output


def test_redis_refuses_to_start_with_an_unreadable_password(appliance: Appliance) -> None:
    ran = run_redis(appliance, "exec sh /roost/redis")
    assert ran.code == 1
    assert "cannot be read" in ran.output


# --- kills -----------------------------------------------------------------------------------------------------------


def workers(appliance: Appliance) -> set[str]:
    """Process ids, inside the container, of the master's children."""
    script = "grep -H '^PPid' $(grep -l roost /proc/[0-9]*/cmdline | sed 's/cmdline/status/') 2>/dev/null || true"
    parents = dict(re.findall(r"/proc/(\d+)/status:PPid:\s+(\d+)", appliance.inside("app", script)))
    masters = {pid for pid, parent in parents.items() if parent == "1"}
    return {pid for pid, parent in parents.items() if parent in masters}


def kill_host_process(appliance: Appliance, pid: int) -> None:
    """As a user of the engine can, who need not be root."""
    appliance.docker(
        "run", "--rm", "--network=none", "--privileged", "--pid=host", "--user=0", f"{appliance.name}-app",
        "python", "-c", f"import os; os.kill({pid}, 9)",
    )  # fmt: skip


def served(appliance: Appliance) -> bool:
    try:
        with appliance.visitor() as visitor:
            return click(visitor.visit()) == "1"
    except (Broken, AssertionError):
        return False


def test_a_killed_worker_comes_back(appliance: Appliance) -> None:
    before = workers(appliance)
    victim = min(before, key=int)
    appliance.inside("app", f"kill -9 {victim}")
    appliance.until(lambda: len(now := workers(appliance)) == len(before) and victim not in now)
    appliance.until(lambda: served(appliance))
    assert appliance.inspect(appliance.containers("app")[0])["RestartCount"] == 0


def test_a_killed_container_comes_back(appliance: Appliance) -> None:
    container = appliance.containers("app")[0]
    kill_host_process(appliance, appliance.inspect(container)["State"]["Pid"])
    appliance.until(lambda: appliance.inspect(container)["RestartCount"] == 1)
    appliance.until(lambda: appliance.inspect(container)["State"].get("Health", {}).get("Status") == "healthy")
    appliance.until(lambda: served(appliance))


def test_while_the_app_is_away_visitors_see_a_page_that_waits(appliance: Appliance) -> None:
    appliance.compose("stop", "--timeout", "5", "app")
    appliance.until(lambda: appliance.get(appliance.url, Accept="text/html")[0] in (502, 503, 504))
    assert "<html" in appliance.get(appliance.url, Accept="text/html")[1]
    appliance.compose("start", "app")
    appliance.until(lambda: served(appliance))


def test_a_killed_nginx_comes_back(appliance: Appliance) -> None:
    container = appliance.containers("nginx")[0]
    kill_host_process(appliance, appliance.inspect(container)["State"]["Pid"])
    appliance.until(lambda: appliance.inspect(container)["RestartCount"] == 1)
    appliance.until(lambda: served(appliance))
