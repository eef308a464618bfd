"""Charging a run's usage: buckets and ledger entries, also beside those of an older writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.adjustments import Correction
from billing_cli.core.model import BucketKey
from billing_cli.core.rating import ledger_id, rate
from billing_cli.core.takeover import beyond_charged, first_from_by_bucket
from billing_cli.jobs.payers import FactConflictError, write_corrections, write_rating
from billing_cli.store.takeover import read_foreign_charges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.model import Account, Bucket, Charge, Rating
    from billing_cli.core.rating import BilledUsage
    from billing_cli.jobs.context import JobContext

TAKEOVER_REASON = "beside the charge of an older writer"


def bill(
    context: JobContext,
    connection: Connection,
    usage: Sequence[BilledUsage],
    buckets: Sequence[Bucket],
    rating: Rating,
    accounts: Mapping[str, Account],
) -> tuple[tuple[Charge, ...], int]:
    """Write the usage's buckets and what they cost the accounts.

    Returns the ledger entries and how many minutes were replays. That a minute is new is taken
    for granted and then proven by its keys: only where a row was there already does anyone look
    at whose it is. Raises FactConflictError where it is ours.
    """
    if not buckets:
        return (), 0
    try:
        with connection.transaction():
            write_rating(context, connection, rating, new_buckets=buckets)
            return rating.charges, 0
    except FactConflictError:
        return _charge_beside_older(context, connection, buckets, usage, accounts)


def _charge_beside_older(
    context: JobContext,
    connection: Connection,
    buckets: Sequence[Bucket],
    usage: Sequence[BilledUsage],
    accounts: Mapping[str, Account],
) -> tuple[tuple[Charge, ...], int]:
    """Charge what an older writer has not charged of its minutes, and all of the others."""
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
    rating = rate(ours, accounts, context.tariff.peak_hours)
    write_rating(context, connection, rating, new_buckets=ours)
    settled = write_corrections(context, connection, corrections, rating.accounts)
    return (*rating.charges, *settled.charges), replayed
