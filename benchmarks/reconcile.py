"""`reconcile` over a stretch of history, beside merely reading the same history and evidence.

The evidence is written by SQL. What it is compared with asks the exporter for the same pages,
parses their JSON, and reads the same records by COPY.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import requests

from benchmarks.exporter import (
    DOWNLINK_STEP,
    FIRST_TOTAL,
    INBOUND_TAG,
    MINUTE,
    UPLINK_STEP,
    Fleet,
    minutes_ago,
)
from benchmarks.measure import Cost, billing_cost
from benchmarks.sizes import short
from benchmarks.world import running_world
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from typing import LiteralString

    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from benchmarks.world import World
    from billing_cli.simulator.postgres import EmbeddedPostgres

NODE = "prod:n0"

# As the exporter tells it: stream by stream a step further, and a step in each minute.
FILL: tuple[LiteralString, ...] = (
    """
    INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, account_uuid,
           origin, first_seen_at, first_uplink_total, first_downlink_total, seen_at,
           uplink_total, downlink_total)
    SELECT %(node)s, %(tag)s, account, account, 'baseline', %(first)s,
           %(total)s + (number - 1) * %(up)s, %(total)s + (number - 1) * %(down)s, %(last)s,
           %(total)s + (number - 1 + %(minutes)s) * %(up)s,
           %(total)s + (number - 1 + %(minutes)s) * %(down)s
      FROM unnest(%(accounts)s::uuid[]) WITH ORDINALITY AS given (account, number)
    """,
    """
    INSERT INTO billing.usage_records (stream_id, bucket_start, from_at, to_at, reset_epoch,
           uplink_start, uplink_end, downlink_start, downlink_end, account_uuid)
    SELECT stream_id, %(start)s + minute * interval '1 minute',
           %(first)s + (minute - 1) * interval '1 minute', %(first)s + minute * interval '1 minute',
           0, first_uplink_total + (minute - 1) * %(up)s, first_uplink_total + minute * %(up)s,
           first_downlink_total + (minute - 1) * %(down)s,
           first_downlink_total + minute * %(down)s, account_uuid
      FROM generate_series(1, %(minutes)s) AS minute, billing.streams
    """,
    """
    INSERT INTO billing.sources (source_id, env, node_id, stored_node_id, contract,
           first_snapshot_at, watermark)
    VALUES ('n0', 'prod', 'n0', %(node)s, 'window', %(first)s, %(last)s)
    """,
)

READ_EVIDENCE: LiteralString = """
COPY (SELECT stream_id, bucket_start, from_at, to_at, uplink_start, uplink_end, downlink_start,
             downlink_end
        FROM billing.usage_records) TO STDOUT WITH (FORMAT binary)
"""


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure one run over all of it."""
    minutes, streams = sizes.reconcile_minutes, sizes.reconcile_streams
    fleet = Fleet(minutes_ago(minutes + 5), streams)
    with running_world(server, fleet) as world:
        _fill(world, minutes)
        world.exporter.offer(minutes)
        bare = _bare_seconds(world, minutes)
        result, cost = billing_cost(
            world, "reconcile", "--since", format_rfc3339(fleet.start + MINUTE)
        )
    assert (result["status"], result["corrections"]) == ("ok", 0)
    assert result["processed_samples"] >= minutes * streams
    what = f"`reconcile`, {minutes} min x {short(streams)} streams"
    results.run("reading what it reads", Cost(bare), minutes * streams)
    results.run(what, cost, minutes * streams)
    results.figure(what, cost.seconds / bare, "x reading what it reads")
    results.figure(what, cost.peak_megabytes or 0.0, "MB of memory", "reconcile memory")


def _fill(world: World, minutes: int) -> None:
    fleet = world.fleet
    values = {
        "node": NODE,
        "tag": INBOUND_TAG,
        "accounts": fleet.accounts(),
        "start": fleet.start,
        "first": fleet.stamp(0),
        "last": fleet.stamp(minutes),
        "minutes": minutes,
        "total": FIRST_TOTAL,
        "up": UPLINK_STEP,
        "down": DOWNLINK_STEP,
    }
    with psycopg.connect(world.url) as connection, psycopg.ClientCursor(connection) as cursor:
        for statement in FILL:
            cursor.execute(statement, values)
        connection.commit()
    world.vacuum()


def _bare_seconds(world: World, minutes: int) -> float:
    started = time.perf_counter()
    query = {
        "since": format_rfc3339(world.fleet.stamp(0)),
        "until": format_rfc3339(world.fleet.stamp(minutes)),
        "limit": "60",
    }
    address = f"{world.exporter.sources()[0]['base_url']}/v1/snapshots/window"
    cursor: str | None = "0"
    while cursor is not None:
        page = requests.get(address, query | {"cursor": cursor}, timeout=60).json()
        cursor = page["next_cursor"] if page["has_more"] else None
    with (
        psycopg.connect(world.url) as connection,
        connection.cursor() as reading,
        reading.copy(READ_EVIDENCE) as copy,
    ):
        for _ in copy:
            pass
    return time.perf_counter() - started
