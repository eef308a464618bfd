"""Everything that charges or corrects, in any order, on the same minutes."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.features.held.job import list_held, reject_held, release_held
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.invariants import compare_with_oracle
from billing_cli.simulator.oracle import Oracle
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from billing_cli.jobs.context import JobContext
    from tests.support.story import Story

STEPS = 25
WHY = "drawn by lot"


class Lots:
    """A fleet with late snapshots, and jobs that are drawn by lot.

    Counters never restart here: a restart that hides inside a held delta stays hidden.
    """

    def __init__(self, story: Story, seed: int) -> None:
        self.story = story
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.users = [story.add_user() for _ in range(3)]
        self.nodes = [story.add_node(source_id) for source_id in ("jp-1", "us-1")]
        for node in self.nodes:
            for user in self.users:
                node.add_stream(user.uuid, "xhttp")
                node.add_stream(user.proxy_uuid, self.random.choice(["xhttp", "tcp"]))
        story.quota = self.random.choice([0, 10**6, 10**9])
        # The busiest minutes are more than this: they are held.
        story.line_rate = 250_000
        story.minute()
        story.collect()

    def flow(self) -> None:
        """Let some minutes pass."""
        until = self.story.now + self.random.choice([1, 1, 2, 5]) * MINUTE
        for node in self.nodes:
            begin = node.now
            node.run(until, self.random.choice([15, 60]), rate=20_000)
            if self.random.random() < 0.3:
                node.withhold(begin, until - MINUTE, until + self.random.randrange(3) * MINUTE)
        self.story.now = until
        self.story.fleet.present = until + MINUTE

    def step(self) -> None:
        """Take one of the steps that there are."""
        context, lot = self.story.context(), self.random.random()
        if lot < 0.4:
            self.flow()
            collect(self.story.context())
        elif lot < 0.55:
            reconcile(context, since=START)
        elif lot < 0.75:
            self.story.price = Decimal(self.random.randrange(1, 10**6)).scaleb(-14)
            self.rerate(context)
        else:
            deltas = sorted(
                list_held(context).deltas,
                key=lambda one: (one.record.from_at, one.stored_node_id, one.record.name),
            )
            waiting = [delta.held_id for delta in deltas]
            if waiting:
                decide = self.random.choice([release_held, release_held, reject_held])
                decide(
                    context, self.random.sample(waiting, self.random.randint(1, len(waiting))), WHY
                )

    def rerate(self, context: JobContext) -> None:
        """Bring part of what was told to the present price, or all of it."""
        since, until = sorted(START + self.random.randrange(-1, 90) * MINUTE for _ in range(2))
        since = min(since, self.story.now)
        order = Order(since, until, context.run_id, WHY)
        rerate(context, order, step_buckets=self.random.choice([1, 10, 1000]))


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_done_in_whatever_order_leaves_true_books(story: Story, seed: int) -> None:
    """After each step the books agree; in the end each byte is billed, at the price of the end."""
    lots = Lots(story, seed)
    for _ in range(STEPS):
        lots.step()
        assert story.broken_invariants() == []

    lots.flow()
    story.fleet.present = story.now + timedelta(hours=1)
    catch_up(story.context())
    reconcile(story.context(), since=START)
    release_held(
        story.context(), [delta.held_id for delta in list_held(story.context()).deltas], WHY
    )
    rerate(story.context(), Order(START, story.now + MINUTE, "the last", WHY))
    assert compare_with_oracle(story.connection, Oracle(story.fleet), buckets=False) == []
    for user in lots.users:
        ((included, rated, amount),) = story.rows(
            "SELECT sum(included_bytes), sum(rated_bytes), -sum(amount_delta)"
            "  FROM billing.charges WHERE account_uuid = %s",
            user.uuid,
        )
        assert story.funds(user).quota == story.quota - included
        # Each charge is rounded by itself.
        assert abs(amount - rated * story.price) < Decimal("1e-6")
