"""An account's minutes as they are on record: counters, buckets, ledger, what is held back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.core.model import Totals
from billing_cli.core.succession import ZERO
from billing_cli.database import arrays
from billing_cli.database.minutes import further_back
from billing_cli.database.spans import KEPT_SINCE, SPANS
from billing_cli.features.explain.explanation import (
    BucketRow,
    Entry,
    ForeignEntry,
    HeldBack,
    LineExplanation,
    MinuteExplanation,
    Movement,
    SourceGap,
    TakenOver,
    with_standing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

# Records that are links of a stream's chain: they begin where the one before ended.
CHAIN_KINDS = ("delta", "pending")

READ_MOVEMENTS = """
SELECT record.bucket_start, stream.stored_node_id, stream.inbound_tag,
       stream.sample_uuid::text, record.kind, record.revision, record.reset_epoch,
       record.from_at, record.to_at,
       record.uplink_start, record.downlink_start, record.uplink_end, record.downlink_end,
       CASE stream.origin WHEN 'new' THEN 0 ELSE stream.first_uplink_total END,
       CASE stream.origin WHEN 'new' THEN 0 ELSE stream.first_downlink_total END,
       stream.origin, coalesce(held.reason, ''), coalesce(held.held_reason, ''),
       CASE record.kind WHEN 'correction'
            THEN coalesce((SELECT nullif(seal.job, '')
                             FROM billing.seals AS seal
                            WHERE seal.run_id = record.run_id AND seal.step = record.step),
                          (SELECT run.job FROM billing.runs AS run
                            WHERE run.run_id = record.run_id), '')
            ELSE '' END,
       stream.stream_id
  FROM billing.streams AS stream
 CROSS JOIN unnest(%(minutes)s::timestamptz[]) AS minute (at)
 CROSS JOIN LATERAL (
       SELECT *
         FROM billing.usage_records AS record
        WHERE record.bucket_start = minute.at AND record.stream_id = stream.stream_id
       OFFSET 0) AS record
  LEFT JOIN billing.held_deltas AS held
    ON record.kind = 'released' AND held.stream_id = record.stream_id
   AND held.from_at = record.from_at
 WHERE stream.account_uuid = %(account)s
 ORDER BY record.bucket_start, stream.stored_node_id, stream.inbound_tag, stream.sample_uuid,
          record.from_at, record.revision
"""

# A stream's former total before a link of its chain, from a record from `since` on, usage that
# waits for its account, a held delta, or the end of what was pruned.
READ_LINK_BEFORE = """
SELECT from_at, uplink_end, downlink_end
  FROM (SELECT reset_epoch, from_at, uplink_end, downlink_end
          FROM generate_series(%(since)s::timestamptz, %(minute)s, interval '1 minute')
            AS minute (at)
         CROSS JOIN LATERAL (
               SELECT *
                 FROM billing.usage_records AS earlier
                WHERE earlier.bucket_start = minute.at AND earlier.stream_id = %(stream_id)s
                  AND earlier.kind IN ('delta', 'pending') AND earlier.from_at < %(from_at)s
               OFFSET 0) AS record
         UNION ALL
        SELECT reset_epoch, from_at, uplink_end, downlink_end
          FROM billing.held_deltas
         WHERE stream_id = %(stream_id)s AND from_at < %(from_at)s
         UNION ALL
        SELECT reset_epoch, from_at, uplink_end, downlink_end
          FROM billing.pending_usage
         WHERE stream_id = %(stream_id)s AND from_at < %(from_at)s
         UNION ALL
        SELECT reset_epoch, from_at, uplink_end, downlink_end
          FROM billing.pruned_streams
         WHERE stream_id = %(stream_id)s AND from_at < %(from_at)s) AS link
 ORDER BY reset_epoch DESC, from_at DESC
 LIMIT 1
"""

# What the account's streams took over in the minutes, and from which counters.
READ_TAKEN_OVER = """
SELECT part.stream_id, succession.kind, succession.at, ended.names,
       part.uplink_total, part.downlink_total
  FROM billing.streams AS stream
  JOIN billing.succession_streams AS part USING (stream_id)
  JOIN billing.successions AS succession USING (succession_id)
 CROSS JOIN LATERAL (
       SELECT array_agg(concat_ws(' ', nullif(other.inbound_tag, ''), other.sample_uuid::text)
                        ORDER BY other.inbound_tag, other.sample_uuid) AS names
         FROM billing.succession_streams AS former
         JOIN billing.streams AS other USING (stream_id)
        WHERE former.succession_id = part.succession_id AND former.side = 'ended') AS ended
 WHERE stream.account_uuid = %(account)s AND part.side = 'continued'
   AND date_trunc('minute', succession.at) = ANY (%(minutes)s::timestamptz[])
 ORDER BY succession.at, part.succession_id
"""

READ_FIRST_MINUTE = f"SELECT min(first_minute) FROM ({SPANS}) AS span"

READ_HELD_BACK = """
SELECT held.bucket_start, stream.stored_node_id, stream.inbound_tag, stream.sample_uuid::text,
       held.reset_epoch, held.from_at, held.to_at, held.uplink_start, held.downlink_start,
       held.uplink_end, held.downlink_end, held.reason, held.state,
       held.held_reason
  FROM billing.held_deltas AS held
  JOIN billing.streams AS stream USING (stream_id)
 WHERE stream.account_uuid = %(account)s AND held.state <> 'released'
   AND held.bucket_start = ANY (%(minutes)s::timestamptz[])
 ORDER BY held.bucket_start, stream.stored_node_id, stream.inbound_tag, held.from_at
"""

# Figures of shared tables may be NULL where another service writes them.
READ_BUCKETS = """
SELECT bucket_start, node_id, line_code, region, coalesce(uplink_bytes, 0),
       coalesce(downlink_bytes, 0), coalesce(total_bytes, 0)
  FROM public.traffic_minute_buckets
 WHERE account_uuid = %(account)s AND bucket_start = ANY (%(minutes)s::timestamptz[])
 ORDER BY bucket_start, node_id, line_code, region
"""

READ_ENTRIES = """
SELECT charge.bucket_start, charge.stored_node_id, charge.line_code,
       charge.ledger_id::text, charge.entry_type, charge.adjusts::text, charge.region,
       charge.included_bytes, charge.rated_bytes, charge.price_per_byte, charge.multiplier,
       charge.amount_delta, charge.quota_before, charge.balance_before,
       charge.pricing_rule_version, charge.run_id::text, charge.reason, charge.created_at,
       EXISTS (SELECT FROM public.billing_ledger AS entry WHERE entry.id = charge.ledger_id)
  FROM billing.charges AS charge
 WHERE charge.account_uuid = %(account)s
   AND charge.bucket_start = ANY (%(minutes)s::timestamptz[])
 ORDER BY charge.bucket_start, charge.created_at, charge.ordinal
"""

# The ledger has no node: what others wrote is known by account and minute alone. Of pruned months
# it is not known any more who charged the traffic.
READ_FOREIGN_ENTRIES = f"""
SELECT bucket_start, id::text, entry_type, coalesce(rated_bytes, 0),
       coalesce(amount_delta::text::numeric, 0), created_at
  FROM public.billing_ledger AS entry
 WHERE account_uuid = %(account)s AND bucket_start = ANY (%(minutes)s::timestamptz[])
   AND (entry_type NOT IN ('traffic_charge', 'traffic_adjustment')
        OR bucket_start >= {KEPT_SINCE}
           AND NOT EXISTS (SELECT FROM billing.charges AS charge
                            WHERE charge.bucket_start = entry.bucket_start
                              AND charge.account_uuid = entry.account_uuid
                              AND charge.ledger_id = entry.id))
 ORDER BY bucket_start, created_at
"""

# Gaps of the nodes, also by their former ids, that overlap the minutes shown.
READ_GAPS = """
SELECT gap.source_id, gap.kind, gap.from_at, gap.to_at, gap.resolved_at, gap.resolution
  FROM billing.gaps AS gap
  JOIN billing.sources AS source USING (source_id)
 WHERE array_append(source.former_nodes, source.stored_node_id) && %(nodes)s::text[]
   AND gap.from_at < %(last)s::timestamptz + interval '1 minute'
   AND (gap.to_at IS NULL OR gap.to_at >= %(first)s::timestamptz)
 ORDER BY gap.from_at, gap.source_id, gap.kind
"""


def read_explanations(
    connection: Connection, account_uuid: str, minutes: Sequence[datetime]
) -> tuple[MinuteExplanation, ...]:
    """Return all that is on record for the account's minutes, in the order given."""
    wanted = {"account": account_uuid, "minutes": arrays.moments(minutes)}
    lines: defaultdict[tuple[datetime, str, str], _Line] = defaultdict(_Line)
    taken_over = _taken_over(connection, wanted)
    for minute, node, line, sample, kind, revision, *rest in connection.execute(
        READ_MOVEMENTS, wanted
    ).fetchall():
        epoch, from_at, to_at, *totals, first_sight, reason, held_reason, job, stream_id = rest
        start, end, first = Totals(*totals[:2]), Totals(*totals[2:4]), Totals(*totals[4:])
        is_first, before = epoch == 0 and start == first, None
        if epoch > 0 and start == ZERO and kind in CHAIN_KINDS:
            link = stream_id, minute, from_at
            before = _before(connection, account_uuid, *link)
            is_first, before = before is None, before or first
        lines[minute, node, line].movements.append(
            Movement(
                sample_uuid=sample,
                kind=kind,
                revision=revision,
                reset_epoch=epoch,
                from_at=from_at,
                to_at=to_at,
                start=start,
                end=end,
                before=before,
                first_sight=first_sight if is_first and kind in CHAIN_KINDS else None,
                reason=reason,
                taken_over=tuple(
                    taken for taken in taken_over[stream_id] if from_at < taken.at <= to_at
                )
                if kind in CHAIN_KINDS
                else (),
                held_reason=held_reason,
                job=job,
            )
        )
    for minute, node, line, sample, epoch, from_at, to_at, *row in connection.execute(
        READ_HELD_BACK, wanted
    ):
        *totals, reason, state, held_reason = row
        start, end = Totals(*totals[:2]), Totals(*totals[2:])
        movement = Movement(sample, "delta", 0, epoch, from_at, to_at, start, end, reason=reason)
        lines[minute, node, line].held.append(HeldBack(movement, state, held_reason))
    for minute, node, line, *rest in connection.execute(READ_BUCKETS, wanted):
        lines[minute, node, line].buckets.append(BucketRow(*rest))
    for minute, node, line, *rest in connection.execute(READ_ENTRIES, wanted):
        lines[minute, node, line].entries.append(Entry(*rest))
    foreign: defaultdict[datetime, list[ForeignEntry]] = defaultdict(list)
    for minute, *rest in connection.execute(READ_FOREIGN_ENTRIES, wanted):
        foreign[minute].append(ForeignEntry(*rest))
    by_minute: defaultdict[datetime, list[LineExplanation]] = defaultdict(list)
    for minute, node, line in sorted(lines):
        by_minute[minute].append(lines[minute, node, line].explanation(node, line))
    return tuple(
        MinuteExplanation(minute, tuple(by_minute[minute]), tuple(foreign[minute]))
        for minute in minutes
    )


def read_gaps(
    connection: Connection, stored_node_ids: Iterable[str], first: datetime, last: datetime
) -> tuple[SourceGap, ...]:
    """Return the nodes' gaps that overlap the minutes from the first to the last."""
    rows = connection.execute(
        READ_GAPS, {"nodes": arrays.texts(stored_node_ids), "first": first, "last": last}
    )
    return tuple(SourceGap(*row) for row in rows)


def _taken_over(
    connection: Connection, wanted: Mapping[str, object]
) -> defaultdict[int, list[TakenOver]]:
    """Return what streams took over in the minutes, by stream."""
    found: defaultdict[int, list[TakenOver]] = defaultdict(list)
    for stream_id, kind, at, names, *totals in connection.execute(READ_TAKEN_OVER, wanted):
        found[stream_id].append(TakenOver(kind, at, tuple(names or ()), Totals(*totals)))
    return found


def _before(
    connection: Connection,
    account_uuid: str,
    stream_id: int,
    minute: datetime,
    from_at: datetime,
) -> Totals | None:
    """Return the former total of a stream before a link; None for its first."""
    row = connection.execute(READ_FIRST_MINUTE, {"account": account_uuid}).fetchone()
    first = row[0] if row and row[0] else minute
    found = None
    for since in further_back(minute, first):
        found = connection.execute(
            READ_LINK_BEFORE,
            {"stream_id": stream_id, "minute": minute, "from_at": from_at, "since": since},
        ).fetchone()
        # Beyond the stretch there may be a record after what was found.
        if found is not None and found[0] >= since:
            break
    return Totals(*found[1:]) if found else None


@dataclass(slots=True)
class _Line:
    """What happened on a line, while its rows come in."""

    movements: list[Movement] = field(default_factory=list)
    held: list[HeldBack] = field(default_factory=list)
    buckets: list[BucketRow] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def explanation(self, stored_node_id: str, line_code: str) -> LineExplanation:
        return LineExplanation(
            stored_node_id,
            line_code,
            tuple(self.movements),
            tuple(self.held),
            tuple(self.buckets),
            with_standing(self.entries),
        )
