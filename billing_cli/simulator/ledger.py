"""The rows of the money: ledger entries, the charges that are their evidence, quota periods."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.simulator.books import Bucket, Funds, money, rows

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

# The transaction that wrote a row shows which rows were written together.
READ_LEDGER = """
SELECT id::text, account_uuid::text, bucket_start, bucket_end, entry_type, rated_bytes,
       amount_delta, balance_after, created_at, xmin::text
  FROM public.billing_ledger
 ORDER BY created_at, id
"""

# The evidence of deleted accounts stays, while their ledger is gone.
READ_CHARGES = """
SELECT ledger_id::text, bucket_start, stored_node_id, account_uuid::text, region, line_code,
       entry_type, included_bytes, rated_bytes, amount_delta, quota_before, balance_before
  FROM billing.charges
  JOIN public.users ON users.uuid = charges.account_uuid
"""

# Each quota period that a run has seen: the renewed quota, and what is left of the one before.
READ_PERIODS = """
SELECT account_uuid::text, period_start, quota_bytes + included_before, former_quota_bytes
  FROM billing.quota_periods
 ORDER BY account_uuid, period_start
"""


class Entry(NamedTuple):
    """A ledger row. Amounts are in money with 9 decimal places."""

    ledger_id: str
    account_uuid: str
    bucket_start: datetime
    bucket_end: datetime
    entry_type: str
    rated_bytes: int
    amount_delta: Decimal
    balance_after: Decimal
    created_at: datetime
    transaction: str


class Charge(NamedTuple):
    """The evidence of a ledger row."""

    ledger_id: str
    bucket: Bucket
    entry_type: str
    included_bytes: int
    rated_bytes: int
    amount_delta: Decimal
    before: Funds

    @property
    def after(self) -> Funds:
        """What the charge leaves of the account's funds."""
        balance = self.before.balance + self.amount_delta
        return Funds(balance, self.before.quota - self.included_bytes)


class Period(NamedTuple):
    """A quota period: its quota when it began, and what is left of the former one, in bytes."""

    start: datetime
    quota: int
    former_left: int


def read_charges(connection: Connection[Any]) -> dict[str, Charge]:
    """Return the evidence of all charges to existing accounts, by ledger id."""
    return {
        ledger_id: Charge(
            ledger_id,
            Bucket(*bucket),
            entry_type,
            included,
            rated,
            money(amount),
            Funds(money(balance_before), quota_before),
        )
        for (
            ledger_id,
            *bucket,
            entry_type,
            included,
            rated,
            amount,
            quota_before,
            balance_before,
        ) in rows(connection, READ_CHARGES)
    }


def read_ledger(connection: Connection[Any]) -> list[Entry]:
    """Return all ledger rows, in the order in which they were made."""
    entries = (Entry(*row) for row in rows(connection, READ_LEDGER))
    return [
        entry._replace(
            amount_delta=money(entry.amount_delta), balance_after=money(entry.balance_after)
        )
        for entry in entries
    ]


def read_periods(connection: Connection[Any]) -> dict[str, list[Period]]:
    """Return the quota periods that runs have seen, by account."""
    periods: dict[str, list[Period]] = defaultdict(list)
    for account, *period in rows(connection, READ_PERIODS):
        periods[account].append(Period(*period))
    return periods
