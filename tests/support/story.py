"""A small fleet whose traffic a test tells minute by minute, and the jobs that bill it."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.features.verify.job import verify
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import JobContext, Tariff
from billing_cli.simulator.accounts import save_funds, save_users
from billing_cli.simulator.books import Books, Funds, read_funds
from billing_cli.simulator.invariants import violations
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import DEFAULT_START, Fleet, User
from tests.support.forks import run_forked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.core.peak import PeakHours
    from billing_cli.core.result import RunResult
    from billing_cli.features.verify.result import Finding, VerifyReport
    from billing_cli.simulator.server import RunningFleet
    from billing_cli.simulator.traffic import Node, Stream

START = DEFAULT_START
MINUTE = timedelta(minutes=1)
SHORTLY_AFTER = timedelta(seconds=40)
OPENING_BALANCE = Decimal(5)

TABLES = (
    ("public", "traffic_minute_buckets"),
    ("public", "billing_ledger"),
    ("public", "account_quota_states"),
    ("public", "traffic_stat_checkpoints"),
    ("billing", "sources"),
    ("billing", "streams"),
    ("billing", "usage_records"),
    ("billing", "pending_usage"),
    ("billing", "held_deltas"),
    ("billing", "charges"),
    ("billing", "gaps"),
)


@contextmanager
def open_story(database_url: str, job_url: str) -> Iterator[Story]:
    """Serve the fleet of a story as long as the block lasts.

    Jobs connect to `job_url`, as a role that may do nothing else; `database_url` is the owner's.
    """
    fleet = Fleet(seed=5, start=START)
    with serve(fleet) as running, psycopg.connect(database_url, autocommit=True) as connection:
        yield Story(database_url, job_url, fleet, running, connection)


@contextmanager
def told_story(database_url: str, job_url: str) -> Iterator[Story]:
    """Serve the fleet of a story as `open_story` does; its books must agree at the end."""
    with open_story(database_url, job_url) as story:
        yield story
        assert story.broken_invariants() == []
        assert unexplained(verify(story.context())) == []


class Story:
    """What flows, and what the configuration says; both may be changed as the story goes on."""

    def __init__(
        self,
        database_url: str,
        job_url: str,
        fleet: Fleet,
        running: RunningFleet,
        connection: psycopg.Connection[tuple[Any, ...]],
    ) -> None:
        self.database_url = database_url
        self.job_url = job_url
        self.fleet = fleet
        self.running = running
        self.connection = connection
        self.now = START
        self.price = Decimal("0.001")
        self.version = "v1"
        self.region = ""
        self.quota = 0
        self.peak_hours: PeakHours | None = None
        self.line_rate = 8_000
        self.lock_timeout_seconds = 20.0
        self.books = Books()
        self.top_ups: dict[str, Funds] = {}

    def add_user(self) -> User:
        """Return a new account."""
        user = self.fleet.add_user()
        save_users(self.connection, [user])
        return user

    def top_up(self, user: User, amount: Decimal) -> None:
        """Add to a user's balance beside the ledger, as accounts.svc.plus does."""
        balance, quota = self.funds(user)
        save_funds(self.connection, {user.uuid: Funds(balance + amount, quota)})
        self.top_ups[user.uuid] = Funds(amount)

    def add_node(self, source_id: str) -> Node:
        """Return a new node, whose first snapshot is the one at the start."""
        return self.fleet.add_node(source_id)

    def minute(self, *moves: tuple[Stream, int, int]) -> datetime:
        """Let (stream, uplink, downlink) bytes flow until the next minute; all nodes are polled.

        Returns the stamp of the snapshots. The first minute of a story is its baseline.
        """
        if any(node.snapshots for node in self.fleet.nodes.values()):
            self.now += MINUTE
        for node in self.fleet.nodes.values():
            for stream, uplink, downlink in moves:
                if stream in node.streams:
                    node.flow(stream, uplink, downlink)
            node.snapshot(self.now)
        self.fleet.present = self.now + MINUTE + SHORTLY_AFTER
        return self.now

    def collect(self) -> RunResult:
        """Collect all that was told so far."""
        return collect(self.context())

    def context(self) -> JobContext:
        """Return what a job gets that runs a little later than all that was told."""
        now = self.now + MINUTE + SHORTLY_AFTER
        return JobContext(
            run_id=str(uuid.uuid4()),
            clock=lambda: now,
            database=Database(self.job_url, lock_timeout_seconds=self.lock_timeout_seconds),
            sources=tuple(Source(**source) for source in self.running.sources()),
            tariff=Tariff(
                self.price, self.quota, OPENING_BALANCE, self.version, self.region, self.peak_hours
            ),
            deltas=DeltaPolicy(account_rate_bits_per_second=self.line_rate),
        )

    def billing(self, *arguments: str, **environment: str) -> Command:
        """Run `billing` to its end, with the story's configuration."""
        variables = {name: os.environ[name] for name in os.environ if "BILLING" not in name}
        return Command(*run_forked(arguments, variables | self.environment() | environment))

    def environment(self) -> dict[str, str]:
        """Return the story's configuration."""
        return {
            "DATABASE_URL": self.job_url,
            "EXPORTER_SOURCES_JSON": json.dumps(self.running.sources()),
            "PRICE_PER_BYTE": f"{self.price:f}",
            "SOURCE_REVISION": self.version,
            "INITIAL_BALANCE": f"{OPENING_BALANCE:f}",
        }

    def rows(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        return self.connection.execute(query, parameters).fetchall()

    def funds(self, user: User) -> Funds:
        """Return what a user has now."""
        return read_funds(self.connection)[user.uuid]

    def paid(self, user: User) -> Decimal:
        """Return how much a user has paid so far."""
        return OPENING_BALANCE - self.funds(user).balance

    def facts(self) -> list[list[str]]:
        """Return every row but those of the run history, for comparison."""
        query = sql.SQL("SELECT * FROM {}")
        return [
            sorted(map(str, self.connection.execute(query.format(sql.Identifier(*table)))))
            for table in TABLES
        ]

    def broken_invariants(self) -> list[str]:
        """Return where the books contradict each other."""
        books = replace(self.books, default=Funds(OPENING_BALANCE, self.quota))
        return violations(self.connection, books, self.top_ups)


class Command:
    """A process that has ended."""

    def __init__(self, exit_code: int, stdout: str, stderr: str) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def json(self) -> Any:
        """The one object that it printed."""
        return json.loads(self.stdout)


def unexplained(report: VerifyReport) -> list[Finding]:
    """Return findings but that of a prune which no `billing seal` has appended to the log yet."""
    return [
        finding
        for finding in report.findings
        if not finding.detail.endswith("the log does not say so yet: run `billing seal`")
    ]
