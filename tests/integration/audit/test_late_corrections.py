"""Corrections of minutes that an incremental audit does not read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.audit.scope import Scope
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.simulator import read_service
from billing_cli.simulator.books import Funds
from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.story import Story


@pytest.fixture
def told(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story without nodes or users yet."""
    with told_story(database_url, job_url) as story:
        yield story


@pytest.mark.parametrize("accounts_by_key", [500, 1])
def test_they_are_no_changes_of_others(
    told: Story, accounts_by_key: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was proven; a top-up since makes the audit look at the account again."""
    monkeypatch.setattr("billing_cli.features.audit.balances.ACCOUNTS_BY_KEY", accounts_by_key)
    users, node = [told.add_user(), told.add_user()], told.add_node("jp-1")
    moves = [(node.add_stream(user.uuid, "x"), 100, 0) for user in users]
    told.minute()
    corrected = told.minute(*moves)
    told.collect()
    told.now += timedelta(days=5)
    for _ in range(3):
        told.minute(*moves)
        told.collect()
    order = Order("jp-1", corrected, corrected + timedelta(minutes=1), None, "a mistake")
    assert reverse(told.context(), order).corrections == 2
    assert audit(told.context(), is_full=False).findings == ()
    for user in users:
        read_service.top_up(told.connection, user.uuid, Decimal(25), datetime.now(UTC))
        told.top_ups[user.uuid] = Funds()
    for _ in range(2):
        report = audit(told.context(), is_full=False)
        assert (report.is_full, report.findings) == (False, ())
    told.minute(*moves)
    told.collect()

    report = audit(told.context(), is_full=False)

    assert (report.is_full, report.findings) == (False, ())


def test_no_minute_is_read_both_as_new_and_as_late() -> None:
    """What is read begins with a whole minute, whenever the last audit was."""
    at = datetime(2026, 5, 2, 12, 0, 30, tzinfo=UTC)
    first, _ = Scope(proven_at=at).funds_range or (at, at)
    assert first == datetime(2026, 5, 1, 11, 0, tzinfo=UTC)
