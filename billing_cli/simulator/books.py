"""What the shared tables hold at one moment, and money as it stands in their float columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

READ_BUCKETS = """
SELECT bucket_start, node_id, account_uuid::text, region, line_code,
       uplink_bytes, downlink_bytes, total_bytes, rating_status
  FROM public.traffic_minute_buckets
"""

READ_QUOTA_STATES = """
SELECT account_uuid::text, current_balance, remaining_included_quota
  FROM public.account_quota_states
"""

READ_LEDGER_IDS = """
SELECT id::text FROM public.billing_ledger
"""

NANO = Decimal("1e-9")
ZERO = Decimal(0)


class Bucket(NamedTuple):
    """The primary key of a bucket, in the order in which charges are rated."""

    bucket_start: datetime
    stored_node_id: str
    account_uuid: str
    region: str
    line_code: str


class Funds(NamedTuple):
    """What an account has: money with 9 decimal places, and included bytes left."""

    balance: Decimal = ZERO
    quota: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    """Where the shared tables stood before our first run: what invariants count from.

    `default` are the funds of an account that had no quota state yet, unless its profile has
    the quota. `buckets` and `ledger_ids` are another writer's: our evidence knows nothing of them.
    """

    funds: Mapping[str, Funds] = field(default_factory=dict)
    default: Funds = Funds()  # noqa: RUF009 -- a frozen tuple
    buckets: Mapping[Bucket, tuple[int, int, int]] = field(default_factory=dict)
    ledger_ids: frozenset[str] = frozenset()


def read_books(connection: Connection[Any], default: Funds = Funds()) -> Books:  # noqa: B008
    """Return where the shared tables stand; asked for before billing writes to them."""
    return Books(
        funds=read_funds(connection),
        default=default,
        buckets={key: moved for key, moved, _ in read_buckets(connection)},
        ledger_ids=frozenset(row[0] for row in rows(connection, READ_LEDGER_IDS)),
    )


def read_funds(connection: Connection[Any]) -> dict[str, Funds]:
    """Return each account's present funds."""
    return {
        account: Funds(money(balance), quota)
        for account, balance, quota in rows(connection, READ_QUOTA_STATES)
    }


def read_buckets(
    connection: Connection[Any],
) -> list[tuple[Bucket, tuple[int, int, int], str]]:
    """Return each bucket with its uplink, downlink and total bytes, and its rating status."""
    return [
        (Bucket(*row[:5]), (row[5], row[6], row[7]), row[8])
        for row in rows(connection, READ_BUCKETS)
    ]


def rows(connection: Connection[Any], query: LiteralString) -> list[tuple[Any, ...]]:
    """Return the query's rows as tuples, whatever shape the connection gives to its own."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query).fetchall()


def money(amount: float | Decimal) -> Decimal:
    """Return the amount with 9 decimal places: what a double of up to 15 digits stands for."""
    return Decimal(repr(amount) if isinstance(amount, float) else amount).quantize(NANO)
