"""A fleet whose exporters publish late, and the jobs that collect from it at chosen times."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.books import Books, Funds
from billing_cli.simulator.invariants import compare_with_oracle, violations
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.core.result import RunResult
    from billing_cli.simulator.server import RunningFleet

START = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)


class World:
    """A fleet of one node with three users, billed at one price, at a time that tests set.

    Jobs connect to `job_url`, as a role that may do nothing else; `database_url` is the owner's.
    """

    def __init__(self, database_url: str, job_url: str, start: datetime = START) -> None:
        self.database_url = database_url
        self.job_url = job_url
        self.start = start
        self.fleet = Fleet(seed=11, start=start)
        self.node = self.fleet.add_node("jp-1", node_id="jp-1.example", env="prod")
        self.users = [self.fleet.add_user() for _ in range(3)]
        self.streams = [self.node.add_stream(user.uuid, "xhttp") for user in self.users]
        self.price = Decimal("0.000000003")
        self.quota = 100_000
        self.max_daily_charge = Decimal(0)
        self.step_max_samples = 500_000
        self.source_options: dict[str, Any] = {}
        self.running: RunningFleet | None = None
        with psycopg.connect(database_url) as connection:
            save_users(connection, self.users)

    def minutes(self, count: float) -> datetime:
        """Return the time so many minutes after the start."""
        return self.start + timedelta(minutes=count)

    def collect_every_minute(self, first: int, last: int, step: int = 1) -> None:
        """Run `collect` at 40 s past each minute from the first to the last, or past some."""
        for minute in range(first, last + 1, step):
            self.job(collect, self.minutes(minute) + timedelta(seconds=40))

    def job(self, work: Any, now: datetime, **options: Any) -> RunResult:
        """Run a job as if it were `now`; the exporter publishes what it has by then."""
        assert self.running is not None
        self.fleet.present = now
        listed = self.running.sources()
        context = JobContext(
            run_id=str(uuid.uuid4()),
            clock=lambda: now,
            database=Database(self.job_url),
            sources=tuple(Source(**one, **self.source_options) for one in listed),
            tariff=Tariff(
                self.price,
                self.quota,
                Decimal(5),
                "v1",
                "",
                None,
                max_daily_charge=self.max_daily_charge,
            ),
            deltas=DeltaPolicy(),
            fetching=FetchPolicy(step_max_samples=self.step_max_samples),
        )
        result: RunResult = work(context, **options)
        return result

    def reconcile(self, now: datetime, **options: Any) -> RunResult:
        """Run `reconcile`."""
        return self.job(reconcile, now, **options)

    def catch_up(self, now: datetime, **options: Any) -> RunResult:
        """Run `catch-up`."""
        return self.job(catch_up, now, **options)

    def assert_true(self) -> None:
        """Every byte is billed in the minute in which it flowed, and the books agree."""
        with psycopg.connect(self.database_url) as connection:
            assert compare_with_oracle(connection, Oracle(self.fleet)) == []
        self.assert_books_agree()

    def assert_books_agree(self) -> None:
        """The invariants hold."""
        with psycopg.connect(self.database_url) as connection:
            assert violations(connection, Books(default=Funds(Decimal(5), self.quota))) == []

    def facts(self) -> list[list[tuple[Any, ...]]]:
        """Return every row that reconcile may write, for comparison."""
        tables = (
            "public.traffic_minute_buckets",
            "public.billing_ledger",
            "public.account_quota_states",
            "billing.usage_records",
            "billing.charges",
            "billing.gaps",
        )
        with psycopg.connect(self.database_url) as connection:
            return [
                sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)  # noqa: S608
                for table in tables
            ]


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return a fleet that is served as long as the test lasts."""
    made = World(database_url, job_url)
    with serve(made.fleet) as running:
        made.running = running
        yield made
