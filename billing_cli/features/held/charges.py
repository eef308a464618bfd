"""What a release of held deltas charges: whom, in which minutes, and with which records."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.adjustments import Correction
from billing_cli.core.canonical import StoredUsage
from billing_cli.core.model import MAX_TOTAL, Bucket, BucketKey
from billing_cli.database.adjustments import read_regions
from billing_cli.errors import BillingError
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.daily_maximum import note_charged
from billing_cli.jobs.entries import write_corrections
from billing_cli.jobs.quota_periods import open_periods

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Rating
    from billing_cli.features.held.result import HeldDelta
    from billing_cli.jobs.accounts import LockedAccounts
    from billing_cli.jobs.context import JobContext


def charge_held(
    context: JobContext,
    connection: Connection,
    deltas: Sequence[HeldDelta],
    minutes: Mapping[str, datetime],
    reason: str,
) -> tuple[int, Rating]:
    """Charge deltas in the minutes of their nodes; return how many minutes, and the charges.

    Raises BillingError where no account can be charged, or a bucket would exceed a `bigint`.
    """
    opened = open_periods(connection, _lock_accounts(context, connection, deltas))
    with _must_fit_into_a_minute([delta.held_id for delta in deltas]):
        corrections = _corrections(context, connection, deltas, minutes, reason)
        usage = _usage(deltas, minutes)
        rating = write_corrections(context, connection, corrections, opened, usage)
    note_charged(context, connection, [charge for charge in rating.charges if charge.adjusts])
    return len(corrections), rating


@contextmanager
def _must_fit_into_a_minute(held_ids: Sequence[int]) -> Iterator[None]:
    """Raise BillingError where the bytes of a bucket would exceed a `bigint`."""
    try:
        yield
    except psycopg.errors.NumericValueOutOfRange:
        raise BillingError(
            f"held delta {listed(held_ids)}: with these bytes the minute of the watermark would "
            f"have more than {MAX_TOTAL} bytes, which no bucket can hold; nothing is changed: "
            "`billing held reject` drops a delta for good"
        ) from None


def _lock_accounts(
    context: JobContext, connection: Connection, deltas: Sequence[HeldDelta]
) -> LockedAccounts:
    """Lock the accounts that pay. Raises BillingError where one can't."""
    for delta in deltas:
        if delta.account_uuid is None:
            raise BillingError(
                f"held delta {delta.held_id}: the stream of sample "
                f"{delta.record.name.sample_uuid} is unresolved, so no account can be charged"
            )
        if delta.source_id is None:
            raise BillingError(
                f"held delta {delta.held_id}: no source carries node {delta.stored_node_id!r} any "
                "more, so there is no minute to charge it in"
            )
    wanted = {delta.account_uuid for delta in deltas if delta.account_uuid is not None}
    locked = lock_accounts(context, connection, wanted)
    gone = wanted - locked.kept - locked.problems.keys()
    if gone:
        raise BillingError(
            f"account {', '.join(sorted(gone))} does not exist any more and can't be charged"
        )
    if locked.problems:
        raise BillingError("; ".join(locked.problems.values()))
    return locked


def _usage(deltas: Sequence[HeldDelta], minutes: Mapping[str, datetime]) -> list[StoredUsage]:
    """Return the records of what is released; its place in the chain stays with the held row."""
    return [
        StoredUsage(
            delta.record._replace(bucket_start=minutes[delta.stored_node_id]),
            delta.stream_id,
            _account(delta),
            "released",
        )
        for delta in deltas
    ]


def _corrections(
    context: JobContext,
    connection: Connection,
    deltas: Sequence[HeldDelta],
    minutes: Mapping[str, datetime],
    reason: str,
) -> list[Correction]:
    """Sum the deltas by the bucket that they are charged in."""
    configured = {source.source_id: source.region for source in context.sources}
    by_key: defaultdict[BucketKey, list[HeldDelta]] = defaultdict(list)
    for delta in deltas:
        key = BucketKey(
            minutes[delta.stored_node_id],
            delta.stored_node_id,
            _account(delta),
            configured.get(delta.source_id or "") or context.tariff.default_region,
            delta.record.name.inbound_tag,
        )
        by_key[key].append(delta)
    regions = read_regions(connection, by_key)
    return [
        Correction(
            Bucket(
                key._replace(region=regions.get(key, key.region)),
                sum(delta.record.uplink_bytes for delta in by_key[key]),
                sum(delta.record.downlink_bytes for delta in by_key[key]),
            ),
            f"held delta {listed(delta.held_id for delta in by_key[key])} released: {reason}",
        )
        for key in sorted(by_key)
    ]


def _account(held: HeldDelta) -> str:
    if held.account_uuid is None:
        raise AssertionError("a delta that is charged has an account")
    return held.account_uuid


def listed(ids: Iterable[int]) -> str:
    """Return ids as text."""
    return ", ".join(map(str, ids))
