"""Quotas that were renewed before the start of their period was written, as entries show."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

# The first entry that used the quota of a new period, where that was written before the period's
# start. What moves with the period are the included bytes of its minutes charged before that entry,
# less those of minutes of the former period charged since.
READ_EARLY_RENEWALS = """
SELECT renewed.account_uuid::text, former.quota_left, moved.moving_bytes, risen.created_at
  FROM unnest(%(account_uuids)s::uuid[], %(period_starts)s::timestamptz[],
              %(full_quotas)s::bigint[]) AS renewed (account_uuid, period_start, full_quota)
 CROSS JOIN LATERAL (
       SELECT period.period_start, period.quota_bytes, period.seen_at
         FROM billing.quota_periods AS period
        WHERE period.account_uuid = renewed.account_uuid
        ORDER BY period.period_start DESC
        LIMIT 1) AS previous
 CROSS JOIN LATERAL (
       SELECT entry.created_at
         FROM public.billing_ledger AS entry
         JOIN billing.charges AS charge
           ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
          AND charge.bucket_start = entry.bucket_start
        WHERE entry.account_uuid = renewed.account_uuid
          AND entry.bucket_start >= greatest(previous.period_start,
                                             renewed.period_start - interval '1 hour')
          AND entry.created_at >= greatest(previous.seen_at,
                                           renewed.period_start - interval '1 hour')
          AND charge.quota_before = renewed.full_quota AND charge.included_bytes > 0
        ORDER BY entry.created_at DESC
        LIMIT 1) AS risen
 CROSS JOIN LATERAL (
       SELECT coalesce((
              SELECT charge.quota_before - charge.included_bytes
                FROM public.billing_ledger AS entry
                JOIN billing.charges AS charge
                  ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
                 AND charge.bucket_start = entry.bucket_start
               WHERE entry.account_uuid = renewed.account_uuid
                 AND (charge.included_bytes <> 0 OR charge.rated_bytes <> 0)
                 AND entry.bucket_start >= previous.period_start
                 AND entry.created_at >= previous.seen_at
                 AND entry.created_at < risen.created_at
               ORDER BY entry.created_at DESC
               LIMIT 1), previous.quota_bytes) AS quota_left) AS former
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(charge.included_bytes)
                         FILTER (WHERE entry.bucket_start >= renewed.period_start
                                   AND entry.created_at < risen.created_at), 0)
            - coalesce(sum(charge.included_bytes)
                         FILTER (WHERE entry.bucket_start < renewed.period_start
                                   AND entry.created_at >= risen.created_at), 0)
              AS moving_bytes
         FROM public.billing_ledger AS entry
         JOIN billing.charges AS charge
           ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
          AND charge.bucket_start = entry.bucket_start
        WHERE entry.account_uuid = renewed.account_uuid
          AND entry.bucket_start >= previous.period_start
          AND (entry.bucket_start >= renewed.period_start
               OR entry.created_at >= risen.created_at)) AS moved
 WHERE former.quota_left <> renewed.full_quota
"""


class EarlyRenewal(NamedTuple):
    """A quota that was renewed before its period began: by `risen_at`, as entries show.

    `former_quota` was left before that. `moving_bytes` are the included ones that move to the new
    quota, below 0 from it to the former one.
    """

    former_quota: int
    moving_bytes: int
    risen_at: datetime | None = None


def read_early_renewals(
    connection: Connection, periods: Mapping[str, tuple[datetime, int]]
) -> dict[str, EarlyRenewal]:
    """Return, by account, the renewals that were written before the starts of their periods.

    `periods` are starts, and the quotas that the periods begin with.
    """
    if not periods:
        return {}
    rows = connection.execute(
        READ_EARLY_RENEWALS,
        {
            "account_uuids": arrays.plain(periods),
            "period_starts": arrays.moments(start for start, _ in periods.values()),
            "full_quotas": arrays.plain(quota for _, quota in periods.values()),
        },
    )
    return {
        account: EarlyRenewal(former_quota, int(moving), risen_at)
        for account, former_quota, moving, risen_at in rows
    }
