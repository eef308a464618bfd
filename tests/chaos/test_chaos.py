"""Random fleets under random faults, billed by the real jobs; a seed replays its run.

More of it: BILLING_TEST_CHAOS_SEEDS=100-200 runs the seeds of that range.
"""

from __future__ import annotations

import os
import random
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.exporter.source import Source
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff
from billing_cli.jobs.reconcile import reconcile
from billing_cli.jobs.rerate import Order, rerate
from billing_cli.simulator.accounts import save_funds, save_users
from billing_cli.simulator.books import Funds, read_books, read_funds
from billing_cli.simulator.invariants import (
    compare_with_oracle,
    moved_back,
    read_watermarks,
    violations,
)
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet
from billing_cli.store.connection import Database

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult
    from billing_cli.simulator.server import RunningFleet
    from billing_cli.simulator.traffic import Node, User

MINUTE = timedelta(minutes=1)
OPENING = Funds(Decimal("0.5"), 10**7)
STEPS = 20


def seeds() -> range:
    """Return the seeds to run: a few, or the range that the environment names."""
    first, _, last = os.environ.get("BILLING_TEST_CHAOS_SEEDS", "0-3").partition("-")
    return range(int(first), int(last) + 1)


@pytest.mark.parametrize("seed", seeds())
def test_every_byte_is_billed_once_whatever_happens(
    database_url: str, job_url: str, seed: int
) -> None:
    """After each step the books agree; after the faults stop, they say what flowed."""
    chaos = Chaos(job_url, seed)
    with psycopg.connect(database_url, autocommit=True) as connection, serve(chaos.fleet) as run:
        chaos.begin(connection, run)
        for step in range(STEPS):
            chaos.let_things_happen(step)
            done = chaos.work()
            assert chaos.problems(is_final=False) == [], (seed, step, done)
        chaos.calm_down()
        assert chaos.problems(is_final=True) == [], seed


class Chaos:
    """A fleet, its exporters and its billing, all driven by one seed."""

    def __init__(self, job_url: str, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a seed that replays is the point
        self.job_url = job_url
        self.fleet = Fleet(seed=seed)
        self.users = [self.fleet.add_user() for _ in range(6)]
        self.strangers = [self.fleet.new_uuid() for _ in range(2)]
        self.late_histories = self.rng.random() < 0.5
        self.price = Decimal("0.0000000123")
        self.now = self.fleet.start
        self.top_ups: dict[str, Funds] = {}
        self.marks: dict[str, datetime] = {}
        for source_id, env in (("jp-1", "prod"), ("us-1", "prod"), ("de-1", "")):
            node = self.fleet.add_node(source_id, env=env)
            for user in self.users:
                sample = self.rng.choice([user.uuid, user.proxy_uuid])
                node.add_stream(sample, self.rng.choice(["", "x"]), idle=self.happens(0.2))
                if self.happens(0.3):
                    node.add_stream(user.uuid, "second")
            for stranger in self.strangers:
                if self.happens(0.5):
                    node.add_stream(stranger)

    def happens(self, chance: float) -> bool:
        """Tell whether something happens this time."""
        return self.rng.random() < chance

    def begin(self, connection: psycopg.Connection[Any], running: RunningFleet) -> None:
        """Put the users into the database; give the exporters their habits."""
        self.connection, self.running = connection, running
        save_users(connection, self.fleet.users)
        self.before = read_books(connection, OPENING)
        for source_id in self.fleet.nodes:
            running[source_id].seam = self.rng.choice(["after", "next", "repeat"])
            running[source_id].max_page = self.rng.choice([2, 3, 100])

    def let_things_happen(self, step: int) -> None:
        """Let some minutes pass on every node, with a fault here and there."""
        until = self.now + self.rng.choice([1, 1, 1, 3, 7]) * MINUTE
        for node in self.fleet.nodes.values():
            self.trouble(node, until, step)
            self.running[node.source_id].down = self.happens(0.15)
        if self.happens(0.1) and self.strangers:
            save_users(self.connection, [self.fleet.add_user(self.strangers.pop())])
        if self.happens(0.15):
            self.top_up(self.rng.choice(self.users))
        if self.happens(0.1):
            self.price *= self.rng.choice([Decimal(2), Decimal("0.5")])
        self.now = until
        self.fleet.present = until + timedelta(seconds=35)

    def trouble(self, node: Node, until: datetime, step: int) -> None:
        """Let traffic flow to `until`, with at most one fault on the way."""
        poll = self.rng.choice([15, 30, 60])
        middle = self.now + (until - self.now) * self.rng.random()
        kind = self.rng.random()
        if kind < 0.1:
            node.run(middle, poll)
            node.restart_xray(middle, drop_counters=self.happens(0.5))
        elif kind < 0.2:
            node.hide(middle, middle + self.rng.choice([1, 6]) * MINUTE)
        elif kind < 0.3:
            node.hide_stream(self.rng.choice(node.streams), middle, middle + 2 * MINUTE)
        elif kind < 0.35:
            node.add_stream(self.rng.choice(self.users).uuid, f"line-{step}")
        node.run(until, poll)
        if self.late_histories and self.happens(0.2):
            node.withhold(middle, until, until + self.rng.choice([3, 9]) * MINUTE)

    def top_up(self, user: User) -> None:
        """Add to a balance beside the ledger, as accounts.svc.plus does."""
        funds = read_funds(self.connection).get(user.uuid)
        if funds is None:
            return
        amount = Decimal(self.rng.randrange(1, 10**6)).scaleb(-6)
        save_funds(self.connection, {user.uuid: Funds(funds.balance + amount, funds.quota)})
        earlier = self.top_ups.get(user.uuid, Funds()).balance
        self.top_ups[user.uuid] = Funds(earlier + amount)

    def work(self) -> RunResult:
        """Run one job, now and then dry."""
        job = self.rng.choice([collect, collect, catch_up, catch_up, reconcile])
        if self.happens(0.05):
            order = Order(self.fleet.start, self.now, f"v{self.rng.random()}", "chaos")
            return rerate(self.context(), order)
        options = {"since": self.fleet.start} if job is reconcile else {}
        return job(self.context(), dry_run=self.happens(0.1), **options)

    def calm_down(self) -> None:
        """End all faults, and run what brings the books up to date."""
        for source_id in self.fleet.nodes:
            self.running[source_id].down = False
        self.fleet.present = self.now + 10 * MINUTE
        for _ in range(2):
            catch_up(self.context())
        if self.late_histories:
            reconcile(self.context(), since=self.fleet.start)

    def context(self) -> JobContext:
        """Return a run's context; its bounds are drawn anew each time."""
        now = self.fleet.present or self.now
        return JobContext(
            run_id=str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            clock=lambda: now,
            database=Database(self.job_url),
            sources=tuple(Source(**one) for one in self.running.sources()),
            tariff=Tariff(self.price, OPENING.quota, OPENING.balance, "v1", "", None),
            deltas=DeltaPolicy(line_rate_bits_per_second=0),
            fetching=FetchPolicy(
                step_max_samples=self.rng.choice([1, 50, 10**6]),
                page_limit=self.rng.choice([2, 3, 60]),
            ),
        )

    def problems(self, *, is_final: bool) -> list[str]:
        """Return what is wrong with the books; at the end also what differs from the truth."""
        found = violations(self.connection, self.before, self.top_ups)
        found += moved_back(self.connection, self.marks)
        self.marks = read_watermarks(self.connection)
        first = dict(
            self.connection.execute(
                "SELECT stored_node_id, first_snapshot_at FROM billing.sources"
            ).fetchall()
        )
        if is_final or not self.late_histories:
            found += compare_with_oracle(
                self.connection, Oracle(self.fleet, since=first), pending_allowed=not is_final
            )
        return found
