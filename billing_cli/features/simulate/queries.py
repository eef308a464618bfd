"""Charges of a range by bucket, and what decides about the price of their accounts."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from billing_cli.core.model import BucketKey
from billing_cli.core.prices import ProfileRow
from billing_cli.core.simulation import RecordedBucket
from billing_cli.database import arrays
from billing_cli.database.accounts import READ_USERS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from psycopg import Connection

READ_RECORDED = """
SELECT bucket_start, stored_node_id, account_uuid::text, region, line_code,
       sum(included_bytes)::bigint, sum(rated_bytes)::bigint, -sum(amount_delta)
  FROM billing.charges
 WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
   AND (%(account_uuids)s::uuid[] IS NULL OR account_uuid = ANY (%(account_uuids)s::uuid[]))
 GROUP BY bucket_start, stored_node_id, account_uuid, region, line_code
"""

# An account that was deleted since has no profile any more.
READ_PROFILES = """
SELECT wanted.uuid::text, profile.package_name, profile.base_price_per_byte,
       profile.region_multiplier, profile.line_multiplier, profile.peak_multiplier,
       profile.offpeak_multiplier
  FROM unnest(%(account_uuids)s::uuid[]) AS wanted (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = wanted.uuid
"""

READ_PACKAGE_NAMES = """
SELECT DISTINCT package_name
  FROM public.account_billing_profiles
 WHERE package_name <> ''
 ORDER BY package_name
"""

READ_RENEWALS = """
SELECT account_uuid::text, period_start
  FROM billing.quota_periods
 WHERE period_start > %(since)s AND period_start < %(until)s
 ORDER BY period_start
"""


def read_recorded(
    connection: Connection, since: datetime, until: datetime, account_uuids: Iterable[str] | None
) -> dict[str, list[RecordedBucket]]:
    """Return what was charged for each bucket of [since, until), by account."""
    wanted = None if account_uuids is None else arrays.plain(account_uuids)
    found: defaultdict[str, list[RecordedBucket]] = defaultdict(list)
    for row in connection.execute(
        READ_RECORDED, {"since": since, "until": until, "account_uuids": wanted}
    ):
        bucket = RecordedBucket(BucketKey(*row[:5]), *row[5:])
        found[bucket.key.account_uuid].append(bucket)
    return found


def read_profiles(connection: Connection, account_uuids: Iterable[str]) -> dict[str, ProfileRow]:
    """Return the billing profile of each account, an empty one where it has none."""
    rows = connection.execute(READ_PROFILES, {"account_uuids": arrays.plain(account_uuids)})
    return {account: ProfileRow(*profile) for account, *profile in rows}


def read_existing(connection: Connection, account_uuids: Iterable[str]) -> set[str]:
    """Return which of the accounts exist."""
    rows = connection.execute(READ_USERS, {"account_uuids": arrays.plain(account_uuids)})
    return {account for (account,) in rows}


def read_package_names(connection: Connection) -> list[str]:
    """Return the packages that profiles name."""
    return [name for (name,) in connection.execute(READ_PACKAGE_NAMES)]


def read_renewals(
    connection: Connection, since: datetime, until: datetime
) -> dict[str, list[datetime]]:
    """Return the quota periods that began within the range, by account, oldest first."""
    found: defaultdict[str, list[datetime]] = defaultdict(list)
    for account, start in connection.execute(READ_RENEWALS, {"since": since, "until": until}):
        found[account].append(start)
    return found
