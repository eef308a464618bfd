"""`collect` and the floor on shared tables that have grown: each account has pages of its own.

In young tables, neighbouring accounts share the pages of the indexes by account, and the ledger's
key has few pages. In grown ones each row changes pages that no other row of the minute does, and
the first change of a page after a checkpoint puts all of it into the WAL. The history is written
by SQL, minute by minute, as it would have come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from benchmarks.exporter import INBOUND_TAG, MINUTE, Fleet, minutes_ago
from benchmarks.floor import NODE, OWN, SHARED, Floor
from benchmarks.measure import billing_cost, median_cost, median_ratio
from benchmarks.sizes import short
from benchmarks.world import running_world

if TYPE_CHECKING:
    from typing import LiteralString

    from benchmarks.measure import Cost
    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from benchmarks.world import World
    from billing_cli.simulator.postgres import EmbeddedPostgres

MINUTES_BACK = 60

HISTORY: tuple[LiteralString, ...] = (
    """
    INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, region,
           line_code, uplink_bytes, downlink_bytes, total_bytes, multiplier, rating_status)
    SELECT minute, %(node)s, uuid, '', %(tag)s, 1000, 9000, 10000, 1, 'rated'
      FROM generate_series(%(first)s, %(last)s, interval '1 minute') AS minute, public.users
    """,
    """
    INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
           rated_bytes, amount_delta, balance_after, pricing_rule_version, created_at)
    SELECT gen_random_uuid(), uuid, minute, minute + interval '1 minute', 'traffic_charge',
           10000, -0.00001, 99999.99999, '', minute
      FROM generate_series(%(first)s, %(last)s, interval '1 minute') AS minute, public.users
    """,
)


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure in rounds, young tables first."""
    streams, minutes = sizes.grown_streams, sizes.grown_minutes
    fleet = Fleet(minutes_ago(MINUTES_BACK), streams)
    with running_world(server, fleet) as world:
        for minute in (0, 1):
            world.exporter.offer(minute)
            world.billing("collect")
        floor = Floor(world)
        _, young = _measure(world, floor, 2, sizes.rounds)
        _write_history(world, minutes)
        floors, grown = _measure(world, floor, 2 + sizes.rounds, sizes.rounds)
    what = f"`collect`, {short(streams)} active, {minutes} minutes of each account before"
    cost, before = median_cost(grown), median_cost(young)
    results.run(f"floor, all tables, {minutes} minutes of each account before",
                median_cost(floors), streams)  # fmt: skip
    results.run(what, cost, streams)
    results.figure(what, median_ratio(grown, floors), "x floor, all tables")
    results.figure(what, (cost.wal_bytes or 0) / (before.wal_bytes or 1), "x WAL in young tables")
    results.carries(
        f"the same in tables with {minutes} minutes of each account before",
        f"{(cost.wal_bytes or 0) / streams / 1e3:.2f} GB",
    )


def _measure(world: World, floor: Floor, minute: int, rounds: int) -> tuple[list[Cost], list[Cost]]:
    """Return what floor and job cost, in turns, in the minutes from the given one on."""
    floors, jobs = [], []
    for number in range(minute, minute + rounds):
        world.vacuum()
        floors.append(floor.write(world.fleet.start + number * MINUTE, *SHARED, *OWN))
        world.exporter.offer(number)
        result, cost = billing_cost(world, "collect")
        assert result["written_minutes"] == world.fleet.streams
        jobs.append(cost)
    return floors, jobs


def _write_history(world: World, minutes: int) -> None:
    last = world.fleet.start - MINUTE
    values = {
        "node": NODE,
        "tag": INBOUND_TAG,
        "first": last - (minutes - 1) * MINUTE,
        "last": last,
    }
    with psycopg.connect(world.url) as connection, psycopg.ClientCursor(connection) as cursor:
        # Foreign keys are not looked at: the rows are known to fit.
        cursor.execute("SET session_replication_role = replica")
        for statement in HISTORY:
            cursor.execute(statement, values)
