"""Held deltas in the database: read for people, locked and decided by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.database import arrays
from billing_cli.features.held.result import HeldDelta

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.held.result import HeldState

HELD_DELTAS = """
SELECT held.held_id, held.stream_id, source.source_id, stream.stored_node_id,
       stream.account_uuid::text, held.found_at, held.state, held.decided_at, held.reason,
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
 ORDER BY held.held_id
"""
)

READ_NAMED_HELD_DELTAS = HELD_DELTAS + " WHERE held.held_id = ANY (%(held_ids)s::bigint[])"

# Whoever decides the same deltas at the same moment waits here, and then sees what was decided.
LOCK_HELD_DELTAS = (
    HELD_DELTAS
    + """
 WHERE held.held_id = ANY (%(held_ids)s::bigint[])
 ORDER BY held.held_id
   FOR NO KEY UPDATE OF held
"""
)

DECIDE_HELD_DELTAS = """
UPDATE billing.held_deltas
   SET state = %(state)s, decided_at = %(decided_at)s, reason = %(reason)s
 WHERE held_id = ANY (%(held_ids)s::bigint[]) AND state = 'held'
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


def read_named_held_deltas(connection: Connection, held_ids: Iterable[int]) -> list[HeldDelta]:
    """Return those of the named held deltas that exist, without waiting for anyone."""
    rows = connection.execute(READ_NAMED_HELD_DELTAS, {"held_ids": arrays.plain(held_ids)})
    return [_held_delta(*row) for row in rows]


def lock_held_deltas(connection: Connection, held_ids: Iterable[int]) -> list[HeldDelta]:
    """Lock the named held deltas until the transaction ends; return those that exist."""
    rows = connection.execute(LOCK_HELD_DELTAS, {"held_ids": arrays.plain(held_ids)})
    return [_held_delta(*row) for row in rows]


def decide_held_deltas(
    connection: Connection,
    held_ids: Sequence[int],
    state: HeldState,
    decided_at: datetime,
    reason: str,
) -> int:
    """Decide those of the deltas that nobody has decided yet; return how many these were."""
    return connection.execute(
        DECIDE_HELD_DELTAS,
        {
            "held_ids": arrays.plain(held_ids),
            "state": state,
            "decided_at": decided_at,
            "reason": reason,
        },
    ).rowcount


def _held_delta(
    held_id: int,
    stream_id: int,
    source_id: str | None,
    stored_node_id: str,
    account_uuid: str | None,
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
    )
