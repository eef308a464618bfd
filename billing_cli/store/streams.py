"""Streams in the database: checkpoints, owners, and usage that waits for its account."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.makers import maker
from billing_cli.core.model import Checkpoint, StreamName, Totals, UsageRecord
from billing_cli.core.times import minute_of
from billing_cli.store import arrays
from billing_cli.store.batches import in_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import FirstSight

# The streams that the last snapshot of each node held. Idle ones are read, never written. Most
# accounts are known by their own uuid, which is then not told twice.
READ_PRESENT_STREAMS = """
SELECT stream_id, stored_node_id, inbound_tag, sample_uuid::text,
       CASE account_uuid WHEN sample_uuid THEN 'sample' ELSE account_uuid::text END,
       uplink_total, downlink_total, reset_epoch, absent_since
  FROM billing.streams
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[]) AND absent_since IS NULL
"""

# Streams asked for by name, because a new snapshot holds them: those that had vanished, and those
# of a node that its source has not spoken for lately. The last column is when they were seen.
READ_NAMED_STREAMS = """
SELECT stream_id, stored_node_id, inbound_tag, sample_uuid::text, account_uuid::text,
       uplink_total, downlink_total, reset_epoch, coalesce(absent_since, seen_at)
  FROM billing.streams
  JOIN unnest(%(stored_node_ids)s::text[], %(inbound_tags)s::text[], %(sample_uuids)s::uuid[])
    AS named (stored_node_id, inbound_tag, sample_uuid)
 USING (stored_node_id, inbound_tag, sample_uuid)
"""

# What flowed on the nodes' streams while nobody knew whose they were.
READ_PENDING_USAGE = """
SELECT stream.stored_node_id, stream.inbound_tag, stream.sample_uuid::text, stream.stream_id,
       stream.account_uuid::text,
       pending.from_at, pending.to_at, pending.reset_epoch,
       pending.uplink_start, pending.uplink_end, pending.downlink_start, pending.downlink_end
  FROM billing.pending_usage AS pending
  JOIN billing.streams AS stream USING (stream_id)
 WHERE pending.billed_at IS NULL AND stream.stored_node_id = ANY (%(stored_node_ids)s::text[])
 ORDER BY pending.stream_id, pending.from_at
"""

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


class StreamRow(NamedTuple):
    """A stream's database identity. `account_uuid` is None while nobody knows whose it is."""

    stream_id: int
    account_uuid: str | None


_checkpoint = maker(Checkpoint)
_stream_row = maker(StreamRow)
_totals = maker(Totals)


@dataclass(frozen=True, slots=True)
class NodeStreams:
    """The known streams of one node: database rows, checkpoints, and pending usage by name.

    `absent` are those of them that the last snapshot did not hold.
    """

    rows: dict[StreamName, StreamRow]
    checkpoints: dict[StreamName, Checkpoint]
    pending: dict[StreamName, list[UsageRecord]]
    absent: set[StreamName]


def read_streams(
    connection: Connection,
    watermarks: Mapping[str, datetime],
    told: Mapping[str, Mapping[StreamName, Totals]],
) -> dict[str, NodeStreams]:
    """Return each node's streams by stored node id.

    `watermarks` are the nodes' watermarks: what was present there was seen there. `told` is what
    new snapshots hold of streams; those that had vanished before are read by name. Names and
    totals that are the same there and in the database are kept once.
    """
    nodes = {node: NodeStreams({}, {}, {}, set()) for node in told}
    if not watermarks:
        return nodes
    known = {"stored_node_ids": arrays.texts(watermarks)}
    _add_rows(nodes, watermarks, told, in_batches(connection, READ_PRESENT_STREAMS, known))
    unknown = [
        (node, name) for node in watermarks for name in told[node] if name not in nodes[node].rows
    ]
    if unknown:
        wanted = {
            "stored_node_ids": arrays.texts(node for node, _ in unknown),
            "inbound_tags": arrays.texts(name.inbound_tag for _, name in unknown),
            "sample_uuids": arrays.uuids([name.sample_uuid for _, name in unknown]),
        }
        _add_rows(nodes, watermarks, told, in_batches(connection, READ_NAMED_STREAMS, wanted))
    known = {"stored_node_ids": arrays.texts(nodes)}
    for row in connection.execute(READ_PENDING_USAGE, known):
        node, inbound_tag, sample_uuid, stream_id, account_uuid = row[:5]
        from_at, to_at, epoch, up_start, up_end, down_start, down_end = row[5:]
        name = StreamName(inbound_tag, sample_uuid)
        nodes[node].rows.setdefault(name, StreamRow(stream_id, account_uuid))
        nodes[node].pending.setdefault(name, []).append(
            UsageRecord(
                name,
                minute_of(to_at),
                epoch,
                from_at,
                to_at,
                Totals(up_start, down_start),
                Totals(up_end, down_end),
            )
        )
    return nodes


def resolve_accounts(connection: Connection, sample_uuids: Iterable[str]) -> dict[str, str]:
    """Return the account of each sample uuid that has one: by users.uuid, else proxy_uuid."""
    wanted = sorted(set(sample_uuids))
    if not wanted:
        return {}
    rows = connection.execute(RESOLVE_ACCOUNTS, {"sample_uuids": arrays.uuids(wanted)})
    return dict(rows.fetchall())


def add_streams(
    connection: Connection,
    streams: Sequence[tuple[str, StreamName, str | None, FirstSight, Checkpoint, Checkpoint]],
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
            **_checkpoint_columns(
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
    """Bring (stream id, node, checkpoint) rows up to date."""
    if not streams:
        return
    stream_ids, nodes, checkpoints = zip(*streams, strict=True)
    connection.execute(
        UPDATE_STREAMS,
        {
            "stream_ids": arrays.bigints(stream_ids),
            **_checkpoint_columns(nodes, checkpoints, watermarks),
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


def usage_columns(
    stream_ids: Sequence[int], records: Sequence[UsageRecord]
) -> dict[str, arrays.BinaryArray]:
    """Return the columns of records as arrays, by the parameter names of the statements here.

    There is at least one record.
    """
    _, buckets, epochs, froms, tos, starts, ends = zip(*records, strict=True)
    uplink_starts, downlink_starts = zip(*starts, strict=True)
    uplink_ends, downlink_ends = zip(*ends, strict=True)
    return {
        "stream_ids": arrays.bigints(stream_ids),
        "buckets": arrays.moments(buckets),
        "froms": arrays.moments(froms),
        "tos": arrays.moments(tos),
        "epochs": arrays.integers(epochs),
        "uplink_starts": arrays.bigints(uplink_starts),
        "uplink_ends": arrays.bigints(uplink_ends),
        "downlink_starts": arrays.bigints(downlink_starts),
        "downlink_ends": arrays.bigints(downlink_ends),
    }


def _checkpoint_columns(
    nodes: Iterable[str], checkpoints: Sequence[Checkpoint], watermarks: Mapping[str, datetime]
) -> dict[str, arrays.BinaryArray]:
    """`absent_since` is where a stream was last seen, if that is not its node's watermark."""
    seen_ats, totals, epochs = zip(*checkpoints, strict=True)
    uplinks, downlinks = zip(*totals, strict=True)
    return {
        "seen_ats": arrays.moments(seen_ats),
        "uplinks": arrays.bigints(uplinks),
        "downlinks": arrays.bigints(downlinks),
        "epochs": arrays.integers(epochs),
        "absents": arrays.moments(
            [
                None if seen_at == watermarks[node] else seen_at
                for node, seen_at in zip(nodes, seen_ats, strict=True)
            ]
        ),
    }


def _add_rows(
    nodes: Mapping[str, NodeStreams],
    watermarks: Mapping[str, datetime],
    told: Mapping[str, Mapping[StreamName, Totals]],
    batches: Iterable[Sequence[tuple[Any, ...]]],
) -> None:
    """Add the streams of the rows. What a snapshot tells already is kept once."""
    known: dict[str, dict[tuple[str, str], StreamName]] = {
        node: {name: name for name in told[node]} for node in nodes
    }
    for batch in batches:
        # A node's rows mostly lie beside each other, so that whole columns can be worked on.
        for node, group in groupby(batch, itemgetter(1)):
            columns = zip(*group, strict=True)
            ids, _, tags, sample_uuids, accounts, uplinks, downlinks, epochs, seen_ats = columns
            # A name is a tuple, and is found by an equal one.
            named: list[Any] = list(map(known[node].get, zip(tags, sample_uuids, strict=True)))
            if None in named:
                pairs = zip(named, tags, sample_uuids, strict=True)
                named = [name or StreamName(tag, sample_uuid) for name, tag, sample_uuid in pairs]
            watermark = watermarks[node]
            owners = [
                sample_uuid if account == "sample" else account and intern(account)
                for (_, sample_uuid), account in zip(named, accounts, strict=True)
            ]
            stored = list(zip(uplinks, downlinks, strict=True))
            totals: list[Any] = list(map(told[node].get, named))
            if totals != stored:
                both = zip(totals, stored, strict=True)
                totals = [one if one == own else _totals(own) for one, own in both]
            nodes[node].absent.update(name for name, at in zip(named, seen_ats, strict=True) if at)
            seen = [seen_at or watermark for seen_at in seen_ats]
            stream_rows = map(_stream_row, zip(ids, owners, strict=True))
            checkpoints = map(_checkpoint, zip(seen, totals, epochs, strict=True))
            nodes[node].rows.update(zip(named, stream_rows, strict=True))
            nodes[node].checkpoints.update(zip(named, checkpoints, strict=True))
