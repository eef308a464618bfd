"""How much is measured: all of it, or as much as a minute allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backlog:
    """What `catch-up` has before it; every `period`-th stream moves in a minute."""

    minutes: int
    streams: int
    period: int
    step_max_samples: int

    @property
    def title(self) -> str:
        """What it is called in the tables."""
        return f"{_minutes(self.minutes)} x {short(self.streams)} streams" + (
            "" if self.period == 1 else f", one in {self.period} moving"
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """The extent of each benchmark. The last of `active` also runs idle and as many sources."""

    active: tuple[int, ...]
    rounds: int
    sources: int
    naive_samples: int
    grown_streams: int
    grown_minutes: int
    backlogs: tuple[Backlog, ...]
    reconcile_minutes: int
    reconcile_streams: int
    audit_records: int
    audit_streams: int
    damaged_records: int
    statement_minutes: int
    startup_rounds: int
    decode_samples: int
    hanging_seconds: float


FULL = Sizes(
    active=(1_000, 10_000, 100_000),
    rounds=5,
    sources=100,
    naive_samples=500,
    grown_streams=5_000,
    grown_minutes=200,
    backlogs=(
        Backlog(24 * 60, 1_000, period=1, step_max_samples=100_000),
        Backlog(72 * 60, 1_000, period=10, step_max_samples=100_000),
    ),
    reconcile_minutes=60,
    reconcile_streams=10_000,
    audit_records=10_000_000,
    audit_streams=10_000,
    damaged_records=500_000,
    statement_minutes=43_200,
    startup_rounds=15,
    decode_samples=100_000,
    hanging_seconds=3.0,
)

QUICK = Sizes(
    active=(2_000, 20_000),
    rounds=2,
    sources=20,
    naive_samples=100,
    grown_streams=500,
    grown_minutes=50,
    backlogs=(Backlog(120, 200, period=1, step_max_samples=4_000),),
    reconcile_minutes=10,
    reconcile_streams=1_000,
    audit_records=50_000,
    audit_streams=500,
    damaged_records=50_000,
    statement_minutes=3_000,
    startup_rounds=5,
    decode_samples=100_000,
    hanging_seconds=1.0,
)


def short(number: int) -> str:
    """Return a round number as people say it."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit and number % unit == 0:
            return f"{number // unit}{name}"
    return f"{number:,}"


def _minutes(minutes: int) -> str:
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"
