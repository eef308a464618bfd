"""The balances that an account's charges are told with: each entry begins where one ended."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.features.explain.job import explain
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
