"""What was measured, and the limits that it is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.measure import Cost

# Every limit there is, by what it limits. A ratio has no unit; memory is in MB.
LIMITS = {
    "active": 1.8,
    "linear": 10.5,
    "active memory": 350.0,
    "idle": 0.2,
    "idle rows": 5.0,
    "nothing new": 1.3,
    "help": 1 / 3,
    "status": 1.5,
    "backlog": 1.3,
    "backlog memory": 250.0,
    "reconcile memory": 300.0,
    "audit": 4.0,
    "audit full": 10.0,
    "audit memory": 200.0,
    "sealed": 1.05,
    "verify": 3.0,
    "verify memory": 200.0,
    "statement": 2.0,
    "proof": 64.0,
    "decode": 1.5,
    "hanging": 1.2,
}

# In small sizes the fixed costs of a run, to connect and to ask, weigh more beside the floor.
QUICK_LIMITS = LIMITS | {
    "active": 2.5,
    "idle": 0.4,
    "audit": 10.0,
    "audit full": 12.0,
    "verify": 6.0,
}

# How far beyond its limit a figure must be, twice in a row, for `--quick` to fail: no noise is
# that large.
QUICK_TOLERANCE = 2.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, and what it may be at most, where there is a limit."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    def is_met(self, tolerance: float = 1.0) -> bool:
        """Tell whether the value is within its limit, stretched by a factor."""
        return self.limit is None or self.value <= self.limit * tolerance


@dataclass(frozen=True, slots=True)
class Run:
    """What a run cost. `samples` is what it had to look at, None where that means nothing."""

    what: str
    samples: int | None
    cost: Cost


@dataclass(frozen=True, slots=True)
class Storage:
    """What a table takes on disk for each of its rows, in bytes."""

    table: str
    rows: int
    table_bytes: float
    index_bytes: float


@dataclass(slots=True)
class Results:
    """Collects figures and costs in the order in which they come, and says them as they come."""

    limits: Mapping[str, float] = field(default_factory=lambda: LIMITS)
    figures: list[Figure] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    storage: list[Storage] = field(default_factory=list)
    capacity: list[tuple[str, str]] = field(default_factory=list)

    def figure(self, what: str, value: float, unit: str, limit_name: str = "") -> None:
        """Take down a value: a ratio where `unit` begins with x, as in `x the floor`.

        `limit_name` is a key of the limits, or empty where there is none.
        """
        figure = Figure(what, value, unit, self.limits[limit_name] if limit_name else None)
        self.figures.append(figure)
        limit = "" if figure.limit is None else f"  (limit {figure.limit:.2f})"
        print(f"  {what:55} {value:9.2f} {unit}{limit}", flush=True)

    def run(self, what: str, cost: Cost, samples: int | None = None) -> None:
        """Take down what a run cost."""
        self.runs.append(Run(what, samples, cost))
        peak = "" if cost.peak_megabytes is None else f", {cost.peak_megabytes:.0f} MB"
        print(f"  {what:55} {cost.seconds:9.3f} s{peak}", flush=True)

    def carries(self, what: str, value: str) -> None:
        """Take down a line of the capacity model."""
        self.capacity.append((what, value))
        print(f"  {what}: {value}", flush=True)

    def stored(self, storage: Storage) -> None:
        """Take down what a table takes on disk."""
        self.storage.append(storage)
        print(
            f"  {storage.table:55} {storage.table_bytes:9.0f} bytes a row, "
            f"{storage.index_bytes:.0f} more in indexes",
            flush=True,
        )
