"""Minutes that are charged already: what is on record for them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from billing_cli.core.bucket_history import BucketHistory, PriorEntry, in_order
from billing_cli.core.model import Bucket, BucketKey
from billing_cli.core.rating import ledger_id
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

# The evidence of every entry for the buckets. The range limits the months that are read.
READ_ENTRIES = """
SELECT charge.bucket_start, charge.stored_node_id, charge.account_uuid::text, charge.region,
       charge.line_code, charge.ledger_id::text, charge.adjusts::text, charge.included_bytes,
       charge.rated_bytes, charge.price_per_byte, charge.multiplier, charge.amount_delta,
       charge.pricing_rule_version
  FROM billing.charges AS charge
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
              %(regions)s::text[], %(lines)s::text[])
    AS wanted (bucket_start, stored_node_id, account_uuid, region, line_code)
 USING (account_uuid, bucket_start, stored_node_id, region, line_code)
 WHERE charge.bucket_start BETWEEN %(first_bucket)s AND %(last_bucket)s
 ORDER BY charge.created_at
"""

# Minutes that have their charge, whoever wrote it.
READ_CHARGED = "SELECT id::text FROM public.billing_ledger WHERE id = ANY (%(ids)s::uuid[])"

# The bytes that we charged of minutes, by region, whether or not their buckets are there still.
READ_OWN_BYTES = """
SELECT bucket_start, stored_node_id, account_uuid::text, region, line_code,
       sum(included_bytes + rated_bytes)::bigint
  FROM billing.charges AS charge
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
              %(lines)s::text[])
    AS wanted (bucket_start, stored_node_id, account_uuid, line_code)
 USING (account_uuid, bucket_start, stored_node_id, line_code)
 WHERE charge.bucket_start BETWEEN %(first_bucket)s AND %(last_bucket)s
 GROUP BY 1, 2, 3, 4, 5
"""

# The buckets of minutes whatever their regions: a source's region may have changed.
READ_RECORDED = """
SELECT bucket.bucket_start, bucket.node_id, bucket.account_uuid::text, bucket.region,
       bucket.line_code, bucket.uplink_bytes, bucket.downlink_bytes
  FROM public.traffic_minute_buckets AS bucket
  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
              %(lines)s::text[])
    AS wanted (bucket_start, node_id, account_uuid, line_code)
 USING (bucket_start, node_id, account_uuid, line_code)
"""


def read_bucket_histories(
    connection: Connection, keys: Iterable[BucketKey]
) -> dict[BucketKey, BucketHistory]:
    """Return what has been charged for each bucket so far."""
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    entries: defaultdict[BucketKey, list[PriorEntry]] = defaultdict(list)
    parameters = {
        **arrays.bucket_keys(wanted),
        "first_bucket": wanted[0].bucket_start,
        "last_bucket": wanted[-1].bucket_start,
    }
    for row in connection.execute(READ_ENTRIES, parameters):
        entries[BucketKey(*row[:5])].append(PriorEntry(*row[5:]))
    ids = {ledger_id(key): key for key in wanted}
    charged = {
        ids[identifier]
        for (identifier,) in connection.execute(READ_CHARGED, {"ids": arrays.plain(ids)})
    }
    return {key: BucketHistory(in_order(key, entries[key]), key in charged) for key in wanted}


def read_own_bytes(connection: Connection, keys: Iterable[BucketKey]) -> Counter[BucketKey]:
    """Return the bytes that we charged of minutes, in all their regions, by bucket.

    The regions of the keys do not matter.
    """
    wanted = sorted({key._replace(region="") for key in keys})
    if not wanted:
        return Counter()
    parameters = {
        **arrays.bucket_keys(wanted),
        "first_bucket": wanted[0].bucket_start,
        "last_bucket": wanted[-1].bucket_start,
    }
    rows = connection.execute(READ_OWN_BYTES, parameters)
    return Counter({BucketKey(*row[:5]): row[5] for row in rows})


def read_regions(connection: Connection, keys: Iterable[BucketKey]) -> dict[BucketKey, str]:
    """Return, for keys without regard to their region, the region that is on record.

    Where a minute has several, it is the last.
    """
    recorded = read_recorded_buckets(connection, keys)
    return {key: buckets[-1].key.region for key, buckets in recorded.items()}


def read_recorded_buckets(
    connection: Connection, keys: Iterable[BucketKey]
) -> dict[BucketKey, list[Bucket]]:
    """Return, for keys without regard to their region, the buckets on record, by region."""
    wanted = {key: key._replace(region="") for key in keys}
    if not wanted:
        return {}
    found: defaultdict[BucketKey, list[Bucket]] = defaultdict(list)
    parameters = arrays.bucket_keys(sorted(set(wanted.values())))
    for row in connection.execute(READ_RECORDED, parameters):
        bucket = Bucket(BucketKey(*row[:5]), *row[5:])
        found[bucket.key._replace(region="")].append(bucket)
    return {key: sorted(found[anywhere]) for key, anywhere in wanted.items() if anywhere in found}
