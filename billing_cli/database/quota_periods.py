"""Renewals of included quotas that runs have seen, and what was charged around them."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.model import BucketKey, Renewal
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection, Cursor

    from billing_cli.core.adjustments import ReturnedQuota

# Read after the locks, in a statement of its own: one that waited for a lock does not see what
# the holder of that lock stored. Nothing is looked up where no deployment has periods.
READ_RENEWALS = """
SELECT wanted.account_uuid::text, known.period_start, known.former_quota_bytes
  FROM unnest(%(account_uuids)s::uuid[]) AS wanted (account_uuid)
 CROSS JOIN LATERAL (
       (SELECT period_start, former_quota_bytes
          FROM billing.quota_periods AS period
         WHERE period.account_uuid = wanted.account_uuid
         ORDER BY period_start DESC
         LIMIT 1)
        UNION
       SELECT period_start, former_quota_bytes
         FROM billing.quota_periods AS period
        WHERE period.account_uuid = wanted.account_uuid
          AND period_start > coalesce(%(first_minute)s::timestamptz, '-infinity')) AS known
 WHERE EXISTS (SELECT FROM billing.quota_periods)
 ORDER BY 1, 2
"""

# Accounts with a period that no run has seen, whether they have new usage or not. Where the quota
# states have no periods, the name is that of the outer query's column, and nothing is looked up.
READ_RENEWED_ACCOUNTS = """
SELECT state.account_uuid::text
  FROM (VALUES (NULL::timestamptz)) AS outer_query (period_start)
 CROSS JOIN LATERAL (
       SELECT account_uuid, period_start::timestamptz AS period_start
         FROM public.account_quota_states
        WHERE period_start >= %(renewed_since)s) AS state
 WHERE NOT EXISTS (SELECT FROM billing.quota_periods AS seen
                    WHERE seen.account_uuid = state.account_uuid
                      AND seen.period_start >= state.period_start)
 LIMIT %(renewed_limit)s
"""

# Accounts without new usage are looked at as long after a renewal as exporters keep history.
RENEWAL_AGE = timedelta(hours=72)

# What one run looks at at most; the rest follows in the next.
MAX_RENEWED_ACCOUNTS = 10_000

# What our newest entry left of the stored quota before the renewal: an entry of a minute in the
# period that ends now, written since that one was seen. New prices use no quota. Ledger rows are
# stamped under the lock of their account, so that their order is that in which they were written.
READ_QUOTAS_LEFT = """
SELECT renewed.account_uuid::text, previous.period_start IS NOT NULL, previous.quota_bytes,
       newest.quota_left, former.quota_left
  FROM unnest(%(account_uuids)s::uuid[], %(period_starts)s::timestamptz[])
    AS renewed (account_uuid, period_start)
  LEFT JOIN LATERAL (
       SELECT period.period_start, period.quota_bytes, period.seen_at
         FROM billing.quota_periods AS period
        WHERE period.account_uuid = renewed.account_uuid
        ORDER BY period.period_start DESC
        LIMIT 1) AS previous ON true
  LEFT JOIN LATERAL (
       SELECT charge.quota_before - charge.included_bytes AS quota_left
         FROM public.billing_ledger AS entry
         JOIN billing.charges AS charge
           ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
          AND charge.bucket_start = entry.bucket_start
        WHERE entry.account_uuid = renewed.account_uuid
          AND (charge.included_bytes <> 0 OR charge.rated_bytes <> 0)
          AND entry.bucket_start >= coalesce(previous.period_start, '-infinity')
          AND entry.created_at >= coalesce(previous.seen_at, '-infinity')
        ORDER BY entry.created_at DESC
        LIMIT 1) AS newest ON true
  LEFT JOIN LATERAL (
       SELECT charge.quota_before - charge.included_bytes AS quota_left
         FROM public.billing_ledger AS entry
         JOIN billing.charges AS charge
           ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
          AND charge.bucket_start = entry.bucket_start
        WHERE entry.account_uuid = renewed.account_uuid
          AND (charge.included_bytes <> 0 OR charge.rated_bytes <> 0)
          AND entry.bucket_start < renewed.period_start
          AND previous.period_start IS NULL
        ORDER BY entry.created_at DESC
        LIMIT 1) AS former ON true
 WHERE previous.period_start IS NULL OR previous.period_start < renewed.period_start
"""

# The buckets of the new period that were charged to the former quota, and those of the former
# period that were charged since then and went beyond their quota. The quotas of earlier periods do
# not change, and a run may not have read them.
READ_AFFECTED_BUCKETS = """
WITH early AS MATERIALIZED (
  SELECT charge.account_uuid, renewed.period_start, charge.bucket_start, charge.stored_node_id,
         charge.region, charge.line_code, entry.created_at
    FROM unnest(%(account_uuids)s::uuid[], %(period_starts)s::timestamptz[])
      AS renewed (account_uuid, period_start)
    JOIN billing.charges AS charge USING (account_uuid)
    JOIN public.billing_ledger AS entry ON entry.id = charge.ledger_id
   WHERE charge.bucket_start >= %(first_start)s AND charge.bucket_start >= renewed.period_start
)
SELECT bucket_start, stored_node_id, account_uuid::text, region, line_code
  FROM early
 UNION
SELECT charge.bucket_start, charge.stored_node_id, charge.account_uuid::text, charge.region,
       charge.line_code
  FROM (SELECT account_uuid, period_start, min(created_at) AS since
          FROM early GROUP BY account_uuid, period_start) AS first
  JOIN public.billing_ledger AS entry
    ON entry.account_uuid = first.account_uuid AND entry.created_at >= first.since
   AND entry.bucket_start < first.period_start
   AND entry.bucket_start >= coalesce(
         (SELECT max(seen.period_start) FROM billing.quota_periods AS seen
           WHERE seen.account_uuid = first.account_uuid), '-infinity')
  JOIN billing.charges AS charge
    ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
   AND charge.bucket_start = entry.bucket_start
 WHERE charge.rated_bytes > 0
"""


# The first rated buckets of periods since a minute, in the order of their keys, up to so many rated
# bytes each.
# Charges have no index by account, buckets have.
READ_RATED_BUCKETS = """
SELECT bucket_start, node_id, account_uuid::text, region, line_code
  FROM (SELECT bucket.bucket_start, bucket.node_id, bucket.account_uuid, bucket.region,
               bucket.line_code, wanted.rated_bytes AS wanted_bytes,
               sum(charged.rated_bytes) OVER (
                   PARTITION BY bucket.account_uuid, wanted.place
                       ORDER BY bucket.bucket_start, bucket.node_id, bucket.region,
                                bucket.line_code
                   ) - charged.rated_bytes AS rated_before
          FROM unnest(%(account_uuids)s::uuid[], %(since)s::timestamptz[],
                      %(ends)s::timestamptz[], %(rated_bytes)s::bigint[])
               WITH ORDINALITY
                 AS wanted (account_uuid, since, period_end, rated_bytes, place)
          JOIN public.traffic_minute_buckets AS bucket
            ON bucket.account_uuid = wanted.account_uuid
           AND bucket.bucket_start >= coalesce(since, '-infinity')
           AND bucket.bucket_start < coalesce(period_end, 'infinity')
         CROSS JOIN LATERAL (
               SELECT sum(rated_bytes) AS rated_bytes
                 FROM billing.charges AS charge
                WHERE charge.bucket_start = bucket.bucket_start
                  AND charge.account_uuid = bucket.account_uuid
                  AND charge.stored_node_id = bucket.node_id
                  AND charge.region = bucket.region
                  AND charge.line_code = bucket.line_code) AS charged
         WHERE charged.rated_bytes > 0) AS rated
 WHERE rated_before < wanted_bytes
"""


class QuotasLeft(NamedTuple):
    """What was left of an account's quota before a renewal, in bytes, as far as it is on record.

    `previous` is what a run saw of the quota when the period began that ends now, if one did.
    `newest` is what our newest entry since then left, `former` the newest one of a minute before
    the renewal; that one only where no earlier renewal was seen.
    """

    is_previous_seen: bool
    previous: int | None
    newest: int | None
    former: int | None


class SeenPeriod(NamedTuple):
    """A quota period as the run that saw it first found it; bytes.

    `quota_bytes` is what minutes that were charged before had left of it. `former_quota_bytes`
    changes later, as late minutes use it.
    """

    account_uuid: str
    period_start: datetime
    quota_bytes: int
    included_before: int
    former_quota_bytes: int


def send_read_renewals(
    connection: Connection, account_uuids: Collection[str], first_minute: datetime | None
) -> Cursor[Any]:
    """Ask for the last renewal that was seen of each account, and those after the first minute."""
    return connection.execute(
        READ_RENEWALS,
        {"account_uuids": arrays.plain(account_uuids), "first_minute": first_minute},
    )


def renewals_by_account(rows: Iterable[tuple[Any, ...]]) -> dict[str, tuple[Renewal, ...]]:
    """Return the renewals in rows of READ_RENEWALS by account, oldest first."""
    renewals: defaultdict[str, list[Renewal]] = defaultdict(list)
    for account, period_start, former_quota in rows:
        renewals[account].append(Renewal(period_start, former_quota))
    return {account: tuple(found) for account, found in renewals.items()}


def read_quotas_left(
    connection: Connection, renewed: Mapping[str, datetime]
) -> dict[str, QuotasLeft]:
    """Return what was left before each renewal, by account; `renewed` are their period starts.

    A period that began before the last one seen is no renewal: it is left out.
    """
    rows = connection.execute(READ_QUOTAS_LEFT, _parameters(renewed))
    return {account: QuotasLeft(*left) for account, *left in rows}


def read_affected_buckets(
    connection: Connection, renewed: Mapping[str, datetime]
) -> Sequence[BucketKey]:
    """Return the buckets whose charges may use another quota after the renewals."""
    if not renewed:
        return ()
    parameters = _parameters(renewed) | {"first_start": min(renewed.values())}
    rows = connection.execute(READ_AFFECTED_BUCKETS, parameters)
    return [BucketKey(*row) for row in rows]


def read_rated_buckets(
    connection: Connection, returned: Sequence[ReturnedQuota]
) -> Sequence[BucketKey]:
    """Return the buckets whose charges may use what returns to the quotas of their periods."""
    wanted = [quota for quota in returned if quota.rated_bytes]
    if not wanted:
        return ()
    rows = connection.execute(
        READ_RATED_BUCKETS,
        {
            "account_uuids": arrays.plain(quota.account_uuid for quota in wanted),
            "since": arrays.moments(quota.since for quota in wanted),
            "ends": arrays.moments(quota.period.end for quota in wanted),
            "rated_bytes": arrays.plain(quota.rated_bytes for quota in wanted),
        },
    )
    return [BucketKey(*row) for row in rows]


def _parameters(renewed: Mapping[str, datetime]) -> dict[str, object]:
    return {
        "account_uuids": arrays.plain(renewed),
        "period_starts": arrays.moments(renewed.values()),
    }
