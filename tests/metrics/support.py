"""Reading a metrics file as Prometheus does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from pathlib import Path

Samples = dict[tuple[str, ...], float]


def samples_of(text: str) -> Samples:
    """Return each value by its metric's name and its labels' values, in the labels' order."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(path: Path) -> Samples:
    """Return what a metrics file holds."""
    return samples_of(path.read_text(encoding="utf-8"))
