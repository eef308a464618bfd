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
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.model import Bucket, Charge, UsageRecord

ADD_USAGE_RECORDS = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, kind)
SELECT * FROM unnest(%(stream_ids)s::bigint[], %(buckets)s::timestamptz[],
              %(froms)s::timestamptz[], %(tos)s::timestamptz[], %(epochs)s::integer[],
              %(uplink_starts)s::bigint[], %(uplink_ends)s::bigint[],
              %(downlink_starts)s::bigint[], %(downlink_ends)s::bigint[],
              %(account_uuids)s::uuid[], %(kinds)s::text[])
    ON CONFLICT (bucket_start, stream_id, from_at, revision) DO NOTHING
"""

ADD_BUCKETS = """
INSERT INTO public.traffic_minute_buckets
       (bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
        total_bytes, multiplier, rating_status, source_revision)
SELECT bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
       uplink_bytes + downlink_bytes, multiplier, 'rated', %(pricing_rule_version)s
  FROM unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
              %(regions)s::text[], %(lines)s::text[], %(uplinks)s::bigint[],
              %(downlinks)s::bigint[], %(multipliers)s::double precision[])
    AS given (bucket_start, node_id, account_uuid, region, line_code,
              uplink_bytes, downlink_bytes, multiplier)
    ON CONFLICT (bucket_start, node_id, account_uuid, region, line_code) DO NOTHING
"""

# An entry and its evidence are written together, so that neither can be without the other.
# Created-at rises in the order given, because readers take the newest entries by it. It counts
# from the statement, not from the transaction, which may have waited for another one's entries.
ADD_LEDGER_ENTRIES = """
WITH given AS MATERIALIZED (
  SELECT *, statement_timestamp() + ordinal * interval '1 microsecond' AS written_at
    FROM unnest(%(ledger_ids)s::uuid[], %(entry_types)s::text[], %(adjusts)s::uuid[],
                %(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
                %(regions)s::text[], %(lines)s::text[],
                %(included)s::bigint[], %(rated)s::bigint[],
                %(prices)s::numeric[], %(multipliers)s::numeric[], %(amounts)s::numeric[],
                %(quotas_before)s::bigint[], %(balances_before)s::numeric[],
                %(balances_after)s::numeric[], %(reasons)s::text[])
      WITH ORDINALITY
      AS given (ledger_id, entry_type, adjusts, bucket_start, node_id, account_uuid,
                region, line_code, included_bytes, rated_bytes, price_per_byte, multiplier,
                amount_delta, quota_before, balance_before, balance_after, reason, ordinal)
), entry AS (
  INSERT INTO public.billing_ledger
         (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
          balance_after, pricing_rule_version, created_at)
  SELECT ledger_id, account_uuid, bucket_start, bucket_start + interval '1 minute', entry_type,
         rated_bytes, amount_delta, balance_after, %(pricing_rule_version)s, written_at
    FROM given
      ON CONFLICT (id) DO NOTHING
  RETURNING 1
), evidence AS (
  INSERT INTO billing.charges
         (ledger_id, entry_type, adjusts, bucket_start, stored_node_id, account_uuid, region,
          line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
          quota_before, balance_before, pricing_rule_version, run_id, reason, created_at)
  SELECT ledger_id, entry_type, adjusts, bucket_start, node_id, account_uuid, region,
         line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
         quota_before, balance_before, %(pricing_rule_version)s, %(run_id)s, reason, written_at
    FROM given
      ON CONFLICT (bucket_start, account_uuid, ledger_id) DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*) FROM entry) + (SELECT count(*) FROM evidence)
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


def add_buckets(
    connection: Connection,
    buckets: Sequence[tuple[Bucket, Decimal]],
    pricing_rule_version: str,
) -> int:
    """Write each (bucket, multiplier) that is not there yet; return how many were new."""
    if not buckets:
        return 0
    columns = {
        **arrays.bucket_keys([bucket.key for bucket, _ in buckets]),
        "uplinks": arrays.plain(bucket.uplink_bytes for bucket, _ in buckets),
        "downlinks": arrays.plain(bucket.downlink_bytes for bucket, _ in buckets),
        "multipliers": arrays.plain(multiplier for _, multiplier in buckets),
        "pricing_rule_version": pricing_rule_version,
    }
    return connection.execute(ADD_BUCKETS, columns).rowcount


def add_ledger_entries(
    connection: Connection, charges: Sequence[Charge], pricing_rule_version: str, run_id: str
) -> int:
    """Append each ledger entry with its evidence; return how many rows were new: two for each."""
    if not charges:
        return 0
    row = connection.execute(
        ADD_LEDGER_ENTRIES,
        {
            "ledger_ids": arrays.plain(one.ledger_id for one in charges),
            "entry_types": arrays.plain(one.entry_type for one in charges),
            "adjusts": arrays.optional(one.adjusts for one in charges),
            **arrays.bucket_keys([one.key for one in charges]),
            "included": arrays.plain(one.included_bytes for one in charges),
            "rated": arrays.plain(one.rated_bytes for one in charges),
            "prices": arrays.plain(one.price_per_byte for one in charges),
            "multipliers": arrays.plain(one.multiplier for one in charges),
            "amounts": arrays.plain(one.amount_delta for one in charges),
            "quotas_before": arrays.plain(one.quota_before for one in charges),
            "balances_before": arrays.plain(one.balance_before for one in charges),
            "balances_after": arrays.plain(one.balance_after for one in charges),
            "reasons": arrays.texts(one.reason for one in charges),
            "pricing_rule_version": pricing_rule_version,
            "run_id": run_id,
        },
    ).fetchone()
    return int(row[0]) if row else 0


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
