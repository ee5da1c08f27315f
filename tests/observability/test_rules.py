"""The configuration and the alerts, as Prometheus's own tool sees them; and that each alert is explained and tested."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import ROOT

OBSERVABILITY = ROOT / "observability"
PROMETHEUS = OBSERVABILITY / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = (OBSERVABILITY / "runbook.md").read_text(encoding="utf-8")
# Values that may stand in a message: bounded, and nobody's secret (docs/metrics.md).
MAY_BE_SAID = {"instance", "job", "reason", "error", "worker"}


def documents(paths: list[Path]) -> list[Any]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]


def alerts() -> dict[str, dict[str, Any]]:
    rules = [rule for document in documents(RULES) for group in document["groups"] for rule in group["rules"]]
    found = {rule["alert"]: rule for rule in rules}
    assert len(found) == len(rules), "two alerts have one name"
    return found


def covered(*, fires: bool) -> set[str]:
    """The alerts with a test in which they fire, or in which they never do."""
    names: set[str] = set()
    for document in documents(TESTS):
        for test in document["tests"]:
            expected: dict[str, bool] = {}
            for check in test["alert_rule_test"]:
                name = check["alertname"]
                expected[name] = expected.get(name, False) or bool(check["exp_alerts"])
            names |= {name for name, fired in expected.items() if fired == fires}
    return names


def promtool(*arguments: object) -> None:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def test_configuration_is_valid() -> None:
    promtool("check", "config", "prometheus.yml")


def test_rules_pass_the_linter() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_alerts_fire_and_do_not_fire_as_told() -> None:
    promtool("test", "rules", *TESTS)


def test_every_alert_has_a_test_that_fires_and_one_that_does_not() -> None:
    assert covered(fires=True) == covered(fires=False) == set(alerts())


def test_every_alert_has_its_heading_in_the_runbook_and_every_heading_its_alert() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE) == list(alerts())


@pytest.mark.parametrize("name", alerts())
def test_alert_says_what_it_is_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"observability/runbook.md#{name.lower()}"
    summary = alert["annotations"]["summary"]
    assert summary.endswith(".")
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= MAY_BE_SAID


def test_links_of_the_runbook_lead_somewhere() -> None:
    headings = {heading.lower() for heading in re.findall(r"^#+ (\S+)$", RUNBOOK, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, anchor = target.partition("#")
        assert not path or (OBSERVABILITY / path).is_file(), target
        assert not anchor or path or anchor in headings, target


def test_names_in_the_runbook_are_names_of_something() -> None:
    """Settings, metrics, labels, and log events, as the documents and the scripts have them."""
    places = ["docs/*.md", "nginx/*.md", "nginx/scripts/*", "compose*.yaml", ".env.example"]
    known = "\n".join(path.read_text(encoding="utf-8") for place in places for path in ROOT.glob(place))
    names = set(re.findall(r"\b[A-Z]{3,}_[A-Z_]+\b|`[a-z]+_[a-z_]+`", RUNBOOK))
    assert len(names) > 30
    assert {name for name in names if not re.search(rf"\b{name.strip('`')}\b", known)} == set()


def test_scrapes_find_every_replica_and_know_the_appliance() -> None:
    (config,) = documents([PROMETHEUS / "prometheus.yml"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"roost", "nginx", "prometheus"}
    assert jobs["roost"]["dns_sd_configs"][0] == {
        "names": ["app"],
        "type": "A",
        "port": 9000,
        "refresh_interval": "15s",
    }
