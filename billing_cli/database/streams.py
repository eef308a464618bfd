"""Streams as the database knows them, and their accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from billing_cli.core.model import Checkpoint, StreamName, StreamState, Totals
from billing_cli.core.plausibility import Debt
from billing_cli.database import arrays
from billing_cli.database.parameters import new_streams
from billing_cli.database.write_path import INSERT_STREAMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.database.facts import NewStream

# When any stream of a node was seen last: where nothing else says so, this is how far the node has
# been applied.
READ_LAST_SEEN = """
SELECT stored_node_id, max(coalesce(absent_since, seen_at))
  FROM billing.streams
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[])
 GROUP BY stored_node_id
"""

STREAM_COLUMNS = """
       stream.stored_node_id, stream.stream_id, stream.inbound_tag, stream.sample_uuid::text,
       stream.account_uuid::text, stream.uplink_total, stream.downlink_total, stream.reset_epoch,
       stream.absent_since, stream.before_uplink, stream.before_downlink, stream.state,
       stream.surplus_uplink, stream.surplus_downlink
"""

# Those that the last snapshot of each node held, and those whose restart can still be revoked. The
# condition is that of the index `streams_present`: streams that are gone are not read.
READ_STREAMS = f"""
SELECT {STREAM_COLUMNS}
  FROM billing.streams AS stream
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[])
   AND (absent_since IS NULL OR before_uplink IS NOT NULL)
"""

# Those asked for by name, because a new snapshot holds them: they had vanished.
READ_NAMED_STREAMS = f"""
SELECT {STREAM_COLUMNS}
  FROM billing.streams AS stream
  JOIN unnest(%(stored_node_ids)s::text[], %(inbound_tags)s::text[], %(sample_uuids)s::uuid[])
    AS named (stored_node_id, inbound_tag, sample_uuid)
 USING (stored_node_id, inbound_tag, sample_uuid)
"""

READ_ACCOUNT_DEBTS = """
SELECT stored_node_id, account_key, debt_bytes, as_of
  FROM billing.account_debts
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[]) AND debt_bytes > 0
"""

# The account of a sample uuid: the one that it identifies now, by its own uuid, else by its proxy
# uuid (unless two accounts share that); else the last one, unless it was deleted. Proxy uuids need
# not have an index, and before version 14 a scan compares each row with each element of an array:
# with 100,000 accounts and 20,000 uuids for 26 s, where a join takes 0.3.
RESOLVE_ACCOUNTS = """
SELECT wanted.sample_uuid::text, coalesce(own.uuid, proxy.uuid, last.uuid)::text
  FROM unnest(%(sample_uuids)s::uuid[], %(last_accounts)s::uuid[])
    AS wanted (sample_uuid, last_account)
  LEFT JOIN public.users AS own ON own.uuid = wanted.sample_uuid
  LEFT JOIN (SELECT proxy_uuid, min(uuid::text)::uuid AS uuid
               FROM public.users
              WHERE proxy_uuid IN (SELECT unnest(%(sample_uuids)s::uuid[]))
              GROUP BY proxy_uuid
             HAVING count(*) = 1) AS proxy
    ON proxy.proxy_uuid = wanted.sample_uuid
  LEFT JOIN public.users AS last ON last.uuid = wanted.last_account
 WHERE coalesce(own.uuid, proxy.uuid, last.uuid) IS NOT NULL
"""

# The last account of sample uuids that identify none any more, from other streams of the nodes. A
# join for the same reason.
READ_LAST_ACCOUNTS = """
SELECT DISTINCT ON (stream.sample_uuid) stream.sample_uuid::text, account.uuid::text
  FROM unnest(%(sample_uuids)s::uuid[]) AS wanted (sample_uuid)
  JOIN billing.streams AS stream USING (sample_uuid)
  JOIN public.users AS account ON account.uuid = stream.account_uuid
 WHERE stream.stored_node_id = ANY (%(stored_node_ids)s::text[])
 ORDER BY stream.sample_uuid, stream.absent_since DESC NULLS FIRST, stream.seen_at DESC
"""

# The text of a row would be one of its own.
STATES: dict[str, StreamState] = {state: state for state in get_args(StreamState)}

# As parameters, 100,000 new streams at once take 150 MB.
STREAMS_AT_ONCE = 5_000


class StreamRow(NamedTuple):
    """A stream's database identity. `account_uuid` is its last account, if it ever had one."""

    stream_id: int
    account_uuid: str | None


@dataclass(frozen=True, slots=True)
class NodeStreams:
    """The known streams of one node, and what its accounts used beyond their credit."""

    rows: dict[StreamName, StreamRow] = field(default_factory=dict)
    checkpoints: dict[StreamName, Checkpoint] = field(default_factory=dict)
    debts: dict[str, Debt] = field(default_factory=dict)

    def accounts_with(self, touched: Mapping[str, str]) -> dict[str, str]:
        """Return accounts by sample uuid: the touched ones, and further uuids of those accounts.

        A stream without traffic is known by its row alone, also where its account's others move.
        """
        accounts = set(touched.values())
        idle = {
            name.sample_uuid: row.account_uuid
            for name, row in self.rows.items()
            if name.sample_uuid not in touched and row.account_uuid in accounts
        }
        return {**idle, **touched}


def read_last_seen(connection: Connection, nodes: Collection[str]) -> dict[str, datetime]:
    """Return when the nodes were seen last, by stored node id, as far as they ever were."""
    if not nodes:
        return {}
    rows = connection.execute(READ_LAST_SEEN, {"stored_node_ids": arrays.texts(nodes)})
    return dict(rows.fetchall())


def read_streams(
    connection: Connection,
    present: Iterable[tuple[Any, ...]],
    debts: Iterable[tuple[Any, ...]],
    samples_at: Mapping[str, datetime | None],
    names: Mapping[str, Mapping[StreamName, StreamName]],
    totals: Mapping[str, Mapping[StreamName, Totals]],
) -> dict[str, NodeStreams]:
    """Return each node's streams by stored node id, from rows that were read under its lock.

    `samples_at` is when the present streams of the nodes were seen last. `names` are those in new
    snapshots; of streams that had vanished, these are read. `totals` are those of the snapshot at
    the watermark: the same values are kept once.
    """
    nodes = {node: NodeStreams() for node in samples_at}
    _add_streams(nodes, samples_at, names, totals, present)
    for node, account_key, debt_bytes, as_of in debts:
        if node in nodes:
            nodes[node].debts[account_key] = Debt(debt_bytes, as_of)
    unknown = [(node, name) for node in nodes for name in names[node].keys() - nodes[node].rows]
    if unknown:
        named = connection.execute(
            READ_NAMED_STREAMS,
            {
                "stored_node_ids": arrays.texts(node for node, _ in unknown),
                "inbound_tags": arrays.texts(name.inbound_tag for _, name in unknown),
                "sample_uuids": arrays.plain(name.sample_uuid for _, name in unknown),
            },
        )
        _add_streams(nodes, samples_at, names, totals, named)
    return nodes


def resolve_accounts(
    connection: Connection, last_accounts: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the account of each sample uuid that has one; given is the last one, if any."""
    if not last_accounts:
        return {}
    wanted = sorted(last_accounts)
    rows = connection.execute(
        RESOLVE_ACCOUNTS,
        {
            "sample_uuids": arrays.plain(wanted),
            "last_accounts": arrays.plain(last_accounts[uuid] for uuid in wanted),
        },
    )
    return {uuid: uuid if account == uuid else intern(account) for uuid, account in rows}


def read_last_accounts(
    connection: Connection, stored_node_ids: Iterable[str], sample_uuids: Collection[str]
) -> dict[str, str]:
    """Return the account that each uuid last had on the nodes, where that still exists."""
    if not sample_uuids:
        return {}
    rows = connection.execute(
        READ_LAST_ACCOUNTS,
        {
            "stored_node_ids": arrays.texts(stored_node_ids),
            "sample_uuids": arrays.plain(sorted(sample_uuids)),
        },
    )
    return {uuid: intern(account) for uuid, account in rows}


def add_streams(
    connection: Connection, streams: Sequence[NewStream]
) -> dict[tuple[str, StreamName], int]:
    """Add streams; return their ids by node and name."""
    ids = {}
    for start in range(0, len(streams), STREAMS_AT_ONCE):
        some = streams[start : start + STREAMS_AT_ONCE]
        names = {stream.name: stream.name for stream in some}
        for node, tag, uuid, stream_id in connection.execute(INSERT_STREAMS, new_streams(some)):
            ids[node, names[StreamName(tag, uuid)]] = stream_id
    return ids


def _add_streams(
    nodes: Mapping[str, NodeStreams],
    samples_at: Mapping[str, Any],
    names: Mapping[str, Mapping[StreamName, StreamName]],
    reported: Mapping[str, Mapping[StreamName, Totals]],
    rows: Iterable[tuple[Any, ...]],
) -> None:
    for (
        node, stream_id, tag, sample_uuid, account_uuid, uplink, downlink, epoch, absent_since,
        before_up, before_down, state, surplus_up, surplus_down,
    ) in rows:  # fmt: skip
        streams = nodes.get(node)
        if streams is None:
            continue
        # Names, accounts and totals that are in memory already are kept once.
        name = StreamName(tag, sample_uuid)
        name = names[node].get(name, name)
        account = name.sample_uuid if account_uuid == sample_uuid else account_uuid
        totals = Totals(uplink, downlink)
        at_watermark = reported[node].get(name)
        streams.rows[name] = StreamRow(stream_id, account)
        streams.checkpoints[name] = Checkpoint(
            absent_since or samples_at[node],
            at_watermark if at_watermark == totals else totals,
            epoch,
            None if before_up is None else Totals(before_up, before_down),
            STATES[state],
            None if surplus_up is None else Totals(surplus_up, surplus_down),
        )
