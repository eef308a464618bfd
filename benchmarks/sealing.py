"""What sealing adds to `collect`, in turns with a `collect` that hashes nothing; and `verify`.

The one that hashes nothing also leaves out sorting the charges by key. The CPU time of the command
and of the server together is compared: a machine that does other things disturbs it least.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import psycopg

from benchmarks.exporter import Fleet, minutes_ago
from benchmarks.measure import Cost, backends_seconds, billing_cost, median_cost, median_ratio
from benchmarks.sizes import short
from benchmarks.world import running_world

if TYPE_CHECKING:
    from typing import LiteralString

    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from benchmarks.world import World
    from billing_cli.simulator.postgres import EmbeddedPostgres

WITHOUT_SEALS = {"BENCHMARK_WITHOUT_SEALS": "1"}
TABLES: tuple[LiteralString, ...] = ("billing.usage_records", "billing.charges")


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure runs with and without, then verify those with."""
    streams = sizes.active[-1]
    fleet = Fleet(minutes_ago(4 * sizes.rounds + 5), streams)
    with running_world(server, fleet) as world:
        for minute in (0, 1):
            world.exporter.offer(minute)
            world.billing("collect")
        ratios = [_round(world, number) for number in range(sizes.rounds + 2)]
        what = f"`collect`, {short(streams)} active, with seals"
        results.figure(what, statistics.median(ratios), "x CPU time without", "sealed")
        _verify(world, results)


def _round(world: World, number: int) -> float:
    """Collect a minute with and one without, the first one in turns; return the ratio."""
    seconds = {}
    for place in range(2):
        is_sealed = (number + place) % 2 == 0
        world.exporter.offer(2 + 2 * number + place)
        world.vacuum()
        before = backends_seconds(world)
        _, report = world.billing("collect", settings={} if is_sealed else WITHOUT_SEALS)
        seconds[is_sealed] = report["cpu_seconds"] + backends_seconds(world) - before
    return seconds[True] / seconds[False]


def _verify(world: World, results: Results) -> None:
    """Verify and merely read in turns. What was written without seals has an empty hash."""
    world.vacuum()
    costs, bare = [], []
    facts = 0
    for _ in range(3):
        result, cost = billing_cost(world, "verify")
        facts = result["records"] + result["charges"]
        costs.append(cost)
        bare.append(Cost(_read(world)))
    typical = median_cost(costs)
    results.run(f"reading them by `COPY`, {facts:,} facts", median_cost(bare), facts)
    results.run(f"`verify`, {facts:,} facts", typical, facts)
    results.figure("`verify`", facts / typical.seconds, "facts a second")
    results.figure("`verify`", median_ratio(costs, bare), "x reading them by COPY", "verify")
    results.figure("`verify`", typical.peak_megabytes or 0.0, "MB of memory", "verify memory")


def _read(world: World) -> float:
    started = time.perf_counter()
    with psycopg.connect(world.url) as connection, connection.cursor() as cursor:
        for table in TABLES:
            with cursor.copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:
                for _ in copy:
                    pass
    return time.perf_counter() - started
