from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from flet_fastapi.metrics import Few, Metrics

PROGRAMS = Path(__file__).parent / "protocol" / "programs"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "app")}

# what is known beforehand, or bounded where it is counted
LABELS = {
    "state", "worker", "reason", "path", "result", "where", "code", "kind", "error", "status", "provider", "outcome",
    "route", "method", "generation", "version", "python", "flet", "direction", "operation",
}  # fmt: skip


def test_no_label_can_hold_an_id() -> None:
    used = {label for labels in Metrics(CollectorRegistry()).label_values.values() for label in labels}
    assert used == LABELS


def test_every_gauge_says_how_workers_are_added_up() -> None:
    gauges = [found for found in vars(Metrics(CollectorRegistry())).values() if isinstance(found, Gauge)]
    modes = {gauge._name: gauge._multiprocess_mode for gauge in gauges}
    others = {"flet_build_info": "livemax", "flet_store_up": "livemin", "flet_cluster_workers": "livemax"}
    assert {name: mode for name, mode in modes.items() if mode != "livesum"} == others


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


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return {tuple(s.labels.values()): s.value for s in samples if s.name == name}


@given(st.lists(st.floats(0, 1000) | st.sampled_from([0.001, 0.5, 1, 10]), max_size=60), st.integers(1, 4))
def test_durations_noted_without_locks_are_what_the_client_would_have_observed(
    seconds: list[float], parts: int
) -> None:
    metrics, registry = Metrics(CollectorRegistry()), CollectorRegistry()
    usual = Histogram("usual", "As prometheus_client does it.", buckets=metrics.event_seconds.bounds, registry=registry)
    for at, each in enumerate(seconds):
        metrics.events.note(each)
        usual.observe(each)
        if at % parts == 0:
            metrics.settle()
    metrics.settle()
    (family,) = metrics.event_seconds.collect()
    (expected,) = usual.collect()
    for found, wanted in zip(family.samples, expected.samples, strict=True):
        assert found.labels == wanted.labels
        assert found.name.endswith("_created") or found.value == pytest.approx(wanted.value)


def test_series_with_known_labels_are_there_before_anything_has_happened() -> None:
    metrics = Metrics(CollectorRegistry())
    assert values(metrics, "flet_sessions_ended_total")["expired",] == 0
    assert values(metrics, "flet_app_errors_total") == {
        ("main",): 0, ("handler",): 0, ("task",): 0, ("on_error",): 0,
    }  # fmt: skip
    assert values(metrics, "flet_resumes_total")["local", "resumed"] == 0


def test_further_label_values_than_a_few_are_other() -> None:
    few = Few(3)
    assert [few(value) for value in "abcabdea"] == ["a", "b", "c", "a", "b", "other", "other", "a"]


def test_worker_that_ends_says_so() -> None:
    metrics = Metrics(CollectorRegistry(), "2")
    metrics.appear()
    metrics.traffic.frames_sent = 7
    metrics.worker_memory_bytes.labels("2").set(5)
    assert values(metrics, "flet_worker_ready") == {("2",): 1}
    assert values(metrics, "flet_worker_start_time_seconds")["2",] > 1_700_000_000
    metrics.disappear()
    assert values(metrics, "flet_worker_ready") == values(metrics, "flet_worker_memory_bytes") == {("2",): 0}
    assert values(metrics, "flet_frames_sent_total") == {(): 7}


def test_importing_an_app_makes_no_metrics() -> None:
    """A server may import it before it forks its workers: they would count in the name of the one that is no worker."""
    code = "import counter; from flet_fastapi import app_manager; print('metrics' in vars(app_manager))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROGRAMS, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert ran.stdout == b"False\n", ran.stderr
