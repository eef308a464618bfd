"""Charging usage in minutes of which an older writer has charged some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.adjustments import Correction
from billing_cli.core.model import BucketKey
from billing_cli.core.rating import ledger_id
from billing_cli.core.takeover import beyond_charged, first_from_by_bucket
from billing_cli.database.takeover import read_foreign_charges
from billing_cli.jobs.payers import (
    FactConflictError,
    charge_buckets,
    facts_are_new,
    send_buckets,
    write_corrections,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.model import Account, Bucket
    from billing_cli.core.rating import BilledUsage
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.payers import Charged

TAKEOVER_REASON = "beside the charge of an older writer"


def charge_beside_older(
    context: JobContext,
    connection: Connection,
    buckets: Sequence[Bucket],
    usage: Sequence[BilledUsage],
    accounts: Mapping[str, Account],
    *,
    has_arrears_since: bool,
) -> tuple[Charged, int]:
    """Charge what an older writer has not charged of its minutes, and all of the others.

    Returns what was charged and how many minutes were replays. Raises FactConflictError where
    none of the minutes was charged by another writer, and ChargedBeforeError where others were
    charged by us.
    """
    foreign = read_foreign_charges(
        connection, (ledger_id(one.key) for one in buckets), (one.key for one in buckets)
    )
    if not foreign:
        raise FactConflictError("some of these minutes were charged before with other figures")
    first_from = first_from_by_bucket(
        (
            BucketKey(
                one.record.bucket_start,
                one.stored_node_id,
                one.account_uuid,
                one.region,
                one.record.name.inbound_tag,
            ),
            one.record.from_at,
        )
        for one in usage
    )
    corrections, replayed = [], 0
    for bucket in buckets:
        if bucket.key in foreign:
            overlap, surplus = beyond_charged(bucket, foreign[bucket.key], first_from[bucket.key])
            replayed += overlap == "identical"
            if surplus.total_bytes:
                corrections.append(Correction(surplus, TAKEOVER_REASON))
    ours = [one for one in buckets if one.key not in foreign]
    with facts_are_new(), connection.pipeline():
        prices = {account_uuid: one.price for account_uuid, one in accounts.items()}
        sent = send_buckets(context, connection, ours, prices, beside_older=True)
        entries = charge_buckets(
            context, connection, sent, ours, accounts, has_arrears_since=has_arrears_since
        )
    entries.require_new()
    settled = write_corrections(context, connection, corrections, entries.accounts)
    minutes = len({one.key for one in settled.charges})
    return entries.charged.plus(settled.charges, minutes), replayed
