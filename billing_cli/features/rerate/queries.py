"""Charges of a range read again for other prices. Buckets lead the way: each charge has one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.bucket_history import BucketHistory, PriorEntry, in_order
from billing_cli.core.model import BucketKey
from billing_cli.core.prices import ProfileRow
from billing_cli.core.times import MINUTE
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

# Which buckets are meant; a NULL in place of an array means all.
IN_SCOPE = """
 WHERE bucket.bucket_start >= %(since)s AND bucket.bucket_start < %(until)s
   AND (%(stored_node_ids)s::text[] IS NULL OR bucket.node_id = ANY (%(stored_node_ids)s::text[]))
   AND (%(account_uuids)s::uuid[] IS NULL OR bucket.account_uuid = ANY (%(account_uuids)s::uuid[]))
"""

# The minute of the last bucket of a step that begins with the range.
READ_STEP_END = (
    """
SELECT bucket.bucket_start
  FROM public.traffic_minute_buckets AS bucket
"""
    + IN_SCOPE
    + """
 ORDER BY bucket.bucket_start
OFFSET %(size)s LIMIT 1
"""
)

READ_ACCOUNTS = (
    """
SELECT DISTINCT bucket.account_uuid::text
  FROM public.traffic_minute_buckets AS bucket
"""
    + IN_SCOPE
)

READ_CHARGED_BUCKETS = (
    """
SELECT bucket.bucket_start, bucket.node_id, bucket.account_uuid::text, bucket.region,
       bucket.line_code, bucket.total_bytes,
       charge.ledger_id::text, charge.adjusts::text, charge.included_bytes, charge.rated_bytes,
       charge.price_per_byte, charge.multiplier, charge.amount_delta, charge.pricing_rule_version
  FROM public.traffic_minute_buckets AS bucket
  LEFT JOIN billing.charges AS charge
    ON charge.account_uuid = bucket.account_uuid AND charge.bucket_start = bucket.bucket_start
   AND charge.stored_node_id = bucket.node_id AND charge.region = bucket.region
   AND charge.line_code = bucket.line_code
   AND charge.bucket_start >= %(since)s AND charge.bucket_start < %(until)s
"""
    + IN_SCOPE
)

READ_PROFILES = """
SELECT account.uuid::text, profile.package_name, profile.base_price_per_byte,
       profile.region_multiplier, profile.line_multiplier, profile.peak_multiplier,
       profile.offpeak_multiplier
  FROM public.users AS account
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
 WHERE account.uuid = ANY (%(account_uuids)s::uuid[])
"""

# Bytes stay; a reader of the bucket sees the multiplier and the version that hold for it now.
REPRICE_BUCKETS = """
UPDATE public.traffic_minute_buckets AS bucket
   SET multiplier = given.multiplier, source_revision = %(pricing_rule_version)s,
       updated_at = now()
  FROM unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
              %(regions)s::text[], %(lines)s::text[], %(multipliers)s::double precision[])
    AS given (bucket_start, node_id, account_uuid, region, line_code, multiplier)
 WHERE bucket.bucket_start = given.bucket_start AND bucket.node_id = given.node_id
   AND bucket.account_uuid = given.account_uuid AND bucket.region = given.region
   AND bucket.line_code = given.line_code
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Minutes that begin in [since, until), of the nodes and accounts named; None means all."""

    since: datetime
    until: datetime
    stored_node_ids: tuple[str, ...] | None = None
    account_uuids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ChargedBuckets:
    """What has been charged for the buckets of a scope.

    `unproven` counts those of which bytes were charged without evidence here: by another writer.
    """

    histories: Mapping[BucketKey, BucketHistory]
    unproven: int


def read_step_end(connection: Connection, scope: Scope, size: int) -> datetime:
    """Return the end of a step of about so many buckets; a minute is never cut in two."""
    row = connection.execute(READ_STEP_END, {**_parameters(scope), "size": size}).fetchone()
    return max(row[0], scope.since + MINUTE) if row else scope.until


def read_accounts(connection: Connection, scope: Scope) -> set[str]:
    """Return the accounts that have buckets in the scope."""
    return {account for (account,) in connection.execute(READ_ACCOUNTS, _parameters(scope))}


def read_charged_buckets(connection: Connection, scope: Scope) -> ChargedBuckets:
    """Return what is on record for the buckets of the scope."""
    entries: defaultdict[BucketKey, list[PriorEntry]] = defaultdict(list)
    bytes_without_entry: dict[BucketKey, int] = {}
    for row in connection.execute(READ_CHARGED_BUCKETS, _parameters(scope)):
        key = BucketKey(*row[:5])
        bytes_without_entry.setdefault(key, row[5])
        if row[6] is not None:
            entry = PriorEntry(*row[6:])
            entries[key].append(entry)
            bytes_without_entry[key] -= entry.included_bytes + entry.rated_bytes
    return ChargedBuckets(
        {key: BucketHistory(in_order(key, found), True) for key, found in entries.items()},
        sum(left != 0 for left in bytes_without_entry.values()),
    )


def read_profiles(connection: Connection, account_uuids: Iterable[str]) -> dict[str, ProfileRow]:
    """Return the billing profile of each of the accounts that exists; locks nothing."""
    rows = connection.execute(READ_PROFILES, {"account_uuids": arrays.plain(account_uuids)})
    return {account: ProfileRow(*profile) for account, *profile in rows}


def reprice_buckets(
    connection: Connection,
    multipliers: Sequence[tuple[BucketKey, Decimal]],
    pricing_rule_version: str,
) -> None:
    """Show in each (bucket, multiplier) row under which version it is priced now."""
    connection.execute(
        REPRICE_BUCKETS,
        {
            **arrays.bucket_keys([key for key, _ in multipliers]),
            "multipliers": arrays.plain(multiplier for _, multiplier in multipliers),
            "pricing_rule_version": pricing_rule_version,
        },
    )


def _parameters(scope: Scope) -> dict[str, datetime | str | None]:
    nodes, accounts = scope.stored_node_ids, scope.account_uuids
    return {
        "since": scope.since,
        "until": scope.until,
        "stored_node_ids": None if nodes is None else arrays.texts(nodes),
        "account_uuids": None if accounts is None else arrays.plain(accounts),
    }
