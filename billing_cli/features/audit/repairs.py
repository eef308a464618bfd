"""What an audit says of repairs of balances: each follows from charges that a change undid."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.funds import Funds, repair_id_of, rounding
from billing_cli.features.audit.findings import Finding
from billing_cli.features.audit.queries_repairs import READ_REPAIRS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.audit.findings import Value

ZERO = Decimal(0)


class RepairRow(NamedTuple):
    """A repair, what the ledger says of the charges that it names, and the change it is about.

    `left` are the funds that the entry before the change left, `found` those that the next one
    found: None where neither is on record. What is pruned has no quota. `is_former` means that the
    ledger rows are gone with the account as it was then.
    """

    account_uuid: str
    repair_id: str
    after_id: str
    at: datetime
    amount: Decimal
    before: Funds
    after: Funds
    names: int
    charges: int
    charged: Decimal
    included: int
    balance_left: Decimal | None
    balance_found: Decimal | None
    quota_left: int | None
    quota_found: int | None
    is_former: bool


def find_wrong_repairs(connection: Connection, account_uuid: str | None) -> Iterator[Finding]:
    """Yield the repairs, of one account or all, that are none of what they name."""
    for row in connection.execute(READ_REPAIRS.encode(), {"account": account_uuid}):
        before, after = Funds(*row[5:7]), Funds(*row[7:9])
        repair = RepairRow._make((*row[:5], before, after, *row[9:]))
        expected = expected_of(repair)
        if expected:
            found: dict[str, Value] = {
                "repair_id": repair.repair_id,
                "charges": repair.charges,
                "balance_after": repair.after.balance,
                "amount_delta": repair.amount,
                "remaining_included_quota": repair.after.quota,
            }
            yield Finding(
                "repair_differs",
                repair.account_uuid,
                {"repair_id": repair.repair_id, "repaired_at": repair.at},
                expected,
                {name: found[name] for name in expected},
            )


def expected_of(repair: RepairRow) -> dict[str, Value]:
    """Return what a repair should say in place of what it says."""
    expected: dict[str, Value] = {}
    repair_id = repair_id_of(repair.account_uuid, repair.after_id)
    if repair.repair_id != repair_id:
        expected["repair_id"] = repair_id
    if repair.after.balance != repair.before.balance + repair.amount:
        expected["balance_after"] = repair.before.balance + repair.amount
    if repair.is_former:
        return expected
    if repair.charges != repair.names or not repair.charges:
        expected["charges"] = max(repair.names, 1)
    if not _is_amount_possible(repair):
        expected["amount_delta"] = repair.charged
    if not _is_quota_possible(repair):
        expected["remaining_included_quota"] = repair.before.quota
    return expected


def _is_amount_possible(repair: RepairRow) -> bool:
    """Return whether a repair puts at most the charges back, or all that the change took.

    A stale write undoes charges, and what others wrote between them: a repair gives that back.
    """
    left, found = repair.balance_left, repair.balance_found
    tolerance = rounding(repair.before, repair.after)
    least, most = min(repair.charged, ZERO), max(repair.charged, ZERO)
    if least - tolerance <= repair.amount <= most + tolerance:
        return True
    return left is not None and found is not None and abs(repair.amount - left + found) <= tolerance


def _is_quota_possible(repair: RepairRow) -> bool:
    """Return whether no more quota came back than refunds had given, or the change took."""
    given = repair.after.quota - repair.before.quota
    if given <= max(0, -repair.included):
        return True
    if repair.quota_left is None or repair.quota_found is None:
        return True
    return given <= repair.quota_left - repair.quota_found
