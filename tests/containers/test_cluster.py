"""Two replicas of the app with Redis between them, and who watches them."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from tests.support.project import Appliance


@pytest.fixture(scope="module")
def cluster(another: Appliance) -> Appliance:
    files = another.environment.get("COMPOSE_FILE", "compose.yaml")
    another.set(COMPOSE_FILE=f"{files}:compose.cluster.yaml", APP_REPLICAS=2)
    another.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "300")
    return another


def test_a_visitor_is_served_by_two_replicas(cluster: Appliance) -> None:
    addresses = {
        cluster.inspect(container)["NetworkSettings"]["Networks"][f"{cluster.name}_edge"]["IPAddress"]
        for container in cluster.containers("app")
    }
    assert len(addresses) == 2
    asked = cluster.inside("nginx", "cat /run/roost-nginx/now/workers.conf")
    cluster.until(
        lambda: all(
            address in cluster.inside("nginx", "cat /run/roost-nginx/now/workers.conf") for address in addresses
        )
    )
    assert "hash" in asked
    with cluster.visitor() as visitor:
        visitor.visit()
        assert visitor.click(visitor.find("add"))


def test_redis_wants_its_password(cluster: Appliance) -> None:
    assert "NOAUTH" in cluster.inside("redis", "redis-cli ping 2>&1")
    assert cluster.inside("redis", "sh /roost/redis ping && echo well") == "well"


def test_redis_keeps_its_password_to_itself(cluster: Appliance) -> None:
    password = cluster.inside("redis", "cat /secrets/redis/password")
    script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    assert password not in cluster.inside("redis", script)
    assert password not in str(cluster.inspect(cluster.containers("redis")[0]))
    assert password not in cluster.compose("logs", "--no-color").output


def test_only_the_app_can_reach_redis(cluster: Appliance) -> None:
    redis = cluster.inspect(cluster.containers("redis")[0])["NetworkSettings"]
    assert list(redis["Networks"]) == [f"{cluster.name}_data"]
    assert not any(redis["Ports"].values())
    assert json.loads(cluster.docker("network", "inspect", f"{cluster.name}_data"))[0]["Internal"] is True
    script = "import socket; socket.create_connection(('redis', 6379), 3); print('open')"
    assert cluster.compose("exec", "-T", "app", "python", "-c", script).output.strip() == "open"
    assert cluster.inside("nginx", "getent hosts redis || echo unknown") == "unknown"


def test_the_workers_share_what_they_keep_in_redis(cluster: Appliance) -> None:
    ask = 'REDISCLI_AUTH="$(cat /secrets/redis/password)" redis-cli client list | wc -l'
    assert int(cluster.inside("redis", ask)) > 2


def query(cluster: Appliance, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:9090/api/v1/query?query={urllib.parse.quote(expression)}"
    answer = json.loads(cluster.inside("prometheus", f"wget -q -O - '{url}'"))
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_prometheus_finds_every_replica(cluster: Appliance) -> None:
    cluster.set(PROMETHEUS_PORT=0)
    cluster.compose("--profile", "observability", "up", "--detach", "--wait", "prometheus")
    cluster.until(lambda: len(query(cluster, 'up{job="roost"} == 1')) == 2)
    cluster.until(lambda: query(cluster, "sum(flet_sessions_started_total) > 0"))


def test_a_deployment_replaces_both_replicas(cluster: Appliance) -> None:
    before = cluster.containers("app")
    ran = cluster.make("deploy")
    assert ran.code == 0, ran.output
    after = cluster.containers("app")
    assert len(after) == 2
    assert not set(before) & set(after)
