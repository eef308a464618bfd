"""The facts: usage records, buckets, checkpoints; what is charged for them is in `entries`.

Every fact has a deterministic key. Buckets and ledger entries, which others may write as well, are
behind ON CONFLICT: what is there already is either identical (a replay) or different, and then it
is never overwritten silently. Evidence is ours alone and appended under the lock of its source, so
that one that is there already is an error: its key is left to say so.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import Cursor as AnyCursor

from billing_cli.store import arrays
from billing_cli.store.streams import usage_columns

Cursor = AnyCursor[Any]

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.model import Bucket, UsageRecord

# Columns that hold the same throughout most runs are sent only where they don't: `unnest` fills
# what is missing with NULL, and unfolding is a good part of what a statement costs.
ADD_USAGE_RECORDS = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, kind)
SELECT stream_id, bucket_start, from_at, to_at, reset_epoch, uplink_start, uplink_end,
       downlink_start, downlink_end, account_uuid, coalesce(kind, 'delta')
  FROM unnest(%(stream_ids)s::bigint[], %(buckets)s::timestamptz[], %(froms)s::timestamptz[],
              %(tos)s::timestamptz[], %(epochs)s::integer[], %(uplink_starts)s::bigint[],
              %(uplink_ends)s::bigint[], %(downlink_starts)s::bigint[],
              %(downlink_ends)s::bigint[], %(account_uuids)s::uuid[], %(kinds)s::text[])
    AS given (stream_id, bucket_start, from_at, to_at, reset_epoch, uplink_start, uplink_end,
              downlink_start, downlink_end, account_uuid, kind)
"""

ADD_BUCKETS = """
INSERT INTO public.traffic_minute_buckets
       (bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
        total_bytes, multiplier, rating_status, source_revision)
SELECT bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
       uplink_bytes + downlink_bytes, multiplier, 'rated', %(pricing_rule_version)s
  FROM unnest(%(places)s::integer[], %(account_uuids)s::uuid[], %(uplinks)s::bigint[],
              %(downlinks)s::bigint[], %(multipliers)s::double precision[])
    AS given (place, account_uuid, uplink_bytes, downlink_bytes, multiplier)
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(regions)s::text[],
              %(lines)s::text[])
    WITH ORDINALITY AS place (bucket_start, node_id, region, line_code, number)
    ON place.number = given.place
    ON CONFLICT (bucket_start, node_id, account_uuid, region, line_code) DO NOTHING
"""

# The shared checkpoint knows no inbounds: it carries the sum over an account's streams on a node.
SAVE_SHARED_CHECKPOINTS = """
INSERT INTO public.traffic_stat_checkpoints AS shared
       (node_id, account_uuid, last_uplink_total, last_downlink_total, last_seen_at, reset_epoch)
SELECT stored_node_id, streams.account_uuid,
       CASE count(*) WHEN 1 THEN max(uplink_total)
                     ELSE least(sum(uplink_total), 9223372036854775807)::bigint END,
       CASE count(*) WHEN 1 THEN max(downlink_total)
                     ELSE least(sum(downlink_total), 9223372036854775807)::bigint END,
       max(seen_at), max(reset_epoch)
  FROM billing.streams
  JOIN unnest(%(nodes)s::text[], %(account_uuids)s::uuid[]) AS given (node_id, account_uuid)
    ON stored_node_id = given.node_id AND streams.account_uuid = given.account_uuid
 GROUP BY streams.account_uuid, stored_node_id
 ORDER BY streams.account_uuid, stored_node_id
    ON CONFLICT (node_id, account_uuid) DO UPDATE
   SET last_uplink_total = excluded.last_uplink_total,
       last_downlink_total = excluded.last_downlink_total,
       last_seen_at = excluded.last_seen_at,
       reset_epoch = excluded.reset_epoch,
       updated_at = now()
"""


class Addition(NamedTuple):
    """Rows that were sent, and the cursor that their answer comes to.

    Within a pipeline the answer is there when the pipeline has ended.
    """

    rows: int = 0
    cursor: Cursor | None = None

    @property
    def was_all_new(self) -> bool:
        """Tell whether none of the rows was there already."""
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
) -> Addition:
    """Write each bucket, with its multiplier, that is not there yet."""
    if not buckets:
        return Addition()
    places = arrays.Places()
    columns = {
        "places": places.numbers(bucket.key for bucket in buckets),
        **places.columns(),
        "account_uuids": arrays.uuids([bucket.key.account_uuid for bucket in buckets]),
        "uplinks": arrays.bigints([bucket.uplink_bytes for bucket in buckets]),
        "downlinks": arrays.bigints([bucket.downlink_bytes for bucket in buckets]),
        "multipliers": arrays.doubles(multipliers),
        "pricing_rule_version": pricing_rule_version,
    }
    return Addition(len(buckets), connection.execute(ADD_BUCKETS, columns))


def save_shared_checkpoints(
    connection: Connection, accounts: Mapping[str, Collection[str]]
) -> None:
    """Bring the shared checkpoints of accounts up to date, given by stored node id."""
    account_uuids = [account for one in accounts.values() for account in one]
    if account_uuids:
        nodes = chain.from_iterable(repeat(node, len(one)) for node, one in accounts.items())
        connection.execute(
            SAVE_SHARED_CHECKPOINTS,
            {"nodes": arrays.texts(nodes), "account_uuids": arrays.uuids(account_uuids)},
        )
