"""`statement` of an account that was charged in each minute of a month, each day of it sealed."""

from __future__ import annotations

import json
import statistics
import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg

from benchmarks.audit import SEAL, fill
from benchmarks.exporter import MINUTE, Fleet
from benchmarks.measure import Cost, backends_seconds, median_cost
from benchmarks.world import running_world
from billing_cli.core.model import DeltaPolicy
from billing_cli.core.statements import check_statement
from billing_cli.database.connecting import Database
from billing_cli.features.seal.job import seal
from billing_cli.features.statement.job import statement
from billing_cli.jobs.context import JobContext, Tariff
from billing_cli.signatures import generate_key

if TYPE_CHECKING:
    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from benchmarks.world import World
    from billing_cli.core.statement_shape import Object
    from billing_cli.simulator.postgres import EmbeddedPostgres

ACCOUNTS = 20
DAY = timedelta(days=1)
MINUTES_OF_DAY = 24 * 60


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Make the statement of the last month some times."""
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = (this_month - DAY).replace(day=1)
    minutes = sizes.statement_minutes
    with running_world(server, Fleet(start, streams=1)) as world:
        with psycopg.connect(world.url) as connection:
            connection.execute("SELECT billing.make_partition(%s)", (start,))
        # The first minute that is filled is the one after the start.
        fill(world, start - MINUTE, minutes, ACCOUNTS, is_sealed=False)
        _seal(world, start - MINUTE, minutes)
        costs, cpu_seconds, made = [], [], {}
        for _ in range(sizes.rounds):
            made, cost, cpu = _statement(world, start)
            costs.append(cost)
            cpu_seconds.append(cpu)
    charges = sum(day["charges"] for day in made["days"])
    assert charges == minutes
    assert check_statement(made).problems == ()
    what = f"`statement`, {charges:,} charges"
    kilobytes = len(json.dumps(made["proof"], indent=1)) / 1024
    results.figure(what, statistics.median(cpu_seconds), "seconds of CPU time", "statement")
    results.run(what, median_cost(costs), charges)
    results.figure(f"{what}: its proof", kilobytes, "KB", "proof")


def _context(world: World, now: datetime) -> JobContext:
    return JobContext(
        run_id=str(uuid.uuid4()),
        clock=lambda: now,
        database=Database(world.url),
        sources=(),
        tariff=Tariff(Decimal(0), 0, Decimal(0), "", "", None),
        deltas=DeltaPolicy(),
    )


def _seal(world: World, start: datetime, minutes: int) -> None:
    """Append the seals of each day on that day."""
    keys = generate_key("benchmark")
    with psycopg.connect(world.url, autocommit=True) as connection:
        for number in range(-(-minutes // MINUTES_OF_DAY)):
            at = start + number * DAY
            connection.execute(SEAL, {"start": at, "end": at + DAY})
            seal(_context(world, at + DAY), keys)
        seal(_context(world, datetime.now(UTC)), keys)
    world.vacuum()


def _statement(world: World, month: datetime) -> tuple[Object, Cost, float]:
    """Return it, what it cost, and the CPU time of this process and the server together."""
    context = _context(world, datetime.now(UTC))
    with psycopg.connect(world.url) as connection:
        row = connection.execute("SELECT min(account_uuid::text) FROM billing.streams").fetchone()
    assert row is not None
    before = backends_seconds(world)
    began, cpu_began = time.perf_counter(), time.process_time()
    made = statement(context, row[0], month.date())
    seconds, own = time.perf_counter() - began, time.process_time() - cpu_began
    return made, Cost(seconds), own + backends_seconds(world) - before
