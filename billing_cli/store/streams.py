"""Streams in the database: checkpoints, owners, and usage that waits for its account."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from struct import unpack
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.makers import maker
from billing_cli.core.model import Checkpoint, StreamName, Totals, UsageRecord
from billing_cli.core.times import minute_of
from billing_cli.core.uuids import uuid_texts
from billing_cli.store import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import FirstSight

# When any stream of a node was seen last: where nothing else tells, this is how far the node has
# been applied.
READ_LAST_SEEN = """
SELECT stored_node_id, max(coalesce(absent_since, seen_at))
  FROM billing.streams
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[])
 GROUP BY stored_node_id
"""

# Streams by node and tag as a few long columns: packed, numbers and uuids take a fifth of the time
# of rows on their way. Most accounts are known by their own uuid, which is then not told twice.
PACKED_COLUMNS = """
       stored_node_id, inbound_tag,
       string_agg(int8send(stream_id), '') AS stream_ids,
       string_agg(uuid_send(sample_uuid), '') AS sample_uuids,
       string_agg(boolsend(account_uuid IS NOT DISTINCT FROM sample_uuid), '') AS are_own,
       array_agg(account_uuid::text) FILTER (WHERE account_uuid IS DISTINCT FROM sample_uuid)
         AS account_uuids,
       string_agg(int8send(uplink_total), '') AS uplink_totals,
       string_agg(int8send(downlink_total), '') AS downlink_totals,
       string_agg(int4send(reset_epoch), '') AS reset_epochs
"""

# Those that the last snapshot of each node held. Idle ones are read, never written.
READ_PRESENT_STREAMS = f"""
SELECT {PACKED_COLUMNS}, NULL::timestamptz[] AS seen_ats
  FROM billing.streams
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[]) AND absent_since IS NULL
 GROUP BY stored_node_id, inbound_tag
"""

# Those asked for by name, because a new snapshot holds them: they had vanished.
READ_NAMED_STREAMS = f"""
SELECT {PACKED_COLUMNS}, array_agg(coalesce(absent_since, seen_at)) AS seen_ats
  FROM billing.streams
  JOIN unnest(%(stored_node_ids)s::text[], %(inbound_tags)s::text[], %(sample_uuids)s::uuid[])
    AS named (stored_node_id, inbound_tag, sample_uuid)
 USING (stored_node_id, inbound_tag, sample_uuid)
 GROUP BY stored_node_id, inbound_tag
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


Changes = dict[str, arrays.BinaryArray]

_sample_uuid_of = attrgetter("sample_uuid")
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


def read_last_seen(connection: Connection, nodes: Collection[str]) -> dict[str, datetime]:
    """Return when the nodes were seen last, by stored node id, as far as they ever were."""
    if not nodes:
        return {}
    rows = connection.execute(READ_LAST_SEEN, {"stored_node_ids": arrays.texts(nodes)})
    return dict(rows.fetchall())


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
    present = connection.execute(READ_PRESENT_STREAMS, known, binary=True)
    _add_streams(nodes, watermarks, told, present)
    unknown = [
        (node, name) for node in watermarks for name in told[node] if name not in nodes[node].rows
    ]
    if unknown:
        wanted = {
            "stored_node_ids": arrays.texts(node for node, _ in unknown),
            "inbound_tags": arrays.texts(name.inbound_tag for _, name in unknown),
            "sample_uuids": arrays.uuids([name.sample_uuid for _, name in unknown]),
        }
        named = connection.execute(READ_NAMED_STREAMS, wanted, binary=True)
        _add_streams(nodes, watermarks, told, named)
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


def changes_of(
    streams: Sequence[tuple[int, str, Checkpoint]], watermarks: Mapping[str, datetime]
) -> Changes:
    """Return (stream id, node, checkpoint) rows as columns; none where there are no rows."""
    if not streams:
        return {}
    stream_ids, nodes, checkpoints = zip(*streams, strict=True)
    return {
        "stream_ids": arrays.bigints(stream_ids),
        **_checkpoint_columns(nodes, checkpoints, watermarks),
    }


def update_streams(connection: Connection, changes: Changes) -> None:
    """Bring streams up to date."""
    if changes:
        connection.execute(UPDATE_STREAMS, changes)


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


def _add_streams(
    nodes: Mapping[str, NodeStreams],
    watermarks: Mapping[str, datetime],
    told: Mapping[str, Mapping[StreamName, Totals]],
    packed: Iterable[tuple[Any, ...]],
) -> None:
    """Add the streams of packed rows. What a snapshot tells already is kept once."""
    known: dict[str, dict[Any, tuple[StreamName, Totals]]] = {}
    for node, tag, ids, uuids, are_own, accounts, uplinks, downlinks, epochs, seen_ats in packed:
        if node not in known:
            # A name is a tuple, and is found by an equal one.
            known[node] = dict(zip(told[node], told[node].items(), strict=True))
        sample_uuids = uuid_texts(uuids)
        pairs = zip(repeat(tag), sample_uuids, strict=False)
        found: list[Any] = list(map(known[node].get, pairs))
        if None in found:
            found = [
                one or (StreamName(tag, intern(sample_uuid)), None)
                for one, sample_uuid in zip(found, sample_uuids, strict=True)
            ]
        names, totals = map(list, zip(*found, strict=True))
        owners: list[Any] = list(map(_sample_uuid_of, names))
        if accounts:
            others = iter(accounts)
            owners = [
                owner if is_own else (account := next(others)) and intern(account)
                for owner, is_own in zip(owners, are_own, strict=True)
            ]
        count = len(names)
        stored = list(zip(_bigints(count, uplinks), _bigints(count, downlinks), strict=True))
        if totals != stored:
            totals = [
                one if one == own else _totals(own) for one, own in zip(totals, stored, strict=True)
            ]
        if seen_ats is None:
            seen_ats = repeat(watermarks[node], count)  # noqa: PLW2901 - the same for each
        else:
            nodes[node].absent.update(names)
        rows = map(_stream_row, zip(_bigints(count, ids), owners, strict=True))
        epochs = unpack(f">{count}i", epochs)  # noqa: PLW2901 - packed so far
        checkpoints = map(_checkpoint, zip(seen_ats, totals, epochs, strict=True))
        nodes[node].rows.update(zip(names, rows, strict=True))
        nodes[node].checkpoints.update(zip(names, checkpoints, strict=True))


def _bigints(count: int, packed: bytes) -> tuple[int, ...]:
    return unpack(f">{count}q", packed)
