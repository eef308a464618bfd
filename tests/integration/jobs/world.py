"""A simulated fleet, its database, and the jobs that bill it at times that a test sets."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.books import Books, Funds
from billing_cli.simulator.invariants import (
    compare_with_oracle,
    moved_back,
    read_watermarks,
    violations,
)
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import DEFAULT_START, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from billing_cli.core.result import RunResult, SourceResult
    from billing_cli.simulator.server import RunningFleet
    from billing_cli.simulator.traffic import Node, Stream, User

# When within a minute the timer fires: the minute before is closed and settled by then.
FIRES_AT = timedelta(seconds=40)

READ_TABLES = """
SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'billing') ORDER BY 1, 2
"""
READ_BILLED_BYTES = """
SELECT (SELECT coalesce(sum(total_bytes), 0)::bigint FROM public.traffic_minute_buckets),
       (SELECT coalesce(sum(included_bytes + rated_bytes), 0)::bigint FROM billing.charges)
"""

Job = Callable[..., "RunResult"]


@contextmanager
def serving_world(
    database_url: str, job_url: str, start: datetime = DEFAULT_START
) -> Iterator[World]:
    """Serve an empty fleet as long as the block lasts. `job_url` is what the jobs connect to."""
    fleet = Fleet(seed=11, start=start)
    with (
        serve(fleet) as running,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        yield World(job_url, running, connection)


class World:
    """A fleet, and how it is billed. Everything may be changed between two runs.

    `overrides` are keys of single sources by id; `top_ups` is what accounts got beside the
    ledger. After each run everything that always has to hold is checked.
    """

    def __init__(
        self, database_url: str, running: RunningFleet, connection: psycopg.Connection[Any]
    ) -> None:
        self.database_url = database_url
        self.running = running
        self.connection = connection
        self.fleet = running.fleet
        self.price = Decimal("0.000000003")
        self.quota = 20_000_000
        self.balance = Decimal(5)
        self.tariff = Tariff(self.price, self.quota, self.balance, "v1", "", None)
        self.allow_zero_price = True
        self.deltas = DeltaPolicy()
        self.fetching = FetchPolicy()
        self.overrides: dict[str, dict[str, Any]] = {}
        self.top_ups: dict[str, Funds] = {}
        self.repeats = 1
        self.pending_allowed = False
        self.unknown_buckets = False
        self.watermarks: dict[str, datetime] = {}

    def add_users(self, count: int) -> list[User]:
        """Add accounts to the fleet and to the database."""
        users = [self.fleet.add_user() for _ in range(count)]
        self.save_users()
        return users

    def save_users(self) -> None:
        """Tell the database of all accounts and of their present proxy uuids."""
        save_users(self.connection, self.fleet.users)

    def add_node(self, source_id: str, users: Sequence[User], tag: str = "xhttp") -> Node:
        """Add a node with one stream for each user."""
        node = self.fleet.add_node(source_id)
        for user in users:
            node.add_stream(user.uuid, tag)
        return node

    def at(self, minutes: float) -> datetime:
        """Return the time so many minutes after the start."""
        return self.fleet.start + timedelta(minutes=minutes)

    def flow_until(self, minutes: float, poll_seconds: float = 60, rate: float = 1e5) -> None:
        """Let traffic flow on all nodes; the last snapshot tells of all of it."""
        for node in self.fleet.nodes.values():
            node.run(self.at(minutes), poll_seconds, rate)
            if not node.is_down(self.at(minutes)):
                node.snapshot(self.at(minutes))

    def collect_every_minute(self, first: int, last: int) -> None:
        """Run `collect` once in each minute from the first to the last, then check the books."""
        for minute in range(first, last + 1):
            for _ in range(self.repeats):
                self.run_unchecked(self.at(minute) + FIRES_AT)
            self.check_watermarks()
        self.check()

    def run(self, now: datetime, job: Job = collect, **options: Any) -> RunResult:
        """Run a job as if it were `now`, as often as each run is repeated, and check the books."""
        results = [self.run_unchecked(now, job, **options) for _ in range(self.repeats)]
        self.check()
        return results[0]

    def run_unchecked(self, now: datetime, job: Job = collect, **options: Any) -> RunResult:
        """Run a job as if it were `now`; the exporters publish what they have by then."""
        self.fleet.present = now
        return job(self.context(now), **options)

    def context(self, now: datetime) -> JobContext:
        """Return what a run at that time gets."""
        return JobContext(
            run_id=str(uuid.uuid4()),
            clock=lambda: now,
            database=Database(self.database_url),
            sources=self.sources(),
            tariff=replace(
                self.tariff,
                price_per_byte=self.price,
                allow_zero_price=self.allow_zero_price,
                initial_included_quota_bytes=self.quota,
                initial_balance=self.balance,
            ),
            deltas=self.deltas,
            fetching=self.fetching,
            host="here",
            version="0",
        )

    def sources(self) -> tuple[Source, ...]:
        """Return the fleet as it is configured."""
        listed = self.running.sources()
        return tuple(Source(**(one | self.overrides.get(one["source_id"], {}))) for one in listed)

    def check(self) -> None:
        """Hold the database against the invariants, and against the truth so far."""
        found = violations(self.connection, self.opening(), self.top_ups)
        assert found == [], found
        self.check_watermarks()
        untrue = self.untrue()
        assert untrue == [], untrue

    def check_watermarks(self) -> None:
        """None has moved back since the last time."""
        assert moved_back(self.connection, self.watermarks) == []
        self.watermarks = read_watermarks(self.connection)

    def untrue(self) -> list[str]:
        """Return where what is billed is not what the applied snapshots tell of."""
        return compare_with_oracle(
            self.connection,
            Oracle(self.fleet),
            buckets=not self.unknown_buckets,
            pending_allowed=self.pending_allowed,
        )

    def opening(self) -> Books:
        """Return where the shared tables stood before the first run."""
        return Books(default=Funds(self.balance, self.quota))

    def assert_all_is_billed(self, *, apart_from: int = 0) -> None:
        """Every byte that ever flowed is in the buckets, in the ledger's evidence, and paid for."""
        flowed = sum(Oracle(self.fleet).flowed()) - apart_from
        assert flowed > 0
        assert self.billed_bytes() == (flowed, flowed)
        assert (
            compare_with_oracle(
                self.connection,
                Oracle(self.fleet),
                self.at(10_000),
                buckets=not self.unknown_buckets,
            )
            == []
        )
        self.check()

    def billed_bytes(self) -> tuple[int, int]:
        """Return the bytes of all buckets, and those that the ledger's evidence accounts for."""
        buckets, charged = self.rows(READ_BILLED_BYTES)[0]
        return buckets, charged

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return what a query of the test's own finds."""
        return self.connection.execute(query.encode(), parameters).fetchall()

    def tables(self, *names: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of the named tables, or of all, for comparison."""
        known = [f"{schema}.{table}" for schema, table in self.rows(READ_TABLES)]
        return {
            name: sorted(self.rows(f"SELECT * FROM {name}"), key=repr)  # noqa: S608
            for name in names or known
        }

    def stream(self, node: Node, user: User) -> Stream:
        """Return a user's stream on a node."""
        return next(stream for stream in node.streams if stream.name.sample_uuid == user.uuid)


def only_source(result: RunResult) -> SourceResult:
    """Return the one source of a run."""
    (source,) = result.sources
    return source
