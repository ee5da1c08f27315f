from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from flet_fastapi.metrics import Metrics

FORBIDDEN = {"session", "session_id", "browser", "credential", "address", "ip", "client", "user", "path", "file"}


def test_no_label_can_hold_an_id() -> None:
    for collector in vars(Metrics(CollectorRegistry())).values():
        assert not FORBIDDEN & set(getattr(collector, "_labelnames", ()))


def test_every_gauge_says_how_workers_are_added_up() -> None:
    gauges = [found for found in vars(Metrics(CollectorRegistry())).values() if isinstance(found, Gauge)]
    assert gauges
    assert {found._multiprocess_mode for found in gauges} == {"livesum"}


def test_each_registry_counts_alone() -> None:
    one, two = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.sessions_started.inc()
    assert one.registry.get_sample_value("flet_sessions_started_total") == 1
    assert two.registry.get_sample_value("flet_sessions_started_total") == 0


def test_all_names_begin_alike_and_all_have_a_text() -> None:
    metrics = Metrics(CollectorRegistry())
    for family in metrics.registry.collect():
        assert family.name.startswith("flet_")
        assert family.documentation.endswith(".")
    assert generate_latest(metrics.registry)
