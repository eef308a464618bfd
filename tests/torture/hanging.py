"""A node with 100,000 active streams beside a source that never answers: it is charged.

A round is `billing collect`, as the timer starts it, that has a new minute of the large node to
charge. The other source keeps it waiting until the fetch deadline. It must commit, charge all
streams, and take no longer after that than a run does that asks the large node alone, or not much.
The share of the unit's TimeoutStartSec that it took depends on the machine: it is reported.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.times import minute_of
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL
from billing_cli.jobs.context import FetchPolicy
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet
from tests.cli.command import environment_of
from tests.integration.jobs.world import World
from tests.torture.tally import Tally
from tests.torture.writers import Command

if TYPE_CHECKING:
    from tests.torture.arena import Arena

UNIT = Path(__file__).parents[2] / "systemd" / "billing-collect.service"
STREAMS = 100_000
HANGING = "us-1"
# Longer than the fetch deadline, which is what ends the fetch.
SOURCE_TIMEOUT_SECONDS = 300
LATENCY_SECONDS = 3600.0
AGO = timedelta(minutes=20)
DEADLINE_SECONDS = FetchPolicy().deadline_seconds
# A run that was kept waiting may take so many times as long as one that was not.
MOST_TIMES = 2.0
# Bytes a second of a busy stream: all of them together are within the rate of the line.
RATE = 1_000.0

READ_CHARGED = """
SELECT (SELECT coalesce(sum(uplink_bytes), 0)::bigint FROM public.traffic_minute_buckets),
       (SELECT coalesce(sum(downlink_bytes), 0)::bigint FROM public.traffic_minute_buckets),
       (SELECT count(DISTINCT account_uuid) FROM billing.charges),
       (SELECT count(*) FROM billing.held_deltas)
"""


def attack(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Collect so many times; what is missing of the large node's bytes is told."""
    fleet = Fleet(seed, start=minute_of(datetime.now(UTC)) - AGO)
    longest_seconds = start_timeout_seconds()
    failed, slowest = 0, 0.0
    with (
        arena.database() as place,
        serve(fleet) as running,
        psycopg.connect(place.database_url, autocommit=True) as connection,
    ):
        world = World(place.job_url, running, connection)
        users = world.add_users(STREAMS)
        node = world.add_node("jp-1", users)
        world.add_node(HANGING, users[:1])
        world.overrides[HANGING] = {"timeout_seconds": SOURCE_TIMEOUT_SECONDS}
        running[HANGING].latency_seconds = LATENCY_SECONDS
        for minute in range(1, rounds + 2):
            code, seconds = _next_minute(world, minute)
            slowest = max(slowest, seconds)
            failed += code != EXIT_PARTIAL
        world.overrides[HANGING] = {"enabled": False}
        code, alone = _next_minute(world, rounds + 2)
        failed += code != EXIT_OK or slowest > DEADLINE_SECONDS + MOST_TIMES * alone
        ((uplink, downlink, accounts, held),) = connection.execute(READ_CHARGED).fetchall()
        running[HANGING].latency_seconds = 0
    last, first = (
        [sum(snapshot.totals[way::2]) for way in (0, 1)]
        for snapshot in (node.snapshots[-1], node.snapshots[0])
    )
    missing = [
        end - start - charged
        for charged, end, start in zip((uplink, downlink), last, first, strict=True)
    ]
    lost, doubled = (sum(max(0, sign * difference) for difference in missing) for sign in (1, -1))
    if lost or doubled or failed:
        sys.stderr.write(f"again: python -m tests.torture --only hanging --seed {seed}\n")
    detail = (
        f"{accounts:,} of {STREAMS:,} streams charged, {held:,} deltas held, slowest run "
        f"{slowest:.0f} s of {longest_seconds:.0f} s, {alone:.0f} s without the hanging source"
    )
    return [Tally("large node beside a hanging source", rounds, lost, doubled, failed, 0, detail)]


def _next_minute(world: World, minute: int) -> tuple[int, float]:
    """Let a minute flow and collect it; return the exit code, and how long that took."""
    for polled in world.fleet.nodes.values():
        polled.run(world.at(minute), rate=RATE, activity=1.0)
        polled.snapshot(world.at(minute))
    began = time.monotonic()
    code = Command(["collect"], environment_of(world)).wait()
    return code, time.monotonic() - began


def start_timeout_seconds() -> float:
    """Return how long systemd waits for a run."""
    prefix = "TimeoutStartSec="
    (value,) = (line for line in UNIT.read_text("utf-8").splitlines() if line.startswith(prefix))
    return float(value.removeprefix(prefix))
