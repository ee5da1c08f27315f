"""What is counted keeps to what is declared."""

from __future__ import annotations

from flet_fastapi.metrics import Metrics


def undeclared(metrics: Metrics) -> set[tuple[str, str, str]]:
    """Label values that were counted and that their metric does not declare: name, label, value."""
    return {
        (family.name, label, sample.labels[label])
        for family in metrics.registry.collect()
        for sample in family.samples
        for label, known in metrics.label_values[family.name].items()
        if known and sample.labels[label] not in known
    }
