"""From usage to ledger entries: what is charged anew, and what corrects minutes charged before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.core.adjustments import (
    RETURNED_REASON,
    Correction,
    returned_quotas,
    settle,
)
from billing_cli.core.rating import ONE, bucket_key, rate
from billing_cli.core.takeover import beyond_charged, first_from_by_bucket
from billing_cli.database.adjustments import read_bucket_histories
from billing_cli.database.arrears import has_arrears_since
from billing_cli.database.facts import Entries, Facts, Run
from billing_cli.database.quota_periods import read_rated_buckets
from billing_cli.database.write_path import CORRECT
from billing_cli.database.writing import write_facts
from billing_cli.errors import BillingError
from billing_cli.jobs.quota_periods import OpenedPeriods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.bucket_history import BucketHistory
    from billing_cli.core.canonical import StoredUsage
    from billing_cli.core.model import Bucket, BucketKey, Rating, Totals
    from billing_cli.core.rating import BilledUsage
    from billing_cli.jobs.context import JobContext

LATE_REASON = "usage whose account was not known before"
TAKEOVER_REASON = "beyond what the legacy writer charged"
UNLEDGERED_REASON = "the legacy writer left its bucket without a charge"


class FactConflictError(BillingError):
    """A fact that was to be written exists already; nothing is overwritten silently."""


@dataclass(frozen=True, slots=True)
class Minutes:
    """The minutes that usage falls in, sorted by what is on record of them, with its `histories`.

    `new` ones were never charged. `corrections` add to others: usage that waited for its account,
    and what is beyond the legacy writer's charge. `replayed` are those that we charged before,
    `taken_over` those that the legacy writer charged, both with the same bytes. `uncharged` ones
    are of its charges without a bucket: they get their bucket, and nothing more is charged.
    `entered` are the bytes of its buckets without a charge: their corrections charge the whole
    minute, and bring the bucket to that.
    """

    new: Sequence[Bucket]
    corrections: Sequence[Correction] = ()
    histories: Mapping[BucketKey, BucketHistory] = field(default_factory=dict)
    replayed: frozenset[BucketKey] = frozenset()
    taken_over: frozenset[BucketKey] = frozenset()
    uncharged: Sequence[Bucket] = ()
    entered: Mapping[BucketKey, Totals] = field(default_factory=dict)

    def added(self) -> list[Bucket]:
        """Return what is added to the bucket rows that exist; bytes may be negative."""
        buckets = [correction.bucket for correction in self.corrections]
        rows = [
            bucket._replace(
                uplink_bytes=bucket.uplink_bytes - entered.uplink,
                downlink_bytes=bucket.downlink_bytes - entered.downlink,
            )
            if (entered := self.entered.get(bucket.key))
            else bucket
            for bucket in buckets
        ]
        return [*rows, *self.uncharged]


def find_minutes(
    connection: Connection,
    fresh: Sequence[Bucket],
    late: Sequence[Bucket],
    on_record: Mapping[BucketKey, Totals | None],
    usage: Iterable[BilledUsage],
) -> Minutes:
    """Sort buckets by what is on record of their minutes.

    `fresh` ones are of minutes that should not be charged yet; `late` ones, of usage that
    waited for its account, add to minutes that may have been. `on_record` are the bytes of those
    that were charged before, and `usage` is what all of them are the sums of. Raises
    FactConflictError where a minute of `fresh` was charged by us with other figures.
    """
    charged = (
        {bucket.key: on_record[bucket.key] for bucket in (*fresh, *late) if bucket.key in on_record}
        if on_record
        else {}
    )
    if not charged:
        return Minutes([*fresh, *late])

    histories = read_bucket_histories(connection, charged)
    first_from = first_from_by_bucket(
        (bucket_key(billed), billed.record.from_at) for billed in usage
    )
    late_keys = {bucket.key for bucket in late}
    new = []
    replayed: set[BucketKey] = set()
    taken_over: set[BucketKey] = set()
    corrections = []
    uncharged = []
    entered: dict[BucketKey, Totals] = {}
    for bucket in (*fresh, *late):
        key, stored = bucket.key, charged.get(bucket.key)
        if key not in charged:
            new.append(bucket)
        elif not histories[key].entries:
            if stored is None:
                uncharged.append(bucket)
                taken_over.add(key)
                continue
            overlap, surplus = beyond_charged(bucket, stored, first_from[key])
            if overlap != "added" and not histories[key].is_charged:
                # It writes the ledger row after the bucket, and died in between.
                corrections.append(Correction(bucket, UNLEDGERED_REASON))
                entered[key] = stored
                continue
            corrections.append(Correction(surplus, TAKEOVER_REASON))
            if overlap == "identical":
                taken_over.add(key)
        elif key in late_keys:
            corrections.append(Correction(bucket, LATE_REASON))
        elif _is_replay(bucket, stored, histories[key]):
            replayed.add(key)
        else:
            raise FactConflictError(
                f"minute {key.bucket_start:%Y-%m-%d %H:%M} of account {key.account_uuid} was "
                "charged before with other figures"
            )
    needed = [correction for correction in corrections if correction.bucket.total_bytes]
    return Minutes(
        new, needed, histories, frozenset(replayed), frozenset(taken_over), uncharged, entered
    )


def charge(context: JobContext, minutes: Minutes, opened: OpenedPeriods) -> Entries:
    """Charge minutes to their accounts. Nothing is written yet."""
    peak_hours = context.tariff.peak_hours
    if minutes.histories or opened.histories:
        rating = settle(
            [*minutes.corrections, *(Correction(bucket, "") for bucket in minutes.new)],
            {**opened.histories, **minutes.histories},
            opened.accounts,
            peak_hours,
            opened.reasons,
        )
    else:
        rating = rate(minutes.new, opened.accounts, peak_hours)
    return _entries(rating, minutes.new, minutes.added(), opened)


def write_corrections(
    context: JobContext,
    connection: Connection,
    corrections: Sequence[Correction],
    opened: OpenedPeriods,
    usage: Sequence[StoredUsage] = (),
) -> Rating:
    """Bring buckets to their corrected figures and settle the difference as new entries.

    The corrections' accounts are among the `opened` ones; there is at most one correction
    for a bucket. `usage` are the usage records that the corrections follow from. Returns the
    entries that were written. Raises FactConflictError where one of them exists already, and where
    bytes would be charged in a minute of an account's former life.
    """
    keys = {correction.bucket.key for correction in corrections}
    histories = {**opened.histories, **read_bucket_histories(connection, keys)}
    _require_own_minutes(corrections, histories)
    returned = returned_quotas(corrections, histories, opened.accounts)
    rated = read_rated_buckets(connection, returned)
    histories |= read_bucket_histories(connection, set(rated) - histories.keys())
    reasons = dict.fromkeys(rated, RETURNED_REASON) | opened.reasons
    peak_hours = context.tariff.peak_hours
    rating = settle(corrections, histories, opened.accounts, peak_hours, reasons)
    added = [correction.bucket for correction in corrections]
    write_entries(context, connection, _entries(rating, (), added, opened), usage=usage)
    return rating


def _require_own_minutes(
    corrections: Iterable[Correction], histories: Mapping[BucketKey, BucketHistory]
) -> None:
    for bucket in (correction.bucket for correction in corrections):
        key, history = bucket.key, histories[bucket.key]
        if bucket.total_bytes > 0 and history.entries and not history.is_charged:
            raise FactConflictError(
                f"account {key.account_uuid} was deleted and created again since it was charged "
                f"for minute {key.bucket_start:%Y-%m-%d %H:%M} on node {key.stored_node_id!r}: "
                "nothing can be added to that minute; nothing is changed"
            )


def write_rating(
    context: JobContext, connection: Connection, rating: Rating, *, pricing_rule_version: str
) -> None:
    """Append entries that change no bytes, and write what they leave of the accounts."""
    entries = _entries(rating, (), (), OpenedPeriods(rating.accounts))
    write_entries(context, connection, entries, pricing_rule_version=pricing_rule_version)


def write_entries(
    context: JobContext,
    connection: Connection,
    entries: Entries,
    *,
    usage: Sequence[StoredUsage] = (),
    pricing_rule_version: str | None = None,
) -> None:
    """Write corrections and the usage records that they follow from."""
    if not (entries.charges or entries.corrected or entries.seen_periods or usage):
        return
    run = Run(
        context.run_id,
        context.clock(),
        pricing_rule_version or context.tariff.pricing_rule_version,
        has_arrears_since=has_arrears_since(connection),
        job=context.job,
    )
    counts = write_facts(connection, CORRECT, usage, Facts(entries=entries), run)
    is_sealed = bool(usage or entries.charges)
    require_rows(
        counts, {"usage records": len(usage), **expected_rows(entries), "seal": int(is_sealed)}
    )


def expected_rows(entries: Entries) -> dict[str, int]:
    """Return how many rows the statements insert where none of the entries exists yet."""
    charges = len(entries.charges)
    expected = {
        "charges": charges,
        "ledger": charges,
        "quota periods": len(entries.seen_periods),
        "former quotas": len(entries.former_quotas),
        "quota states": len(entries.accounts),
    }
    return expected | ({"buckets": len(entries.buckets)} if entries.buckets else {})


def require_rows(counts: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raise FactConflictError where a statement wrote other than the expected number of rows."""
    for name, rows in expected.items():
        if counts[name] != rows:
            raise FactConflictError(
                f"{rows - counts[name]} of {rows} {name} are on record already, with other figures"
            )


def _entries(
    rating: Rating,
    new: Iterable[Bucket],
    added: Sequence[Bucket],
    opened: OpenedPeriods,
) -> Entries:
    multipliers = {charge.key: charge.multiplier for charge in rating.charges} if added else {}
    charged = {charge.key.account_uuid for charge in rating.charges}
    charged.update(account for account, period in opened.seen.items() if period.included_before)
    return Entries(
        charges=rating.charges,
        buckets={bucket.key: bucket for bucket in new},
        corrected=[(bucket, multipliers.get(bucket.key, ONE)) for bucket in added],
        accounts=[rating.accounts[account] for account in sorted(charged)],
        seen_periods=opened.seen_with(rating.accounts),
        former_quotas=opened.changed_with(rating.accounts),
    )


def _is_replay(bucket: Bucket, stored: Totals | None, history: BucketHistory) -> bool:
    """Return whether a bucket is on record as it is: its row, and the bytes of its charges."""
    charged_bytes = sum(entry.included_bytes + entry.rated_bytes for entry in history.entries)
    is_charged = charged_bytes == bucket.total_bytes
    return is_charged and stored == (bucket.uplink_bytes, bucket.downlink_bytes)
