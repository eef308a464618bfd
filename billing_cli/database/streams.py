"""Streams that change in the database: checkpoints, owners, and usage that has to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName
from billing_cli.database import arrays
from billing_cli.database.parameters import Columns, checkpoint_columns, usage_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Checkpoint, StreamOrigin, UsageRecord

# An account is known by its own uuid, else by its proxy uuid, unless two accounts share that.
RESOLVE_ACCOUNTS = """
SELECT wanted.sample_uuid::text,
       coalesce(own.uuid, proxy.uuid)::text
  FROM unnest(%(sample_uuids)s::uuid[]) AS wanted (sample_uuid)
  LEFT JOIN public.users AS own ON own.uuid = wanted.sample_uuid
  LEFT JOIN (SELECT proxy_uuid, min(uuid::text)::uuid AS uuid
               FROM public.users
              WHERE proxy_uuid = ANY (%(sample_uuids)s::uuid[])
              GROUP BY proxy_uuid
             HAVING count(*) = 1) AS proxy
    ON proxy.proxy_uuid = wanted.sample_uuid
 WHERE coalesce(own.uuid, proxy.uuid) IS NOT NULL
"""

ADD_STREAMS = """
INSERT INTO billing.streams
       (stored_node_id, inbound_tag, sample_uuid, account_uuid, first_sight, first_seen_at,
        first_uplink_total, first_downlink_total,
        seen_at, uplink_total, downlink_total, reset_epoch, absent_since)
SELECT * FROM unnest(%(stored_node_ids)s::text[], %(inbound_tags)s::text[],
              %(sample_uuids)s::uuid[], %(account_uuids)s::uuid[], %(first_sights)s::text[],
              %(first_seen_ats)s::timestamptz[], %(first_uplinks)s::bigint[],
              %(first_downlinks)s::bigint[], %(seen_ats)s::timestamptz[],
              %(uplinks)s::bigint[], %(downlinks)s::bigint[], %(epochs)s::integer[],
              %(absents)s::timestamptz[])
RETURNING stream_id, stored_node_id, inbound_tag, sample_uuid::text
"""

# No index holds a column that changes here, so that PostgreSQL can update in place (HOT).
UPDATE_STREAMS = """
UPDATE billing.streams AS stream
   SET seen_at = given.seen_at, uplink_total = given.uplink_total,
       downlink_total = given.downlink_total, reset_epoch = given.reset_epoch,
       absent_since = given.absent_since
  FROM (SELECT unnest(%(stream_ids)s::bigint[]) AS stream_id,
               unnest(%(seen_ats)s::timestamptz[]) AS seen_at,
               unnest(%(uplinks)s::bigint[]) AS uplink_total,
               unnest(%(downlinks)s::bigint[]) AS downlink_total,
               unnest(%(epochs)s::integer[]) AS reset_epoch,
               unnest(%(absents)s::timestamptz[]) AS absent_since) AS given
 WHERE stream.stream_id = given.stream_id
"""

# Once resolved, a stream stays with its account when the proxy uuid is renewed.
ASSIGN_STREAMS = """
UPDATE billing.streams AS stream
   SET account_uuid = given.account_uuid
  FROM unnest(%(stream_ids)s::bigint[], %(account_uuids)s::uuid[])
    AS given (stream_id, account_uuid)
 WHERE stream.stream_id = given.stream_id
"""

SAVE_PENDING_USAGE = """
INSERT INTO billing.pending_usage AS pending
       (stream_id, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end)
SELECT * FROM unnest(%(stream_ids)s::bigint[], %(froms)s::timestamptz[], %(tos)s::timestamptz[],
              %(epochs)s::integer[], %(uplink_starts)s::bigint[], %(uplink_ends)s::bigint[],
              %(downlink_starts)s::bigint[], %(downlink_ends)s::bigint[])
    ON CONFLICT (stream_id, from_at) DO UPDATE
   SET to_at = excluded.to_at, uplink_end = excluded.uplink_end,
       downlink_end = excluded.downlink_end
 WHERE pending.billed_at IS NULL
"""

MARK_PENDING_BILLED = """
UPDATE billing.pending_usage
   SET billed_at = %(now)s
 WHERE stream_id = ANY (%(stream_ids)s::bigint[]) AND billed_at IS NULL
"""

SAVE_HELD_DELTAS = """
INSERT INTO billing.held_deltas
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end)
SELECT * FROM unnest(%(stream_ids)s::bigint[], %(buckets)s::timestamptz[],
              %(froms)s::timestamptz[], %(tos)s::timestamptz[], %(epochs)s::integer[],
              %(uplink_starts)s::bigint[], %(uplink_ends)s::bigint[],
              %(downlink_starts)s::bigint[], %(downlink_ends)s::bigint[])
    ON CONFLICT (stream_id, from_at) DO NOTHING
"""


def resolve_accounts(connection: Connection, sample_uuids: Iterable[str]) -> dict[str, str]:
    """Return the account of each sample uuid that has one: by users.uuid, else proxy_uuid."""
    wanted = sorted(set(sample_uuids))
    if not wanted:
        return {}
    rows = connection.execute(RESOLVE_ACCOUNTS, {"sample_uuids": arrays.uuids(wanted)})
    return dict(rows.fetchall())


def add_streams(
    connection: Connection,
    streams: Sequence[tuple[str, StreamName, str | None, StreamOrigin, Checkpoint, Checkpoint]],
    watermarks: Mapping[str, datetime],
) -> dict[tuple[str, StreamName], int]:
    """Add (node, name, account, first sight, first checkpoint, checkpoint) rows; return ids."""
    if not streams:
        return {}
    rows = connection.execute(
        ADD_STREAMS,
        {
            "stored_node_ids": arrays.texts(one[0] for one in streams),
            "inbound_tags": arrays.texts(one[1].inbound_tag for one in streams),
            "sample_uuids": arrays.uuids([one[1].sample_uuid for one in streams]),
            "account_uuids": arrays.optional([one[2] for one in streams]),
            "first_sights": arrays.texts(one[3] for one in streams),
            "first_seen_ats": arrays.moments(one[4].seen_at for one in streams),
            "first_uplinks": arrays.bigints([one[4].totals.uplink for one in streams]),
            "first_downlinks": arrays.bigints([one[4].totals.downlink for one in streams]),
            **_progress_columns(
                [one[0] for one in streams], [one[5] for one in streams], watermarks
            ),
        },
    )
    return {
        (node, StreamName(inbound_tag, sample_uuid)): stream_id
        for stream_id, node, inbound_tag, sample_uuid in rows
    }


def update_streams(
    connection: Connection,
    streams: Sequence[tuple[int, str, Checkpoint]],
    watermarks: Mapping[str, datetime],
) -> None:
    """Bring (stream id, node, checkpoint) streams up to date."""
    if not streams:
        return
    stream_ids, nodes, checkpoints = zip(*streams, strict=True)
    connection.execute(
        UPDATE_STREAMS,
        {
            "stream_ids": arrays.bigints(stream_ids),
            **_progress_columns(nodes, checkpoints, watermarks),
        },
    )


def assign_streams(connection: Connection, owners: Sequence[tuple[int, str]]) -> None:
    """Give (stream id, account uuid) streams to their accounts, for good."""
    if not owners:
        return
    connection.execute(
        ASSIGN_STREAMS,
        {
            "stream_ids": arrays.bigints([stream_id for stream_id, _ in owners]),
            "account_uuids": arrays.uuids([account_uuid for _, account_uuid in owners]),
        },
    )


def save_pending(connection: Connection, usage: Sequence[tuple[int, UsageRecord]]) -> None:
    """Keep (stream id, record) usage that has no account yet."""
    if usage:
        connection.execute(SAVE_PENDING_USAGE, usage_columns(*zip(*usage, strict=True)))


def mark_pending_billed(connection: Connection, stream_ids: Sequence[int], now: datetime) -> None:
    """Mark the streams' pending usage as billed."""
    if stream_ids:
        connection.execute(
            MARK_PENDING_BILLED, {"stream_ids": arrays.bigints(stream_ids), "now": now}
        )


def save_held(connection: Connection, held: Sequence[tuple[int, UsageRecord]]) -> None:
    """Keep (stream id, record) deltas that no line can carry."""
    if held:
        connection.execute(SAVE_HELD_DELTAS, usage_columns(*zip(*held, strict=True)))


def _progress_columns(
    nodes: Iterable[str], checkpoints: Sequence[Checkpoint], watermarks: Mapping[str, datetime]
) -> Columns:
    """`absent_since` is where a stream was last seen, if that is not its node's watermark."""
    return {
        **checkpoint_columns(checkpoints),
        "absents": arrays.moments(
            [
                None if one.seen_at == watermarks[node] else one.seen_at
                for node, one in zip(nodes, checkpoints, strict=True)
            ]
        ),
    }
