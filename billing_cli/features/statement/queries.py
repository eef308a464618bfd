"""What a statement is made of: an account's charges by key, entries of others, day leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from billing_cli.core.merkle import (
    NodePlace,
    inclusion_ranges,
    places_of,
    proof_of,
)
from billing_cli.core.seals import SealedDay
from billing_cli.core.statements import DayProof
from billing_cli.database.seals import CHARGE_LINE, LOG_TREE, copy_lines, read_nodes, tree_of_day

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

# The minutes in which the month's bookings may be. What earlier versions charged was booked when it
# was written, hardly longer than a month after its minute.
READ_BOUNDS = """
SELECT least(min(first_bucket) FILTER (WHERE is_booked),
             CASE WHEN bool_or(is_adopted)
                  THEN greatest(min(first_bucket) FILTER (WHERE is_adopted),
                                %(start)s::timestamptz - interval '40 days') END),
       max(last_bucket) FILTER (WHERE is_booked OR is_adopted)
  FROM (SELECT first_bucket, last_bucket,
               job NOT IN ('adoption', 'prune') AND charges > 0
               AND coalesce(appended_at, created_at) >= %(start)s
               AND coalesce(appended_at, created_at) < %(end)s AS is_booked,
               job = 'adoption' AND last_bucket >= %(start)s::timestamptz - interval '40 days'
               AND first_bucket < %(end)s AS is_adopted
          FROM billing.seals) AS seal
"""

# A charge is of the day on which its seal was appended; until then of that on which it was written.
READ_CHARGES: LiteralString = f"""
SELECT seal.leaf_number, coalesce(fact.ordinal, 0),
       (extract(epoch FROM fact.created_at) * 1000000)::bigint,
       to_char(coalesce(seal.appended_at, fact.created_at), 'YYYY-MM-DD'), {CHARGE_LINE}
  FROM generate_series(%(first_minute)s::timestamptz, %(last_minute)s::timestamptz,
                       interval '1 minute') AS minute (at)
 CROSS JOIN LATERAL (
       SELECT *
         FROM billing.charges AS charge
        WHERE charge.bucket_start = minute.at AND charge.account_uuid = %(account)s
       OFFSET 0) AS fact
  LEFT JOIN billing.seals AS seal
    ON seal.run_id = fact.run_id AND seal.step = fact.step AND fact.step > 0
 WHERE coalesce(seal.appended_at, fact.created_at) >= %(start)s
   AND coalesce(seal.appended_at, fact.created_at) < %(end)s
 ORDER BY seal.leaf_number NULLS LAST, fact.bucket_start, fact.ledger_id
"""

# (By LIMIT the planner looks at keys; it would read all charges otherwise.)
# Entries that are not charges of ours, until the end of the month, oldest first. A row of traffic
# that has no charge is a legacy writer's; of pruned months it is not known whose it is. A repair
# found the balance that the loss had left.
READ_OTHERS = """
SELECT entry.created_at, entry.entry_type, round(entry.amount_delta::text::numeric, 9), '', NULL
  FROM public.billing_ledger AS entry
 WHERE entry.account_uuid = %(account)s AND entry.created_at >= %(since)s
   AND entry.created_at < %(end)s AND entry.amount_delta <> 0 AND abs(entry.amount_delta) < 1e15
   AND (entry.entry_type NOT IN ('traffic_charge', 'traffic_adjustment')
        OR (SELECT true
              FROM billing.charges AS charge
             WHERE charge.bucket_start = entry.bucket_start
               AND charge.account_uuid = entry.account_uuid
               AND charge.ledger_id = entry.id
             LIMIT 1) IS NULL)
 UNION ALL
SELECT at, 'balance_repair', amount_delta, reason, balance_before
  FROM billing.repairs
 WHERE account_uuid = %(account)s AND at >= %(since)s AND at < %(end)s
 ORDER BY 1, 2, 3
"""

# What our newest entry before a moment left. A charge that is booked at `end` or later, because its
# seal was appended then, is of a later statement.
READ_LEFT_BEFORE = """
SELECT entry.created_at, round(entry.balance_after::text::numeric, 9)
  FROM public.billing_ledger AS entry
 WHERE entry.account_uuid = %(account)s AND entry.created_at < %(before)s
   AND entry.entry_type IN ('traffic_charge', 'traffic_adjustment')
   AND ((SELECT coalesce((SELECT seal.appended_at
                            FROM billing.seals AS seal
                           WHERE seal.run_id = charge.run_id AND seal.step = charge.step
                             AND charge.step > 0),
                         charge.created_at) < %(end)s
           FROM billing.charges AS charge
          WHERE charge.bucket_start = entry.bucket_start
            AND charge.account_uuid = entry.account_uuid
            AND charge.ledger_id = entry.id
          LIMIT 1)
        OR entry.bucket_start < (SELECT coalesce(max(month) + interval '1 month', '-infinity')
                                   FROM billing.pruned))
 ORDER BY entry.created_at DESC
 LIMIT 1
"""

READ_STATE = """
SELECT round(current_balance::text::numeric, 9)
  FROM public.account_quota_states
 WHERE account_uuid = %(account)s AND abs(current_balance) < 1e15
"""

READ_DAYS = """
SELECT day.day, day.accounts, day.salts_sha256, day.root, day.leaf_number, leaf.position, leaf.salt
  FROM billing.sealed_days AS day
  JOIN billing.day_leaves AS leaf USING (day)
 WHERE leaf.account_uuid = %(account)s AND day.day >= %(start)s::date AND day.day < %(end)s::date
   AND day.leaf_number < %(tree_size)s
 ORDER BY day.day
"""


class BookedCharge(NamedTuple):
    """A charge: its leaf number (None while it has none), ordinal, when written, day, and line."""

    leaf_number: int | None
    ordinal: int
    written_at: int
    day: str
    line: bytes


class OtherEntry(NamedTuple):
    """A change of the balance that is no charge of ours; a repair knows what it found."""

    at: datetime
    kind: str
    amount: Decimal
    reason: str
    balance_before: Decimal | None = None


def read_charges(
    connection: Connection, account: str, start: datetime, end: datetime
) -> Iterator[BookedCharge]:
    """Yield the charges that were booked in [start, end), sealed ones first as their leaves are."""
    given = {"account": account, "start": start, "end": end}
    row = connection.execute(READ_BOUNDS, given).fetchone()
    if row is None or row[0] is None:
        return
    given |= {"first_minute": row[0], "last_minute": row[1]}
    for text in copy_lines(connection, READ_CHARGES, given):
        leaf, ordinal, written_at, day, line = text.split(b"\t", 4)
        number = None if leaf == rb"\N" else int(leaf)
        yield BookedCharge(number, int(ordinal), int(written_at), day.decode(), line)


def read_others(
    connection: Connection, account: str, since: datetime | str, end: datetime
) -> list[OtherEntry]:
    """Return what changed the balance other than charges of ours, in [since, end)."""
    rows = connection.execute(READ_OTHERS, {"account": account, "since": since, "end": end})
    return [OtherEntry(*row) for row in rows]


def read_left_before(
    connection: Connection, account: str, before: datetime, end: datetime
) -> tuple[datetime, Decimal] | None:
    """Return when our newest entry before a moment was written, and the balance that it left.

    Charges that are booked at `end` or later do not count.
    """
    given = {"account": account, "before": before, "end": end}
    row = connection.execute(READ_LEFT_BEFORE, given).fetchone()
    return (row[0], row[1]) if row else None


def read_balance(connection: Connection, account: str) -> Decimal | None:
    """Return the balance as it is now; None where there is none that can be computed with."""
    row = connection.execute(READ_STATE, {"account": account}).fetchone()
    return row[0] if row else None


def read_day_proofs(
    connection: Connection, account: str, start: datetime, end: datetime, tree_size: int
) -> list[DayProof]:
    """Return the proofs of the account's sealed days in [start, end), for a log of that size."""
    given = {"account": account, "start": start, "end": end, "tree_size": tree_size}
    rows = connection.execute(READ_DAYS, given).fetchall()
    ranges = {row[4]: inclusion_ranges(row[4], tree_size) for row in rows}
    places = {place for hashes in ranges.values() for place in places_of(hashes)}
    log = read_nodes(connection, LOG_TREE, places)
    return [_proof(connection, row, proof_of(ranges[row[4]], log)) for row in rows]


def _proof(connection: Connection, row: tuple[Any, ...], log_proof: list[bytes]) -> DayProof:
    *day, leaf_number, position, salt = row
    sealed = SealedDay(*day)
    ranges = inclusion_ranges(position, sealed.accounts)
    nodes: dict[NodePlace, bytes] = read_nodes(
        connection, tree_of_day(sealed.day), places_of(ranges)
    )
    return DayProof(sealed, salt, position, leaf_number, proof_of(ranges, nodes), log_proof)
