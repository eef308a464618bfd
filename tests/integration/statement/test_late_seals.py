"""Charges that were written in one month and sealed in the next are booked in the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.statements import check_statement
from billing_cli.features.statement.job import statement
from tests.support.sealing import DAY, Sealing, tamper
from tests.support.story import MINUTE, told_story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APRIL, MAY, JUNE = date(2026, 4, 1), date(2026, 5, 1), date(2026, 6, 1)
MAY_9 = datetime(2026, 5, 1, 9, tzinfo=UTC)
JUNE_1 = datetime(2026, 6, 1, tzinfo=UTC)

# Charges are stamped as if each had been written half a minute after its minute.
STAMP = """
UPDATE {} SET created_at = bucket_start + interval '90 seconds'
 WHERE entry_type = 'traffic_charge'
"""
TOP_UP = """
INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
       rated_bytes, amount_delta, balance_after, created_at)
SELECT gen_random_uuid(), account_uuid, now(), now(), 'topup', 0, 50, current_balance + 50, %s
  FROM public.account_quota_states
"""
ADD = "UPDATE public.account_quota_states SET current_balance = current_balance + 50"


@pytest.fixture
def sealing(database_url: str, job_url: str, tmp_path: Path) -> Iterator[Sealing]:
    """Return the history of one account, with a minute in April that was sealed in time."""
    with told_story(database_url, job_url) as story:
        story.broken_invariants = list  # type: ignore[method-assign]
        made = Sealing(story, tmp_path, database_url)
        node = story.add_node("jp-1")
        node.add_stream(story.add_user().uuid, "a")
        story.minute()
        story.collect()
        _charge(made)
        made.seal()
        yield made


def _charge(sealing: Sealing) -> datetime:
    """Charge a minute; return when."""
    (node,) = sealing.story.fleet.nodes.values()
    sealing.story.minute((node.streams[0], 10, 20))
    sealing.story.collect()
    return sealing.story.now


def _statement(sealing: Sealing, month: date) -> dict[str, Any]:
    story = sealing.story
    context = replace(story.context(), clock=lambda: datetime(2026, 6, 2, tzinfo=UTC))
    ((account,),) = story.rows("SELECT account_uuid::text FROM public.account_quota_states")
    made = statement(context, account, month)
    assert check_statement(made).problems == ()
    return made


@pytest.mark.parametrize("charges_after", [0, 1])
def test_a_top_up_after_charges_that_were_sealed_late_is_no_change_of_the_next_month(
    sealing: Sealing, charges_after: int
) -> None:
    """It is part of the opening balance, and applies to the charges in its place."""
    story = sealing.story
    late = [_charge(sealing) for _ in range(2)]
    story.connection.execute(TOP_UP, [late[-1] + 1.9 * MINUTE])
    story.connection.execute(ADD)
    for _ in range(charges_after):
        _charge(sealing)
    tables = ("billing.charges", "public.billing_ledger")
    tamper(story.database_url, *(STAMP.format(table) for table in tables))
    for later in (timedelta(), DAY):
        sealing.seal(MAY_9 - story.now + later)
    april, may = _statement(sealing, APRIL), _statement(sealing, MAY)

    assert {one["kind"] for one in april["other_entries"]} == {"initial_balance", "topup"}
    assert may["opening_balance"] == april["closing_balance"]
    assert may["other_entries"] == []
    assert Decimal(may["amount"]) == (2 + charges_after) * Decimal("-0.03")
    ((balance,),) = story.rows("SELECT current_balance FROM public.account_quota_states")
    assert float(may["closing_balance"]) == balance


def test_a_month_without_bookings_has_the_balance_that_the_earlier_month_closed_with(
    sealing: Sealing,
) -> None:
    """A charge that was written in April and sealed in June is booked in June."""
    _charge(sealing)
    tables = ("billing.charges", "public.billing_ledger")
    tamper(sealing.story.database_url, *(STAMP.format(table) for table in tables))
    for later in (timedelta(), DAY):
        sealing.seal(JUNE_1 - sealing.story.now + later)
    statements = [_statement(sealing, month) for month in (APRIL, MAY, JUNE)]

    balances = [
        tuple(Decimal(made[name]) for name in ("opening_balance", "amount", "closing_balance"))
        for made in statements
    ]
    charge, left = Decimal("-0.03"), Decimal("4.97")
    assert balances[1:] == [(left, 0, left), (left, charge, left + charge)]
    assert Decimal(statements[0]["closing_balance"]) == left
