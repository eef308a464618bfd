"""The facts: usage records, buckets, checkpoints; what is charged for them is in `entries`.

Every fact has a deterministic key, and what is there already is never overwritten. Evidence is
ours alone and appended under the lock of its source, so that one that is there already is an error:
its key is left to say so. Buckets and ledger entries others may write as well. Hardly ever has
anybody: so a run first inserts them plainly, and their keys refuse what is there. Then all of it is
undone and done again with a look at who was first, and with ON CONFLICT (`jobs.isolation`); to
ask it of every row would take a fifth of these tables' time.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import Cursor as AnyCursor

from billing_cli.database import arrays
from billing_cli.database.parameters import Columns, checkpoint_columns, usage_columns

Cursor = AnyCursor[Any]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.model import Bucket, Checkpoint, UsageRecord

# Whoever has written one of these before us need not have been one of us.
WRITTEN_BY_OTHERS = {"public.traffic_minute_buckets", "public.billing_ledger"}

# Columns that hold the same throughout most runs are sent only where they don't: `unnest` fills
# what is missing with NULL, and unfolding is a good part of what a statement costs.
ADD_USAGE_RECORDS = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, kind)
SELECT stream_id, bucket_start, from_at, to_at, reset_epoch, uplink_start, uplink_end,
       downlink_start, downlink_end, account_uuid, coalesce(kind, 'delta')
  FROM (SELECT unnest(%(stream_ids)s::bigint[]) AS stream_id,
               unnest(%(buckets)s::timestamptz[]) AS bucket_start,
               unnest(%(froms)s::timestamptz[]) AS from_at,
               unnest(%(tos)s::timestamptz[]) AS to_at,
               unnest(%(epochs)s::integer[]) AS reset_epoch,
               unnest(%(uplink_starts)s::bigint[]) AS uplink_start,
               unnest(%(uplink_ends)s::bigint[]) AS uplink_end,
               unnest(%(downlink_starts)s::bigint[]) AS downlink_start,
               unnest(%(downlink_ends)s::bigint[]) AS downlink_end,
               unnest(%(account_uuids)s::uuid[]) AS account_uuid,
               unnest(%(kinds)s::text[]) AS kind) AS given
"""

ADD_BUCKETS = """
INSERT INTO public.traffic_minute_buckets
       (bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
        total_bytes, multiplier, rating_status, source_revision)
SELECT bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
       uplink_bytes + downlink_bytes, multiplier, 'rated', %(pricing_rule_version)s
  FROM (SELECT unnest(%(places)s::integer[]) AS place,
               unnest(%(account_uuids)s::uuid[]) AS account_uuid,
               unnest(%(uplinks)s::bigint[]) AS uplink_bytes,
               unnest(%(downlinks)s::bigint[]) AS downlink_bytes,
               unnest(%(multipliers)s::double precision[]) AS multiplier) AS given
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(regions)s::text[],
              %(lines)s::text[])
    WITH ORDINALITY AS place (bucket_start, node_id, region, line_code, number)
    ON place.number = given.place
"""

ADD_MISSING_BUCKETS = f"""
{ADD_BUCKETS}
    ON CONFLICT (bucket_start, node_id, account_uuid, region, line_code) DO NOTHING
"""

# The shared checkpoint knows no inbounds: it carries the sum over an account's streams on a node.
# Those that the last snapshot held are summed by whoever calls; those that it did not are few, and
# added here.
SUMMED_CHECKPOINTS = """
SELECT given.node_id, given.account_uuid,
       CASE WHEN absent.streams IS NULL THEN given.uplink
            ELSE least(given.uplink + absent.uplink, 9223372036854775807)::bigint END AS uplink,
       CASE WHEN absent.streams IS NULL THEN given.downlink
            ELSE least(given.downlink + absent.downlink, 9223372036854775807)::bigint
        END AS downlink,
       greatest(given.seen_at, absent.seen_at) AS seen_at,
       greatest(given.reset_epoch, absent.reset_epoch) AS reset_epoch
  FROM (SELECT unnest(%(nodes)s::text[]) AS node_id,
               unnest(%(account_uuids)s::uuid[]) AS account_uuid,
               unnest(%(uplinks)s::bigint[]) AS uplink,
               unnest(%(downlinks)s::bigint[]) AS downlink,
               unnest(%(seen_ats)s::timestamptz[]) AS seen_at,
               unnest(%(epochs)s::integer[]) AS reset_epoch) AS given
  LEFT JOIN (SELECT stored_node_id, account_uuid, count(*) AS streams,
                    sum(uplink_total) AS uplink, sum(downlink_total) AS downlink,
                    max(seen_at) AS seen_at, max(reset_epoch) AS reset_epoch
               FROM billing.streams
              WHERE stored_node_id = ANY (%(distinct_nodes)s::text[])
                AND absent_since IS NOT NULL AND account_uuid IS NOT NULL
              GROUP BY stored_node_id, account_uuid) AS absent
    ON absent.stored_node_id = given.node_id AND absent.account_uuid = given.account_uuid
"""

ADD_SHARED_CHECKPOINTS = f"""
INSERT INTO public.traffic_stat_checkpoints
       (node_id, account_uuid, last_uplink_total, last_downlink_total, last_seen_at, reset_epoch)
SELECT node_id, account_uuid, uplink, downlink, seen_at, reset_epoch
  FROM ({SUMMED_CHECKPOINTS}) AS summed
 ORDER BY account_uuid, node_id
    ON CONFLICT (node_id, account_uuid) DO NOTHING
"""

# Rows meet by bytes, which is cheaper than to look up what a collation says of each pair; all of
# them are looked for among the nodes first, where an index serves.
UPDATE_SHARED_CHECKPOINTS = f"""
UPDATE public.traffic_stat_checkpoints AS shared
   SET last_uplink_total = summed.uplink,
       last_downlink_total = summed.downlink,
       last_seen_at = summed.seen_at,
       reset_epoch = summed.reset_epoch,
       updated_at = now()
  FROM ({SUMMED_CHECKPOINTS}) AS summed
 WHERE shared.node_id = summed.node_id COLLATE "C" AND shared.account_uuid = summed.account_uuid
   AND shared.node_id = ANY (%(distinct_nodes)s::text[])
"""


class Sent(NamedTuple):
    """Rows that were sent, and the cursor that their answer comes to.

    Within a pipeline the answer is there when the pipeline has ended.
    """

    rows: int = 0
    cursor: Cursor | None = None

    @property
    def reached_all(self) -> bool:
        """Tell whether each of the rows was written."""
        return self.cursor is None or self.cursor.rowcount == self.rows


def add_usage_records(
    connection: Connection,
    records: Sequence[UsageRecord],
    stream_ids: Sequence[int],
    account_uuids: Sequence[str],
    kinds: Sequence[str],
) -> None:
    """Append the evidence of each record: its stream, its account, and how it came about.

    Raises UniqueViolation, as the statement's answer, where one is there already.
    """
    if not records:
        return
    columns = usage_columns(stream_ids, records)
    columns["account_uuids"] = arrays.uuids(account_uuids)
    columns["kinds"] = arrays.texts(() if set(kinds) == {"delta"} else kinds)
    connection.execute(ADD_USAGE_RECORDS, columns)


def add_buckets(
    connection: Connection,
    buckets: Sequence[Bucket],
    multipliers: Sequence[Decimal],
    pricing_rule_version: str,
    *,
    beside_older: bool,
) -> Sent:
    """Write each bucket with its multiplier; one that is there stays as it is.

    Without `beside_older` none may be: raises UniqueViolation, as the statement's answer.
    """
    if not buckets:
        return Sent()
    keys, uplinks, downlinks = zip(*buckets, strict=True)
    places = arrays.Places()
    columns = {
        "places": places.numbers(keys),
        **places.columns(),
        "account_uuids": arrays.uuids([key.account_uuid for key in keys]),
        "uplinks": arrays.bigints(uplinks),
        "downlinks": arrays.bigints(downlinks),
        "multipliers": arrays.doubles(multipliers),
        "pricing_rule_version": pricing_rule_version,
    }
    statement = ADD_MISSING_BUCKETS if beside_older else ADD_BUCKETS
    return Sent(len(buckets), connection.execute(statement, columns))


def add_shared_checkpoints(
    connection: Connection, sums: Mapping[str, Mapping[str, Checkpoint]]
) -> None:
    """Add shared checkpoints that are not there yet.

    They are given by stored node id and account, each the sum of the account's present streams.
    """
    columns = _sum_columns(sums)
    if columns:
        connection.execute(ADD_SHARED_CHECKPOINTS, columns)


def update_shared_checkpoints(
    connection: Connection, sums: Mapping[str, Mapping[str, Checkpoint]]
) -> Sent:
    """Bring shared checkpoints up to date, as far as they are there."""
    columns = _sum_columns(sums)
    if not columns:
        return Sent()
    rows = sum(map(len, sums.values()))
    return Sent(rows, connection.execute(UPDATE_SHARED_CHECKPOINTS, columns))


def _sum_columns(
    sums: Mapping[str, Mapping[str, Checkpoint]],
) -> Columns:
    nodes = list(chain.from_iterable(repeat(node, len(one)) for node, one in sums.items()))
    if not nodes:
        return {}
    account_uuids = list(chain.from_iterable(sums.values()))
    return {
        **checkpoint_columns(chain.from_iterable(one.values() for one in sums.values())),
        "nodes": arrays.texts(nodes),
        "distinct_nodes": arrays.texts(sums),
        "account_uuids": arrays.uuids(account_uuids),
    }
