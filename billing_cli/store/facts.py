"""The facts: usage records, buckets, ledger entries and their evidence, checkpoints.

Every fact has a deterministic key behind ON CONFLICT. What is there already is either identical
(a replay) or different, and then it is never overwritten silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.store import arrays
from billing_cli.store.streams import usage_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import Connection

    from billing_cli.core.model import BucketKey, Charge, UsageRecord

ADD_USAGE_RECORDS = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, kind)
SELECT * FROM unnest(%(stream_ids)s::bigint[], %(buckets)s::timestamptz[],
              %(froms)s::timestamptz[], %(tos)s::timestamptz[], %(epochs)s::integer[],
              %(uplink_starts)s::bigint[], %(uplink_ends)s::bigint[],
              %(downlink_starts)s::bigint[], %(downlink_ends)s::bigint[],
              %(account_uuids)s::uuid[], %(kinds)s::text[])
    ON CONFLICT (stream_id, bucket_start, from_at, revision) DO NOTHING
"""

# One statement writes a minute's three faces, so that they can't disagree: the bucket that
# users see, the ledger entry, and the entry's evidence. Created-at rises in bucket order,
# because readers take the newest entries by it.
ADD_CHARGES = """
WITH given AS MATERIALIZED (
  SELECT *, now() + ordinal * interval '1 microsecond' AS written_at
    FROM unnest(%(ledger_ids)s::uuid[], %(buckets)s::timestamptz[], %(nodes)s::text[],
                %(account_uuids)s::uuid[], %(regions)s::text[], %(lines)s::text[],
                %(uplinks)s::bigint[], %(downlinks)s::bigint[],
                %(included)s::bigint[], %(rated)s::bigint[],
                %(prices)s::numeric[], %(multipliers)s::numeric[], %(amounts)s::numeric[],
                %(quotas_before)s::bigint[], %(balances_before)s::numeric[],
                %(balances_after)s::numeric[])
      WITH ORDINALITY
      AS given (ledger_id, bucket_start, node_id, account_uuid, region, line_code,
                uplink_bytes, downlink_bytes, included_bytes, rated_bytes,
                price_per_byte, multiplier, amount_delta,
                quota_before, balance_before, balance_after, ordinal)
), bucket AS (
  INSERT INTO public.traffic_minute_buckets
         (bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
          total_bytes, multiplier, rating_status, source_revision)
  SELECT bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
         uplink_bytes + downlink_bytes, multiplier, 'rated', %(pricing_rule_version)s
    FROM given
      ON CONFLICT (bucket_start, node_id, account_uuid, region, line_code) DO NOTHING
  RETURNING 1
), entry AS (
  INSERT INTO public.billing_ledger
         (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
          balance_after, pricing_rule_version, created_at)
  SELECT ledger_id, account_uuid, bucket_start, bucket_start + interval '1 minute',
         'traffic_charge', rated_bytes, amount_delta, balance_after, %(pricing_rule_version)s,
         written_at
    FROM given
      ON CONFLICT (id) DO NOTHING
  RETURNING 1
), evidence AS (
  INSERT INTO billing.charges
         (ledger_id, entry_type, bucket_start, stored_node_id, account_uuid, region, line_code,
          included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
          quota_before, balance_before, pricing_rule_version, run_id, created_at)
  SELECT ledger_id, 'traffic_charge', bucket_start, node_id, account_uuid, region, line_code,
         included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
         quota_before, balance_before, %(pricing_rule_version)s, %(run_id)s, written_at
    FROM given
      ON CONFLICT (ledger_id) DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*) FROM bucket), (SELECT count(*) FROM entry), (SELECT count(*) FROM evidence)
"""

# The shared checkpoint knows no inbounds: it carries the sum over an account's streams on a node.
SAVE_SHARED_CHECKPOINTS = """
INSERT INTO public.traffic_stat_checkpoints AS shared
       (node_id, account_uuid, last_uplink_total, last_downlink_total, last_seen_at, reset_epoch)
SELECT stored_node_id, streams.account_uuid,
       least(sum(uplink_total), 9223372036854775807)::bigint,
       least(sum(downlink_total), 9223372036854775807)::bigint,
       max(seen_at), max(reset_epoch)
  FROM billing.streams
  JOIN unnest(%(nodes)s::text[], %(account_uuids)s::uuid[]) AS given (node_id, account_uuid)
    ON stored_node_id = given.node_id AND streams.account_uuid = given.account_uuid
 GROUP BY stored_node_id, streams.account_uuid
 ORDER BY stored_node_id, streams.account_uuid
    ON CONFLICT (node_id, account_uuid) DO UPDATE
   SET last_uplink_total = excluded.last_uplink_total,
       last_downlink_total = excluded.last_downlink_total,
       last_seen_at = excluded.last_seen_at,
       reset_epoch = excluded.reset_epoch,
       updated_at = now()
"""


def add_usage_records(
    connection: Connection, usage: Sequence[tuple[int, str, str, UsageRecord]]
) -> int:
    """Append (stream id, account, kind, record) evidence; return how many rows were new."""
    if not usage:
        return 0
    columns = usage_columns([(one[0], one[3]) for one in usage])
    columns["account_uuids"] = arrays.plain(one[1] for one in usage)
    columns["kinds"] = arrays.plain(one[2] for one in usage)
    return connection.execute(ADD_USAGE_RECORDS, columns).rowcount


def add_charges(
    connection: Connection, charges: Sequence[Charge], pricing_rule_version: str, run_id: str
) -> int:
    """Write each charge's bucket, ledger entry and evidence; return how many rows were new.

    Three rows are new for each charge, unless its minute was written before.
    """
    if not charges:
        return 0
    keys = [one.bucket.key for one in charges]
    row = connection.execute(
        ADD_CHARGES,
        {
            "ledger_ids": arrays.plain(one.ledger_id for one in charges),
            **_key_columns(keys),
            "uplinks": arrays.plain(one.bucket.uplink_bytes for one in charges),
            "downlinks": arrays.plain(one.bucket.downlink_bytes for one in charges),
            "included": arrays.plain(one.included_bytes for one in charges),
            "rated": arrays.plain(one.rated_bytes for one in charges),
            "prices": arrays.plain(one.price_per_byte for one in charges),
            "multipliers": arrays.plain(one.multiplier for one in charges),
            "amounts": arrays.plain(one.amount_delta for one in charges),
            "quotas_before": arrays.plain(one.quota_before for one in charges),
            "balances_before": arrays.plain(one.balance_before for one in charges),
            "balances_after": arrays.plain(one.balance_after for one in charges),
            "pricing_rule_version": pricing_rule_version,
            "run_id": run_id,
        },
    ).fetchone()
    return sum(row) if row else 0


def save_shared_checkpoints(connection: Connection, accounts: Iterable[tuple[str, str]]) -> None:
    """Bring the shared checkpoints of (stored node id, account) pairs up to date."""
    wanted = sorted(set(accounts))
    if wanted:
        connection.execute(
            SAVE_SHARED_CHECKPOINTS,
            {
                "nodes": arrays.texts(node for node, _ in wanted),
                "account_uuids": arrays.plain(account for _, account in wanted),
            },
        )


def _key_columns(keys: Sequence[BucketKey]) -> dict[str, str]:
    return {
        "buckets": arrays.moments(key.bucket_start for key in keys),
        "nodes": arrays.texts(key.stored_node_id for key in keys),
        "account_uuids": arrays.plain(key.account_uuid for key in keys),
        "regions": arrays.texts(key.region for key in keys),
        "lines": arrays.texts(key.line_code for key in keys),
    }
