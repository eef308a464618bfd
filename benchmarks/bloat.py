"""Whether the tables that are updated in place stay small, and a run's cost flat, as time goes on.

`python -m benchmarks.bloat --minutes 120 --streams 1000` plays two hours of a thousand streams that
move every minute, as fast as it can, with real `collect` runs while autovacuum is at work;
`--minutes 10080 --days-ago 31` a week that began 31 days ago. Autovacuum looks around every second
here, which is about once a run, as every minute is in real life.

Every hour `seal` and `audit` run. In the end `verify`, `audit --full` and, where a month is over,
`archive` must find nothing wrong.

After each run a fixed piece of work is timed, on the server and in Python, and runs are compared
in such pieces: a machine that is busy with something else in between does not look like growth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.exporter import Fleet, minutes_ago
from benchmarks.world import running_server, running_world
from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import JobContext, Tariff

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from benchmarks.world import World

SERVER_SETTINGS = {"autovacuum": "on", "autovacuum_naptime": "1s", "log_statement": "none"}

# The cost of a run late in the story beside that of one early in it, at most; and how much of the
# updates must find room in their page.
MAX_COST_RATIO = 1.5
MIN_HOT_SHARE = 0.9

# What one run of a minute costs varies most in the beginning, when tables grow to their size.
WARM_UP_RUNS = 5

MINUTES_OF_HOUR = 60
MINUTES_OF_DAY = 24 * 60

UPDATED_TABLES = (
    "billing.streams",
    "billing.sources",
    "billing.totals",
    "public.traffic_stat_checkpoints",
    "public.account_quota_states",
    "public.billing_source_sync_state",
)
APPENDED_TABLES = (
    "billing.usage_records",
    "billing.charges",
    "billing.runs",
    "public.traffic_minute_buckets",
    "public.billing_ledger",
)

READ_SIZE = """
SELECT coalesce(sum(pg_table_size(relid)), 0)::bigint,
       coalesce(sum(pg_indexes_size(relid)), 0)::bigint
  FROM (SELECT relid FROM pg_partition_tree(%(table)s::regclass)
         UNION SELECT %(table)s::regclass) AS part
"""

READ_UPDATES = """
SELECT n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, autovacuum_count
  FROM pg_stat_user_tables WHERE relid = %(table)s::regclass
"""


class Run(NamedTuple):
    """What a run took, and what the fixed piece of work took right after it, in seconds."""

    seconds: float
    unit: float


class Sizes(NamedTuple):
    """What a table takes, in bytes."""

    table_bytes: int
    index_bytes: int


def main() -> None:
    """Play the story, print what it cost, and exit with 1 where that is not flat or not bounded."""
    parser = argparse.ArgumentParser(description="Play minutes of streams; look at cost and bloat.")
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument(
        "--period", type=int, default=1, help="a stream moves every so many minutes"
    )
    parser.add_argument("--days-ago", type=int, default=0, help="when the first minute was")
    given = parser.parse_args()
    start = minutes_ago(max(given.minutes + 2, given.days_ago * MINUTES_OF_DAY))
    fleet = Fleet(start, given.streams, period=given.period)
    with running_server(SERVER_SETTINGS) as server, running_world(server, fleet) as world:
        early: dict[str, Sizes] = {}
        runs = []
        keys = world.directory / "seal-key"
        world.billing("seal", "keygen", "--out", str(keys))
        for minute, run in _play(world, given.minutes):
            runs.append(run)
            if minute == given.minutes // 2:
                early = _sizes(world)
            if minute and minute % MINUTES_OF_HOUR == 0:
                world.billing("seal", "--key-ref", f"file:{keys}")
                _require_ok(world, "audit")
        problems = [*_print_cost(runs), *_print_updates(world, early)]
        world.billing("seal", "--key-ref", f"file:{keys}")
        _print_proofs(world, start)
    for problem in problems:
        print(f"too much: {problem}")
    sys.exit(1 if problems else 0)


def _play(world: World, minutes: int) -> Iterator[tuple[int, Run]]:
    """Collect every minute as it comes; yield it with what the run took."""
    for minute in range(minutes + 1):
        world.exporter.offer(minute)
        context = _context(world, world.fleet.stamp(minute) + timedelta(seconds=70))
        begin = time.perf_counter()
        result = collect(context)
        took = time.perf_counter() - begin
        assert result.status == "ok", result
        yield minute, Run(took, _measure_machine(world))
        if sys.stderr.isatty() and minute % 10 == 0:
            print(f"\r{minute} of {minutes} minutes", end="", file=sys.stderr)


def _print_proofs(world: World, start: datetime) -> None:
    """Prove all that was written, and the archive of its first month where that is over."""
    verified = _require_ok(world, "verify")
    print(f"verified: {verified['records']:,} usage records, {verified['charges']:,} charges")
    _require_ok(world, "audit", "--full")
    print("audit --full: 0 violations")
    if (start.year, start.month) == (minutes_ago(0).year, minutes_ago(0).month):
        return
    world.billing("archive", "--month", f"{start:%Y-%m}", "--to", str(world.directory))
    _require_ok(world, "verify", "--archive", str(world.directory / f"{start:%Y-%m}"))
    print(f"archived and verified: {start:%Y-%m}")


def _require_ok(world: World, *arguments: str) -> dict[str, Any]:
    result, _ = world.billing(*arguments)
    assert result["status"] == "ok", result
    return result


def _measure_machine(world: World) -> float:
    """Return the seconds that a fixed piece of work takes now."""
    with psycopg.connect(world.url) as connection:
        begin = time.perf_counter()
        connection.execute("SELECT sum(number) FROM generate_series(1, 300000) AS number")
        sum(number * number for number in range(300_000))
        return time.perf_counter() - begin


def _context(world: World, now: datetime) -> JobContext:
    return JobContext(
        run_id=str(uuid.uuid4()),
        clock=lambda: now,
        database=Database(world.url),
        sources=tuple(
            Source(source_id=source["source_id"], base_url=source["base_url"], mode="window")
            for source in world.exporter.sources()
        ),
        tariff=Tariff(Decimal("0.000000001"), 0, Decimal(100_000), "v1", "", None),
        deltas=DeltaPolicy(),
    )


def _print_cost(runs: Sequence[Run]) -> Iterator[str]:
    """Print how a run's cost went on; yield what is not flat about it."""
    counted = runs[WARM_UP_RUNS:]
    tenth = max(1, len(counted) // 10)
    early, late = counted[:tenth], counted[-tenth:]
    first, last = (
        statistics.median(one.seconds / one.unit for one in part) for part in (early, late)
    )
    ratio = last / first
    print(f"{len(counted)} runs, a tenth of them is {tenth}")
    print(f"median of the last tenth / of the first: {ratio:.2f} (at most {MAX_COST_RATIO})")
    seconds = (statistics.median(one.seconds for one in part) for part in (early, late))
    print(f"as context only: {', then '.join(f'{1000 * second:.0f} ms' for second in seconds)}")
    if ratio > MAX_COST_RATIO:
        yield f"a run late in the story costs {ratio:.2f} times as much as one early in it"


def _print_updates(world: World, early: dict[str, Sizes]) -> Iterator[str]:
    """Print the state of each table; yield what grows, or leaves its page too often."""
    late = _sizes(world)
    print(f"{'table':34}{'rows':>9}{'dead':>9}{'HOT':>7}{'vacuums':>8}{'table':>12}{'indexes':>12}")
    with psycopg.connect(world.url) as connection:
        for table in UPDATED_TABLES:
            row = connection.execute(READ_UPDATES, {"table": table}).fetchone()
            assert row is not None
            live, dead, updates, hot_updates, vacuums = row
            share = hot_updates / updates if updates else 1.0
            print(
                f"{table:34}{live:9}{dead:9}{share:7.1%}{vacuums:8}"
                f"{late[table].table_bytes:12}{late[table].index_bytes:12}"
            )
            if share < MIN_HOT_SHARE:
                yield f"{table}: {1 - share:.1%} of the updates left their page"
            # From the middle of the story to its end; a delayed vacuum may cost once the size.
            if late[table].table_bytes > 2 * early[table].table_bytes + 128 * 1024:
                yield f"{table} grew from {early[table].table_bytes} bytes"
        for table in APPENDED_TABLES:
            query = SQL("SELECT count(*) FROM {}").format(Identifier(*table.split(".")))
            row = connection.execute(query).fetchone()
            assert row is not None
            sizes = late[table]
            print(f"{table:34}{row[0]:9}{'':24}{sizes.table_bytes:12}{sizes.index_bytes:12}")


def _sizes(world: World) -> dict[str, Sizes]:
    with psycopg.connect(world.url) as connection:
        found = {}
        for table in (*UPDATED_TABLES, *APPENDED_TABLES):
            row = connection.execute(READ_SIZE, {"table": table}).fetchone()
            assert row is not None
            found[table] = Sizes(*row)
        return found


if __name__ == "__main__":
    main()
