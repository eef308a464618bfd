"""The facts: usage records, buckets, ledger entries and their evidence, checkpoints.

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

    from billing_cli.core.model import Bucket, Charge, UsageRecord

# Columns that hold the same throughout most runs are sent only where they don't: `unnest` fills
# what is missing with NULL, and each column that is not unfolded saves a tenth of the time.
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

# Created-at rises in the order given, because readers take the newest entries by it. It counts
# from the statement, not from the transaction, which may have waited for another one's entries.
ADD_LEDGER_ENTRIES = """
INSERT INTO public.billing_ledger
       (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
        balance_after, pricing_rule_version, created_at)
SELECT ledger_id, account_uuid, bucket_start, bucket_start + interval '1 minute',
       coalesce(entry_type, 'traffic_charge'), rated_bytes, amount_delta, balance_after,
       %(pricing_rule_version)s, statement_timestamp() + ordinal * interval '1 microsecond'
  FROM unnest(%(ledger_ids)s::uuid[], %(buckets)s::timestamptz[], %(account_uuids)s::uuid[],
              %(entry_types)s::text[], %(rated)s::bigint[], %(amounts)s::double precision[],
              %(balances_after)s::double precision[])
    WITH ORDINALITY
    AS given (ledger_id, bucket_start, account_uuid, entry_type, rated_bytes, amount_delta,
              balance_after, ordinal)
    ON CONFLICT (id) DO NOTHING
"""

ADD_CHARGES = """
INSERT INTO billing.charges
       (ledger_id, entry_type, adjusts, bucket_start, stored_node_id, account_uuid, region,
        line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
        quota_before, balance_before, pricing_rule_version, run_id, reason)
SELECT ledger_id, coalesce(entry_type, 'traffic_charge'), adjusts, bucket_start, node_id,
       account_uuid, region, line_code, included_bytes, rated_bytes, price_per_byte, multiplier,
       amount_delta, quota_before, balance_before, %(pricing_rule_version)s, %(run_id)s,
       coalesce(reason, '')
  FROM unnest(%(places)s::integer[], %(ledger_ids)s::uuid[], %(account_uuids)s::uuid[],
              %(included)s::bigint[], %(rated)s::bigint[], %(prices)s::numeric[],
              %(multipliers)s::numeric[], %(amounts)s::numeric[], %(quotas_before)s::bigint[],
              %(balances_before)s::numeric[], %(entry_types)s::text[], %(adjusts)s::uuid[],
              %(reasons)s::text[])
    AS given (place, ledger_id, account_uuid, included_bytes, rated_bytes, price_per_byte,
              multiplier, amount_delta, quota_before, balance_before, entry_type, adjusts, reason)
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(regions)s::text[],
              %(lines)s::text[])
    WITH ORDINALITY AS place (bucket_start, node_id, region, line_code, number)
    ON place.number = given.place
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
    columns = {
        **arrays.placed([bucket.key for bucket in buckets]),
        "uplinks": arrays.bigints([bucket.uplink_bytes for bucket in buckets]),
        "downlinks": arrays.bigints([bucket.downlink_bytes for bucket in buckets]),
        "multipliers": arrays.doubles(multipliers),
        "pricing_rule_version": pricing_rule_version,
    }
    return Addition(len(buckets), connection.execute(ADD_BUCKETS, columns))


def add_ledger_entries(
    connection: Connection, charges: Sequence[Charge], pricing_rule_version: str
) -> Addition:
    """Append each charge's ledger entry."""
    if not charges:
        return Addition()
    columns = {
        "ledger_ids": arrays.uuids([one.ledger_id for one in charges]),
        "buckets": arrays.moments([one.key.bucket_start for one in charges]),
        "account_uuids": arrays.uuids([one.key.account_uuid for one in charges]),
        "entry_types": arrays.texts([one.entry_type for one in _adjusting(charges)]),
        "rated": arrays.bigints([one.rated_bytes for one in charges]),
        "amounts": arrays.doubles([one.amount_delta for one in charges]),
        "balances_after": arrays.doubles([one.balance_after for one in charges]),
        "pricing_rule_version": pricing_rule_version,
    }
    return Addition(len(charges), connection.execute(ADD_LEDGER_ENTRIES, columns))


def add_charges(
    connection: Connection, charges: Sequence[Charge], pricing_rule_version: str, run_id: str
) -> None:
    """Append the evidence of each ledger entry; raises as `add_usage_records` does."""
    if not charges:
        return
    adjusting = _adjusting(charges)
    columns = {
        "ledger_ids": arrays.uuids([one.ledger_id for one in charges]),
        **arrays.placed([one.key for one in charges]),
        "included": arrays.bigints([one.included_bytes for one in charges]),
        "rated": arrays.bigints([one.rated_bytes for one in charges]),
        "prices": arrays.plain([one.price_per_byte for one in charges]),
        "multipliers": arrays.plain([one.multiplier for one in charges]),
        "amounts": arrays.plain([one.amount_delta for one in charges]),
        "quotas_before": arrays.bigints([one.quota_before for one in charges]),
        "balances_before": arrays.plain([one.balance_before for one in charges]),
        "entry_types": arrays.texts([one.entry_type for one in adjusting]),
        "adjusts": arrays.optional([one.adjusts for one in adjusting]),
        "reasons": arrays.texts([one.reason for one in adjusting]),
        "pricing_rule_version": pricing_rule_version,
        "run_id": run_id,
    }
    connection.execute(ADD_CHARGES, columns)


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


def _adjusting(charges: Sequence[Charge]) -> Sequence[Charge]:
    """Return the charges unless all are a minute's own: what those don't have is not sent."""
    plain = all(one.entry_type == "traffic_charge" and not one.reason for one in charges)
    return () if plain else charges
