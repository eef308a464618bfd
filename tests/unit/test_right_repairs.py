"""An audit takes whatever a repair of a loss may be for right."""

from __future__ import annotations

import uuid
from decimal import Decimal

from hypothesis import given

from billing_cli.core.balances import explain_changes, stored
from billing_cli.core.funds import Circumstances, Funds, repair_id_of
from billing_cli.features.audit.repairs import RepairRow, expected_of
from tests.unit.core.examples import examples
from tests.unit.core.test_balances_properties import EVENTS, RETURNS, START, Account, Event

ACCOUNT, ENTRY = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@examples()
@given(EVENTS | RETURNS)
def test_a_repair_of_a_loss_is_right(events: list[Event]) -> None:
    """Whatever top-ups the stale write swallowed or had on top."""
    account = Account()
    account.play(events)
    rows = sorted(account.rows)
    for loss in explain_changes(account.changes, Circumstances(rows), account.entries).losses:
        left, found, before = loss.change.left, loss.change.found, account.funds
        assert left is not None
        after = Funds(stored(before.balance - loss.amount), before.quota - loss.quota)
        names = len(loss.charges)
        repair = RepairRow(
            *(ACCOUNT, repair_id_of(ACCOUNT, ENTRY), ENTRY, START, after.balance - before.balance),
            *(before, after, names, names),
            sum((charge.amount_delta for charge in loss.charges), Decimal(0)),
            sum(charge.included_bytes for charge in loss.charges),
            *(left.balance, found.balance, left.quota, found.quota, False),
        )
        assert expected_of(repair) == {}
