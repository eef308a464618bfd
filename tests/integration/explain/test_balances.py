"""The balances that an account's charges are told with: each entry begins where one ended."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.cli.printing import text_of
from billing_cli.features.explain.job import explain
from billing_cli.features.explain.text import explain_parts
from billing_cli.features.rerate.job import Order, rerate
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from tests.support.story import Story

MINUTES = 6


def test_entries_of_one_step_are_told_as_they_followed_each_other(story: Story) -> None:
    """A bucket with two charges is priced anew by two entries with one stamp."""
    user, node = story.add_user(), story.add_node("jp-1")
    later = story.fleet.new_uuid()
    streams = [node.add_stream(name, "xhttp") for name in (user.uuid, later)]
    story.minute()
    minutes = [story.minute(*((stream, 10, 0) for stream in streams)) for _ in range(MINUTES)]
    story.collect()
    story.connection.execute(
        "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s", (later, user.uuid)
    )
    story.minute()
    story.collect()
    story.price = Decimal("0.003")
    rerate(story.context(), Order(START, story.now + MINUTE, "v2", "the price list was wrong"))

    for minute in minutes:
        explanation = explain(story.context(), user.uuid, since=minute, until=minute + MINUTE)
        ((line,),) = (told.lines for told in explanation.minutes)
        entries = line.entries
        assert [entry.adjusts for entry in entries] == [
            None, None, *(entry.ledger_id for entry in entries[:2])
        ]  # fmt: skip
        assert entries[2].balance_after == entries[3].balance_before
        totals = explanation.totals
        assert totals.opening_balance == entries[0].balance_before
        assert totals.closing_balance == entries[3].balance_after


def test_charges_of_other_minutes_are_no_other_changes(story: Story) -> None:
    """A minute that was re-rated later has the charges of the minutes in between before it."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    minute, *_ = [story.minute((stream, 10, 0)) for _ in range(3)]
    story.collect()
    story.top_up(user, Decimal(1))
    story.minute((stream, 10, 0))
    story.collect()
    story.price = Decimal("0.003")
    order = Order(minute, minute + MINUTE, "v2", "the price list was wrong")
    rerate(story.context(), order)

    explanation = explain(story.context(), user.uuid, minute=minute)

    totals = explanation.totals
    assert (totals.sums.amount, totals.other_charges) == (Decimal("0.03"), Decimal("-0.03"))
    assert totals.other_changes == 1
    assert "-0.030000000 by charges of other minutes, +1.000000000 otherwise" in text_of(
        explain_parts(explanation)
    )
    later = explain(story.context(), user.uuid, since=minute + MINUTE).totals
    assert (later.other_charges, later.other_changes) == (0, 1)
