"""Every query of every dashboard and alert gives data, from a real Prometheus that watched the real app at work."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.observability.stack import (
    BOUNDS,
    DASHBOARDS,
    Prometheus,
    Stack,
    always_said,
    as_sent,
    panels,
    whole_stack,
    without_zero,
)
from tests.observability.test_rules import alerts
from tests.observability.traffic import Traffic, provider_of_office, traffic, variables_of_office
from tests.support.nginx import async_wait_for
from tests.support.oauth_server import OAuthServer

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("observability")]


@dataclass(frozen=True)
class Watched:
    """A Prometheus, and between which times it has watched."""

    prometheus: Prometheus
    start: float
    end: float

    def values(self, expr: str, *, instant: bool = False) -> list[float]:
        """All values of all series that are numbers."""
        if instant:
            found = [series["value"] for series in self.prometheus.at(expr, self.end)]
        else:
            found = [value for series in self.prometheus.over(expr, self.start, self.end) for value in series["values"]]
        return [value for _, text in found if not math.isnan(value := float(text))]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The appliance with two workers, after all kinds of traffic."""
    folder = tmp_path_factory.mktemp("observed")
    provider = provider_of_office()
    with asyncio.Runner() as runner:
        runner.run(provider.__aenter__())
        try:
            with whole_stack(folder, "office", **variables_of_office(provider, folder), **BOUNDS) as stack:
                start = time.time()
                runner.run(_make_traffic(stack, provider))
                yield Watched(stack.prometheus, start, time.time())
        finally:
            runner.run(provider.__aexit__())


async def _make_traffic(stack: Stack, provider: OAuthServer) -> None:
    """Everything twice, and a look between: what is there from its first look on has not grown yet."""
    async with traffic(stack, provider) as users:
        await _all_at_once(users)
        await async_wait_for(partial(stack.prometheus.has_looked_since, time.time()), "a look of Prometheus")
        await users.kill_a_worker()
        await _all_at_once(users)
        await users.fill_up()
        await async_wait_for(partial(stack.prometheus.has_looked_since, time.time()), "a look of Prometheus")


async def _all_at_once(users: Traffic) -> None:
    async with asyncio.TaskGroup() as group:
        for kind in (users.work, users.find_the_way_back, users.disturb, users.read_nothing, users.browse):
            group.create_task(kind())
        for kind in (users.upload, users.sign_in, users.be_refused):
            group.create_task(kind())


def queries() -> list[Any]:
    """Every query of every panel, as Grafana sends it."""
    found = []
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in panels(dashboard):
            for target in panel["targets"]:
                name = f"{path.stem}/{panel['title']}/{target['refId']}"
                found.append(pytest.param(target["expr"], target["instant"], id=name))
        marks = dashboard["annotations"]["list"]
        found += [pytest.param(mark["expr"], False, id=f"{path.stem}/{mark['name']}") for mark in marks]
    return found


@pytest.mark.parametrize(("expr", "instant"), queries())
def test_query_gives_data(watched: Watched, expr: str, instant: bool) -> None:
    assert watched.values(without_zero(as_sent(expr)), instant=instant)


@pytest.mark.parametrize("name", alerts())
def test_alert_is_decided_by_data(watched: Watched, name: str) -> None:
    for part in always_said(alerts()[name]["expr"]):
        assert set(watched.values(part)) in ({0.0}, {1.0}, {0.0, 1.0}), part


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_choices_have_something_to_choose(watched: Watched, path: Path) -> None:
    for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"][1:]:
        selector, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        found = watched.prometheus.get(f"label/{label}/values", **{"match[]": as_sent(selector)})
        assert found, variable["definition"]


def test_worker_that_was_killed_has_fired_its_alert(watched: Watched) -> None:
    assert watched.values('ALERTS{alertname="WorkerRestarted", alertstate="firing"}')
