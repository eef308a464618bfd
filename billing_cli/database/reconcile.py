"""Evidence read again for comparison with history, and the corrections that follow from it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.corrections import Cell
from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.core.plausibility import Debt
from billing_cli.core.succession import ZERO, total_of
from billing_cli.database import arrays
from billing_cli.database.parameters import rows_as_json
from billing_cli.database.spans import IS_OF_FORMER_ACCOUNT, KEPT_SINCE
from billing_cli.database.streams import READ_ACCOUNT_DEBTS
from billing_cli.database.write_path import UPSERT_ACCOUNT_DEBTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

# A node's records in [since, until), minute by minute through the key. The OFFSET keeps the planner
# from reading the records of all other nodes in that time.
NODE_RECORDS = """
 (SELECT array_agg(stream_id ORDER BY stream_id) AS stream_ids
    FROM billing.streams
   WHERE stored_node_id = %(stored_node_id)s) AS node
 CROSS JOIN LATERAL generate_series(
       date_trunc('minute', %(since)s::timestamptz),
       %(until)s::timestamptz - interval '1 microsecond', interval '1 minute') AS minute (at)
 CROSS JOIN LATERAL (
       SELECT *
         FROM billing.usage_records AS record
        WHERE record.bucket_start = minute.at AND record.stream_id = ANY (node.stream_ids)
          AND record.bucket_start >= %(since)s
       OFFSET 0) AS record
"""

# Where the evidence begins that ends in the range: history must be read from there on.
READ_FIRST_FROM = f"""
SELECT min(record.from_at) FROM {NODE_RECORDS} WHERE record.kind IN ('delta', 'pending')
"""

# The records that end at the edge or later, and of which usage in the range was taken back by
# `reverse` and not charged again.
READ_REVERSED = f"""
SELECT DISTINCT newest.stream_id, newest.from_at, newest.to_at
  FROM (SELECT DISTINCT ON (record.stream_id, record.from_at, record.bucket_start)
               record.stream_id, record.from_at, record.to_at, record.run_id
          FROM {NODE_RECORDS}
         WHERE record.kind = 'correction' AND record.to_at >= %(edge)s
         ORDER BY record.stream_id, record.from_at, record.bucket_start, record.revision DESC
       ) AS newest
  JOIN billing.runs AS run USING (run_id)
 WHERE run.job = 'reverse'
"""

# The chain's records of the range, each stream's in order. The one before a counter restart
# holds the former totals, unless something that was held or had no account was seen
# after it: the column after the totals is when. Corrections of a record that reaches back to where
# evidence was pruned may be gone.
READ_CELLS = f"""
SELECT stream.stream_id, stream.inbound_tag, stream.sample_uuid::text,
       record.account_uuid::text, record.bucket_start, record.reset_epoch,
       record.from_at, record.to_at,
       record.uplink_start, record.downlink_start, record.uplink_end, record.downlink_end,
       CASE WHEN record.reset_epoch > 0 AND (record.uplink_start = 0 OR record.downlink_start = 0)
            THEN (SELECT max(other.to_at)
                    FROM (SELECT stream_id, to_at FROM billing.held_deltas
                           UNION ALL
                          SELECT stream_id, to_at FROM billing.pending_usage) AS other
                   WHERE other.stream_id = record.stream_id AND other.to_at <= record.from_at)
            END,
       record.from_at < {KEPT_SINCE}, {IS_OF_FORMER_ACCOUNT}
  FROM {NODE_RECORDS}
  JOIN billing.streams AS stream USING (stream_id)
 WHERE record.kind IN ('delta', 'pending')
 ORDER BY stream.stream_id, record.from_at
"""

# What earlier comparisons and `reverse` have changed about these records, newest revision last.
# The run of a reversal is kept as long as the minutes that were reversed.
READ_CORRECTIONS = f"""
SELECT record.stream_id, record.from_at, record.bucket_start, record.revision,
       record.uplink_end, record.downlink_end,
       EXISTS (SELECT FROM billing.runs AS run
                WHERE run.run_id = record.run_id AND run.job = 'reverse')
  FROM {NODE_RECORDS}
 WHERE record.kind = 'correction'
 ORDER BY record.revision
"""

# What streams were found to take over. Not where the node was given another id: those totals were
# seen before under the former one.
READ_TAKEN_OVER = """
SELECT part.stream_id, succession.at, part.uplink_total, part.downlink_total
  FROM billing.successions AS succession
  JOIN billing.succession_streams AS part USING (succession_id)
 WHERE succession.stored_node_id = %(stored_node_id)s AND part.side = 'continued'
   AND succession.at >= %(since)s AND succession.at < %(until)s
   AND NOT EXISTS (SELECT FROM billing.succession_streams AS former
                     JOIN billing.streams AS owner USING (stream_id)
                    WHERE former.succession_id = succession.succession_id
                      AND owner.stored_node_id <> succession.stored_node_id)
"""

# Late and reset gaps are closed where history now shows snapshots inside them; lost history where
# the snapshot that was missed is there again. One stays open while a record in it waits.
RESOLVE_GAPS = """
UPDATE billing.gaps AS gap
   SET resolved_at = %(now)s, resolution = 'reconciled with the exporter''s history'
 WHERE gap.source_id = %(source_id)s AND gap.resolved_at IS NULL
   AND gap.from_at >= %(since)s AND gap.to_at <= %(until)s
   AND (gap.kind IN ('late', 'reset')
        AND EXISTS (SELECT FROM unnest(%(stamps)s::timestamptz[]) AS seen (at)
                     WHERE seen.at > gap.from_at AND seen.at < gap.to_at)
        OR gap.kind = 'history_lost' AND gap.from_at = ANY (%(stamps)s::timestamptz[]))
   AND NOT EXISTS (SELECT
                     FROM unnest(%(waiting_from)s::timestamptz[], %(waiting_to)s::timestamptz[])
                       AS waiting (from_at, to_at)
                    WHERE waiting.from_at < gap.to_at AND waiting.to_at > gap.from_at)
"""

UPDATE_NODE_DEBT = """
UPDATE billing.sources
   SET debt_bytes = %(debt_bytes)s, debt_at = %(debt_at)s, updated_at = now()
 WHERE source_id = %(source_id)s
"""


@dataclass(frozen=True, slots=True)
class StoredCell:
    """A cell, the stream's database id, whose it is, and the newest revision by minute."""

    stream_id: int
    account_uuid: str
    cell: Cell
    revisions: Mapping[datetime, int]


def read_first_from(
    connection: Connection, stored_node_id: str, since: datetime, until: datetime
) -> datetime | None:
    """Return where the evidence of the minutes in [since, until) begins; None without evidence."""
    row = connection.execute(
        READ_FIRST_FROM, {"stored_node_id": stored_node_id, "since": since, "until": until}
    ).fetchone()
    return row[0] if row else None


def read_reversed(
    connection: Connection, stored_node_id: str, since: datetime, until: datetime, edge: datetime
) -> dict[tuple[int, datetime], datetime]:
    """Return the records of which usage in [since, until) was taken back, with their ends.

    They are named by stream and begin; only those that end at the `edge` or later.
    """
    given = {"stored_node_id": stored_node_id, "since": since, "until": until, "edge": edge}
    rows = connection.execute(READ_REVERSED, given)
    return {(stream_id, from_at): to_at for stream_id, from_at, to_at in rows}


def read_cells(
    connection: Connection,
    stored_node_id: str,
    since: datetime,
    until: datetime,
    first: datetime,
    totals_at: Mapping[datetime, Mapping[StreamName, Totals]],
) -> tuple[list[StoredCell], int]:
    """Return the cells that end in [since, until), and how many can't be compared.

    `first` is the earliest minute that cells begin in, or that corrections of them are in.
    `totals_at` is the history by stamp: a stream's former total, before its counters restarted, is
    looked up there first, else in the record before; a cell whose former total is unknown is left
    out, and so is one that began in a month that was pruned. Cells of a deleted account are not
    counted either.
    """
    node = {"stored_node_id": stored_node_id, "since": since, "until": until}
    corrected: dict[tuple[int, datetime], dict[datetime, tuple[int, Totals, bool]]] = {}
    for stream_id, from_at, minute, revision, up, down, is_reversal in connection.execute(
        READ_CORRECTIONS, {**node, "since": first}
    ):
        minutes = corrected.setdefault((stream_id, from_at), {})
        minutes[minute] = revision, Totals(up, down), is_reversal

    moved: defaultdict[int, list[tuple[datetime, Totals]]] = defaultdict(list)
    for stream_id, at, up, down in connection.execute(READ_TAKEN_OVER, {**node, "since": first}):
        moved[stream_id].append((at, Totals(up, down)))

    cells, skipped = [], 0
    previous: tuple[int, datetime | None, Totals] = (0, None, ZERO)
    for row in connection.execute(READ_CELLS, node):
        stream_id, tag, sample, account, minute, epoch, from_at, to_at, *totals = row[:-3]
        other_seen_at, is_cut, is_of_former_account = row[-3:]
        name = StreamName(tag, sample)
        start, end = Totals(*totals[:2]), Totals(*totals[2:])
        before: Totals | None = start
        if epoch > 0 and not all(start):
            before = totals_at.get(from_at, {}).get(name)
            known_id, known_at, known = previous
            if before is None and known_id == stream_id and known_at is not None:
                before = None if other_seen_at and other_seen_at > known_at else known
        previous = stream_id, to_at, end
        if is_of_former_account:
            continue
        if before is None or is_cut:
            skipped += 1
            continue
        record = UsageRecord(name, minute, epoch, from_at, to_at, start, end)
        changes = corrected.get((stream_id, from_at), {})
        recorded = {minute: Totals(record.uplink_bytes, record.downlink_bytes)}
        recorded.update({at: amount for at, (_, amount, _) in changes.items()})
        revisions = {at: revision for at, (revision, _, _) in changes.items()}
        has_reversal = any(is_reversal for _, _, is_reversal in changes.values())
        inside = (amount for at, amount in moved.get(stream_id, ()) if from_at < at <= to_at)
        cell = Cell(record, before, recorded, has_reversal, total_of(inside))
        cells.append(StoredCell(stream_id, account, cell, revisions))
    return cells, skipped


def resolve_gaps(
    connection: Connection,
    source_id: str,
    since: datetime,
    until: datetime,
    stamps: Iterable[datetime],
    waiting: Sequence[UsageRecord],
    now: datetime,
) -> int:
    """Mark the source's gaps within [since, until] that history now covers; return how many.

    `waiting` are the records that could not be corrected yet.
    """
    return connection.execute(
        RESOLVE_GAPS,
        {
            "source_id": source_id,
            "since": since,
            "until": until,
            "stamps": arrays.moments(stamps),
            "waiting_from": arrays.moments(record.from_at for record in waiting),
            "waiting_to": arrays.moments(record.to_at for record in waiting),
            "now": now,
        },
    ).rowcount


def read_account_debts(connection: Connection, stored_node_id: str) -> dict[str, Debt]:
    """Return what the accounts of a node used beyond their plausibility credit."""
    rows = connection.execute(
        READ_ACCOUNT_DEBTS, {"stored_node_ids": arrays.texts([stored_node_id])}
    )
    return {account: Debt(debt_bytes, as_of) for _, account, debt_bytes, as_of in rows}


def write_debts(
    connection: Connection,
    source_id: str,
    stored_node_id: str,
    accounts: Mapping[str, Debt],
    node: Debt | None,
) -> None:
    """Store the debts that changed, of accounts on a node and of the node itself."""
    if accounts:
        debts = rows_as_json(
            {
                "stored_node_id": stored_node_id,
                "account_key": account,
                "debt_bytes": debt.size_bytes,
                "as_of": debt.at,
            }
            for account, debt in accounts.items()
        )
        connection.execute(UPSERT_ACCOUNT_DEBTS, {"debts": debts})
    if node is not None:
        connection.execute(
            UPDATE_NODE_DEBT,
            {"source_id": source_id, "debt_bytes": node.size_bytes, "debt_at": node.at},
        )
