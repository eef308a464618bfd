"""Streams as the database knows them: who they are, their checkpoints, and what waits for them."""

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
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from psycopg import Connection

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


class StreamRow(NamedTuple):
    """A stream's database identity. `account_uuid` is None while nobody knows whose it is."""

    stream_id: int
    account_uuid: str | None


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
