"""Taking months of evidence away, as the owner of the tables.

What an audit needs to go on proving the rest is kept: each stream's end, sums by account and
month, and charges that explain the balances.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from billing_cli.database.schema import APPEND_ONLY_TABLES, SCHEMA
from billing_cli.database.seals import CHARGES, RECORDS, read_facts
from billing_cli.features.prune.result import PrunedMonth, kept_since

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from psycopg import Connection

# Whether the role owns the tables, itself or by membership in their owner.
READ_OWNERSHIP = """
SELECT current_user,
       bool_and(pg_has_role(relowner, 'USAGE'))
  FROM pg_class
 WHERE oid = ANY (ARRAY['billing.usage_records'::regclass, 'billing.charges'::regclass])
"""

# Whoever decides of a held delta looks at what was before and after it.
READ_WAITING = """
SELECT count(*), min(bucket_start)
  FROM billing.held_deltas
 WHERE state = 'held' AND bucket_start < %(kept_since)s
"""

# Runs with charges of earlier minutes whose day of booking has no leaf yet. Only `seal` with a key
# makes such leaves.
COUNT_UNSEALED_BOOKINGS = """
SELECT count(*)
  FROM billing.seals AS seal
 WHERE seal.first_bucket < %(kept_since)s AND seal.charges > 0
   AND seal.job NOT IN ('adoption', 'prune')
   AND coalesce(seal.leaf_number > (SELECT max(leaf_number) FROM billing.sealed_days), true)
   AND EXISTS (SELECT FROM billing.log_head WHERE note IS NOT NULL)
"""

# The last audit of everything: whether it found nothing, and after the last month that is to go.
READ_LAST_AUDIT = """
SELECT last_started_at, violations FROM billing.totals WHERE job = 'audit'
"""

# The months that have a partition of the evidence, attached or not. Rows are as of the last
# ANALYZE or vacuum, which is enough to look at; what is pruned is counted.
READ_MONTHS = """
SELECT (replace(right(relname, 7), '_', '-') || '-01 00:00:00+00')::timestamptz AS month,
       coalesce(sum(greatest(reltuples, 0)) FILTER (WHERE relname ~ '^usage'), 0)::bigint,
       coalesce(sum(greatest(reltuples, 0)) FILTER (WHERE relname ~ '^charges'), 0)::bigint,
       sum(pg_total_relation_size(oid))::bigint,
       array_agg('billing.' || relname ORDER BY relname DESC),
       bool_and(relispartition)
  FROM pg_class
 WHERE relnamespace = 'billing'::regnamespace AND relkind = 'r'
   AND relname ~ '^(usage_records|charges)_[0-9]{4}_[0-9]{2}$'
 GROUP BY 1
 ORDER BY 1
"""

# Months that were archived, and the numbers of rows that were.
READ_ARCHIVES = "SELECT month, facts_sha256 FROM billing.archives"

FORGET_SEALS = """
DELETE FROM billing.audited_seals WHERE created_at < now() - 2 * interval '1 day'
"""

FORGET_DAILY_CHARGES = """
DELETE FROM billing.daily_charges WHERE day < (%(kept_since)s AT TIME ZONE 'UTC')::date
"""

# What accounts have of traffic in the month on all sides, added to what an earlier run took of it.
SAVE_SUMS = """
INSERT INTO billing.pruned AS sums
       (month, account_uuid, records, recorded_bytes, charges, included_bytes, rated_bytes,
        amount_delta, buckets, bucket_bytes, ledger_rows, ledger_amount)
SELECT %(month)s, account_uuid, sum(records), sum(recorded), sum(charges), sum(included),
       sum(rated), sum(amount), sum(buckets), sum(shown), sum(entries), sum(entered)
  FROM (SELECT account_uuid, 1 AS records,
               (uplink_end - uplink_start + downlink_end - downlink_start)::numeric AS recorded,
               0 AS charges, 0 AS included, 0 AS rated, 0::numeric AS amount,
               0 AS buckets, 0 AS shown, 0 AS entries, 0::numeric AS entered
          FROM {records}
        UNION ALL
        SELECT account_uuid, 0, 0, 1, included_bytes, rated_bytes, amount_delta, 0, 0, 0, 0
          FROM {charges}
        UNION ALL
        SELECT account_uuid, 0, 0, 0, 0, 0, 0, 1, total_bytes, 0, 0
          FROM public.traffic_minute_buckets
         WHERE bucket_start >= %(month)s AND bucket_start < %(end)s
        UNION ALL
        SELECT account_uuid, 0, 0, 0, 0, 0, 0, 0, 0, 1, amount_delta::text::numeric
          FROM public.billing_ledger
         WHERE bucket_start >= %(month)s AND bucket_start < %(end)s
           AND entry_type IN ('traffic_charge', 'traffic_adjustment')) AS fact
 GROUP BY account_uuid
    ON CONFLICT (month, account_uuid) DO UPDATE
   SET records = sums.records + excluded.records,
       recorded_bytes = sums.recorded_bytes + excluded.recorded_bytes,
       charges = sums.charges + excluded.charges,
       included_bytes = sums.included_bytes + excluded.included_bytes,
       rated_bytes = sums.rated_bytes + excluded.rated_bytes,
       amount_delta = sums.amount_delta + excluded.amount_delta,
       buckets = excluded.buckets, bucket_bytes = excluded.bucket_bytes,
       ledger_rows = excluded.ledger_rows, ledger_amount = excluded.ledger_amount,
       pruned_at = now()
"""

# The last link of each stream's chain that goes: a record, or a held delta that was decided and
# goes with its record. What is left of the chain begins where it ends.
SAVE_ENDS = """
INSERT INTO billing.pruned_streams AS ends
       (stream_id, reset_epoch, from_at, to_at, uplink_end, downlink_end)
SELECT DISTINCT ON (stream_id)
       stream_id, reset_epoch, from_at, to_at, uplink_end, downlink_end
  FROM (SELECT stream_id, reset_epoch, from_at, to_at, uplink_end, downlink_end
          FROM {records}
         WHERE kind IN ('delta', 'pending')
        UNION ALL
        SELECT stream_id, reset_epoch, from_at, to_at, uplink_end, downlink_end
          FROM billing.held_deltas AS held
         WHERE {is_decided}) AS link
 ORDER BY stream_id, reset_epoch DESC, from_at DESC, to_at DESC
    ON CONFLICT (stream_id) DO UPDATE
   SET reset_epoch = excluded.reset_epoch, from_at = excluded.from_at, to_at = excluded.to_at,
       uplink_end = excluded.uplink_end, downlink_end = excluded.downlink_end
 WHERE (ends.reset_epoch, ends.from_at, ends.to_at)
       < (excluded.reset_epoch, excluded.from_at, excluded.to_at)
"""

# A held delta is done with when it was rejected, or when the record of its release goes.
IS_DECIDED = """
       (held.state = 'rejected' AND held.bucket_start < %(end)s
        OR held.state = 'released'
           AND EXISTS (SELECT FROM {records}
                        WHERE kind = 'released' AND stream_id = held.stream_id
                          AND from_at = held.from_at))
"""

DELETE_DECIDED = "DELETE FROM billing.held_deltas AS held WHERE {is_decided}"

DELETE_BILLED = "DELETE FROM billing.pending_usage WHERE billed_at < %(end)s AND to_at < %(end)s"

# Charges are pruned by their minute, and balances are passed on in the order of writing: what was
# written after the month ended stands between charges that are left.
SAVE_STEPS = """
INSERT INTO billing.pruned_charges
       (ledger_id, account_uuid, created_at, bucket_start, included_bytes, amount_delta,
        quota_before, balance_before)
SELECT ledger_id, account_uuid, created_at, bucket_start, included_bytes, amount_delta,
       quota_before, balance_before
  FROM {charges}
 WHERE created_at >= %(end)s
    ON CONFLICT (ledger_id) DO NOTHING
"""

DELETE_STEPS = "DELETE FROM billing.pruned_charges WHERE created_at < %(end)s"

DELETE_RUNS = "DELETE FROM billing.runs WHERE started_at < %(kept_since)s"

DELETE_GAPS = """
DELETE FROM billing.gaps WHERE resolved_at IS NOT NULL AND to_at < %(kept_since)s
"""


def read_owner(connection: Connection) -> tuple[str, bool]:
    """Return the connected role, and whether it owns the evidence."""
    row = connection.execute(READ_OWNERSHIP).fetchone()
    return (row[0], row[1]) if row else ("", False)


def read_waiting(connection: Connection, kept_since: datetime) -> tuple[int, datetime | None]:
    """Return how many held deltas of earlier minutes wait for a decision, and the first minute."""
    row = connection.execute(READ_WAITING, {"kept_since": kept_since}).fetchone()
    return (row[0], row[1]) if row else (0, None)


def count_unsealed_bookings(connection: Connection, kept_since: datetime) -> int:
    """Return how many runs charged earlier minutes on a day that is to be sealed, and is not."""
    row = connection.execute(COUNT_UNSEALED_BOOKINGS, {"kept_since": kept_since}).fetchone()
    return row[0] if row else 0


def read_last_audit(connection: Connection) -> tuple[datetime, int] | None:
    """Return when all accounts were last audited, and the violations found; None for never."""
    row = connection.execute(READ_LAST_AUDIT).fetchone()
    return (row[0], row[1] or 0) if row else None


def read_months(connection: Connection) -> list[tuple[PrunedMonth, bool]]:
    """Return the months that have tables of evidence, and whether these are attached."""
    return [
        (PrunedMonth(month, records, charges, size, tuple(tables)), is_attached)
        for month, records, charges, size, tables, is_attached in connection.execute(READ_MONTHS)
    ]


def read_archives(connection: Connection) -> dict[datetime, bytes | None]:
    """Return the months that were archived, with the hash of their facts if that was noted."""
    return {row[0]: row[1] for row in connection.execute(READ_ARCHIVES)}


def facts_sha256(connection: Connection, month: datetime) -> bytes:
    """Return the hash of a month's facts, as `archive` computes it."""
    digest = sha256()
    for table in (RECORDS, CHARGES):
        for line in read_facts(connection, table, month, kept_since(month, -1)):
            digest.update(line)
    return digest.digest()


def has_rows(connection: Connection, tables: Iterable[str]) -> bool:
    """Return whether one of the tables has any row."""
    for table in tables:
        row = connection.execute(f"SELECT EXISTS (SELECT FROM {table})".encode()).fetchone()
        if row and row[0]:
            return True
    return False


def keep_sums(
    connection: Connection, records: str, charges: str, given: Mapping[str, datetime]
) -> None:
    """Keep what audits need of records and charges of a month, which are tables or subqueries."""
    parts = {"records": records, "charges": charges}
    parts["is_decided"] = IS_DECIDED.format(**parts)
    for statement in (SAVE_SUMS, SAVE_ENDS, SAVE_STEPS, DELETE_STEPS, DELETE_DECIDED):
        connection.execute(statement.format(**parts).encode(), given)
    connection.execute(DELETE_BILLED, given)


def lock_tables(connection: Connection, tables: Iterable[str]) -> None:
    """Block writes to a month while it is read; writers of other months need not wait."""
    for table in tables:
        connection.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())


def prune_month(connection: Connection, found: PrunedMonth, end: datetime) -> PrunedMonth:
    """Keep what audits need of a locked month, and detach its tables; return what is gone."""
    suffix = f"{found.month:%Y_%m}"
    given = {"month": found.month, "end": end}
    records, charges = f"{SCHEMA}.usage_records_{suffix}", f"{SCHEMA}.charges_{suffix}"
    keep_sums(connection, records, charges, given)
    names = {table: f"{SCHEMA}.{table}_{suffix}" for table in APPEND_ONLY_TABLES}
    counts = []
    for name in names.values():
        row = connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()
        counts.append(row[0] if row else 0)
    # From the first detachment on nobody else reads or writes evidence.
    for table, name in names.items():
        connection.execute(f"ALTER TABLE {SCHEMA}.{table} DETACH PARTITION {name}".encode())
    return PrunedMonth(found.month, counts[0], counts[1], found.disk_bytes, found.tables)


def drop_tables(connection: Connection, tables: Iterable[str]) -> None:
    """Drop tables of evidence that are detached."""
    for table in tables:
        connection.execute(f"DROP TABLE {table}".encode())


def delete_run_history(connection: Connection, kept_since: datetime) -> tuple[int, int]:
    """Delete older rows of the run history and older resolved gaps; return how many of each.

    Sums of days that have a daily maximum go as well.
    """
    given = {"kept_since": kept_since}
    connection.execute(FORGET_SEALS)
    connection.execute(FORGET_DAILY_CHARGES, given)
    runs = connection.execute(DELETE_RUNS, given).rowcount
    return runs, connection.execute(DELETE_GAPS, given).rowcount
