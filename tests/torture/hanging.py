"""A node with 100,000 active streams beside sources that never answer: it is charged all the same.

A round is a `collect` that has a new minute of the large node to charge, with the limits that the
program has by default.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import psycopg

from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet
from tests.integration.jobs.world import World
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from tests.torture.arena import Arena

STREAMS = 100_000
HANGING = ("us-1", "de-1")
SECONDS = 3600.0
# Bytes a second of a busy stream: all of them together are within the rate of the line.
RATE = 1_000.0

READ_CHARGED = """
SELECT coalesce(sum(uplink_bytes), 0)::bigint, coalesce(sum(downlink_bytes), 0)::bigint
  FROM public.traffic_minute_buckets
"""


def attack(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Collect so many times; what is missing of the large node's bytes is told."""
    fleet = Fleet(seed)
    lost = doubled = failed = 0
    slowest = 0.0
    with (
        arena.database() as place,
        serve(fleet) as running,
        psycopg.connect(place.database_url, autocommit=True) as connection,
    ):
        world = World(place.job_url, running, connection)
        users = world.add_users(STREAMS)
        node = world.add_node("jp-1", users)
        for source_id in HANGING:
            world.add_node(source_id, users[:1])
            running[source_id].latency_seconds = SECONDS
        for minute in range(rounds + 1):
            world.flow_until(minute + 1, rate=RATE)
            began = time.monotonic()
            result = world.run_unchecked(world.at(minute + 2.7))
            slowest = max(slowest, time.monotonic() - began)
            statuses = {one.source_id: one.status for one in result.sources}
            failed += statuses != {"jp-1": "ok"} | dict.fromkeys(HANGING, "error")
        ((uplink, downlink),) = connection.execute(READ_CHARGED).fetchall()
        last, first = (
            [sum(snapshot.totals[way::2]) for way in (0, 1)]
            for snapshot in (node.snapshots[-1], node.snapshots[0])
        )
        for charged, end, start in zip((uplink, downlink), last, first, strict=True):
            lost += max(0, end - start - charged)
            doubled += max(0, charged - (end - start))
        for source_id in HANGING:
            running[source_id].latency_seconds = 0
    if lost or doubled or failed:
        sys.stderr.write(f"again: python -m tests.torture --only hanging --seed {seed}\n")
    detail = f"{STREAMS:,} streams, {len(HANGING)} hanging sources, slowest run {slowest:.0f} s"
    return [Tally("large node among hanging sources", rounds, lost, doubled, failed, 0, detail)]
