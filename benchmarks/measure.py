"""What a piece of work costs: time, memory, statements, WAL and rows."""

from __future__ import annotations

import os
import re
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from benchmarks.world import World

STATEMENT = rb"^@@ %b LOG:  (?:statement|execute [^:\n]*): "

# Temporary tables are not counted: what stands in them is on its way.
READ_COUNTERS = """
SELECT pg_current_wal_insert_lsn() - '0/0',
       (SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables
         WHERE schemaname IN ('public', 'billing'))
"""

COUNT_OTHERS = """
SELECT count(*) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
   AND datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost; None where it was not looked at."""

    seconds: float
    peak_megabytes: float | None = None
    statements: int | None = None
    wal_bytes: int | None = None
    rows: int | None = None


@dataclass(slots=True)
class Meter:
    """Collects what happens while it is read: the work itself sets its time and memory."""

    seconds: float = 0.0
    peak_megabytes: float | None = None
    cost: Cost = field(default_factory=lambda: Cost(0.0))


@contextmanager
def metered(world: World) -> Iterator[Meter]:
    """Measure the block, beginning right after a checkpoint.

    Whoever is connected in the block must be gone at its end: only then have backends told what
    they did.
    """
    log = world.server.directory / "log"
    meter = Meter()
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute("SET log_statement = 'none'")
        connection.execute("SET stats_fetch_consistency = 'none'")
        connection.execute("CHECKPOINT")
        wal, rows = _counters(connection)
        begin = log.stat().st_size
        started = time.perf_counter()
        yield meter
        seconds = meter.seconds or time.perf_counter() - started
        with log.open("rb") as file:
            file.seek(begin)
            pattern = STATEMENT % world.database.encode()
            statements = len(re.findall(pattern, file.read(), re.MULTILINE))
        _wait_for_others(connection)
        wal_after, rows_after = _counters(connection)
    meter.cost = Cost(
        seconds, meter.peak_megabytes, statements, int(wal_after - wal), int(rows_after - rows)
    )


def billing_cost(
    world: World, *arguments: str, settings: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Cost]:
    """Run a `billing` command; return its result object and what it cost."""
    with metered(world) as meter:
        result, report = world.billing(*arguments, settings=settings)
        meter.seconds, meter.peak_megabytes = report["seconds"], report["peak_megabytes"]
    return result, meter.cost


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the typical one of several costs, but for memory, where the largest counts."""
    peaks = [cost.peak_megabytes for cost in costs if cost.peak_megabytes is not None]
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        max(peaks, default=None),
        _median_of(cost.statements for cost in costs),
        _median_of(cost.wal_bytes for cost in costs),
        _median_of(cost.rows for cost in costs),
    )


def median_ratio(costs: Iterable[Cost], of: Iterable[Cost]) -> float:
    """Return the median of the ratios of costs that were measured in the same round."""
    return statistics.median(
        one.seconds / other.seconds for one, other in zip(costs, of, strict=True)
    )


def _median_of(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known)) if known else None


def _counters(connection: psycopg.Connection) -> tuple[Any, Any]:
    row = connection.execute(READ_COUNTERS).fetchone()
    assert row is not None
    return row[0], row[1]


def _wait_for_others(connection: psycopg.Connection) -> None:
    for _ in range(500):
        row = connection.execute(COUNT_OTHERS).fetchone()
        if row == (0,):
            return
        time.sleep(0.01)
    raise AssertionError("someone else is connected to the database")


def backends_seconds(world: World) -> float:
    """Return the CPU time of the server's processes that have ended."""
    time.sleep(0.2)  # The server takes note of a session's end a moment later.
    pid = next(world.server.directory.rglob("postmaster.pid")).read_text().split()[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
