"""The sums of an account's charges in a range, and what waits to be charged."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import StreamName
from billing_cli.database.spans import LIFE

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from psycopg import Connection

# Each look at the key of charges is for one minute of the account; see database/spans.py.
RANGE_OF_CHARGES = f"""
life AS (
  SELECT greatest(first_minute, %(since)s::timestamptz) AS first_minute,
         least(last_minute, %(until)s::timestamptz - interval '1 microsecond') AS last_minute
    FROM ({LIFE}) AS whole
   WHERE first_minute IS NOT NULL
), charge AS (
  SELECT found.*
    FROM life
   CROSS JOIN LATERAL generate_series(life.first_minute, life.last_minute, interval '1 minute')
      AS minute (at)
   CROSS JOIN LATERAL (
         SELECT *
           FROM billing.charges AS charge
          WHERE charge.bucket_start = minute.at AND charge.account_uuid = %(account)s
         OFFSET 0) AS found
)
"""

READ_SUMS = f"""
WITH {RANGE_OF_CHARGES}
SELECT to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD'), stored_node_id, line_code,
       sum(included_bytes)::bigint, sum(rated_bytes)::bigint, 0 - sum(amount_delta)
  FROM charge
 GROUP BY 1, 2, 3
 ORDER BY 1, 2, 3
"""

# In the order in which they were charged: by transaction, and by ordinal within it. Old rows have
# no ordinal; they were charged in the order of their keys. The ledger has each charge's stamp with
# its ordinal as microseconds. Charges of other minutes count from the first charge to the last one.
# Of pruned minutes, those that were written that late are kept; they go before newer minutes of the
# same transaction.
READ_BALANCES = f"""
WITH {RANGE_OF_CHARGES}, bounds AS (
  SELECT min(created_at) AS first_at, max(created_at) AS last_at FROM charge
), entry AS (
  SELECT created_at, ordinal, bucket_start, stored_node_id, region, line_code, balance_before,
         amount_delta, true AS is_of_range
    FROM charge
   UNION ALL
  SELECT other.created_at, ordinal, other.bucket_start, stored_node_id, region, line_code,
         balance_before, other.amount_delta, false
    FROM bounds
    JOIN public.billing_ledger AS ledger
      ON ledger.account_uuid = %(account)s AND ledger.created_at >= first_at
     AND ledger.created_at < last_at + interval '1 minute'
     AND (ledger.bucket_start < %(since)s::timestamptz
          OR ledger.bucket_start >= %(until)s::timestamptz)
   CROSS JOIN LATERAL (
         SELECT *
           FROM billing.charges AS charge
          WHERE charge.bucket_start = ledger.bucket_start
            AND charge.account_uuid = ledger.account_uuid AND charge.ledger_id = ledger.id
         OFFSET 0) AS other
   UNION ALL
  SELECT created_at, -1, NULL, NULL, NULL, NULL, balance_before, amount_delta, false
    FROM bounds
    JOIN billing.pruned_charges AS pruned
      ON pruned.account_uuid = %(account)s AND pruned.created_at BETWEEN first_at AND last_at
     AND (pruned.bucket_start < %(since)s::timestamptz
          OR pruned.bucket_start >= %(until)s::timestamptz) IS NOT FALSE
), placed AS (
  SELECT balance_before, amount_delta, is_of_range,
         row_number() OVER (ORDER BY created_at, ordinal, bucket_start, stored_node_id COLLATE "C",
                                     region COLLATE "C", line_code COLLATE "C") AS place
    FROM entry
), ends AS (
  SELECT min(place) AS first, max(place) AS last FROM placed WHERE is_of_range
)
SELECT max(balance_before) FILTER (WHERE place = first),
       max(balance_before + amount_delta) FILTER (WHERE place = last),
       coalesce(sum(amount_delta)
                  FILTER (WHERE NOT is_of_range AND place BETWEEN first AND last), 0)
  FROM placed
 CROSS JOIN ends
"""

# Usage of the account, or of streams with an unresolved uuid, that is not charged yet. Both
# directions together can exceed a `bigint`: it is what an exporter says.
READ_WAITING = """
SELECT stream.stored_node_id, stream.inbound_tag, stream.sample_uuid::text,
       coalesce(min(pending.from_at), stream.first_seen_at),
       coalesce(sum(pending.uplink_end - pending.uplink_start::numeric
                    + pending.downlink_end - pending.downlink_start), 0),
       (SELECT coalesce(sum(held.uplink_end - held.uplink_start::numeric
                            + held.downlink_end - held.downlink_start), 0)
          FROM billing.held_deltas AS held
         WHERE held.stream_id = stream.stream_id AND held.state = 'held')
  FROM billing.streams AS stream
  LEFT JOIN billing.pending_usage AS pending
    ON pending.stream_id = stream.stream_id AND pending.billed_at IS NULL
 WHERE stream.account_uuid = %(account)s AND pending.stream_id IS NOT NULL
    OR stream.account_uuid IS NULL AND stream.sample_uuid = %(asked)s
 GROUP BY stream.stream_id
 ORDER BY 1, 2, 3
"""


class Sums(NamedTuple):
    """Bytes and money of charges, corrections included; `amount` is positive for what was paid."""

    included_bytes: int = 0
    rated_bytes: int = 0
    amount: Decimal = Decimal(0)

    @property
    def total_bytes(self) -> int:
        """All bytes, included and rated."""
        return self.included_bytes + self.rated_bytes

    def plus(self, other: Sums) -> Sums:
        """Return the sum of both."""
        return Sums(
            self.included_bytes + other.included_bytes,
            self.rated_bytes + other.rated_bytes,
            self.amount + other.amount,
        )


class SumsOf(NamedTuple):
    """The sums of one UTC day (`YYYY-MM-DD`) on one inbound tag of one node."""

    day: str
    stored_node_id: str
    inbound_tag: str
    sums: Sums


class Waiting(NamedTuple):
    """Usage of a stream that is not charged yet; `since` is where it begins.

    `total_bytes` wait for an account, `held_bytes` for a decision.
    """

    stored_node_id: str
    name: StreamName
    since: datetime
    total_bytes: int
    held_bytes: int


class AccountTotals(NamedTuple):
    """Everything that was charged in a range.

    `opening_balance` is what the first charge of the range found, `closing_balance` what the last
    one left; None where nothing was charged. `other_charges` is what our charges of other minutes
    changed in between, such as those of the days until a minute was re-rated.
    """

    parts: tuple[SumsOf, ...] = ()
    opening_balance: Decimal | None = None
    closing_balance: Decimal | None = None
    other_charges: Decimal = Decimal(0)

    @property
    def sums(self) -> Sums:
        """The sums of the range."""
        return _sum_up(self.parts, lambda _: "").get("", Sums())

    @property
    def other_changes(self) -> Decimal | None:
        """What changed the balance in between and is no charge of ours, such as top-ups."""
        if self.opening_balance is None or self.closing_balance is None:
            return None
        change = self.closing_balance - self.opening_balance
        return change + self.sums.amount - self.other_charges

    @property
    def by_day(self) -> dict[str, Sums]:
        """The sums of each UTC day."""
        return _sum_up(self.parts, lambda part: part.day)

    @property
    def by_node(self) -> dict[str, Sums]:
        """The sums of each node."""
        return _sum_up(self.parts, lambda part: part.stored_node_id)

    @property
    def by_inbound_tag(self) -> dict[str, Sums]:
        """The sums of each inbound tag."""
        return _sum_up(self.parts, lambda part: part.inbound_tag)


NO_TOTALS = AccountTotals()


def read_totals(
    connection: Connection, account_uuid: str, since: datetime | None, until: datetime | None
) -> AccountTotals:
    """Return what was charged for the account's minutes in [since, until)."""
    wanted = {
        "account": account_uuid,
        "since": since or "-infinity",
        "until": until or "infinity",
    }
    parts = tuple(
        SumsOf(day, node, tag, Sums(*sums))
        for day, node, tag, *sums in connection.execute(READ_SUMS, wanted)
    )
    row = connection.execute(READ_BALANCES, wanted).fetchone()
    return AccountTotals(parts, *row) if row else AccountTotals(parts)


def read_waiting(
    connection: Connection, account_uuid: str | None, asked: str
) -> tuple[Waiting, ...]:
    """Return usage of the account, or of the unresolved uuid, that is not charged yet."""
    rows = connection.execute(READ_WAITING, {"account": account_uuid, "asked": asked})
    return tuple(
        Waiting(node, StreamName(tag, sample), since, int(pending), int(held))
        for node, tag, sample, since, pending, held in rows
    )


def _sum_up(parts: tuple[SumsOf, ...], key_of: Callable[[SumsOf], str]) -> dict[str, Sums]:
    found: defaultdict[str, Sums] = defaultdict(Sums)
    for part in parts:
        key = key_of(part)
        found[key] = found[key].plus(part.sums)
    return dict(sorted(found.items()))
