"""Corrections of minutes that are charged already: always new entries, never changed ones.

Bytes that were missing are charged at today's price. Bytes that were charged too much go back at
the price that was charged: what was charged last goes back first, and within a charge the bytes
beyond the quota before those that the quota covered, because the quota was used up first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from decimal import localcontext
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.bucket_history import BucketHistory, PriorEntry, standing_charges
from billing_cli.core.model import Bucket, BucketKey, Charge, Rating
from billing_cli.core.quota_periods import period_at, quota_at
from billing_cli.core.rating import (
    EXACT,
    adjustment_id,
    amount_of,
    apply_charge,
    charge_bytes,
    ledger_id,
    multiplier_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import Account
    from billing_cli.core.peak import PeakHours
    from billing_cli.core.quota_periods import Period

RENEWAL_REASON = "the quota of the period that the minute lies in, visible after it was charged"
RETURNED_REASON = "quota of the minute's period that a correction returned"


@dataclass(frozen=True, slots=True)
class Correction:
    """Bytes to add to a minute, or to take from it where they are negative."""

    bucket: Bucket
    reason: str


class ReturnedQuota(NamedTuple):
    """Included bytes that corrections return to an account's period.

    The first `rated_bytes` of the period's rated bytes, oldest first, may use them: as many as come
    back, and those that corrections may take out of the minutes that they are about. None where
    quota was left: nothing was rated for want of it. `since` is the first minute of these, None
    where the period has no beginning that was seen.
    """

    account_uuid: str
    period: Period
    since: datetime | None
    included_bytes: int
    rated_bytes: int


def settle(
    corrections: Iterable[Correction],
    histories: Mapping[BucketKey, BucketHistory],
    accounts: Mapping[str, Account],
    peak_hours: PeakHours | None = None,
    requoted: Mapping[BucketKey, str] | None = None,
) -> Rating:
    """Return the entries that put the corrections into money, in bucket order.

    A minute without a charge gets its own charge; all else becomes adjustments with ids
    that depend on the bucket and its entries so far alone. At most one correction per bucket.
    Bytes that the evidence does not hold can't be given back: that part is left out. Charges of
    `requoted` buckets use what is left of the quota of their period, for the reason given. So do
    those of corrected buckets before a later minute of their period returns included bytes to it:
    the quota is below 0 in between.
    """
    left, corrections, requoted = dict(accounts), list(corrections), requoted or {}
    charges: list[Charge] = []
    with localcontext(EXACT):
        by_key = {correction.bucket.key: correction for correction in corrections}
        returned = returned_quotas(corrections, histories, accounts)
        coming = Counter(
            {(quota.account_uuid, quota.period): quota.included_bytes for quota in returned}
        )
        for key in sorted(by_key.keys() | requoted.keys()):
            history, account = histories.get(key, BucketHistory()), left[key.account_uuid]
            period = key.account_uuid, period_at(account, key.bucket_start)
            correction = by_key.get(key)
            total = correction.bucket.total_bytes if correction else 0
            entries: list[Charge] = []
            if correction and total > 0:
                charge = _charge(account, key, total, history, correction.reason, peak_hours)
                account, entries = apply_charge(account, charge), [charge]
            elif correction:
                account, entries = _give_back(account, key, -total, history, correction.reason)
                coming[period] += sum(entry.included_bytes for entry in entries)
            quota = quota_at(account, key.bucket_start) + coming[period]
            if key in requoted or min(quota, coming[period]) > 0:
                reason = requoted.get(key, RETURNED_REASON)
                now = _with_entries(history, entries)
                account, more = use_quota_left(key, now, account, reason, coming[period])
                entries += more
            left[key.account_uuid] = account
            charges.extend(entries)
    return Rating(tuple(charges), left)


def returned_quotas(
    corrections: Iterable[Correction],
    histories: Mapping[BucketKey, BucketHistory],
    accounts: Mapping[str, Account],
) -> list[ReturnedQuota]:
    """Return what corrections give back to quotas, by the periods of their minutes.

    Where no renewal is known, minutes since the first corrected one may use it: nothing shows when
    the period of that one began.
    """
    first_minutes: dict[str, datetime] = {}
    included: Counter[tuple[str, Period]] = Counter()
    rated: Counter[tuple[str, Period]] = Counter()
    left: dict[tuple[str, Period], int] = {}
    with localcontext(EXACT):
        for correction in corrections:
            key, total = correction.bucket.key, correction.bucket.total_bytes
            account = accounts[key.account_uuid]
            if total >= 0 or key not in histories:
                continue
            place = key.account_uuid, period_at(account, key.bucket_start)
            first = first_minutes.get(key.account_uuid, key.bucket_start)
            first_minutes[key.account_uuid] = min(first, key.bucket_start)
            _, entries = _give_back(account, key, -total, histories[key], correction.reason)
            included[place] -= sum(entry.included_bytes for entry in entries)
            rated[place] += sum(entry.rated_bytes for entry in histories[key].entries)
            left[place] = quota_at(account, key.bucket_start)
    found = []
    for place, returned in included.items():
        account_uuid, period = place
        if returned:
            is_known = accounts[account_uuid].renewals
            since = period.begin if is_known else first_minutes[account_uuid]
            is_used_up = -returned < left[place] <= 0
            usable = returned + rated[place] if is_used_up else 0
            found.append(ReturnedQuota(account_uuid, period, since, returned, usable))
    return found


def _charge(
    account: Account,
    key: BucketKey,
    total_bytes: int,
    history: BucketHistory,
    reason: str,
    peak_hours: PeakHours | None,
) -> Charge:
    """Return the entry that adds bytes to a bucket: its charge, or an adjustment."""
    charge = charge_bytes(account, key, ledger_id(key), total_bytes, peak_hours)
    if history.is_charged:
        charge = charge._replace(
            ledger_id=adjustment_id(key, len(history.entries)), entry_type="traffic_adjustment"
        )
    return charge._replace(reason=reason)


def _give_back(
    account: Account, key: BucketKey, total_bytes: int, history: BucketHistory, reason: str
) -> tuple[Account, list[Charge]]:
    entries: list[Charge] = []
    for charge in reversed(standing_charges(history.entries)):
        rated = min(total_bytes, charge.rated_bytes)
        included = min(total_bytes - rated, charge.included_bytes)
        if rated + included == 0:
            continue
        # What stays is priced anew as a whole, so that giving back all gives back every nano.
        stays = amount_of(charge.rated_bytes - rated, charge.price_per_byte, charge.multiplier)
        taken = replace(
            charge,
            included_bytes=-included,
            rated_bytes=-rated,
            amount_delta=stays - charge.amount_delta,
        )
        entry = _adjustment(account, key, len(history.entries) + len(entries), taken, reason)
        entries.append(entry)
        account = apply_charge(account, entry)
        total_bytes -= rated + included
    return account, entries


def use_quota_left(
    key: BucketKey, history: BucketHistory, account: Account, reason: str, coming_bytes: int = 0
) -> tuple[Account, list[Charge]]:
    """Return the entries by which a bucket's charges use what is left of their period's quota.

    `coming_bytes` will return to it. A quota below 0 takes included bytes back. Prices stay what
    they were.
    """
    entries: list[Charge] = []
    with localcontext(EXACT):
        for charge in standing_charges(history.entries):
            total = charge.included_bytes + charge.rated_bytes
            quota = quota_at(account, key.bucket_start) + coming_bytes
            included = min(max(charge.included_bytes + quota, 0), total)
            moved = included - charge.included_bytes
            if moved == 0:
                continue
            amount = amount_of(total - included, charge.price_per_byte, charge.multiplier)
            change = replace(
                charge,
                included_bytes=moved,
                rated_bytes=-moved,
                amount_delta=amount - charge.amount_delta,
            )
            ordinal = len(history.entries) + len(entries)
            entry = _adjustment(account, key, ordinal, change, reason)
            entries.append(entry)
            account = apply_charge(account, entry)
    return account, entries


def _with_entries(history: BucketHistory, entries: Sequence[Charge]) -> BucketHistory:
    added = (
        PriorEntry(
            entry.ledger_id,
            entry.adjusts,
            entry.included_bytes,
            entry.rated_bytes,
            entry.price_per_byte,
            entry.multiplier,
            entry.amount_delta,
            pricing_rule_version="",
        )
        for entry in entries
    )
    return replace(history, entries=(*history.entries, *added))


def reprice(
    key: BucketKey,
    history: BucketHistory,
    account: Account,
    peak_hours: PeakHours | None,
    reason: str,
) -> tuple[Account, list[Charge]]:
    """Return the entries that bring every charge of a bucket to the account's price.

    Rated and included bytes stay what they are; only the amount of the rated ones changes. A
    charge whose amount is right at this price already gets no entry.
    """
    entries: list[Charge] = []
    with localcontext(EXACT):
        price = account.price.per_byte
        multiplier = multiplier_at(account.price, key.bucket_start, peak_hours)
        for charge in standing_charges(history.entries):
            amount = amount_of(charge.rated_bytes, price, multiplier) - charge.amount_delta
            if amount == 0:
                continue
            change = replace(
                charge,
                included_bytes=0,
                rated_bytes=0,
                price_per_byte=price,
                multiplier=multiplier,
                amount_delta=amount,
            )
            entry = _adjustment(account, key, len(history.entries) + len(entries), change, reason)
            entries.append(entry)
            account = apply_charge(account, entry)
    return account, entries


def _adjustment(
    account: Account, key: BucketKey, ordinal: int, change: PriorEntry, reason: str
) -> Charge:
    """Return the entry that makes a change to the charge whose id the change carries."""
    return Charge(
        ledger_id=adjustment_id(key, ordinal),
        key=key,
        included_bytes=change.included_bytes,
        rated_bytes=change.rated_bytes,
        price_per_byte=change.price_per_byte,
        multiplier=change.multiplier,
        amount_delta=change.amount_delta,
        quota_before=quota_at(account, key.bucket_start),
        balance_before=account.current_balance,
        balance_after=account.current_balance + change.amount_delta,
        entry_type="traffic_adjustment",
        adjusts=change.ledger_id,
        reason=reason,
    )
