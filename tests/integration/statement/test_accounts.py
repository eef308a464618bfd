"""Statements of accounts that are topped up, deleted, created again, or named by their address."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.statements import check_statement
from billing_cli.features.repair.job import repair_balances
from billing_cli.features.statement.job import statement
from billing_cli.simulator.accounts import save_users
from tests.support.neighbour import stale_write
from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.simulator.traffic import User
    from tests.support.story import Story

TOP_UP = """
INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
       rated_bytes, amount_delta, balance_after, created_at)
SELECT gen_random_uuid(), account_uuid, now(), now(), %(kind)s, 0, %(amount)s,
       current_balance + %(amount)s, now()
  FROM public.account_quota_states WHERE account_uuid = %(account)s
"""
ADD = """
UPDATE public.account_quota_states SET current_balance = current_balance + %(amount)s
 WHERE account_uuid = %(account)s
"""


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story with an account that was charged for two minutes."""
    with told_story(database_url, job_url) as begun:
        node = begun.add_node("jp-1")
        node.add_stream(begun.add_user().uuid, "a")
        begun.minute()
        begun.collect()
        _grow(begun)
        yield begun


def _grow(story: Story) -> None:
    (node,) = story.fleet.nodes.values()
    for _ in range(2):
        story.minute(*((stream, 10, 20) for stream in node.streams))
        story.collect()


@pytest.mark.parametrize("balance", [12345678.9012345, 87654321.123456, 123456789012.125])
def test_a_large_balance_is_rounded_and_not_unexplained(story: Story, balance: float) -> None:
    """A double keeps fewer digits than the charges have, also at the end of the present month."""
    story.broken_invariants = list  # type: ignore[method-assign]
    user = _user(story)
    given = {"account": user.uuid, "kind": "topup", "amount": balance}
    story.connection.execute(TOP_UP, given)
    story.connection.execute(ADD, given)
    story.price = Decimal("0.000000371")
    for _ in range(3):
        _grow(story)
        made = _statement(story, user.uuid)
        kinds = {one["kind"] for one in made["other_entries"]}
        assert kinds <= {"initial_balance", "topup", "rounding"}
        assert float(made["closing_balance"]) == float(story.funds(user).balance)


def _user(story: Story) -> User:
    return next(iter(story.fleet.users))


def _statement(
    story: Story, account: str, month: date | None = None, after: timedelta = timedelta(0)
) -> dict[str, Any]:
    # Charges that are not sealed are of the day on which they were written, by the server's clock.
    now = datetime.now(UTC) + after
    made = statement(
        replace(story.context(), clock=lambda: now), account, month or now.date().replace(day=1)
    )
    assert check_statement(made).problems == ()
    return made


def test_top_ups_and_adjustments_of_others_are_entries(story: Story) -> None:
    """With their kinds and amounts; nothing is left to explain."""
    story.broken_invariants = list  # type: ignore[method-assign]
    user = _user(story)
    for kind, amount in (("topup", 2.5), ("manual_adjustment", -0.25)):
        given = {"account": user.uuid, "kind": kind, "amount": amount}
        story.connection.execute(TOP_UP, given)
        story.connection.execute(ADD, given)
    _grow(story)
    made = _statement(story, user.uuid)
    others = [(one["kind"], one["amount"]) for one in made["other_entries"]]
    assert sorted(others) == [
        ("initial_balance", "5.000000000"),
        ("manual_adjustment", "-0.250000000"),
        ("topup", "2.500000000"),
    ]


def test_a_charge_that_was_lost_and_repaired_is_charged_once(story: Story) -> None:
    """In the month and after it; the next month opens with what this one closes with."""
    story.broken_invariants = list  # type: ignore[method-assign]
    user = _user(story)
    with stale_write(story.connection, user.uuid):
        _grow(story)
    assert repair_balances(story.context(), "stale write").corrections == 1
    balance = f"{story.funds(user).balance:.9f}"
    first = datetime.now(UTC).date().replace(day=1)
    for days in (0, 40):
        made = _statement(story, user.uuid, month=first, after=timedelta(days=days))
        assert made["closing_balance"] == balance
        others = [(one["kind"], one["amount"]) for one in made["other_entries"]]
        assert others == [
            ("initial_balance", "5.000000000"),
            ("unexplained_change", "0.060000000"),
            ("balance_repair", "-0.060000000"),
        ]
    after = (first + timedelta(days=40)).replace(day=1)
    made = _statement(story, user.uuid, month=after, after=timedelta(days=40))
    assert (made["opening_balance"], made["closing_balance"]) == (balance, balance)
    assert made["other_entries"] == []


def test_an_account_that_was_created_again_keeps_its_charges(story: Story) -> None:
    """The shared rows went with the account, and it has begun with another balance."""
    story.broken_invariants = list  # type: ignore[method-assign]
    user = _user(story)
    story.connection.execute("DELETE FROM public.users WHERE uuid = %s", [user.uuid])
    gone = _statement(story, user.uuid)
    assert sum(day["charges"] for day in gone["days"]) == 2
    save_users(story.connection, [user])
    _grow(story)
    again = _statement(story, user.uuid)
    assert sum(day["charges"] for day in again["days"]) == 4
    kinds = [one["kind"] for one in again["other_entries"]]
    assert kinds == ["initial_balance", "unexplained_change"]
    assert again["closing_balance"] == "4.940000000"
