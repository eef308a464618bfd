"""Held deltas in the database: read for people, locked and decided by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.database import arrays
from billing_cli.features.held.result import HeldDelta, UncertainGap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import HeldReason, StreamState
    from billing_cli.features.held.result import HeldState

HELD_DELTAS = """
SELECT held.held_id, held.stream_id, source.source_id, stream.stored_node_id,
       stream.account_uuid::text, held.held_reason, held.found_at, held.state, held.decided_at,
       held.reason,
       stream.inbound_tag, stream.sample_uuid::text, held.bucket_start, held.reset_epoch,
       held.from_at, held.to_at,
       held.uplink_start, held.downlink_start, held.uplink_end, held.downlink_end
  FROM billing.held_deltas AS held
  JOIN billing.streams AS stream USING (stream_id)
  LEFT JOIN (SELECT source_id, unnest(array_append(former_nodes, stored_node_id)) AS stored_node_id
               FROM billing.sources) AS source
 USING (stored_node_id)
"""

# A NULL in place of an array asks for all.
READ_HELD_DELTAS = (
    HELD_DELTAS
    + """
 WHERE (%(stored_node_ids)s::text[] IS NULL
        OR stream.stored_node_id = ANY (%(stored_node_ids)s::text[]))
   AND (%(is_decided_shown)s OR held.state = 'held')
 ORDER BY held.bucket_start, held.held_id
"""
)

# A duplicate stream is decided as a whole.
NAMED = """
 WHERE held.held_id = ANY (%(held_ids)s::bigint[])
    OR held.held_reason = 'duplicate' AND held.state = 'held'
       AND held.stream_id IN (SELECT stream_id FROM billing.held_deltas
                               WHERE held_id = ANY (%(held_ids)s::bigint[])
                                 AND held_reason = 'duplicate')
 ORDER BY held.held_id
"""

READ_NAMED_HELD_DELTAS = HELD_DELTAS + NAMED

# Whoever decides the same deltas at the same moment waits here, and then sees what was decided.
LOCK_HELD_DELTAS = HELD_DELTAS + NAMED + " FOR NO KEY UPDATE OF held"

# What waits for a decision and was seen on the nodes in [since, until); a duplicate stream's bytes
# of several minutes are one row, which is there with its first and its last minute.
READ_HELD_IDS = """
SELECT held.held_id
  FROM billing.held_deltas AS held
  JOIN billing.streams AS stream USING (stream_id)
 WHERE stream.stored_node_id = ANY (%(stored_node_ids)s::text[]) AND held.state = 'held'
   AND held.to_at >= %(since)s
   AND (%(until)s::timestamptz IS NULL OR held.bucket_start < %(until)s)
 ORDER BY held.held_id
"""

DECIDE_DUPLICATES = """
UPDATE billing.streams
   SET state = %(stream_state)s
 WHERE stream_id = ANY (%(stream_ids)s::bigint[]) AND state = 'duplicate'
"""

# What was not charged, because another reading of the snapshots charges less.
READ_UNCERTAIN_GAPS = """
SELECT gap.source_id, gap.kind, gap.from_at, gap.to_at, gap.streams, gap.uncertain_bytes
  FROM billing.gaps AS gap
  LEFT JOIN billing.sources AS source USING (source_id)
 WHERE gap.kind IN ('disorder', 'uncertain') AND gap.resolved_at IS NULL
   AND gap.uncertain_bytes > 0
   AND (%(stored_node_ids)s::text[] IS NULL
        OR source.stored_node_id = ANY (%(stored_node_ids)s::text[]))
 ORDER BY gap.from_at, gap.source_id, gap.kind
"""

DECIDE_HELD_DELTAS = """
UPDATE billing.held_deltas
   SET state = %(state)s, decided_at = %(decided_at)s, reason = %(reason)s
 WHERE held_id = ANY (%(held_ids)s::bigint[]) AND state = 'held'
"""

# Bytes of a life that was no restart, of which later growth is a part. They were never charged, so
# that growth has to be. A surplus goes with its counter to other names and node ids, which may
# come back; of the streams that it can have reached, the one with the most is cut.
CUT_SURPLUS = """
WITH RECURSIVE reached AS (
  SELECT held.held_id, held.stream_id, revoked.at
    FROM billing.held_deltas AS held
    JOIN billing.streams AS own USING (stream_id, reset_epoch)
    JOIN billing.succession_streams AS part USING (stream_id)
    JOIN billing.successions AS revoked USING (succession_id)
   WHERE held.held_id = ANY (%(held_ids)s::bigint[])
     AND revoked.kind = 'restart_revoked' AND revoked.at >= held.to_at
   UNION
  SELECT reached.held_id, heir.stream_id, renamed.at
    FROM reached
    JOIN billing.succession_streams AS ended USING (stream_id)
    JOIN billing.successions AS renamed USING (succession_id)
    JOIN billing.succession_streams AS heir USING (succession_id)
   WHERE renamed.kind = 'renamed' AND renamed.at >= reached.at
     AND ended.side = 'ended' AND heir.side = 'continued'
), bearer AS (
  SELECT DISTINCT ON (reached.held_id) reached.held_id, stream.stream_id
    FROM reached
    JOIN billing.streams AS stream USING (stream_id)
   WHERE stream.surplus_uplink IS NOT NULL
   ORDER BY reached.held_id, stream.surplus_uplink + stream.surplus_downlink::numeric DESC,
         stream.stream_id
), rejected AS (
  SELECT bearer.stream_id, sum(held.uplink_end - held.uplink_start) AS uplink,
         sum(held.downlink_end - held.downlink_start) AS downlink
    FROM bearer
    JOIN billing.held_deltas AS held USING (held_id)
   GROUP BY bearer.stream_id
)
UPDATE billing.streams AS stream
   SET surplus_uplink = greatest(stream.surplus_uplink - rejected.uplink, 0)::bigint,
       surplus_downlink = greatest(stream.surplus_downlink - rejected.downlink, 0)::bigint
  FROM rejected
 WHERE stream.stream_id = rejected.stream_id
"""


def read_held_deltas(
    connection: Connection, stored_node_ids: Iterable[str] | None, *, is_decided_shown: bool
) -> list[HeldDelta]:
    """Return the held deltas of the nodes (None: of all), oldest first; decided ones on demand."""
    rows = connection.execute(
        READ_HELD_DELTAS,
        {
            "stored_node_ids": None if stored_node_ids is None else arrays.texts(stored_node_ids),
            "is_decided_shown": is_decided_shown,
        },
    )
    return [_held_delta(*row) for row in rows]


def read_held_ids(
    connection: Connection,
    stored_node_ids: Iterable[str],
    since: datetime,
    until: datetime | None,
) -> list[int]:
    """Return the ids of what waits for a decision and was seen on the nodes in [since, until)."""
    nodes = arrays.texts(stored_node_ids)
    rows = connection.execute(
        READ_HELD_IDS, {"stored_node_ids": nodes, "since": since, "until": until}
    )
    return [held_id for (held_id,) in rows]


def read_uncertain_gaps(
    connection: Connection, stored_node_ids: Iterable[str] | None
) -> list[UncertainGap]:
    """Return the open gaps of the nodes (None: of all) that state uncertain bytes, oldest first."""
    rows = connection.execute(
        READ_UNCERTAIN_GAPS,
        {"stored_node_ids": None if stored_node_ids is None else arrays.texts(stored_node_ids)},
    )
    return [UncertainGap(*row) for row in rows]


def read_named_held_deltas(connection: Connection, held_ids: Iterable[int]) -> list[HeldDelta]:
    """Return the named held deltas that exist, and what else waits of their duplicate streams."""
    rows = connection.execute(READ_NAMED_HELD_DELTAS, {"held_ids": arrays.plain(held_ids)})
    return [_held_delta(*row) for row in rows]


def lock_held_deltas(connection: Connection, held_ids: Iterable[int]) -> list[HeldDelta]:
    """Lock what `read_named_held_deltas` returns until the transaction ends; return it."""
    rows = connection.execute(LOCK_HELD_DELTAS, {"held_ids": arrays.plain(held_ids)})
    return [_held_delta(*row) for row in rows]


def decide_held_deltas(
    connection: Connection,
    held_ids: Sequence[int],
    state: HeldState,
    decided_at: datetime,
    reason: str,
) -> int:
    """Decide those of the deltas that are not decided yet; return how many these were."""
    return connection.execute(
        DECIDE_HELD_DELTAS,
        {
            "held_ids": arrays.plain(held_ids),
            "state": state,
            "decided_at": decided_at,
            "reason": reason,
        },
    ).rowcount


def cut_surplus(connection: Connection, held_ids: Iterable[int]) -> None:
    """Take rejected deltas out of what later growth of their streams is not charged for."""
    connection.execute(CUT_SURPLUS, {"held_ids": arrays.plain(held_ids)})


def decide_duplicates(
    connection: Connection, stream_ids: Iterable[int], stream_state: StreamState
) -> None:
    """Set the state of those of the streams that are duplicates."""
    connection.execute(
        DECIDE_DUPLICATES,
        {"stream_ids": arrays.plain(stream_ids), "stream_state": stream_state},
    )


def _held_delta(
    held_id: int,
    stream_id: int,
    source_id: str | None,
    stored_node_id: str,
    account_uuid: str | None,
    held_reason: HeldReason,
    found_at: datetime,
    state: HeldState,
    decided_at: datetime | None,
    reason: str,
    inbound_tag: str,
    sample_uuid: str,
    bucket_start: datetime,
    reset_epoch: int,
    from_at: datetime,
    to_at: datetime,
    *totals: int,
) -> HeldDelta:
    record = UsageRecord(
        StreamName(inbound_tag, sample_uuid),
        bucket_start,
        reset_epoch,
        from_at,
        to_at,
        Totals(*totals[:2]),
        Totals(*totals[2:]),
    )
    return HeldDelta(
        held_id,
        stream_id,
        source_id,
        stored_node_id,
        account_uuid,
        record,
        found_at,
        state,
        decided_at,
        reason,
        held_reason,
    )
